"""edgekit devices"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli._boards import add, install, print_step, probe, remove_board, remove_phone
from edgekit.cli._common import complete
from edgekit.cli._session import CommandSession, common_options
from edgekit.core.escape import line

if TYPE_CHECKING:
    from edgekit.config.device_profile import Core, CostSpec, DeviceProfile
    from edgekit.stages.benchmark.fit_cost_model import Fit


@click.group("devices", invoke_without_command=True)
@common_options
def command(session: CommandSession) -> int:
    """List the device profiles, the boards over ssh, the phones over adb, and the browsers of this host.

    \b
    Example:
      edgekit devices
      edgekit devices add pi --ssh pi@raspberrypi.local
      edgekit devices add phone --adb 0A1B2C3D --runner benchmark_model
      edgekit devices show raspberry-pi-4b
    """
    from dataclasses import asdict

    from edgekit.browser.packages import find_packages
    from edgekit.browser.page import BACKENDS
    from edgekit.browser.program import chromium_path
    from edgekit.config.board import BOARDS
    from edgekit.config.phone import PHONES
    from edgekit.core.units import format_memory
    from edgekit.devices.browsers.names import BROWSERS
    from edgekit.reports.console import table

    data, rows, is_set_up = [], [], find_packages() is not None
    for name, path in session.project.device_files().items():
        profile = _load_profile(path)
        data.append({"name": name, "title": profile.title, "kind": profile.kind, "soc": profile.soc, "file": str(path)})
        cores = " + ".join(f"{core.count}x {core.name}" for core in profile.cores)
        rows.append((name, profile.kind, profile.soc, cores, format_memory(profile.memory.ram)))
    header = ("device", "kind", "SoC", "cores", "RAM")
    boards = {name: BOARDS.load(name) for name in BOARDS.files()}
    board_rows = [(name, board.label, board.python, board.profile or "") for name, board in boards.items()]
    board_header = ("board", "ssh", "Python", "profile")
    phones = {name: PHONES.load(name) for name in PHONES.files()}
    phone_rows = [
        (name, phone.adb, phone.runner or "on the phone", phone.profile or "") for name, phone in phones.items()
    ]
    phone_header = ("phone", "adb", "runner", "profile")
    browsers = [
        {"name": browser, "computes_with": BACKENDS[backend], "program": chromium_path(), "set_up": is_set_up}
        for browser, backend in BROWSERS.items()
    ]
    browser_rows = [
        (name, BACKENDS[backend], str(chromium_path() or "missing"), "yes" if is_set_up else "no")
        for name, backend in BROWSERS.items()
    ]
    browser_header = ("browser", "computes with", "program", "set up")
    session.print_result(
        {
            "devices": data,
            "boards": [{"name": name, **asdict(board)} for name, board in boards.items()],
            "phones": [{"name": name, **asdict(phone)} for name, phone in phones.items()],
            "browsers": browsers,
        },
        lambda: (
            table(header, rows, left=4, color=session.color)
            + (f"\n{table(board_header, board_rows, left=4, color=session.color)}" if boards else "")
            + (f"\n{table(phone_header, phone_rows, left=4, color=session.color)}" if phones else "")
            + f"\n{table(browser_header, browser_rows, left=4, color=session.color)}"
        ),
    )
    return 0


command.add_command(add)
command.add_command(probe)
command.add_command(install)


@command.command("show", short_help="Show a device profile, or a browser.")
@click.argument("name", shell_complete=complete("device"))
@common_options
def show(session: CommandSession, name: str) -> int:
    """Show the facts, limits and budgets of a profile, and the source of each fact.

    \b
    Example:
      edgekit devices show raspberry-pi-4b
      edgekit devices show chromium
    """
    from dataclasses import asdict

    from edgekit.devices.browsers.names import is_browser

    if is_browser(name):
        return _show_browser(session, name)

    path = session.project.device_file(name)
    profile = _load_profile(path)
    session.print_result({"name": name, "file": str(path), **asdict(profile)}, lambda: _render_profile(name, profile))
    return 0


def _show_browser(session: CommandSession, name: str) -> int:
    from edgekit.browser.packages import SET_UP, find_packages
    from edgekit.browser.page import BACKENDS
    from edgekit.browser.program import chromium_path
    from edgekit.devices.browsers.names import BROWSERS

    record, program = find_packages(), chromium_path()
    packages = [] if record is None else list(record.packages)
    data = {"name": name, "computes_with": BACKENDS[BROWSERS[name]], "program": program, "packages": packages}
    facts = [
        ("browser", name),
        ("computes", BACKENDS[BROWSERS[name]]),
        ("program", program or "missing; install with: apt-get install chromium"),
        ("packages", ", ".join(packages) or f"not set up; run: {SET_UP}"),
        ("tiers", "host (this machine, measured), device (in the browser, measured)"),
    ]
    session.print_result(data, "".join(line(f"{key:<10}{value}") for key, value in facts))
    return 0


@command.command("setup", short_help="Install the emulation of a device, or the runtimes of a browser.")
@click.argument("name", shell_complete=complete("device"))
@click.option(
    "--runtime",
    "runtimes",
    metavar="NAME",
    multiple=True,
    help="Additional runtime beside litert and onnxruntime: torchscript (about 100 MB); may be repeated.",
)
@common_options
def setup(session: CommandSession, name: str, runtimes: tuple[str, ...]) -> int:
    """Download and build what the emulation of a device needs: about 65 MB, once for all projects.

    For chromium, download the npm packages of the browser's runtimes: about 45 MB, by npm. Chromium itself is a package
    of the system. An archive is refused if its SHA-512 is not pinned.

    Everything is installed into the cache folder of the user ($EDGEKIT_CACHE, or ~/.cache/edgekit); administrator
    rights are not needed. Wheels are refused if their SHA-256 is not pinned. If the device is already set up, the
    command only makes parts again whose files have changed.

    \b
    Example:
      edgekit devices setup raspberry-pi-4b
      edgekit bench simple_cnn --device raspberry-pi-4b --tier emulated
      edgekit devices setup chromium
    """
    from edgekit.devices.browsers.names import is_browser

    if is_browser(name):
        return _set_up_browser(session, name, runtimes)
    from edgekit.devices.emulation import emulator
    from edgekit.devices.emulation.folders import home

    profile = _load_profile(session.project.device_file(name))
    installed = emulator.set_up(name, profile, runtimes, lambda text: print_step(session, text))
    data = {"device": name, "folder": str(home()), "python": installed.python, "made": list(installed.added)}
    result = "is set up" if installed.added else "is already set up"
    session.print_result(data, line(f"the emulation of {name} {result} ({home()})"))
    return 0


def _set_up_browser(session: CommandSession, name: str, runtimes: tuple[str, ...]) -> int:
    from edgekit.browser.packages import packages_folder
    from edgekit.browser.program import require_chromium
    from edgekit.core.errors import InputError
    from edgekit.devices.browsers import setup as browsers

    if runtimes:
        raise InputError(f"--runtime is for emulated devices; {name} has all of its runtimes")
    program = require_chromium()
    made = browsers.set_up(lambda text: print_step(session, text))
    data = {"device": name, "folder": str(packages_folder()), "program": program, "made": list(made)}
    result = "are set up" if made else "are already set up"
    session.print_result(data, line(f"the runtimes of {name} {result} ({packages_folder()})"))
    return 0


@command.command("fit", short_help="Fit the cost model of a device to published timings, or to a board.")
@click.argument("name", shell_complete=complete("device"))
@click.option(
    "--measured", type=click.Path(path_type=Path), help="Table of timings (default: the one shipped with edgekit)."
)
@click.option("--counted", is_flag=True, help="Use only the timings of networks that were counted before.")
@click.option("--dry-run", is_flag=True, help="Print the fit, and do not change the profile.")
@click.option("--quick", is_flag=True, help="Board: measure the small reference networks only.")
@click.option("--models", metavar="NAME,...", help="Board: reference networks to measure (default: all).")
@click.option("--precision", metavar="NAME,...", help="Board: float32, int8 or both (default: both).")
@click.option("--threads", metavar="N,...", help="Board: numbers of threads, beside 1 (default: all fast cores).")
@click.option("--max-noise", metavar="PERCENT", help="Board: largest difference between processes (default: 10%).")
@click.option("--repeat", is_flag=True, help="Board: measure again what was measured before.")
@click.option("--output", type=click.Path(path_type=Path), help="Board: write the profile into this file.")
@common_options
def fit(
    session: CommandSession,
    name: str,
    measured: Path | None,
    counted: bool,
    dry_run: bool,
    output: Path | None,
    **board_options: Any,
) -> int:
    """Fit the cost model of a device to published timings or to a board, and write it into a profile.

    For phones and boards, the model is fitted to the instructions, cache misses and parallel regions of the emulated
    core; for microcontrollers, to the multiply-accumulates and output elements of the networks. Each timing is
    predicted from networks of other families, and compared with a simpler model: a figure times a constant. The errors
    of all devices together earn the intervals. A profile that edgekit ships is first copied into device_profiles/ of
    this project.

    For a board that was added with `edgekit devices add`, reference networks are measured there and counted on its
    emulated core, which is set up if it is missing. The profile NAME-fitted is written into the user's configuration,
    and the board's predictions come from it. The intervals are from the errors on this board. What was measured is
    kept: a command that was interrupted continues. A board that was throttled or is noisy is refused.

    \b
    Example:
      edgekit devices fit pi --quick
      edgekit devices fit pi --threads 2,4 --output device_profiles/my-pi.toml
      edgekit devices fit pixel-2 --dry-run
      edgekit devices fit stm32l4r5-nucleo --dry-run
    """
    from dataclasses import asdict

    from edgekit.core.environment.project import shipped
    from edgekit.core.errors import InputError
    from edgekit.devices.boards.places import is_board
    from edgekit.reports.console import table
    from edgekit.stages.benchmark import fit_cost_model as stage

    if is_board(name):
        if measured is not None or counted:
            raise InputError(f"--measured and --counted are for published timings, and {name} is a board")
        return _fit_board(session, name, dry_run, output, board_options)
    given = [*(key for key, value in board_options.items() if value), *(["output"] if output else [])]
    if given:
        raise InputError(f"--{given[0].replace('_', '-')} is for boards, and {name} is none", parameters=(given[0],))
    path = session.project.device_file(name)
    profile = _load_profile(path)
    if profile.kind == "microcontroller" or profile.published is not None:
        return _fit_kernels(session, name, measured, dry_run)
    timings = measured or shipped("device_profiles") / "measured" / stage.MEASURED_FILE
    with session.context() as context:
        result = stage.fit(context, name, _load_profile(path), timings, counted)
    target = path if dry_run else _project_profile(session, path)
    if not dry_run:
        stage.write_cost(target, result.spec)
    alternatives = (name.replace("constant", "c") for name in result.alternatives)
    header = ("network", "precision", "threads", "published", "fitted", "left out", *alternatives)
    data = {"device": name, "cost": asdict(result.spec), "rows": stage.rows_of(result)}
    written_line = "" if dry_run else line(f"written into {target}")
    session.print_result(
        data,
        lambda: (
            table(header, stage.table_rows(result), left=2, color=session.color) + _fit_summary(result) + written_line
        ),
    )
    return 0


def _fit_board(
    session: CommandSession, name: str, dry_run: bool, output: Path | None, options: Mapping[str, Any]
) -> int:
    from dataclasses import asdict

    from edgekit.core.errors import InputError
    from edgekit.reports.console import table
    from edgekit.stages.benchmark import fit_board as stage

    if output is not None and output.suffix != ".toml":
        raise InputError(f"{output}: a device profile is a .toml file", parameters=("output",))
    chosen = stage.BoardFitOptions(
        networks=_words(options["models"]),
        precisions=_precisions(options["precision"]),
        threads=_thread_counts(options["threads"]),
        quick=options["quick"],
        max_noise=_max_noise(options["max_noise"]),
        repeat=options["repeat"],
    )
    with session.context() as context:
        result = stage.fit_board(context, name, chosen, lambda text: print_step(session, text))
    file = None if dry_run else stage.write_profile(name, result, output)
    spec = result.fit.spec
    header = ("network", "precision", "threads", "measured", "noise", "fitted", "left out", "instructions x c")
    data = {"device": name, "file": file, "cost": asdict(spec), "rows": stage.rows_of(result), "notes": result.remarks}
    session.print_result(
        data,
        lambda: (
            table(header, stage.table_rows(result), left=2, color=session.color)
            + _fit_summary(result.fit)
            + line(_format_measured(spec))
            + ("" if file is None else line(f"written into {file}"))
            + (line(_next_command(name, output)) if not dry_run else "")
        ),
    )
    return 0


def _next_command(name: str, output: Path | None) -> str:
    if output is None:
        return f"predict and measure with: edgekit bench MODEL --device {name} --tier emulated"
    return f"use it from device_profiles/ with: edgekit devices add {name} --profile {output.stem} --replace"


def _words(text: str | None) -> tuple[str, ...]:
    return tuple(word for part in (text or "").split(",") if (word := part.strip()))


def _precisions(text: str | None) -> tuple[str, ...]:
    from edgekit.core.errors import unknown_name
    from edgekit.stages.benchmark.fit_board import PRECISIONS

    precisions = _words(text) or PRECISIONS
    for precision in precisions:
        if precision not in PRECISIONS:
            raise unknown_name("precision of reference networks", precision, list(PRECISIONS))
    return precisions


def _thread_counts(text: str | None) -> tuple[int, ...]:
    from edgekit.core.errors import InputError

    words = _words(text)
    if not all(word.isascii() and word.isdigit() and 0 < int(word) < 1000 for word in words):
        raise InputError(f"'{text}' are no numbers of threads; write them like 2,4", parameters=("threads",))
    return tuple(map(int, words))


def _max_noise(text: str | None) -> float:
    from edgekit.core.errors import InputError
    from edgekit.core.units import parse_share
    from edgekit.stages.benchmark.fit_board import MAX_NOISE

    if text is None:
        return MAX_NOISE
    try:
        return parse_share(text)
    except ValueError as error:
        raise InputError(str(error), parameters=("max_noise",)) from None


def _project_profile(session: CommandSession, path: Path) -> Path:
    """Return the profile's path in the project's device_profiles/; copy the file there if it is elsewhere."""
    from edgekit.core.environment.atomic_files import write_output

    target = session.project.root / "device_profiles" / path.name
    if target != path:
        write_output(target, path.read_text())
    return target


def _fit_kernels(session: CommandSession, name: str, measured: Path | None, dry_run: bool) -> int:
    from dataclasses import asdict

    import numpy as np

    from edgekit.core.environment.project import shipped
    from edgekit.reports.console import table
    from edgekit.stages.benchmark import fit_microcontroller as stage

    path = session.project.device_file(name)
    profile = _load_profile(path)
    timings = measured or shipped("device_profiles") / "measured" / stage.measured_file(profile)
    with session.context() as context:
        result = stage.fit_kernels(context, name, profile, timings)
    target = path if dry_run else _project_profile(session, path)
    if not dry_run:
        stage.write_kernels(target, result.spec)
    header = ("network", "MACs", "outputs", "published", "fitted", "left out", "MACs x c")
    data = {"device": name, "kernels": asdict(result.spec), "rows": stage.rows_of(result)}
    text = line(
        f"{result.spec.cycles_per_mac:g} cycles per multiply-accumulate, {result.spec.cycles_per_output:g} per output"
    )
    for label, errors in (("left out", result.left_out), ("MACs x constant", result.by_macs)):
        mean, largest = 100 * np.mean(np.abs(errors)), 100 * np.max(np.abs(errors))
        text += line(f"{label}: mean error {mean:.1f} %, largest {largest:.1f} %")
    written_line = "" if dry_run else line(f"written into {target}")
    session.print_result(
        data, lambda: table(header, stage.table_rows(result), left=1, color=session.color) + text + written_line
    )
    return 0


def _format_measured(spec: CostSpec) -> str:
    """Return how a cost model was fitted to a board of the user's own; empty for published timings."""
    measured = spec.measured
    if measured is None:
        return ""
    noise = f"noise at most {100 * measured.noise:.1f} %"
    if measured.mean_error is None or measured.max_error is None:
        return f"calibrated on {measured.board} ({measured.machine}), {noise}"
    errors = f"mean error {100 * measured.mean_error:.1f} %, largest {100 * measured.max_error:.1f} %"
    return f"calibrated on {measured.board} ({measured.machine}), {noise}; families left out: {errors}"


def _fit_summary(result: Fit) -> str:
    from edgekit.devices.cost_models.emulated_core import errors

    models = {"other families": result.predictions, **result.alternatives}
    lines = [
        f"{name}: mean error {100 * mean_and_max[0]:.1f} %, largest {100 * mean_and_max[1]:.1f} %"
        for name, predictions in models.items()
        if (mean_and_max := errors(predictions))
    ]
    spec = result.spec
    cycles = f"{spec.cycles_per_instruction:g} cycles per instruction, {spec.cycles_per_l1_miss:g} per L1 miss"
    memory = f"{spec.line_ns:g} ns per line and {spec.bus_line_ns:g} ns on the bus"
    regions = f"{spec.region_us:g} us per parallel region and further thread"
    return "\n".join([f"{cycles}, {memory}, {regions}", *lines, _format_widths(spec), ""])


def _format_widths(spec: CostSpec) -> str:
    """Return how wide the intervals are, and what they are from."""
    parts = [
        f"{text} by a factor of {1 + width:.2f} ({unseen} timings)"
        for text, width, unseen in (
            ("at one thread", spec.width_one_thread, spec.unseen_one_thread),
            ("at several threads", spec.width_several_threads, spec.unseen_several_threads),
        )
        if unseen
    ]
    return f"nine of ten networks of unseen families are within: {', '.join(parts)}" if parts else "no interval"


@command.command("remove", short_help="Remove an emulation, the runtimes of a browser, a board, or a phone.")
@click.argument("name", shell_complete=complete("device"))
@click.option("--forget", is_flag=True, help="Remove a board or phone from the configuration only, unconnected.")
@common_options
def remove(session: CommandSession, name: str, forget: bool) -> int:
    """Remove what `edgekit devices setup` installed; shared files are removed with the last device that uses them.

    For a browser, remove its runtimes; the browser itself stays. For a board or a phone, remove what edgekit keeps
    there, its runtimes included, and then the board or phone from the configuration.

    \b
    Example:
      edgekit devices remove raspberry-pi-4b
      edgekit devices remove pi
      edgekit devices remove pi --forget
    """
    from edgekit.core.errors import InputError
    from edgekit.devices.boards.places import is_board, is_phone
    from edgekit.devices.browsers.names import is_browser

    if is_board(name):
        return remove_board(session, name, forget)
    if is_phone(name):
        return remove_phone(session, name, forget)
    if forget:
        raise InputError(f"--forget is for boards and phones, and {name} is none")
    if is_browser(name):
        from edgekit.devices.browsers import setup as browsers

        return _print_removed(session, name, browsers.remove())
    from edgekit.devices.emulation import setup as emulation
    from edgekit.devices.emulation.emulator import emulation_spec_of

    profile = _load_profile(session.project.device_file(name))
    return _print_removed(session, name, emulation.remove(emulation_spec_of(name, profile), profile.cores[0].count))


def _print_removed(session: CommandSession, name: str, removed: list[Path]) -> int:
    lines = "".join(line(f"removed {path}") for path in removed)
    session.print_result({"device": name, "removed": list(map(str, removed))}, lines or line(f"{name} was not set up"))
    return 0


def _render_profile(name: str, profile: DeviceProfile) -> str:
    from edgekit.core.units import format_memory

    memory, run = profile.memory, profile.run
    facts = [
        ("device", f"{name}: {profile.title}"),
        ("kind", profile.kind),
        ("SoC", f"{profile.soc} ({profile.isa})"),
        *(("cores", _format_core(core)) for core in profile.cores),
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
            ("budget", f"{budget.rule} <= {_format_limit(budget.rule, budget.limit)}")
            for budget in profile.budgets.table().budgets("")
        ),
        ("tiers", "analytic (roofline, rough), host (this machine, measured)"),
        *([("emulated", _emulation_status(profile))] if profile.emulation else []),
    ]
    lines = "".join(line(f"{name:<10}{value}") for name, value in facts)
    sources = "".join(line(f"  {name}: {origin}") for name, origin in profile.provenance.items())
    return f"{lines}sources of the facts\n{sources}"


def _emulation_status(profile: DeviceProfile) -> str:
    from edgekit.core.records.emulated_measurement import UNCALIBRATED

    spec, cost = profile.emulation, profile.cost
    cpu = f"QEMU's {spec.cpu}" if spec else ""
    if cost is None:
        return f"{cpu}, {UNCALIBRATED}: no published timings to fit the cost model to"
    own = _format_measured(cost)
    return f"{cpu}, fitted with {cost.fitted_with}; {f'{own}; ' if own else ''}{_format_widths(cost)}"


def _format_limit(rule: str, value: float) -> str:
    from edgekit.core.values.budgets import format_rule

    return format_rule(rule, value)


def _format_core(core: Core) -> str:
    caches = [
        f"{label} {size} KiB"
        for label, size in (("L1i", core.l1i_kib), ("L1d", core.l1d_kib), ("L2", core.l2_kib), ("L3", core.l3_kib))
        if size
    ]
    rates = [f"{rate:g} {precision} MACs/cycle" for precision, rate in core.macs_per_cycle.items()]
    parts = [f"{core.count}x {core.name} {core.clock_mhz} MHz", *caches, *rates, " ".join(core.features)]
    return ", ".join(part for part in parts if part)


def _load_profile(path: Path) -> DeviceProfile:
    # A profile may name precisions that the targets of other packages define; this module looks for them.
    import edgekit.contracts.target  # noqa: F401
    from edgekit.config.device_profile import load_profile

    return load_profile(path)
