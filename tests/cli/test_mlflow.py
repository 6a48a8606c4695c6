"""Logging to MLflow through its library: results of build/ are logged exactly once, and failures lose nothing."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from _helpers.support import Answer, call, spawn
from onnx import TensorProto, helper, numpy_helper

pytestmark = pytest.mark.slow

FIXTURES = Path(__file__).parents[1] / "fixtures"
VARIANTS = ("torchscript-float32", "onnx-int8")
DEVICE = "raspberry-pi-4b"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a project with a trained model and two artifacts, validated and benched; tests must not change it."""
    root = tmp_path_factory.mktemp("tracked") / "edge"
    root.mkdir()
    chosen = ("--framework", "torch", "--root", root)
    targets = ("--target", "torchscript:float32", "--target", "onnx:int8")
    for arguments in (
        ("train", "linear", "--epochs", "3", *chosen),
        ("export", "linear", *targets, *chosen),
        ("validate", "linear", *chosen),
        ("bench", "linear", "--device", DEVICE, "--min-duration", "0", "--min-runs", "5", *chosen),
    ):
        answer = call(*arguments)
        assert answer.code == 0, answer.err
    return root


@pytest.fixture
def root(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "edge"))


class Store:
    """Tracking folder, read with MLflow's own client."""

    def __init__(self, folder: Path) -> None:
        from mlflow import MlflowClient

        self.client: Any = MlflowClient(folder.as_uri())

    def runs(self, experiment: str = "edge") -> dict[str, list[Any]]:
        """Return the runs of an experiment by name, oldest first."""
        found = self.client.get_experiment_by_name(experiment)
        runs: dict[str, list[Any]] = {}
        for run in self.client.search_runs([found.experiment_id], order_by=["attributes.start_time ASC"]):
            runs.setdefault(run.info.run_name, []).append(run)
        return runs

    def files(self, run: Any, folder: str | None = None) -> set[str]:
        return {item.path for item in self.client.list_artifacts(run.info.run_id, folder)}

    def history(self, run: Any, name: str) -> list[tuple[int, float]]:
        return [(item.step, item.value) for item in self.client.get_metric_history(run.info.run_id, name)]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    return Store(tmp_path / "runs")


def log(root: Path, *arguments: object) -> Answer:
    return call("report", "--root", root, "--mlflow", root.parent / "runs", *arguments)


def read(path: Path) -> Any:
    return json.loads(path.read_text())


@pytest.mark.exhaustive
def test_every_figure_of_build_is_logged(root: Path, store: Store) -> None:
    answer = log(root)
    assert answer.code == 0, answer.err
    assert f"done    track mlflow: 3 runs logged in the experiment edge at {root.parent}/runs" in answer.err
    runs = store.runs()
    assert {name: len(found) for name, found in runs.items()} == {
        "linear/torch": 1,
        "linear/torch torchscript:float32": 1,
        "linear/torch onnx:int8": 1,
    }
    (run,) = runs["linear/torch onnx:int8"]
    folder = root / "build/linear/torch/onnx-int8"
    manifest, validation = read(folder / "manifest.json"), read(folder / "validation.json")
    bench = read(folder / f"bench-{DEVICE}.json")
    metrics, params, tags = run.data.metrics, run.data.params, run.data.tags
    for figure in validation["comparisons"][0]["figures"]:
        assert metrics[figure["name"]] == figure["value"]
    assert metrics["size_bytes"] == manifest["size_bytes"] == (folder / "model.onnx").stat().st_size
    assert [metrics[f"mae{name}"] for name in ("", "_source", "_drop")] == [
        validation["drift"][name] for name in ("artifact", "source", "drop")
    ]
    for percentile in ("p50_ms", "p90_ms", "p99_ms"):
        assert metrics[f"{DEVICE}/latency_host_{percentile}"] == bench["wall"][percentile]
    assert metrics[f"{DEVICE}/latency_analytic_ms"] == bench["latency_ms"]["analytic"]
    assert metrics[f"{DEVICE}/peak_memory_bytes"] == max(
        bench["peak_memory_load_bytes"], bench["peak_memory_run_bytes"]
    )
    assert (metrics["equivalent"], metrics["passed"], metrics["check/equivalence"]) == (1, 1, 1)
    assert metrics[f"{DEVICE}/check_peak_memory_bytes"] == 1
    assert (tags["sha256"], tags["route"], tags["devices"]) == (manifest["sha256"], "torch -> onnx", DEVICE)
    assert (tags["model"], tags["framework"], tags["variant"]) == ("linear", "torch", "onnx:int8")
    assert params["version/onnx"] == manifest["versions"]["onnx"]
    assert params["calibration_samples"] == str(manifest["calibration"]["samples"])
    assert (params[f"{DEVICE}/threads"], params[f"{DEVICE}/host"]) == (str(bench["threads"]), bench["host"])


def test_the_training_is_the_parent_run(root: Path, store: Store) -> None:
    log(root)
    runs = store.runs()
    (parent,) = runs["linear/torch"]
    source = read(root / "build/linear/torch/source/source.json")
    assert len(source["history"]["loss"]) == 3
    for name in ("loss", "mae"):
        assert store.history(parent, f"train/{name}") == list(enumerate(source["history"][name], 1))
    assert parent.data.metrics["mae"] == source["metric_value"]
    assert parent.data.metrics["training_seconds"] == source["training"]["seconds"]
    assert parent.data.params["seed"] == str(source["training"]["seed"])
    assert parent.inputs.dataset_inputs[0].dataset.name == source["data"]["name"]
    assert store.files(parent) == {"source.json", "report.html"}
    children = [run for name, (run,) in runs.items() if name != "linear/torch"]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}


def test_downloaded_files_are_an_artifact(root: Path, store: Store) -> None:
    """The golden samples are included, so that a downloaded artifact can be validated."""
    log(root)
    (run,) = store.runs()["linear/torch torchscript:float32"]
    folder = store.client.download_artifacts(run.info.run_id, "artifact", str(root.parent))
    answer = call("validate", folder, "--root", root, "--json")
    assert (answer.code, answer.data["validations"][0]["passed"]) == (0, True)


@pytest.mark.exhaustive
def test_model_files_can_be_left_out_and_come_later(root: Path, store: Store) -> None:
    log(root, "--no-model-files")
    (run,) = store.runs()["linear/torch onnx:int8"]
    known = {"artifact/manifest.json", "artifact/validation.json", f"artifact/bench-{DEVICE}.json"}
    assert store.files(run, "artifact") == known
    assert "3 already there" in log(root, "--no-model-files").err
    assert "0 runs logged, 2 completed, 1 already there" in log(root).err
    assert store.files(run, "artifact") == known | {"artifact/model.onnx", "artifact/golden.npz"}
    assert store.history(run, "size_bytes") == [(0, run.data.metrics["size_bytes"])]
    assert {name: len(found) for name, found in store.runs().items()} == dict.fromkeys(store.runs(), 1)


@pytest.mark.exhaustive
def test_logging_twice_makes_no_duplicates_and_a_changed_figure_is_a_new_run(root: Path, store: Store) -> None:
    log(root)
    before = store.runs()
    answer = log(root)
    assert "0 runs logged, 3 already there" in answer.err
    assert {name: [run.info.run_id for run in found] for name, found in store.runs().items()} == {
        name: [run.info.run_id for run in found] for name, found in before.items()
    }
    path = root / "build/linear/torch/onnx-int8/validation.json"
    data = read(path)
    data["drift"]["artifact"] += 0.125
    path.write_text(json.dumps(data))
    assert "1 runs logged, 2 already there" in log(root).err
    old, new = store.runs()["linear/torch onnx:int8"]
    assert new.data.metrics["mae"] == data["drift"]["artifact"] == old.data.metrics["mae"] + 0.125
    assert new.data.tags["mlflow.parentRunId"] == old.data.tags["mlflow.parentRunId"]


@pytest.mark.exhaustive
def test_a_run_whose_writer_was_killed_is_logged_again(root: Path, store: Store) -> None:
    """MLflow's search stops at the empty file that a killed process leaves in a folder."""
    log(root)
    (run,) = store.runs()["linear/torch onnx:int8"]
    folder = root.parent / "runs" / run.info.experiment_id / run.info.run_id
    (folder / "tags/edgekit.model_files").unlink()
    (folder / "metrics/size_bytes").write_text("")
    (folder / "params/seed").write_text("")
    writer = folder / "tags/edgekit.writer"
    own = writer.read_text()
    writer.write_text(f"elsewhere {own.split()[1]}")
    answer = log(root)  # edgekit cannot know whether that writer is still alive
    assert (answer.code, folder.is_dir()) == (4, True)
    writer.write_text(own)
    answer = log(root)
    assert "1 runs logged, 2 already there" in answer.err
    (again,) = store.runs()["linear/torch onnx:int8"]
    assert again.info.run_id != run.info.run_id
    assert again.data.metrics["size_bytes"] == run.data.metrics["size_bytes"]


def test_a_run_that_was_cut_short_is_completed(root: Path, store: Store) -> None:
    log(root)
    ((parent,), (child,)) = (store.runs()[name] for name in ("linear/torch", "linear/torch onnx:int8"))
    for run, metric in ((parent, "train/loss"), (child, "size_bytes")):
        store.client.set_terminated(run.info.run_id, "KILLED")
        folder = root.parent / "runs" / run.info.experiment_id / run.info.run_id
        (folder / "metrics" / metric).unlink()
        shutil.rmtree(folder / "artifacts")
        (folder / "artifacts").mkdir()
    assert "0 runs logged, 2 completed, 1 already there" in log(root).err
    runs = store.runs()
    assert {run.info.status for found in runs.values() for run in found} == {"FINISHED"}
    assert {len(found) for found in runs.values()} == {1}
    assert [step for step, _ in store.history(parent, "train/loss")] == [1, 2, 3]
    assert [step for step, _ in store.history(parent, "train/mae")] == [1, 2, 3]
    assert len(store.history(child, "size_bytes")) == 1
    assert "artifact/model.onnx" in store.files(child, "artifact")


def test_a_run_whose_parent_was_deleted_gets_the_new_parent(root: Path, store: Store) -> None:
    log(root)
    (old,) = store.runs()["linear/torch"]
    store.client.delete_run(old.info.run_id)
    assert "1 runs logged, 2 already there" in log(root).err
    (new,) = store.runs()["linear/torch"]
    (child,) = store.runs()["linear/torch onnx:int8"]
    assert child.data.tags["mlflow.parentRunId"] == new.info.run_id != old.info.run_id


def test_results_of_an_earlier_model_file_are_not_logged(root: Path, store: Store) -> None:
    path = root / "build/linear/torch/onnx-int8/validation.json"
    path.write_text(json.dumps(read(path) | {"artifact_sha256": "0" * 64}))
    log(root)
    (run,) = store.runs()["linear/torch onnx:int8"]
    assert {"mae", "max_abs_error", "equivalent"}.isdisjoint(run.data.metrics)
    assert (run.data.metrics["check/equivalence"], run.data.metrics["passed"]) == (0, 0)


def test_a_damaged_model_file_is_not_logged(root: Path, store: Store) -> None:
    path = root / "build/linear/torch/onnx-int8/model.onnx"
    path.write_bytes(path.read_bytes()[:-1])
    answer = log(root, "--target", "onnx:int8")
    assert answer.code == 2
    assert "it is truncated or was replaced" in answer.err
    assert set(store.runs()) == {"linear/torch"}


@pytest.mark.exhaustive
def test_the_experiment_can_be_named_and_a_deleted_one_is_reported(root: Path, store: Store) -> None:
    log(root, "--experiment", "of the edge")
    found = store.client.get_experiment_by_name("of the edge")
    assert len(store.runs("of the edge")) == 3
    store.client.delete_experiment(found.experiment_id)
    answer = log(root, "--experiment", "of the edge")
    assert answer.code == 2
    assert "the experiment 'of the edge' was deleted in MLflow" in answer.err


BAD = {
    "localhost:5000": "did you mean http://localhost:5000?",
    "htps://host": "nearest: https",
    "": "the MLflow URI is ''",
}


@pytest.mark.parametrize(("uri", "sentence"), BAD.items(), ids=BAD)
def test_a_bad_uri_is_refused_before_anything_is_done(root: Path, pipeline: Path, uri: str, sentence: str) -> None:
    for command, folder in (("report", root), ("run", pipeline)):
        answer = call(command, "--root", folder, "--mlflow", uri)
        assert (answer.code, answer.out) == (2, "")
        assert sentence in answer.err
    assert not (pipeline / "build/net").exists()


def test_options_without_effect_are_refused(root: Path) -> None:
    answer = call("report", "--root", root, "--experiment", "x")
    assert (answer.code, answer.out) == (2, "")
    assert "have no effect without --mlflow; add: --mlflow URI" in answer.err
    answer = call("report", "--root", root, "--mlflow", "x", "--compare", "a", "b")
    assert answer.code == 2
    assert "cannot be combined with --baseline, --mlflow" in answer.err


class Refusing(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = json.dumps({"error_code": "PERMISSION_DENIED", "message": "not for you"}).encode()
        self.send_response(403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def refusing() -> Iterator[str]:
    """Yield the URI, with a password, of a server that refuses every request."""
    with HTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://somebody:secret@127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_server_that_refuses_is_one_sentence_without_the_password(root: Path, refusing: str) -> None:
    answer = call("report", "--root", root, "--mlflow", refusing, "--json")
    assert answer.code == 4
    assert "PERMISSION_DENIED: not for you" in answer.err
    assert answer.err.count("\n") == 1
    assert "secret" not in answer.err
    assert len(answer.data["artifacts"]) == 2  # the report is printed nevertheless


def test_an_unreachable_server_is_reported_at_once(root: Path) -> None:
    with HTTPServer(("127.0.0.1", 0), Refusing) as server:
        uri = f"http://127.0.0.1:{server.server_port}"
    answer = call("report", "--root", root, "--mlflow", uri, "--json")
    assert answer.code == 4
    assert answer.err == f"failed  MLflow at {uri} cannot be reached: connection refused; nothing was logged\n"
    assert len(answer.data["artifacts"]) == 2


def test_a_folder_that_cannot_be_created_is_refused(root: Path) -> None:
    (root.parent / "file").write_text("")
    answer = call("report", "--root", root, "--mlflow", root.parent / "file" / "runs")
    assert answer.code == 2
    assert f"cannot write {root.parent}/file/runs: not a directory" in answer.err


def test_a_database_without_its_packages_is_exit_3(root: Path) -> None:
    answer = call("report", "--root", root, "--mlflow", f"sqlite:///{root.parent}/x.db")
    assert answer.code == 3
    assert "MLflow in a database (sqlite) needs the full MLflow package; run: pip install mlflow" in answer.err


def test_without_mlflow_it_is_exit_3_with_the_pip_command(root: Path) -> None:
    path = os.pathsep.join([str(FIXTURES / "without_mlflow"), *filter(None, [os.environ.get("PYTHONPATH")])])
    child = spawn("report", "--root", root, "--mlflow", "x", env={"PYTHONPATH": path})
    out, err = child.communicate(timeout=60)
    assert (child.returncode, out) == (3, "")
    assert err == "Error: --mlflow needs mlflow-skinny; install it with: pip install 'edgekit[mlflow]'\n"


CONFIG = """\
variants = ["onnx:float32"]

[[models]]
path = "net.onnx"
sample = "inputs.npz"

[[budgets]]
size = "10 KB"
"""


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    """Return a project with a pipeline and a model of one matrix product."""
    root = tmp_path / "pipeline" / "edge"
    root.mkdir(parents=True)
    weights = numpy_helper.from_array(np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32), "w")
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", size]) for name, size in (("x", 8), ("y", 4))
    )
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "net", [x], [y], [weights])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), root / "net.onnx")
    np.savez(root / "inputs.npz", x=np.random.default_rng(1).normal(size=(96, 8)).astype(np.float32))
    (root / "edgekit.toml").write_text(CONFIG)
    return root


def states(answer: Answer) -> dict[str, str]:
    return {item["step"].partition(" ")[0]: item["state"] for item in answer.data["steps"]}


def test_a_run_logs_its_results_only_if_something_changed(pipeline: Path, store: Store) -> None:
    with (pipeline / "edgekit.toml").open("a") as stream:
        stream.write('\n[mlflow]\nuri = "../../runs"\nexperiment = "pipeline"\n')
    answer = call("run", "--root", pipeline, "--json")
    assert answer.code == 0, answer.err
    assert states(answer)["track"] == "done"
    (run,) = store.runs("pipeline")["net/onnx onnx:float32"]
    assert run.data.metrics["check/size_bytes"] == 1  # of the budget in edgekit.toml
    receipt = read(pipeline / "build/mlflow.json")
    assert run.info.run_id in [item["run_id"] for item in receipt["runs"]]
    assert set(states(call("run", "--root", pipeline, "--json")).values()) == {"up to date"}
    text = (pipeline / "edgekit.toml").read_text()
    (pipeline / "edgekit.toml").write_text(text.replace('size = "10 KB"', 'size = "100 B"'))
    answer = call("run", "--root", pipeline, "--json")
    assert answer.code == 1
    assert (states(answer)["export"], states(answer)["track"]) == ("up to date", "done")
    _, run = store.runs("pipeline")["net/onnx onnx:float32"]
    assert (run.data.metrics["check/size_bytes"], run.data.metrics["passed"]) == (0, 0)


def test_a_run_whose_server_is_gone_keeps_its_work_and_logs_the_next_time(pipeline: Path, store: Store) -> None:
    with HTTPServer(("127.0.0.1", 0), Refusing) as server:
        uri = f"http://127.0.0.1:{server.server_port}"
    answer = call("run", "--root", pipeline, "--mlflow", uri, "--json")
    assert answer.code == 4
    assert "cannot be reached" in answer.err
    others = {name: state for name, state in states(answer).items() if name != "track"}
    assert (set(others.values()), states(answer)["track"]) == ({"done"}, "failed")
    answer = call("run", "--root", pipeline, "--mlflow", pipeline.parents[1] / "runs", "--json")
    assert answer.code == 0, answer.err
    assert set(states(answer).items()) == {*dict.fromkeys(others, "up to date").items(), ("track", "done")}
    assert set(store.runs()) == {"net/onnx", "net/onnx onnx:float32"}


@pytest.mark.parametrize(
    ("uri", "sentence"),
    [
        ("localhost:5000", "the MLflow URI 'localhost:5000' has no scheme"),
        ("http://somebody:secret@host", "do not store a password in this file; set MLFLOW_TRACKING_USERNAME"),
    ],
)
def test_a_bad_uri_in_the_file_has_its_line(pipeline: Path, uri: str, sentence: str) -> None:
    with (pipeline / "edgekit.toml").open("a") as stream:
        stream.write(f'\n[mlflow]\nuri = "{uri}"\n')
    answer = call("run", "--root", pipeline)
    assert answer.code == 2
    assert f"edgekit.toml: line 11: mlflow.uri: {sentence}" in answer.err
    assert "secret" not in answer.err
    assert not (pipeline / "build").exists()
