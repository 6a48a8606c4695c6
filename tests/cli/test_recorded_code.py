"""Code that a source's record names: run while it is the same and inside the project, or when the user names it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from _helpers.support import call

from edgekit.workers.pool import WorkerPool

pytestmark = pytest.mark.slow

NETWORK = """
import torch

def build():
    return torch.nn.Linear(3, 2)
"""
EVIL = """
from pathlib import Path

Path(__file__).with_name("canary").touch()
"""


@pytest.fixture(scope="module", autouse=True)
def _warm(pool: WorkerPool) -> Iterator[None]:
    """Let commands share the workers of the session, instead of starting their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgekit.workers.pool.WorkerPool", lambda **_: contextlib.nullcontext(pool))
        yield


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, _warm: None) -> Path:
    """Return a project with a model that the file net.py builds, exported to ONNX. Copy it to change it."""
    root = tmp_path_factory.mktemp("exported")
    (root / "net.py").write_text(NETWORK)
    np.savez(root / "x.npz", x=np.random.default_rng(0).normal(size=(16, 3)).astype(np.float32))
    with contextlib.chdir(root):
        answer = call("export", "net.py:build", "--input", "x:batch,3", "--target", "onnx:float32")
    assert answer.code == 0, answer.err
    return root


@pytest.fixture
def root(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of the project, which is the current folder."""
    shutil.copytree(exported, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


def artifact(root: Path) -> Path:
    return root / "build/net/torch/onnx-float32"


def change_record(root: Path, **values: object) -> None:
    path = root / "build/net/torch/source/source.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def refused(*arguments: object) -> str:
    answer = call(*arguments)
    assert answer.code == 2, answer.err
    return answer.err


COMMANDS = {
    "diff": lambda root: ("diff", artifact(root)),
    "export": lambda root: ("export", "net", "--target", "torchscript:float32"),
    "compare": lambda root: ("compare", root / "build/net/torch/source", artifact(root), "--samples", root / "x.npz"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_the_same_code_inside_the_project_is_run_again(root: Path, command: str) -> None:
    answer = call(*COMMANDS[command](root))
    assert answer.code == 0, answer.err


@pytest.mark.parametrize("command", COMMANDS)
def test_code_that_has_changed_is_not_run(root: Path, command: str) -> None:
    (root / "net.py").write_text(NETWORK + EVIL)
    sentence = "net: net.py has changed since these weights were imported; run: edgekit export net.py:build --name net"
    assert sentence in refused(*COMMANDS[command](root))
    assert not (root / "canary").exists()


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("place", ["absolute", "above", "link"])
def test_code_outside_the_project_is_not_run(root: Path, tmp_path: Path, command: str, place: str) -> None:
    evil = tmp_path / "evil.py"
    evil.write_text(NETWORK + EVIL)
    (root / "link.py").symlink_to(evil)
    where = {"absolute": str(evil), "above": "../evil.py", "link": "link.py"}[place]
    change_record(root, code=f"{where}:build", code_sha256=hashlib.sha256(evil.read_bytes()).hexdigest())
    said = refused(*COMMANDS[command](root))
    assert f"its record names the code {where}:build, which is not inside {root}" in said
    assert list(tmp_path.rglob("canary")) == []


@pytest.mark.parametrize("module", ["os:abort", "..evil:build", "/tmp/evil:build", "json:loads"])
def test_a_module_that_is_not_in_the_project_is_not_run(root: Path, module: str) -> None:
    change_record(root, code=module, code_sha256=None)
    assert f"its record names the code {module}, which is not inside" in refused("diff", artifact(root))


def test_a_module_of_the_project_is_run_while_it_is_the_same(root: Path) -> None:
    (root / "package").mkdir()
    (root / "package/__init__.py").touch()
    (root / "package/nets.py").write_text(NETWORK)
    module = ("package.nets:build", "--name", "net", "--input", "x:batch,3")
    assert call("export", *module, "--target", "onnx:float32").code == 0
    assert call("diff", artifact(root)).code == 0
    (root / "package/nets.py").write_text(NETWORK + EVIL)
    assert "nets.py has changed since these weights were imported" in refused("diff", artifact(root))
    assert not (root / "package/canary").exists()


def test_a_module_of_the_project_that_another_one_hides_is_not_run(root: Path) -> None:
    (root / "json").mkdir()
    (root / "json/__init__.py").write_text(NETWORK)
    change_record(root, code="json:build", code_sha256=hashlib.sha256(NETWORK.encode()).hexdigest())
    said = refused("diff", artifact(root))
    assert "json: there is no function build() in this module" in said or "another module of this name hides" in said


def test_code_outside_the_project_is_run_when_the_user_names_it(root: Path, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NETWORK)
    named = ("export", "../net.py:build", "--input", "x:batch,3")
    assert call(*named, "--target", "onnx:float32").code == 0
    assert "list it in edgekit.toml" in refused("diff", artifact(root))
    (root / "edgekit.toml").write_text('[[models]]\npath = "../net.py:build"\nframework = "torch"\n')
    assert call("diff", artifact(root)).code == 0
    (tmp_path / "net.py").write_text(NETWORK + EVIL)
    assert "net.py has changed since these weights were imported" in refused("diff", artifact(root))
    assert list(tmp_path.rglob("canary")) == []


@pytest.mark.parametrize("file", ["../../../../../secret", "/etc/passwd"])
def test_weights_outside_the_source_folder_are_not_read(root: Path, file: str) -> None:
    change_record(root, file=file)
    assert "source.json: file: " in refused("diff", artifact(root))
