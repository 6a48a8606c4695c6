"""Tests that the plug-ins keep edgekit's contracts: each class inherits a suite and names the plug-in under test."""

from __future__ import annotations

import sys

import pytest
from edgekit_example.command_executor import EXECUTOR, VARIABLE
from edgekit_example.external_onnx import TARGET
from edgekit_example.reference_runtime import RUNTIME

from edgekit.core.records.artifact import load_artifact
from edgekit.testing.contract import ExecutorContract, RuntimeContract, TargetContract


class TestExternalOnnx(TargetContract):
    target = TARGET

    def test_the_weights_are_stored_beside_the_graph(self, artifact):
        assert [file.path for file in artifact.manifest.files] == ["model.onnxe", "model.weights"]
        (artifact.folder / "model.weights").write_bytes(b"")
        with pytest.raises(Exception, match=r"model\.weights: the file has 0 bytes where manifest\.json says"):
            load_artifact(artifact.folder).verified_path()


class TestOnnxReference(RuntimeContract):
    runtime = RUNTIME


class TestCommand(ExecutorContract):
    executor = EXECUTOR

    @pytest.fixture(autouse=True)
    def command(self, monkeypatch):
        monkeypatch.setenv(VARIABLE, "nice -n 5")
        monkeypatch.setenv("EDGEKIT_COMMAND_PYTHON", sys.executable)

    def test_without_a_command_it_says_what_to_set(self, monkeypatch, place):
        monkeypatch.delenv(VARIABLE)
        assert EXECUTOR.refusal("onnxruntime", place) == "set EDGEKIT_COMMAND, for example to 'ssh board'"

    def test_a_command_that_does_not_exist_is_named(self, monkeypatch, session, model, place, request_to_bench):
        monkeypatch.setenv(VARIABLE, "no-such-command-anywhere")
        with (
            pytest.raises(Exception, match="no such command: no-such-command-anywhere; see EDGEKIT_COMMAND"),
            EXECUTOR.prepare(session, model, place, request_to_bench) as prepared,
        ):
            prepared.run()
