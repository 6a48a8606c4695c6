"""Tests of the plain data of tracking: URIs, valid names, digests and the step that logs."""

import json
import re
from dataclasses import replace

import pytest

from edgekit.core.build.graph import Graph, Step
from edgekit.core.errors import InputError
from edgekit.core.escape import mlflow_name
from edgekit.stages.tracking.settings import (
    Point,
    TrackedRun,
    Tracking,
    TrackingResult,
    display_uri,
    parse_uri,
    tracking,
    tracking_of,
    tracking_step,
    with_tracking,
)


@pytest.mark.parametrize(
    "text",
    [
        "http://127.0.0.1:5000",
        "https://name:word@host/path",
        "databricks",
        "databricks://profile",
        "sqlite:///mlflow.db",
        "postgresql+psycopg2://host/runs",
    ],
)
def test_a_uri_that_mlflow_supports_is_not_changed(text, tmp_path):
    assert parse_uri(text, tmp_path) == text


@pytest.mark.parametrize("text", ["my runs", "file:my%20runs", "./my runs", "{whole}", "{uri}"])
def test_a_folder_becomes_a_file_uri_with_its_absolute_path(text, tmp_path):
    uri = parse_uri(text.format(whole=tmp_path / "my runs", uri=(tmp_path / "my runs").as_uri()), tmp_path)
    assert uri == (tmp_path / "my runs").as_uri()
    assert display_uri(uri) == str(tmp_path / "my runs")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "the MLflow URI is ''; use a server (http://host:5000), a folder"),
        (" x", "the MLflow URI is ' x'"),
        ("localhost:5000", "'localhost:5000' has no scheme; did you mean http://localhost:5000?"),
        ("127.0.0.1:5000/api", "did you mean http://127.0.0.1:5000/api?"),
        ("http://", "has no server name"),
        ("http://name:word@", "the MLflow URI 'http://' has no server name"),
        ("http://host:99999", "is invalid (Port out of range"),
        ("htps://name:word@host", "'htps://host' is not a valid MLflow URI"),
        ("htps://host", "nearest: https"),
        ("file://host/runs", "'file://host/runs' is not a valid MLflow URI"),
        ("taken", "is a file, but MLflow needs a folder for its runs"),
    ],
)
def test_an_invalid_uri_is_reported_in_one_sentence(text, sentence, tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(InputError) as caught:
        parse_uri(text, tmp_path)
    assert sentence in str(caught.value)
    assert "word" not in str(caught.value)


def test_no_password_is_shown():
    assert display_uri("https://name:word@host:80/path") == "https://host:80/path"
    assert display_uri("postgresql://name:word@host/runs") == "postgresql://host/runs"


def test_the_experiment_has_the_name_of_the_folder_by_default(tmp_path):
    root = tmp_path / "detector"
    assert tracking("runs", None, root, tmp_path).experiment == "detector"
    assert tracking("runs", "edge", root, tmp_path) == Tracking((tmp_path / "runs").as_uri(), "edge", True)
    with pytest.raises(InputError, match="name of the experiment is empty"):
        tracking("runs", " ", root, tmp_path)


@pytest.mark.parametrize("part", ["raspberry-pi-4b", "latency_ms.host", "a b"])
def test_a_legal_name_is_kept(part):
    assert mlflow_name("x", part) == f"x/{part}"


AWKWARD = ("a/b", "a:b", "ä", "", ".", "..", " a", "a ", "x" * 300, "StatefulPartitionedCall:0")


def test_every_other_name_becomes_a_distinct_legal_one():
    names = [mlflow_name(part) for part in AWKWARD]
    assert len(set(names)) == len(AWKWARD)
    assert all(re.fullmatch(r"[A-Za-z0-9_.\- ]+-[0-9a-f]{6}", name) and len(name) < 100 for name in names)


RUN = TrackedRun("net", {"a": "b"}, {"c": "d"}, (Point("loss", 0.5, 1),), texts={"e.json": "{}"})


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"tags": {"a": "c"}},
        {"params": {}},
        {"metrics": (Point("loss", 0.5, 2),)},
        {"metrics": (Point("loss", 0.6, 1),)},
        {"texts": {"e.json": "[]"}},
        {"below": "x"},
    ],
    ids=str,
)
def test_all_logged_content_is_in_the_digest(change):
    assert replace(RUN, **change).digest != RUN.digest


def test_a_file_is_in_the_digest_by_name_and_content(tmp_path):
    file = tmp_path / "manifest.json"
    file.write_text("{}")
    before = replace(RUN, files=(file,)).digest
    assert before != RUN.digest
    assert replace(RUN, files=(file,), model_files=(file,), labels={"edgekit.version": "9"}).digest == before
    file.write_text("[]")
    assert replace(RUN, files=(file,)).digest != before


EXPORT = Step("export net/onnx onnx:int8", "export", "f/manifest.json", "f", arguments={"model": "net"})
BENCH = Step(
    "bench net/onnx onnx:int8 on board", "bench", "f/bench-board.json", arguments={"folder": "f", "device": "board"}
)
REPORT = Step("report json r.json", "report", "r.json")


def test_the_step_has_the_emulated_validations_and_layer_wise_diffs_of_an_artifact():
    arguments = {"folder": "f", "device": "board"}
    steps = [Step("a", "validate", "f/v.json", arguments={"folder": "f"}), EXPORT]
    steps += [Step("b", "validate", "f/w.json", arguments=arguments)]
    steps += [Step("c", "diff", "f/l.json", arguments=arguments)]
    (artifact,) = tracking_step(steps, Tracking("http://host", "edge", False)).arguments["artifacts"]
    assert (artifact["devices"], artifact["emulated"], artifact["layers"]) == ([], ["board"], True)


def test_the_step_reads_the_outputs_of_all_others_and_runs_after_them():
    chosen = Tracking("http://name:word@host", "edge", False)
    graph = with_tracking(with_tracking(Graph((EXPORT, BENCH, REPORT)), Tracking("http://other", "x")), chosen)
    step = graph.steps[-1]
    assert [entry.kind for entry in graph.steps] == ["export", "bench", "report", "track"]
    assert step.after == (EXPORT.name, BENCH.name)
    assert [read.path for read in step.reads] == ["f/manifest.json", "f/bench-board.json"]
    assert step.arguments["artifacts"] == [
        {"model": "net", "folder": "f", "devices": ["board"], "emulated": [], "layers": False}
    ]
    assert tracking_of(step) == chosen
    assert "word" not in json.dumps(step.values)  # `values` are written to records
    assert step.kind.runs_last


def test_a_summary_counts_the_runs_by_state():
    from edgekit.stages.tracking.settings import LoggedRun

    runs = (LoggedRun("a", "1", "new"), LoggedRun("b", "2", "there"), LoggedRun("c", "3", "completed"))
    assert TrackingResult("/runs", "edge", "0", runs).summary == (
        "1 runs logged, 1 completed, 1 already there in the experiment edge at /runs"
    )
