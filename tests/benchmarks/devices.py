"""Every published timing beside the prediction and the interval of the shipped device profiles.

`make bench-devices` writes docs/internals/device-predictions.md. The networks' counts are in device_profiles/measured,
so that nothing is emulated. "left out" is predicted from networks of other families on the same device: what the
profile would have said of a network that nobody fitted.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgekit.config.device_profile import DeviceProfile
from edgekit.core.environment.project import open_project, shipped
from edgekit.core.units import format_bytes
from edgekit.devices.cost_models import emulated_core
from edgekit.devices.cost_models.emulated_core import Prediction
from edgekit.stages.benchmark import fit_cost_model
from edgekit.stages.benchmark.fit_cost_model import NetworkCounts, Timing

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "internals" / "device-predictions.md"
TABLE = shipped("device_profiles") / "measured" / fit_cost_model.MEASURED_FILE
HEADER = """# Published timings and predictions

Written by `make bench-devices`. Each timing of `device_profiles/measured/published_latency.csv` stands beside what the
shipped profile predicts, with its interval. Rows with ✓ were fitted; a row without a prediction is not fitted, because
its network has not been counted on the emulated core. *Left out* is the prediction from networks of other families on
the same device at the same number of threads, where there are any. These errors earn the intervals.
"""


def row(timing: Timing, profile: DeviceProfile, left_out: Prediction | None, counts: NetworkCounts | None) -> str:
    """Return a row of the table."""
    name = f"| {timing.network} | {timing.precision} | {timing.threads} | {timing.latency_ms:g} |"
    if left_out is None or counts is None or profile.cost is None:
        return f"{name} | | | | | |"
    predicted = emulated_core.predict(profile, "", left_out.row.work, 1)
    low, high = predicted.low_ms or 0.0, predicted.high_ms or 0.0
    inside = "" if low <= timing.latency_ms <= high else " (outside)"
    error = "-" if left_out.error is None else f"{100 * left_out.error:+.1f} %"
    return (
        f"{name} {predicted.latency_ms:.4g} | {100 * (predicted.latency_ms / timing.latency_ms - 1):+.1f} % |"
        f" {low:.4g} .. {high:.4g}{inside} | ✓ | {error} |"
    )


def summary(predictions: Sequence[Prediction], profiles: dict[str, DeviceProfile]) -> list[str]:
    """Return how large the errors on families that were left out are, and how many the intervals cover."""
    lines = [
        "| threads | timings left out | mean error | largest | inside the interval |",
        "| --- | --- | --- | --- | --- |",
    ]
    cost = next(profile.cost for profile in profiles.values() if profile.cost is not None)
    for name, several, width in (
        ("one", False, cost.width_one_thread),
        ("several", True, cost.width_several_threads),
    ):
        of_kind = [p for p in predictions if p.predicted_ms is not None and (p.row.threads > 1) == several]
        absolute = [abs(p.error or 0.0) for p in of_kind]
        inside = sum(1 / (1 + width) <= p.row.latency_ms / (p.predicted_ms or 1.0) <= 1 + width for p in of_kind)
        if absolute:
            mean, largest = 100 * np.mean(absolute), 100 * max(absolute)
            lines.append(f"| {name} | {len(of_kind)} | {mean:.1f} % | {largest:.1f} % | {inside} |")
    return lines


def memory(counts: Sequence[NetworkCounts], published: Sequence[Timing]) -> list[str]:
    """Return a table of peak memory, where a network has a published one."""
    lines = []
    for entry in counts:
        peaks = [
            timing.peak_memory_mib * 2**20
            for timing in published
            if (timing.network, timing.precision) == (entry.network, entry.precision) and timing.peak_memory_mib
        ]
        if peaks:
            ratio = entry.peak_memory_bytes / np.mean(peaks)
            figures = f"{format_bytes(float(np.mean(peaks)))} | {format_bytes(entry.peak_memory_bytes)} | {ratio:.2f}"
            lines.append(f"| {entry.network} | {entry.precision} | {figures} |")
    header = [
        "",
        "| network | precision | published peak memory | counted | ratio |",
        "| --- | --- | --- | --- | --- |",
    ]
    return [*header, *lines] if lines else []


def page() -> str:
    """Return the page."""
    from edgekit.config.device_profile import load_profile
    from edgekit.stages.context import Context

    project = open_project(ROOT)
    context = Context(project, None, lambda event: None)  # type: ignore[arg-type]
    sections: list[str] = []
    everything: list[Prediction] = []
    profiles: dict[str, DeviceProfile] = {}
    for device, path in project.device_files().items():
        profile = load_profile(path)
        if profile.emulation is None or profile.emulation.published_as is None:
            continue
        profiles[device] = profile
        published = fit_cost_model.timings(TABLE, device, profile)
        counts = fit_cost_model.read_counts(context, TABLE, device)
        pairs = fit_cost_model.published_rows(published, counts)
        left_out = emulated_core.leave_family_out([timing_row for _, timing_row in pairs], profile)
        everything += left_out
        by_timing = {timing: prediction for (timing, _), prediction in zip(pairs, left_out, strict=True)}
        sections += ["", f"## {profile.title}", ""]
        sections += [
            "| network | precision | threads | published ms | predicted ms | error | interval ms | fitted | left out |"
        ]
        sections += ["| --- | --- | --- | --- | --- | --- | --- | --- | --- |"]
        sections += [
            row(timing, profile, by_timing.get(timing), counts.get((timing.network, timing.precision)))
            for timing in published
        ]
        sections += memory(tuple(counts.values()), published)
    return "\n".join([HEADER, *summary(everything, profiles), *sections, ""])


if __name__ == "__main__":
    text = page()
    PAGE.write_text(text)
    sys.stdout.write(text)
