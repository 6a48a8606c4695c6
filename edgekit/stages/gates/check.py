"""The check stage: the JSON of the other stages and the budgets in, a verdict for each rule out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from edgekit.config.device_profile import load_profile
from edgekit.core.errors import InputError
from edgekit.core.records.artifact import Artifact
from edgekit.core.records.measurement import Measurement, load_measurement
from edgekit.core.records.validation import VALIDATION_FILE, Drift, Validation, load_validation, validation_file
from edgekit.core.values.budgets import Budget, Verdict, judge, strictest
from edgekit.core.values.specs import HOST
from edgekit.stages.context import Context, relative


def validation_of(artifact: Artifact) -> Validation | None:
    """The artifact's validation, or None. Raises InputError when the file is damaged."""
    path = artifact.folder / VALIDATION_FILE
    return load_validation(path) if path.is_file() else None


def emulated_validations_of(artifact: Artifact, devices: Sequence[str] | None = None) -> tuple[Validation, ...]:
    """The artifact's validations on emulated cores by device, or those on some devices. Raises InputError when a file
    is damaged."""
    found = (load_validation(path) for path in sorted(artifact.folder.glob(validation_file("*"))))
    return tuple(item for item in found if devices is None or item.device in devices)


def measurements_of(artifact: Artifact, devices: Sequence[str] | None = None) -> tuple[Measurement, ...]:
    """The artifact's bench results by device, or those of some devices. Raises InputError when a file is damaged."""
    found = (load_measurement(path) for path in sorted(artifact.folder.glob("bench-*.json")))
    return tuple(item for item in found if devices is None or item.device in devices)


def model_budgets(context: Context, model: str) -> tuple[Budget, ...]:
    """Those of the model's model.toml; none for a model that edgekit does not know."""
    if model not in context.project.models():
        return ()
    path = context.project.model_folder(model) / "model.toml"
    return context.spec(model).budget_list(relative(path, context.project))


def device_budgets(context: Context, device: str) -> tuple[Budget, ...]:
    """Those of the device's profile; none for the plain host. Raises InputError when the profile is gone or bad."""
    if device == HOST:
        return ()
    path = context.project.device_file(device)
    return load_profile(path).budgets.table().budgets(relative(path, context.project))


def check_one(
    context: Context,
    artifact: Artifact,
    own: Sequence[Budget],
    devices: Sequence[str] | None = None,
    emulated: Sequence[str] | None = None,
) -> tuple[Verdict, ...]:
    """Every verdict on one artifact: equivalence, then the strictest budget for each figure, device by device.

    No `devices` stands for all that were benched, no `emulated` for all on whose emulated core it was validated.
    """
    validation = validation_of(artifact)
    measurements = measurements_of(artifact, devices)
    budgets = (*model_budgets(context, artifact.manifest.model), *own)
    verdicts = [_equivalence(artifact, validation)]
    verdicts += [_equivalence(artifact, item) for item in emulated_validations_of(artifact, emulated)]
    for budget in strictest(budgets, str(artifact.manifest.variant)):
        if budget.rule == "size_bytes":
            verdicts.append(_judged(artifact, budget, float(artifact.manifest.size_bytes), None, ""))
        elif budget.rule == "drift":
            verdicts.append(_drift(artifact, budget, validation.drift if validation else None))
        elif not measurements:
            verdicts.append(_judged(artifact, budget, None, None, "nothing was measured; run: edgekit bench"))
    for measurement in measurements:
        verdicts += _on_device(context, artifact, measurement, budgets)
    return tuple(verdicts)


def _drift(artifact: Artifact, budget: Budget, drift: Drift | None) -> Verdict:
    """By the drop as it was measured; where its interval holds the limit, the verdict says that it is undecided."""
    verdict = _judged(
        artifact, budget, None if drift is None else drift.drop, None, "there is no drift figure; run: edgekit validate"
    )
    if drift is None or drift.interval is None or drift.decided(budget.limit):
        return verdict
    low, high, needed = drift.interval.low, drift.interval.high, drift.needed(budget.limit)
    doubt = f"undecided: the drop lies between {low:+.4f} and {high:+.4f} (95 %, {drift.samples} samples)"
    return replace(verdict, undecided=doubt + (f"; about {needed:,} samples would decide" if needed else ""))


def _on_device(
    context: Context, artifact: Artifact, measurement: Measurement, budgets: Sequence[Budget]
) -> list[Verdict]:
    """Memory, latency and instructions under all budgets; size under the device's own."""
    own = device_budgets(context, measurement.device)
    dynamic = [budget for budget in budgets if budget.rule not in ("size_bytes", "drift")]
    verdicts = []
    for budget in strictest((*own, *dynamic), str(artifact.manifest.variant)):
        figure = _figure(measurement, budget.rule)
        tier = budget.rule.removeprefix("latency_ms.")
        if figure is None and budget.rule == "latency_ms.analytic":
            continue  # the bench has said why the profile gives no roofline
        missing = f"no figure of tier {tier} was measured" if tier != budget.rule else "it was not measured"
        if budget.rule in ("instructions", "latency_ms.emulated"):
            missing += f"; run: edgekit bench --device {measurement.device} --tier emulated"
        verdicts.append(_judged(artifact, budget, figure, measurement.device, missing))
    return verdicts


def _figure(measurement: Measurement, rule: str) -> float | None:
    if rule == "size_bytes":
        return float(measurement.size_bytes)
    if rule == "peak_memory_bytes":
        return None if measurement.peak_memory_bytes is None else float(measurement.peak_memory_bytes)
    if rule == "instructions":
        return None if measurement.emulated is None else measurement.emulated.counts.instructions
    return measurement.latency_ms.get(rule.removeprefix("latency_ms."))


def _equivalence(artifact: Artifact, validation: Validation | None) -> Verdict:
    manifest = artifact.manifest
    if validation is None:
        passed, detail = False, "it was not validated; run: edgekit validate"
    elif validation.artifact_sha256 != manifest.sha256:
        option = f" --device {validation.device}" if validation.device else ""
        passed, detail = False, f"the validation is of another file; run: edgekit validate{option}"
    else:
        passed, detail = validation.passed, "; ".join(validation.failures)
    return Verdict(
        manifest.model,
        manifest.source["kind"],
        str(manifest.variant),
        "equivalence",
        None,
        None,
        passed,
        "tolerances",
        None if validation is None else validation.device,
        detail,
    )


def _judged(artifact: Artifact, budget: Budget, figure: float | None, device: str | None, missing: str) -> Verdict:
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
    context: Context, artifacts: Sequence[Artifact], own: Sequence[Budget], devices: Sequence[str] = ()
) -> tuple[Verdict, ...]:
    """Every verdict on every artifact; `own` are the command line's budgets. No devices: all that there is.

    Raises InputError when a device is named for which nothing was benched or validated.
    """
    known = {item.device for artifact in artifacts for item in measurements_of(artifact)}
    known |= {str(item.device) for artifact in artifacts for item in emulated_validations_of(artifact)}
    for device in devices:
        if device not in known:
            raise InputError(f"nothing was benched for {device}; run: edgekit bench --device {device}")
    chosen = devices or None
    return tuple(verdict for artifact in artifacts for verdict in check_one(context, artifact, own, chosen, chosen))
