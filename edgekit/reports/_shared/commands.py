"""The command lines that make each figure of a report anew, for a shell in the project's folder."""

from __future__ import annotations

import shlex
from pathlib import PurePosixPath

from edgekit.core.records.artifact import Manifest
from edgekit.core.records.layer_errors import SOURCE, LayerErrors
from edgekit.core.records.measurement import Measurement

_FRAMEWORKS = ("keras", "torch")  # a reference model has both; other kinds of source stand alone
_HOST = "host"  # the device name of a bench without a profile


def _line(command: str, model: str, kind: str, variant: str, *options: str) -> str:
    framework = ["--framework", kind] if kind in _FRAMEWORKS else []
    return shlex.join(("edgekit", command, model, *framework, "--target", variant, *options))


def export_command(manifest: Manifest) -> str:
    """By the same route, from as many calibration samples."""
    options = ["--route", ",".join(manifest.route)]
    if manifest.calibration is not None and "samples" in manifest.calibration:
        options += ["--calibration-samples", str(manifest.calibration["samples"])]
    return _line("export", manifest.model, manifest.source["kind"], str(manifest.variant), *options)


def validate_command(manifest: Manifest, *, stress: bool = False, device: str | None = None) -> str:
    """Return the command that validates on the golden samples and the test set; with `stress` inputs too, or on the
    emulated core of a `device`."""
    options = [*(["--stress"] if stress else []), *(["--device", device] if device else [])]
    return _line("validate", manifest.model, manifest.source["kind"], str(manifest.variant), *options)


def diff_command(layers: LayerErrors) -> str:
    """Against the source, or against the float32 artifact that it was compared with."""
    folder = PurePosixPath("build", layers.model, layers.kind)
    reference = [] if layers.reference == SOURCE else [str(folder / layers.reference_folder)]
    return shlex.join(("edgekit", "diff", *reference, str(folder / layers.variant.slug)))


def check_command(manifest: Manifest) -> str:
    """Against the budgets of the model and of the devices."""
    return _line("check", manifest.model, manifest.source["kind"], str(manifest.variant))


def bench_command(item: Measurement) -> str:
    """With as many threads, in the tiers that it has.

    The emulated tier knows how many were asked for; the host tier may have had to make do with fewer, and will again.
    """
    device = [] if item.device == _HOST else ["--device", item.device]
    tier = ["--tier", "emulated"] if item.emulated is not None else []
    variant = f"{item.target}:{item.precision}"
    threads = item.threads if item.emulated is None else item.emulated.threads
    return _line("bench", item.model, item.kind, variant, *device, *tier, "--threads", str(threads))
