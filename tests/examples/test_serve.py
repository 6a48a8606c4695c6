"""The container recipe and the systemd unit: their commands are those of this version."""

from __future__ import annotations

import configparser
import json
import re
import shlex

from _helpers.documented_commands import parse
from _helpers.support import REPOSITORY

FOLDER = REPOSITORY / "examples" / "serve"


def test_the_container_starts_a_server() -> None:
    text = (FOLDER / "Containerfile").read_text(encoding="utf-8")
    entry = re.search(r"^ENTRYPOINT (.*)$", text, re.MULTILINE)
    assert entry is not None
    program, *arguments = json.loads(entry[1])
    assert program == "edgekit"
    parse(tuple(arguments))
    (port,) = re.findall(r"^EXPOSE (\d+)$", text, re.MULTILINE)
    assert arguments[arguments.index("--port") + 1] == port


def test_the_unit_starts_a_server_and_lets_requests_finish() -> None:
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string((FOLDER / "edgekit-serve.service").read_text(encoding="utf-8"))
    program, *arguments = shlex.split(unit["Service"]["ExecStart"])
    assert program.endswith("/edgekit")
    parse(tuple(arguments))
    # Longer than the default time limit of a request.
    assert int(unit["Service"]["TimeoutStopSec"]) > 30
