"""The example pipelines: every command and option in them exists, and their scripts run unchanged."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import yaml
from _helpers.support import REPOSITORY
from lxml import etree

from edgekit.cli import app

CI = REPOSITORY / "examples" / "ci"


def github_scripts() -> list[str]:
    steps = yaml.safe_load((CI / "github.yml").read_text())["jobs"]["models"]["steps"]
    return [step["run"] for step in steps if "run" in step]


def gitlab_scripts() -> list[str]:
    job = yaml.safe_load((CI / "gitlab.yml").read_text())["models"]
    return [line for part in ("before_script", "script", "after_script") for line in job[part]]


def hooks() -> list[dict[str, Any]]:
    parsed: list[dict[str, Any]] = yaml.safe_load((REPOSITORY / ".pre-commit-hooks.yaml").read_text())
    return parsed


def commands(scripts: list[str]) -> list[list[str]]:
    """Return the arguments of every `edgekit` call, without redirections."""
    lines = [line.strip() for script in scripts for line in script.splitlines()]
    return [shlex.split(line.partition(" >")[0])[1:] for line in lines if line.startswith("edgekit ")]


ALL = {
    "github": commands(github_scripts()),
    "gitlab": commands(gitlab_scripts()),
    "pre-commit": [[*shlex.split(hook["entry"])[1:], *hook["args"], "model.tflite"] for hook in hooks()],
}


@pytest.mark.parametrize(
    ("pipeline", "words"), [(pipeline, words) for pipeline, calls in ALL.items() for words in calls]
)
def test_every_command_and_option_exists(pipeline: str, words: list[str]) -> None:
    with click.Context(app) as context:
        command = app.get_command(context, words[0])
        assert command is not None, words[0]
        command.make_context(words[0], words[1:], parent=context)  # raises an error for unknown options


def test_the_pipelines_contain_every_stage() -> None:
    for pipeline in ("github", "gitlab"):
        called = {words[0] for words in ALL[pipeline]}
        assert called == {"export", "validate", "bench", "check", "report", "verify"}, pipeline


def test_the_extras_that_are_installed_exist() -> None:
    import tomllib

    declared = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    installed = {name for path in CI.glob("*.yml") for name in re.findall(r"edgekit\[([^]]+)\]", path.read_text())}
    assert installed
    assert {extra for names in installed for extra in names.split(",")} <= set(declared)


@pytest.mark.parametrize(
    ("name", "matches"),
    [("model.tflite", True), ("a/b.onnx", True), ("net.pte", True), ("net.py", False), ("pt", False)],
)
def test_the_hook_matches_model_files(name: str, matches: bool) -> None:
    (hook,) = hooks()
    assert bool(re.search(hook["files"], name)) == matches


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a user's repository with a small ONNX classifier and samples for it."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    folder = tmp_path_factory.mktemp("repository")
    rng = np.random.default_rng(0)
    images = rng.normal(0, 1, (200, 16)).astype(np.float32)
    weights = rng.normal(0, 1, (16, 3)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["image", "w"], ["z"]), helper.make_node("Softmax", ["z"], ["cls"], axis=-1)],
        "detector",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 16])],
        [helper.make_tensor_value_info("cls", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "detector.onnx")
    np.savez(folder / "samples.npz", image=images, labels=np.argmax(images @ weights, axis=1))
    return folder


def shell(script: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a script as a CI runner does: in bash, stopping at the first error, with this `edgekit`."""
    path = folder / "bin"
    path.mkdir(exist_ok=True)
    (path / "edgekit").write_text(f'#!/bin/sh\nexec {sys.executable} -m edgekit "$@"\n')
    (path / "edgekit").chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{path}:{os.environ['PATH']}",
        "PYTHONPATH": str(REPOSITORY),
        "GITHUB_STEP_SUMMARY": str(folder / "summary.md"),
        **variables,
    }
    return subprocess.run(["bash", "-e", "-c", script], cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.exhaustive
def test_the_scripts_of_the_github_workflow_run(repository: Path) -> None:
    variables = yaml.safe_load((CI / "github.yml").read_text())["env"]
    for script in github_scripts():
        if not script.startswith("pip install"):
            result = shell(script, repository, **variables)
            assert result.returncode == 0, result.stdout + result.stderr
    assert (repository / "summary.md").read_text().startswith("# :white_check_mark: edgekit")
    assert etree.parse(repository / "junit.xml").getroot().get("failures") == "0"
    assert (repository / "report.html").stat().st_size > 20_000
    # A pull request whose baseline from main has better figures.
    text = (repository / "baseline.json").read_text()
    size = re.search(r'"size_bytes": (\d+)', text)
    assert size is not None
    # Of the artifact and of the one file in its list.
    better = re.sub(rf'"size(_bytes)?": {size[1]}\b', r'"size\1": 10', text)
    (repository / "baseline.json").write_text(better)
    gate = next(script for script in github_scripts() if "--baseline" in script)
    result = shell(gate, repository, **variables)
    assert result.returncode == 1
    assert "larger" in result.stdout
