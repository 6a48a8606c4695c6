"""edgekit devices"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from edgekit.cli._common import Run, common, complete

if TYPE_CHECKING:
    from edgekit.devices.profile import Core, DeviceProfile


@click.group("devices", invoke_without_command=True)
@common
def command(run: Run) -> int:
    """List the device profiles, or show one.

    \b
    Example:
      edgekit devices
      edgekit devices show raspberry-pi-4b
    """
    from edgekit.core.units import format_memory
    from edgekit.devices.profile import load_profile
    from edgekit.reports.console import table

    data, rows = [], []
    for name, path in run.project.device_files().items():
        profile = load_profile(path)
        data.append({"name": name, "title": profile.title, "kind": profile.kind, "soc": profile.soc, "file": str(path)})
        cores = " + ".join(f"{core.count}x {core.name}" for core in profile.cores)
        rows.append((name, profile.kind, profile.soc, cores, format_memory(profile.memory.ram)))
    header = ("device", "kind", "SoC", "cores", "RAM")
    run.answer({"devices": data}, lambda: table(header, rows, left=4, color=run.color))
    return 0


@command.command("show")
@click.argument("name", shell_complete=complete("device"))
@common
def show(run: Run, name: str) -> int:
    """Show one profile: facts, limits, budgets, and where each fact comes from.

    \b
    Example:
      edgekit devices show raspberry-pi-4b
    """
    from dataclasses import asdict

    from edgekit.devices.profile import load_profile

    path = run.project.device_file(name)
    profile = load_profile(path)
    run.answer({"name": name, "file": str(path), **asdict(profile)}, lambda: _text(name, profile))
    return 0


def _text(name: str, profile: DeviceProfile) -> str:
    from edgekit.core.units import format_memory

    memory, run = profile.memory, profile.run
    facts = [
        ("device", f"{name}: {profile.title}"),
        ("kind", profile.kind),
        ("SoC", f"{profile.soc} ({profile.isa})"),
        *(("cores", _core(core)) for core in profile.cores),
        ("RAM", format_memory(memory.ram)),
        *([("bandwidth", f"{memory.bandwidth_gb_per_s:g} GB/s peak")] if memory.bandwidth_gb_per_s else []),
        *([("flash", format_memory(memory.flash))] if memory.flash else []),
        *([("storage", memory.storage)] if memory.storage else []),
        *([("runs", ", ".join(profile.targets))] if profile.targets else []),
        (
            "bench",
            f"{run.threads} threads"
            + (f", memory limit {format_memory(run.memory_limit)}" if run.memory_limit else ""),
        ),
        *(
            ("budget", f"{budget.rule} <= {_limit(budget.rule, budget.limit)}")
            for budget in profile.budgets.table().budgets("")
        ),
        ("tiers", "analytic (roofline, rough), host (this machine, measured)"),
    ]
    lines = "".join(f"{key:<10}{value}\n" for key, value in facts)
    sources = "".join(f"  {key}: {where}\n" for key, where in profile.provenance.items())
    return f"{lines}where the facts come from\n{sources}"


def _limit(rule: str, value: float) -> str:
    from edgekit.core.budgets import format_rule

    return format_rule(rule, value)


def _core(core: Core) -> str:
    caches = [
        f"{label} {size} KiB"
        for label, size in (("L1i", core.l1i_kib), ("L1d", core.l1d_kib), ("L2", core.l2_kib), ("L3", core.l3_kib))
        if size
    ]
    rates = [f"{rate:g} {precision} MACs/cycle" for precision, rate in core.macs_per_cycle.items()]
    parts = [f"{core.count}x {core.name} {core.clock_mhz} MHz", *caches, *rates, " ".join(core.features)]
    return ", ".join(part for part in parts if part)
