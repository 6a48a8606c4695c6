"""The command lines that reproduce the figures of a report, for a shell in the project's folder."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from edgekit.core.records.artifact import Manifest
from edgekit.core.records.layer_errors import SOURCE, LayerErrors
from edgekit.core.records.measurement import Measurement
from edgekit.core.values.quantization_recipe import RECIPE_FILE
from edgekit.core.values.specs import Variant

_FRAMEWORKS = ("keras", "torch")  # the values of --framework; other source kinds are selected by the model alone
_HOST = "host"  # the device name of a bench without a profile


def _command(name: str, model: str, kind: str, *options: str) -> str:
    framework = ["--framework", kind] if kind in _FRAMEWORKS else []
    return shlex.join(("edgekit", name, model, *framework, *options))


def _variant_command(name: str, model: str, kind: str, variant: Variant, *options: str) -> str:
    """Return a command that selects one variant of a model by `--target`."""
    return _command(name, model, kind, "--target", str(variant), *options)


def _artifact_folder(model: str, kind: str, variant_folder: str) -> PurePosixPath:
    """Return the folder of an artifact, relative to the project's folder."""
    return PurePosixPath("build", model, kind, variant_folder)


def export_command(manifest: Manifest) -> str:
    """Return the command that exports the artifact again: by the same route, with the same options and samples.

    A tuned artifact is exported from the recipe in its folder, which names target, precision and calibration itself:
    `edgekit export` refuses `--target` and `--calibration-samples` beside `--recipe`.
    """
    kind, variant = manifest.source["kind"], manifest.variant
    settings = ("--route", ",".join(manifest.route), *_setting_words(manifest.options))
    if variant.is_tuned:
        recipe = _artifact_folder(manifest.model, kind, variant.slug) / RECIPE_FILE
        return _command("export", manifest.model, kind, "--recipe", str(recipe), *settings)
    samples = (manifest.calibration or {}).get("samples")
    calibration = () if samples is None else ("--calibration-samples", str(samples))
    return _variant_command("export", manifest.model, kind, variant.untagged, *settings, *calibration)


def _setting_words(options: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the options of `edgekit export` for the settings in a manifest's options."""
    words = [word for name, size in options.get("dims", {}).items() for word in ("--dim", f"{name}={size}")]
    if "layout" in options:
        words += ["--layout", options["layout"]]
    for name, value in options.get("requested", {}).items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    return (*words, *_form_words(options.get("form", {})))


def _form_words(form: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the options of `edgekit export` for the form of a quantized file."""
    words = [
        word
        for name, (low, high) in form.get("ranges", {}).items()
        for word in ("--range", f"{name}={low!r}..{high!r}")
    ]
    for name, value in form.items():
        option = "--for" if name == "preset" else f"--{name.replace('_', '-')}"
        if name != "ranges":
            words += [option] if value is True else [option, str(value)]
    return tuple(words)


def validate_command(manifest: Manifest, *, stress: bool = False, device: str | None = None) -> str:
    """Return the command that validates the artifact on the golden samples and the test set.

    Args:
        manifest: The artifact's manifest.
        stress: Validate on stress inputs too.
        device: Validate on the emulated core of this device.
    """
    options = [*(["--stress"] if stress else []), *(["--device", device] if device else [])]
    return _variant_command("validate", manifest.model, manifest.source["kind"], manifest.variant, *options)


def diff_command(layers: LayerErrors) -> str:
    """Return the command that compares the artifact with its source, or with the same float32 artifact, by layer."""
    names = [layers.variant.slug] if layers.reference == SOURCE else [layers.reference_folder, layers.variant.slug]
    return shlex.join(("edgekit", "diff", *(str(_artifact_folder(layers.model, layers.kind, name)) for name in names)))


def check_command(manifest: Manifest) -> str:
    """Return the command that checks the artifact against the budgets of its model and of the devices."""
    return _variant_command("check", manifest.model, manifest.source["kind"], manifest.variant)


def bench_command(bench: Measurement) -> str:
    """Return the command that benchmarks the artifact on the same device, in the same tiers and with as many threads.

    The emulated tier records the requested number of threads; the host tier may have been limited to fewer.
    """
    device = [] if bench.device == _HOST else ["--device", bench.device]
    tier = ["--tier", "emulated"] if bench.emulated is not None else []
    threads = bench.threads if bench.emulated is None else bench.emulated.threads
    return _variant_command("bench", bench.model, bench.kind, bench.variant, *device, *tier, "--threads", str(threads))
