"""Imports at start-up, the help of every command, and shell completion."""

from __future__ import annotations

import subprocess
import sys

import pytest
from _helpers.support import Answer

COMMANDS = (
    "init",
    "run",
    "gc",
    "train",
    "export",
    "validate",
    "compare",
    "diff",
    "matrix",
    "tune",
    "bench",
    "micro",
    "check",
    "report",
    "serve",
    "verify",
    "size",
    "inspect",
    "models",
    "targets",
    "devices",
    "doctor",
)
FRAMEWORKS = ("tensorflow", "keras", "torch", "onnx", "onnxruntime", "ai_edge_litert")
HEAVY = (*FRAMEWORKS, "numpy", "pydantic", "rich", "matplotlib", "jinja2", "fastapi", "uvicorn")


@pytest.mark.parametrize("arguments", [["--help"], *([name, "--help"] for name in COMMANDS)], ids=" ".join)
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    call = f"app({arguments!r}, standalone_mode=False)"
    code = f"import sys; from edgekit.cli import app; {call}; print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = set(eval(done.stdout.splitlines()[-1]))
    assert not modules & set(HEAVY)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_an_example_and_the_common_options(edgekit, name: str) -> None:
    answer: Answer = edgekit(name, "--help")
    assert answer.code == 0
    assert f"edgekit {name}" in answer.out.partition("Example:")[2]
    for option in ("--root", "--json", "--quiet", "--verbose"):
        assert option in answer.out


def test_the_group_lists_all_commands(edgekit) -> None:
    listed = edgekit("--help").out.partition("Commands:")[2].partition("\n\n")[0]
    assert [line.split()[0] for line in listed.splitlines() if line.strip()] == [*COMMANDS]


def test_the_measuring_process_needs_only_numpy_and_core() -> None:
    code = "import sys; import edgekit.runtimes._runner; print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = set(eval(done.stdout))
    assert "numpy" in modules
    assert not modules & (set(HEAVY) - {"numpy"} | {"click"})


def test_shell_completion_completes_names() -> None:
    variables = {
        "_EDGEKIT_COMPLETE": "bash_complete",
        "COMP_WORDS": "edgekit export --target tflite:i",
        "COMP_CWORD": "3",
    }
    code = "from edgekit.cli import main; main()"
    import os

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **variables})
    assert done.stdout.split() == ["plain,tflite:int8", "plain,tflite:int16x8", "plain,tflite:int4"]
