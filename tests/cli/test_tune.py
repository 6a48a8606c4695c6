"""`edgekit tune`, and exporting again with its recipe."""

import contextlib
import json
import shutil
import signal
from pathlib import Path

import pytest
from _helpers.support import call, spawn

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def _warm(pool):
    """Let commands share the workers of the session, instead of starting their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgekit.workers.pool.WorkerPool", lambda **_: contextlib.nullcontext(pool))
        yield


@pytest.fixture
def root(broken: Path, tmp_path: Path) -> Path:
    source = "build/broken/keras/source"
    shutil.copytree(broken / source, tmp_path / source)
    return tmp_path


def folders(root):
    return sorted(path.name for path in (root / "build/broken/keras").iterdir())


@pytest.mark.exhaustive
def test_a_user_model_is_tuned_exported_again_and_checked(broken, tmp_path):
    answer = call(
        "tune",
        broken / "broken.keras",
        "--sample",
        broken / "samples.npz",
        "--root",
        tmp_path,
        "--prefer",
        "size",
        "--json",
    )
    assert answer.code == 0, answer.err
    found = answer.data
    folder = Path(found["artifact"]["folder"])
    # The smallest file that is accurate: which precision that is depends on the length of the tensors' names.
    precision = found["winner"]["recipe"]["precision"]
    assert precision in ("int8", "int16x8")
    assert folder == tmp_path / f"build/broken/keras/tflite-{precision}-tuned"
    tuned = f"tflite:{precision}-tuned"
    assert found["winner"]["sha256"] == found["artifact"]["manifest"]["sha256"]
    assert found["winner"]["sha256"] in found["front"]
    assert {item["recipe"]["precision"] for item in found["candidates"]} == {
        "float32",
        "float16",
        "dynamic",
        "int8",
        "int16x8",
        "int4",
    }
    assert found["sensitivities"][0]["unit"]["names"] == ["0:CONV_2D", "1:CONV_2D"]

    recipe = shutil.copy(folder / "recipe.json", tmp_path / "mine.json")
    before = (folder / "model.tflite").read_bytes()
    shutil.rmtree(folder)
    usual = call("export", "broken", "--target", "tflite:int8", "--root", tmp_path)
    again = call("export", "broken", "--recipe", recipe, "--root", tmp_path, "--json")
    assert (usual.code, again.code) == (0, 0), again.err
    assert (folder / "model.tflite").read_bytes() == before
    assert (tmp_path / "build/broken/keras/tflite-int8/model.tflite").read_bytes() != before

    validated = call("validate", "broken", "--root", tmp_path)
    assert validated.code == 1  # the usual int8 is broken
    assert tuned in validated.out
    only = call("validate", "broken", "--target", tuned, "--root", tmp_path, "--json")
    assert only.code == 0
    assert [item["tag"] for item in only.data["validations"]] == ["tuned"]
    checked = call("check", "broken", "--max-size", "27 KB", "--root", tmp_path, "--json")
    passed = {(item["variant"], item["rule"]): item["passed"] for item in checked.data["verdicts"]}
    assert passed["tflite:int8", "equivalence"] is False
    assert passed[tuned, "equivalence"] is True
    assert passed[tuned, "size_bytes"] is True
    benched = call("bench", "broken", "--target", tuned, "--min-duration", "0", "--min-runs", "3", "--root", tmp_path)
    assert benched.code == 0, benched.err
    assert tuned in benched.out
    report = call("report", "--root", tmp_path)
    assert {"tflite:int8", tuned} <= set(report.out.split())


def test_candidates_sensitivities_and_the_export_command_are_printed(root):
    answer = call("tune", "broken", "--target", "onnx", "--max-drop", "2%", "--prefer", "size", "--root", root)
    assert answer.code == 0, answer.err
    assert "drop: accuracy on 580 test samples" in answer.out
    assert "layers kept in float" in answer.out
    assert "BEST" in answer.out
    assert "drop outputs" in answer.out
    assert "reproduce it with: edgekit export broken --recipe " in answer.out
    assert all(len(line) <= 100 for line in answer.out.split("best by")[0].splitlines())
    assert "tune broken/keras onnx: int8" in answer.err


def test_if_no_candidate_meets_the_limits_the_nearest_is_printed_with_its_excess(root):
    answer = call("tune", "broken", "--max-size", "10KB", "--time-limit", "1ms", "--root", root)
    assert answer.code == 1
    assert "NOTHING meets the limits; nearest is tflite:float32: size 80.5 KB is 70.5 KB too large" in answer.out
    assert folders(root) == ["source"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("broken", "--max-drop", "1"), "--max-drop: '1' is not a percentage; write a number and %, such as 2%"),
        (("broken", "--max-size", "300"), "--max-size: '300' is not a size"),
        (("broken", "--max-latency", "fast"), "--max-latency: 'fast' is not a duration"),
        (("broken", "--device", "abacus"), "unknown device 'abacus'"),
        (("broken", "--target", "papyrus"), "unknown target 'papyrus'"),
        (("broken", "--tier", "emulated"), "the emulated tier needs a device; pass --device NAME"),
        (("borken",), "unknown model 'borken'"),
        (("broken", "--framework", "torch"), "broken is not imported as a torch model; imported as: keras"),
    ],
)
def test_bad_options_are_refused_in_a_sentence(root, arguments, sentence):
    answer = call("tune", *arguments, "--root", root)
    assert answer.code == 2
    assert sentence in answer.err
    assert folders(root) == ["source"]


@pytest.mark.parametrize(
    ("recipe", "arguments", "sentence"),
    [
        ({"target": "tflite", "precision": "int8", "float_layers": ["CONV_2D"]}, (), "names a layer 'CONV_2D' that"),
        ({"target": "tflite", "precision": "int8", "layers": []}, (), "layers: unknown key; allowed: "),
        ({"target": "papyrus", "precision": "int8"}, (), "unknown target 'papyrus'"),
        (
            {"target": "onnx", "precision": "int8", "int16_layers": ["x"]},
            (),
            "onnx does not support int16_layers in a recipe; keep these layers in float_layers",
        ),
        (
            {"target": "tflite", "precision": "int8"},
            ("--target", "onnx"),
            "a recipe already sets the target",
        ),
        (
            {"target": "tflite", "precision": "int8", "calibration_samples": 9999},
            (),
            "9999 calibration samples requested, but",
        ),
    ],
)
def test_bad_recipes_are_refused_in_a_sentence(root, tmp_path, recipe, arguments, sentence):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(recipe))
    answer = call("export", "broken", "--recipe", path, *arguments, "--root", root)
    assert answer.code == 2
    assert sentence in answer.err
    assert folders(root) == ["source"]


def test_an_interrupt_leaves_no_partial_results(root, tmp_path):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with spawn("tune", "broken", "--root", root, env={"TMPDIR": str(scratch)}, start_new_session=True) as process:
        line = ""
        while "tune broken/keras tflite" not in line:
            line = process.stderr.readline()
            assert line, "it ended before it could be interrupted"
        assert list(scratch.iterdir())
        process.send_signal(signal.SIGINT)
        process.communicate()
    assert process.returncode == 130
    assert folders(root) == ["source"]
    assert list(scratch.iterdir()) == []
