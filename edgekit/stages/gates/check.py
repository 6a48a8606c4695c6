"""The check stage: judges the recorded results of an artifact against its budgets, one verdict for each rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from edgekit.config.device_profile import load_profile
from edgekit.core.errors import InputError
from edgekit.core.records.artifact import Artifact
from edgekit.core.records.emulated_measurement import EmulatedLatency
from edgekit.core.records.measurement import Measurement, bench_file, load_measurement
from edgekit.core.records.validation import VALIDATION_FILE, Drift, Validation, load_validation, validation_file
from edgekit.core.units import format_ms
from edgekit.core.values.budgets import Budget, Verdict, judge, strictest
from edgekit.core.values.specs import FILE, HOST
from edgekit.devices.boards.places import profile_file
from edgekit.stages.context import Context, relative


def read_validation(artifact: Artifact) -> Validation | None:
    """Read the validation of an artifact.

    Args:
        artifact: The artifact.

    Returns:
        The validation, or None if there is none.

    Raises:
        InputError: The file is damaged, or about a device.
    """
    path = artifact.folder / VALIDATION_FILE
    if not path.is_file():
        return None
    validation = load_validation(path)
    if validation.device is not None:
        raise InputError(f"{path}: this validation result is about {validation.device}, and not about this host")
    return validation


def read_emulated_validations(artifact: Artifact, devices: Sequence[str] | None = None) -> tuple[Validation, ...]:
    """Read the validations of an artifact on boards and emulated cores.

    Args:
        artifact: The artifact.
        devices: The names of the devices; None for all.

    Returns:
        The validations, sorted by file name.

    Raises:
        InputError: A file is damaged, or its name is that of another device.
    """
    validations = []
    for path in sorted(artifact.folder.glob(validation_file("*"))):
        validation = load_validation(path)
        # The name of a runtime and of an executor may follow, for those that are not the usual ones.
        if validation.device is None or not path.name.startswith(validation_file(validation.device)[: -len(".json")]):
            device = validation.device or HOST
            raise InputError(f"{path}: this validation result is about {device}, which its name does not say")
        if devices is None or validation.device in devices:
            validations.append(validation)
    return tuple(validations)


def read_measurements(artifact: Artifact, devices: Sequence[str] | None = None) -> tuple[Measurement, ...]:
    """Read the measurements of an artifact.

    Args:
        artifact: The artifact.
        devices: The names of the devices; None for all.

    Returns:
        The measurements, sorted by file name; among them may be some that are not about the present model files.

    Raises:
        InputError: A file is damaged, or its name is not that of a measurement on its device.
    """
    measurements = []
    for path in sorted(artifact.folder.glob("bench-*.json")):
        measurement = load_measurement(path)
        names = (bench_file(measurement.device), bench_file(measurement.device, measurement.runtime))
        if path.name not in names:
            raise InputError(f"{path}: this bench result is about {measurement.device}: its name must be {names[0]}")
        if devices is None or measurement.device in devices:
            measurements.append(measurement)
    return tuple(measurements)


def model_budgets(context: Context, model: str) -> tuple[Budget, ...]:
    """Read the budgets of a model.

    Args:
        context: The project.
        model: The name of the model.

    Returns:
        The budgets in its model.toml; none for an imported model, which has no model.toml.

    Raises:
        InputError: The model.toml is invalid.
    """
    if model not in context.project.models():
        return ()
    path = context.project.model_folder(model) / "model.toml"
    return context.spec(model).budget_list(relative(path, context.project))


def device_budgets(context: Context, device: str) -> tuple[Budget, ...]:
    """Read the budgets of a device.

    Args:
        context: The project.
        device: The name of the device.

    Returns:
        The budgets in its profile; none for this host and for a board without a profile.

    Raises:
        InputError: The profile is missing or invalid.
    """
    if device == HOST:
        return ()
    path = profile_file(context.project, device)
    if path is None:
        return ()
    try:
        status = path.stat()
    except OSError:
        return _profile_budgets(path, (), relative(path, context.project))  # raises the error that names the cause
    stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
    return _profile_budgets(path, stamp, relative(path, context.project))


# Each artifact is judged on each device: the profiles would be parsed hundreds of times.
@lru_cache(maxsize=64)
def _profile_budgets(path: Path, stamp: tuple[int, ...], origin: str) -> tuple[Budget, ...]:
    """Read the budgets of a profile; `stamp` changes with the file."""
    return load_profile(path).budgets.table().budgets(origin)


def check_one(
    context: Context,
    artifact: Artifact,
    user_budgets: Sequence[Budget],
    devices: Sequence[str] | None = None,
    emulated: Sequence[str] | None = None,
    confidence: bool = False,
) -> tuple[Verdict, ...]:
    """Judge one artifact: its equivalence, then the strictest budget for each rule, device by device.

    Args:
        context: The project.
        artifact: The artifact.
        user_budgets: Budgets of the user, in addition to those of the model and the devices.
        devices: The devices whose measurements are judged; None for all.
        emulated: The devices whose emulated validations are judged; None for all.
        confidence: Whether emulated latencies are judged by the upper end of their interval.

    Returns:
        The verdicts.

    Raises:
        InputError: A file of an earlier stage, a model.toml or a profile is invalid.
    """
    validation = read_validation(artifact)
    measurements = read_measurements(artifact, devices)
    budgets = (*model_budgets(context, artifact.manifest.model), *user_budgets)
    # A file without a source is equivalent to nothing, and is judged by its budgets alone.
    verdicts = [] if artifact.manifest.source["kind"] == FILE else [_judge_equivalence(artifact, validation)]
    verdicts += [
        _judge_equivalence(artifact, validation) for validation in read_emulated_validations(artifact, emulated)
    ]
    for budget in strictest(budgets, str(artifact.manifest.variant)):
        if budget.rule == "size_bytes":
            verdicts.append(_judge_budget(artifact, budget, float(artifact.manifest.size_bytes), None, ""))
        elif budget.rule == "drift":
            verdicts.append(_judge_drift(artifact, budget, validation.drift if validation else None))
        elif not measurements:
            verdicts.append(_judge_budget(artifact, budget, None, None, "not measured; run: edgekit bench"))
    for measurement in measurements:
        foreign = artifact.why_foreign(measurement)
        if foreign:
            verdicts.append(_foreign_bench(artifact, measurement, foreign))
        else:
            verdicts += _judge_measurement(context, artifact, measurement, budgets, confidence)
    return tuple(verdicts)


def _foreign_bench(artifact: Artifact, measurement: Measurement, reason: str) -> Verdict:
    """Return the failure for a measurement of other model files, whose figures say nothing about these."""
    option = "" if measurement.device == HOST else f" --device {measurement.device}"
    return _verdict(artifact, "bench", False, measurement.device, f"{reason}; run: edgekit bench{option}")


def _judge_drift(artifact: Artifact, budget: Budget, drift: Drift | None) -> Verdict:
    """Judge the measured drop; the verdict is undecided if the limit is inside the confidence interval of the drop."""
    drop = None if drift is None else drift.drop
    verdict = _judge_budget(artifact, budget, drop, None, "drift was not measured; run: edgekit validate")
    if drift is None or drift.interval is None or drift.decided(budget.limit):
        return verdict
    low, high, needed = drift.interval.low, drift.interval.high, drift.needed(budget.limit)
    text = f"undecided: the drop lies between {low:+.4f} and {high:+.4f} (95 %, {drift.samples} samples)"
    return replace(verdict, undecided=text + (f"; about {needed:,} samples are needed to decide" if needed else ""))


def _judge_measurement(
    context: Context, artifact: Artifact, measurement: Measurement, budgets: Sequence[Budget], confidence: bool
) -> list[Verdict]:
    """Judge memory, latency and instructions by all budgets, and the size by those of the device."""
    of_device = device_budgets(context, measurement.device)
    dynamic = [budget for budget in budgets if budget.rule not in ("size_bytes", "drift")]
    verdicts = []
    for budget in strictest((*of_device, *dynamic), str(artifact.manifest.variant)):
        figure = _figure(measurement, budget.rule)
        tier = budget.rule.removeprefix("latency_ms.")
        if figure is None and budget.rule == "latency_ms.analytic":
            continue  # the notes of the bench say why the profile has no roofline
        missing = f"tier {tier} was not measured" if tier != budget.rule else "not measured"
        if budget.rule in ("instructions", "latency_ms.emulated"):
            missing += f"; run: edgekit bench --device {measurement.device} --tier emulated"
        elif budget.rule == "latency_ms.device":
            missing += "; run: edgekit bench --device BOARD, and check it with --device BOARD"
        if confidence and budget.rule == "latency_ms.emulated" and measurement.emulated is not None:
            verdicts.append(_judge_upper_end(artifact, budget, measurement.device, measurement.emulated))
        else:
            verdicts.append(_judge_budget(artifact, budget, figure, measurement.device, missing))
    return verdicts


def _judge_upper_end(artifact: Artifact, budget: Budget, device: str, emulated: EmulatedLatency) -> Verdict:
    """Judge an emulated latency by the upper end of its interval; without one, the budget fails."""
    verdict = _judge_budget(artifact, budget, emulated.high_ms, device, f"no interval: {emulated.calibration}")
    if emulated.high_ms is None:
        return verdict
    details = [f"upper end of the interval; predicted {format_ms(emulated.latency_ms)}"]
    details += [f"unlike the fitted networks: {', '.join(emulated.unlike)}"] if emulated.unlike else []
    return replace(verdict, detail="; ".join(details))


def _figure(measurement: Measurement, rule: str) -> float | None:
    if rule == "size_bytes":
        return float(measurement.size_bytes)
    if rule == "peak_memory_bytes":
        return None if measurement.peak_memory_bytes is None else float(measurement.peak_memory_bytes)
    if rule == "instructions":
        return None if measurement.emulated is None else measurement.emulated.counts.instructions
    return measurement.latency_ms.get(rule.removeprefix("latency_ms."))


def _judge_equivalence(artifact: Artifact, validation: Validation | None) -> Verdict:
    if validation is None:
        return _verdict(artifact, "equivalence", False, None, "not validated; run: edgekit validate")
    option = f" --device {validation.device}" if validation.device else ""
    failures = validation.failures
    compared = {comparison.output for comparison in validation.comparisons}
    missing = [spec.name for spec in artifact.manifest.signature.outputs if spec.name not in compared]
    if artifact.why_foreign(validation):
        reason = artifact.why_foreign(validation).replace("it is about", "the validation is of")
        failures = (f"{reason}; run: edgekit validate{option}",)
    elif missing:
        failures = (*failures, f"output {missing[0]} was not compared; run: edgekit validate{option}")
    return _verdict(artifact, "equivalence", not failures, validation.device, "; ".join(failures))


def _verdict(artifact: Artifact, rule: str, passed: bool, device: str | None, detail: str) -> Verdict:
    """Return the verdict on a rule without a limit."""
    manifest = artifact.manifest
    variant = str(manifest.variant)
    kind = manifest.source["kind"]
    return Verdict(manifest.model, kind, variant, rule, None, None, passed, "tolerances", device, detail)


def _judge_budget(
    artifact: Artifact, budget: Budget, figure: float | None, device: str | None, missing: str
) -> Verdict:
    manifest = artifact.manifest
    return judge(
        budget,
        figure,
        model=manifest.model,
        kind=manifest.source["kind"],
        variant=str(manifest.variant),
        device=device,
        missing=missing,
    )


def check(
    context: Context,
    artifacts: Sequence[Artifact],
    user_budgets: Sequence[Budget],
    devices: Sequence[str] = (),
    confidence: bool = False,
) -> tuple[Verdict, ...]:
    """Judge several artifacts.

    Args:
        context: The project.
        artifacts: The artifacts.
        user_budgets: Budgets of the user, in addition to those of models and devices.
        devices: The devices whose results are judged; empty for all.
        confidence: Whether emulated latencies are judged by the upper end of their interval.

    Returns:
        The verdicts on each artifact in turn.

    Raises:
        InputError: There are no results of a device, or a file is damaged.
    """
    with_results = {measurement.device for artifact in artifacts for measurement in read_measurements(artifact)}
    with_results |= {
        str(validation.device) for artifact in artifacts for validation in read_emulated_validations(artifact)
    }
    for device in devices:
        if device not in with_results:
            raise InputError(f"there are no results of {device}; run: edgekit bench --device {device}")
    filtered = devices or None
    return tuple(
        verdict
        for artifact in artifacts
        for verdict in check_one(context, artifact, user_budgets, filtered, filtered, confidence)
    )
