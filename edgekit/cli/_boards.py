"""edgekit devices add, probe, install, remove: boards that are reached over ssh"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli._common import complete
from edgekit.cli._session import CommandSession, common_options
from edgekit.core.escape import line

if TYPE_CHECKING:
    from edgekit.devices.boards.machine import Machine


@click.command("add", short_help="Add a board that is reached over ssh.")
@click.argument("name")
@click.option("--ssh", "destination", metavar="[USER@]HOST[:PORT]", help="Destination, or a name of ~/.ssh/config.")
@click.option("--identity", type=click.Path(path_type=Path), help="File of the private key (default: ssh's choice).")
@click.option("--python", help="The board's Python, by name or path (default: python3).")
@click.option(
    "--profile",
    metavar="NAME",
    shell_complete=complete("device"),
    help="Device profile that describes the board, for predictions and budgets.",
)
@click.option("--ssh-config", type=click.Path(path_type=Path), help="Configuration file of ssh, for ~/.ssh/config.")
@click.option("--replace", is_flag=True, help="Change a board: options that are not given keep their values.")
@common_options
def add(
    session: CommandSession,
    name: str,
    destination: str | None,
    identity: Path | None,
    python: str | None,
    profile: str | None,
    ssh_config: Path | None,
    replace: bool,
) -> int:
    """Keep how a board is reached in the user's configuration ($EDGEKIT_CONFIG, or ~/.config/edgekit).

    The board needs an ssh server and Python 3.11. Keys, agents, jump hosts and the checking of host keys are those of
    the user's ssh. A password is never kept: allow a key with ssh-copy-id.

    \b
    Example:
      edgekit devices add pi --ssh pi@raspberrypi.local --profile raspberry-pi-4b
      edgekit devices add pi --python venv/bin/python --replace
    """
    from dataclasses import asdict

    from edgekit.config import board as boards
    from edgekit.core.errors import InputError

    boards.check_board_name(name)
    known = name in boards.board_files()
    if known and not replace:
        raise InputError(f"there is a board {name} already; to change it, add --replace")
    if replace and not known:
        raise InputError(f"there is no board {name} to replace; add it without --replace")
    if name in session.project.device_files():
        raise InputError(f"{name} is a device profile; choose another name, and name the profile with --profile {name}")
    if profile is not None:
        session.project.device_file(profile)  # raises the error that lists the known ones
    values: dict[str, Any] = asdict(boards.load_board(name)) if known else {}
    if destination is not None:
        values["ssh"], values["port"] = boards.parse_destination(destination)
    if "ssh" not in values:
        raise InputError("a board needs a destination; add --ssh [USER@]HOST[:PORT]")
    for key, path, what in (("identity", identity, "private key"), ("ssh_config", ssh_config, "configuration of ssh")):
        if path is not None and not path.expanduser().is_file():
            raise InputError(f"{path}: no such file; name the {what}")
        values[key] = str(path.expanduser().absolute()) if path is not None else values.get(key)
    values |= {key: value for key, value in (("python", python), ("profile", profile)) if value is not None}
    board = boards.new_board(**values)
    file = boards.save_board(name, board)
    session.print_result(
        {"device": name, "file": str(file), **asdict(board)},
        line(f"{name} is {board.label} ({file})") + line(f"look at it with: edgekit devices probe {name}"),
    )
    return 0


@click.command("probe", short_help="Look at a board: cores, temperature, memory, runtimes.")
@click.argument("name", shell_complete=complete("board"))
@common_options
def probe(session: CommandSession, name: str) -> int:
    """Connect to a board and print what it is, how it is doing, and which runtimes it has or lacks.

    \b
    Example:
      edgekit devices probe pi
    """
    from dataclasses import asdict

    from edgekit.config.board import load_board
    from edgekit.contracts.runtime import RUNTIMES
    from edgekit.devices.boards.board import Board, pip_line

    config = load_board(name)
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
    from edgekit.config.board import load_board
    from edgekit.core.units import format_bytes
    from edgekit.devices.boards import install as boards
    from edgekit.devices.boards.board import Board

    with Board(name, load_board(name)) as board:
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
    from edgekit.config import board as boards
    from edgekit.devices.boards.board import Board
    from edgekit.devices.boards.install import uninstall

    removed: tuple[str, ...] = ()
    if not forget:
        with Board(name, boards.load_board(name)) as board:
            removed = uninstall(board)
    file = boards.remove_board(name)
    lines = "".join(line(f"removed {path} on {name}") for path in removed) + line(f"removed {file}")
    session.print_result({"device": name, "removed": [*removed, str(file)]}, lines)
    return 0


def _numpy() -> Any:
    from edgekit.core.environment.requirements import NUMPY

    return NUMPY


# The clock of a board without a battery starts in the past: certificates then look as if they were not valid yet.
_SKEW_S = 60.0


def _render(name: str, machine: Machine, packages: dict[str, str | None], line_of_pip: str) -> str:
    from edgekit.core.units import format_bytes, format_memory, format_seconds
    from edgekit.devices.boards.machine import throttling

    state, numbers = machine.state, [core.cpu for core in machine.cores]
    frequencies = sorted({khz // 1000 for khz in state.khz.values()})
    memory = (machine.available_bytes, machine.memory_bytes)
    skew = machine.clock_skew_s
    clock = f"the clock is {format_seconds(abs(skew))} {'ahead of' if skew > 0 else 'behind'} this host's"
    unknown = "not shown by the board"
    facts = [
        ("device", f"{name}: {machine.description}"),
        ("system", f"{machine.architecture}, Linux {machine.kernel}, {machine.libc}"),
        ("Python", ".".join(map(str, machine.python))),
        ("governor", ", ".join(state.governors) or unknown),
        ("frequency", f"{', '.join(map(str, frequencies))} MHz now" if frequencies else unknown),
        ("hottest", f"{state.hottest:.0f} degrees Celsius" if state.hottest is not None else unknown),
        *([("throttled", reason)] if (reason := throttling(state, state, numbers)) else []),
        ("load", unknown if state.load is None else f"{state.load:.2f} busy cores"),
        ("memory", " of ".join(format_memory(size) for size in memory if size) + " free" if all(memory) else unknown),
        ("disk", f"{format_bytes(machine.disk_free_bytes)} free"),
        *([("clock", f"{clock}; measurements do not depend on it")] if abs(skew) > _SKEW_S else []),
        *((package, version or "missing") for package, version in packages.items()),
    ]
    lines = "".join(line(f"{fact:<18}{value}") for fact, value in facts)
    if not line_of_pip:
        return lines
    advice = f"install what is missing with: edgekit devices install {name}"
    return lines + line(advice) + line(f"or on the board: {line_of_pip}")
