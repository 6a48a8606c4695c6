"""edgekit devices add, probe, install, remove: boards that are reached over ssh, and phones over adb"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli._common import complete
from edgekit.cli._session import CommandSession, common_options
from edgekit.core.escape import line

if TYPE_CHECKING:
    from edgekit.config.board import BoardConfig
    from edgekit.config.phone import PhoneConfig
    from edgekit.devices.boards.machine import Machine
    from edgekit.devices.phones.facts import PhoneFacts
    from edgekit.devices.phones.phone import Runner


@click.command("add", short_help="Add a board that is reached over ssh, or a phone over adb.")
@click.argument("name")
@click.option("--ssh", "destination", metavar="[USER@]HOST[:PORT]", help="Destination, or a name of ~/.ssh/config.")
@click.option("--identity", type=click.Path(path_type=Path), help="File of the private key (default: ssh's choice).")
@click.option("--python", help="The board's Python, by name or path (default: python3).")
@click.option("--ssh-config", type=click.Path(path_type=Path), help="Configuration file of ssh, for ~/.ssh/config.")
@click.option("--adb", "serial", metavar="SERIAL", help="Serial number of a phone, as adb devices lists it.")
@click.option(
    "--runner",
    type=click.Path(path_type=Path),
    help="LiteRT's benchmark_model for the phone (default: /data/local/tmp/benchmark_model there).",
)
@click.option(
    "--profile",
    metavar="NAME",
    shell_complete=complete("device"),
    help="Device profile that describes the board or phone, for predictions and budgets.",
)
@click.option("--replace", is_flag=True, help="Change a device: options that are not given keep their values.")
@common_options
def add(session: CommandSession, name: str, profile: str | None, replace: bool, **options: Any) -> int:
    """Keep how a board or a phone is reached in the user's configuration ($EDGEKIT_CONFIG, or ~/.config/edgekit).

    A board needs an ssh server and Python 3.11. Keys, agents, jump hosts and the checking of host keys are those of
    the user's ssh. A password is never kept: allow a key with ssh-copy-id.

    A phone needs Android 7 with USB debugging, and a benchmark_model of LiteRT or a program with the same flags.

    \b
    Example:
      edgekit devices add pi --ssh pi@raspberrypi.local --profile raspberry-pi-4b
      edgekit devices add pi --python venv/bin/python --replace
      edgekit devices add phone --adb 0A1B2C3D --runner benchmark_model
    """
    from dataclasses import asdict

    from edgekit.config.board import BOARDS
    from edgekit.config.phone import PHONES
    from edgekit.core.errors import InputError

    of_phones = any(options[key] is not None for key in ("serial", "runner"))
    of_boards = any(options[key] is not None for key in ("destination", "identity", "python", "ssh_config"))
    if of_phones and of_boards:
        raise InputError(
            "--adb and --runner are for phones, and --ssh, --identity, --python and --ssh-config for boards"
        )
    is_phone = of_phones or (not of_boards and name in PHONES.files())
    kind, devices, others = ("phone", PHONES, BOARDS) if is_phone else ("board", BOARDS, PHONES)
    devices.check_name(name)
    known = name in devices.files()
    if known and not replace:
        raise InputError(f"there is a {kind} {name} already; to change it, add --replace")
    if replace and not known:
        raise InputError(f"there is no {kind} {name} to replace; add it without --replace")
    if name in others.files():
        raise InputError(f"{name} is a {others.kind}; choose another name, or run: edgekit devices remove {name}")
    if name in session.project.device_files():
        raise InputError(f"{name} is a device profile; choose another name, and name the profile with --profile {name}")
    if profile is not None:
        session.project.device_file(profile)  # raises the error that lists the known ones
        options["profile"] = profile
    values: dict[str, Any] = asdict(devices.load(name)) if known else {}
    device, file = (_save_phone if is_phone else _save_board)(name, values, options)
    session.print_result(
        {"device": name, "file": str(file), **asdict(device)},
        line(f"{name} is {device.label} ({file})") + line(f"look at it with: edgekit devices probe {name}"),
    )
    return 0


def _save_board(name: str, values: dict[str, Any], options: dict[str, Any]) -> tuple[BoardConfig | PhoneConfig, Path]:
    from edgekit.config.board import BOARDS, parse_destination
    from edgekit.core.errors import InputError

    if options["destination"] is not None:
        values["ssh"], values["port"] = parse_destination(options["destination"])
    if "ssh" not in values:
        raise InputError("a board needs a destination; add --ssh [USER@]HOST[:PORT], or --adb SERIAL for a phone")
    for key, what in (("identity", "private key"), ("ssh_config", "configuration of ssh")):
        values[key] = _existing_file(options[key], what) or values.get(key)
    values |= {key: options[key] for key in ("python", "profile") if options.get(key) is not None}
    board = BOARDS.new(**values)
    return board, BOARDS.save(name, board)


def _save_phone(name: str, values: dict[str, Any], options: dict[str, Any]) -> tuple[BoardConfig | PhoneConfig, Path]:
    from edgekit.config.phone import PHONES
    from edgekit.core.errors import InputError
    from edgekit.devices.phones.benchmark_model import elf_abi

    values["adb"] = options["serial"] if options["serial"] is not None else values.get("adb")
    if values["adb"] is None:
        raise InputError("a phone needs a serial number; add --adb SERIAL")
    runner = _existing_file(options["runner"], "runner, LiteRT's benchmark_model for Android")
    if runner is not None:
        elf_abi(Path(runner))  # raises the error of a file that is no program
    values["runner"] = runner or values.get("runner")
    values["profile"] = options.get("profile") or values.get("profile")
    phone = PHONES.new(**values)
    return phone, PHONES.save(name, phone)


def _existing_file(path: Path | None, what: str) -> str | None:
    """Return the absolute path of a file that an option names, or None without the option."""
    from edgekit.core.errors import InputError

    if path is None:
        return None
    if not path.expanduser().is_file():
        raise InputError(f"{path}: no such file; name the {what}")
    return str(path.expanduser().absolute())


@click.command("probe", short_help="Look at a board or a phone: cores, temperature, memory, runtimes.")
@click.argument("name", shell_complete=complete("board"))
@common_options
def probe(session: CommandSession, name: str) -> int:
    """Connect to a board or a phone and print what it is, how it is doing, and which runtimes it has or lacks.

    \b
    Example:
      edgekit devices probe pi
      edgekit devices probe phone
    """
    from edgekit.config.phone import PHONES

    return _probe_phone(session, name) if name in PHONES.files() else _probe_board(session, name)


def _probe_board(session: CommandSession, name: str) -> int:
    from dataclasses import asdict

    from edgekit.config.board import BOARDS
    from edgekit.config.phone import PHONES
    from edgekit.contracts.runtime import RUNTIMES
    from edgekit.core.errors import unknown_name
    from edgekit.devices.boards.board import Board, pip_line

    if name not in BOARDS.files():
        raise unknown_name("board or phone", name, sorted([*BOARDS.files(), *PHONES.files()]))
    config = BOARDS.load(name)
    with Board(name, config) as board:
        machine = board.machine()
        board.check_python()
        own = [runtime for runtime in RUNTIMES.names() if runtime not in RUNTIMES.third_party_names()]
        needed = {name: plugin.requires for name in own if not (plugin := RUNTIMES.load(name)).in_browser}
        found = board.modules([item for items in needed.values() for item in items])
        numpy = board.modules([_numpy()])["numpy"]
        runtimes = {
            runtime: None if any(found[item.module] is None for item in items) else found[items[0].module] or "unknown"
            for runtime, items in needed.items()
        }
        environments = board.environments()
        line_of_pip = pip_line(board, machine, ("litert", "onnxruntime"))
    data = {
        "device": name,
        "ssh": config.label,
        **asdict(machine),
        "description": machine.description,
        "numpy": numpy,
        "runtimes": runtimes,
        "environments": list(environments),
        "install": line_of_pip,
    }
    session.print_result(data, lambda: _render(name, machine, {"numpy": numpy, **runtimes}, line_of_pip))
    return 0


def _probe_phone(session: CommandSession, name: str) -> int:
    from dataclasses import asdict

    from edgekit.config.phone import PHONES
    from edgekit.core.errors import InputError, MissingDependency
    from edgekit.devices.phones.phone import Phone

    config = PHONES.load(name)
    with Phone(name, config) as phone:
        facts = phone.facts()
        try:
            runner, problem = phone.runner(), ""
        except (InputError, MissingDependency) as error:  # what the phone is can be looked at without a runner
            runner, problem = None, str(error)
    data = {
        "device": name,
        **asdict(config),
        **asdict(facts),
        "description": facts.machine.description,
        "runner": None if runner is None else runner.path,
        "runner_flags": None if runner is None else sorted(runner.flags),
        "writes_outputs": runner is not None and runner.writes_outputs,
        "problem": problem,
    }
    session.print_result(data, lambda: _render_phone(name, facts, runner, problem))
    return 0


@click.command("install", short_help="Install runtimes on a board.")
@click.argument("name", shell_complete=complete("board"))
@click.option(
    "--runtime",
    "runtimes",
    metavar="NAME",
    multiple=True,
    shell_complete=complete("runtime"),
    help="Runtime to install; may be repeated (default: litert and onnxruntime).",
)
@click.option("--wheels", type=click.Path(path_type=Path), help="Folder of wheels to take, without a package index.")
@common_options
def install(session: CommandSession, name: str, runtimes: tuple[str, ...], wheels: Path | None) -> int:
    """Put runtimes into a folder of edgekit's own on a board, in the versions that this host has.

    Wheels for the board's system are selected and fetched here, and sent: the board needs neither pip nor a connection
    to the internet. Nothing else on the board changes; edgekit devices remove NAME removes it again.

    \b
    Example:
      edgekit devices install pi
      edgekit devices install pi --runtime onnxruntime
    """
    from edgekit.config.board import BOARDS
    from edgekit.core.units import format_bytes
    from edgekit.devices.boards import install as boards
    from edgekit.devices.boards.board import Board

    with Board(name, BOARDS.load(name)) as board:
        chosen = runtimes or boards.DEFAULT_RUNTIMES
        installed = boards.install(board, chosen, wheels, lambda text: print_step(session, text))
    result = f"{format_bytes(installed.sent_bytes)} sent" if installed.added else "everything was there already"
    data = {
        "device": name,
        "folder": installed.folder,
        "wheels": list(installed.wheels),
        "sent_bytes": installed.sent_bytes,
    }
    session.print_result(data, line(f"{name} has {', '.join(chosen)} ({result})"))
    return 0


def print_step(session: CommandSession, text: str) -> None:
    """Print what a command is doing to stderr."""
    if session.verbosity >= 0:
        click.echo(line(f"{text} ..."), err=True, nl=False)


def remove_board(session: CommandSession, name: str, forget: bool) -> int:
    """Remove what edgekit keeps on a board, and the board from the user's configuration.

    Args:
        session: Prints the result.
        name: The board's name.
        forget: Whether to leave the board itself alone, as where it can no longer be reached.
    """
    from edgekit.config.board import BOARDS
    from edgekit.devices.boards.board import Board
    from edgekit.devices.boards.install import uninstall

    removed: tuple[str, ...] = ()
    if not forget:
        with Board(name, BOARDS.load(name)) as board:
            removed = uninstall(board)
    file = BOARDS.remove(name)
    lines = "".join(line(f"removed {path} on {name}") for path in removed) + line(f"removed {file}")
    session.print_result({"device": name, "removed": [*removed, str(file)]}, lines)
    return 0


def remove_phone(session: CommandSession, name: str, forget: bool) -> int:
    """Remove what edgekit keeps on a phone, and the phone from the user's configuration.

    Args:
        session: Prints the result.
        name: The phone's name.
        forget: Whether to leave the phone itself alone, as where it can no longer be reached.
    """
    from edgekit.config.phone import PHONES
    from edgekit.devices.phones.phone import Phone

    folder = ""
    if not forget:
        with Phone(name, PHONES.load(name)) as phone:
            folder = phone.remove_files()
    file = PHONES.remove(name)
    lines = (line(f"removed {folder} on {name}") if folder else "") + line(f"removed {file}")
    session.print_result({"device": name, "removed": [*([folder] if folder else []), str(file)]}, lines)
    return 0


def _numpy() -> Any:
    from edgekit.core.environment.requirements import NUMPY

    return NUMPY


# The clock of a board without a battery starts in the past: certificates then look as if they were not valid yet.
_SKEW_S = 60.0


def _render(name: str, machine: Machine, packages: dict[str, str | None], line_of_pip: str) -> str:
    facts = [
        ("device", f"{name}: {machine.description}"),
        ("system", f"{machine.architecture}, Linux {machine.kernel}, {machine.libc}"),
        ("Python", ".".join(map(str, machine.python))),
        *_state_facts(machine, "board"),
        *((package, version or "missing") for package, version in packages.items()),
    ]
    lines = "".join(line(f"{fact:<18}{value}") for fact, value in facts)
    if not line_of_pip:
        return lines
    advice = f"install what is missing with: edgekit devices install {name}"
    return lines + line(advice) + line(f"or on the board: {line_of_pip}")


def _render_phone(name: str, facts: PhoneFacts, runner: Runner | None, problem: str) -> str:
    machine = facts.machine
    android = f"Android {facts.android} (API level {facts.api_level})" if facts.api_level else "Android"
    charging = {True: ", charging or full", False: ", not charging", None: ""}[facts.charging]
    rows = [
        ("device", f"{name}: {machine.description}"),
        *([("chip", facts.soc)] if facts.soc else []),
        ("system", f"{android}, {machine.architecture}, Linux {machine.kernel}"),
        ("interfaces", ", ".join(facts.abis) or "not shown by the phone"),
        *_state_facts(machine, "phone"),
        *([("battery", f"{facts.battery_percent} %{charging}")] if facts.battery_percent is not None else []),
        *([("battery saver", "on, which slows the phone")] if facts.battery_saver else []),
        ("runner", problem if runner is None else runner.path),
        *([] if runner is None else [("outputs", _describe_outputs(runner))]),
    ]
    return "".join(line(f"{fact:<18}{value}") for fact, value in rows)


def _describe_outputs(runner: Runner) -> str:
    if runner.writes_outputs:
        return "can be compared: the runner writes them"
    return "cannot be compared: the runner does not write them (it has no flag --output_filepath)"


def _state_facts(machine: Machine, kind: str) -> list[tuple[str, str]]:
    """Return how a board or a phone is doing, as rows."""
    from edgekit.core.units import format_bytes, format_memory, format_seconds
    from edgekit.devices.boards.machine import throttling

    state, numbers = machine.state, [core.cpu for core in machine.cores]
    frequencies = sorted({khz // 1000 for khz in state.khz.values()})
    memory = (machine.available_bytes, machine.memory_bytes)
    skew = machine.clock_skew_s
    clock = f"the clock is {format_seconds(abs(skew))} {'ahead of' if skew > 0 else 'behind'} this host's"
    unknown = f"not shown by the {kind}"
    return [
        ("governor", ", ".join(state.governors) or unknown),
        ("frequency", f"{', '.join(map(str, frequencies))} MHz now" if frequencies else unknown),
        ("hottest", f"{state.hottest:.0f} degrees Celsius" if state.hottest is not None else unknown),
        *([("throttled", reason)] if (reason := throttling(state, state, numbers)) else []),
        ("load", unknown if state.load is None else f"{state.load:.2f} busy cores"),
        ("memory", " of ".join(format_memory(size) for size in memory if size) + " free" if all(memory) else unknown),
        ("disk", f"{format_bytes(machine.disk_free_bytes)} free"),
        *([("clock", f"{clock}; measurements do not depend on it")] if abs(skew) > _SKEW_S else []),
    ]
