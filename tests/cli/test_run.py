"""`edgekit run`: which steps run, on a model of one matrix product that exports in a second."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from _helpers.support import REPOSITORY, call, spawn
from onnx import TensorProto, helper, numpy_helper

CONFIG = """\
variants = ["onnx:float32", "onnx:int8"]

[[models]]
path = "net.onnx"
sample = "inputs.npz"

[bench]
devices = ["board"]
min_duration_s = 0.0
min_runs = 5

[[budgets]]
size = "10 KB"

[[reports]]
format = "json"
path = "build/report.json"
"""

VARIANTS = ("onnx:float32", "onnx:int8")
BENCH = {variant: f"bench net/onnx {variant} on board" for variant in VARIANTS}
REPORT = "report json build/report.json"
FOLDER = "build/net/onnx/onnx-float32"


def of(*kinds, variants=VARIANTS):
    """Return the names of the steps of these kinds."""
    named = {kind: [f"{kind} net/onnx {variant}" for variant in variants] for kind in ("export", "validate", "check")}
    named |= {"bench": [BENCH[variant] for variant in variants], "import": ["import net/onnx"], "report": [REPORT]}
    return {name for kind in kinds for name in named[kind]}


EVERYTHING = of("import", "export", "validate", "bench", "check", "report")


def write_net(folder):
    """Write the ONNX model y = x W, with W in a separate file."""
    weights = numpy_helper.from_array(np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32), "w")
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", size]) for name, size in (("x", 8), ("y", 4))
    )
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "net", [x], [y], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "net.onnx", save_as_external_data=True, location="net.weights", size_threshold=0)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """Return a project in which all steps have run; tests must copy it to change it."""
    root = tmp_path_factory.mktemp("finished")
    (root / "edgekit.toml").write_text(CONFIG)
    write_net(root)
    np.savez(root / "inputs.npz", x=np.random.default_rng(1).normal(size=(96, 8)).astype(np.float32))
    profile = (REPOSITORY / "device_profiles/raspberry-pi-4b.toml").read_text()
    (root / "device_profiles").mkdir()
    (root / "device_profiles/board.toml").write_text(profile)
    answer = call("run", "--root", root, "--json")
    assert answer.code == 0, answer.err
    assert done(answer) == EVERYTHING
    return root


@pytest.fixture
def root(finished, tmp_path) -> Path:
    copied = Path(shutil.copytree(finished, tmp_path / "project"))
    time.sleep(0.05)  # files written within one tick of the file system's clock would be hashed again
    return copied


def done(answer, state="done"):
    return {step["step"] for step in answer.data["steps"] if step["state"] == state}


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def flip(path, position=0.5):
    content = bytearray(path.read_bytes())
    content[int(position * len(content))] ^= 1
    path.write_bytes(content)


def run(root, *arguments):
    return call("run", "--root", root, "--json", *arguments)


@pytest.mark.slow
def test_a_second_run_does_nothing_and_reads_nothing(root):
    first = run(root)  # the copy has other inodes: its files are looked at once
    assert (first.code, done(first, "up to date")) == (0, EVERYTHING)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file() and path.name != "lock"}
    answer = call("run", "--root", root)
    assert (answer.code, answer.out) == (0, f"nothing to do: {len(EVERYTHING)} steps are up to date\n")
    assert before == {
        path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file() and path.name != "lock"
    }


def test_the_results_are_where_the_other_commands_look_for_them(root):
    names = {path.name for path in (root / FOLDER).iterdir()}
    assert names == {"model.onnx", "manifest.json", "golden.npz", "validation.json", "bench-board.json", "check.json"}
    assert call("check", "net", "--root", root).code == 0
    report = json.loads((root / "build/report.json").read_text())
    assert len(report["artifacts"]) == 2


FLIPPED = {
    "net.onnx": of("import"),
    "net.weights": of("import"),
    "inputs.npz": of("import"),
    "device_profiles/board.toml": of("bench"),
    "build/net/onnx/source/golden.npz": of("import", "export"),
    "build/net/onnx/source/calibration.npz": of("import") | of("export", variants=VARIANTS[1:]),
}


@pytest.mark.parametrize(("file", "expected"), FLIPPED.items(), ids=FLIPPED)
def test_one_flipped_bit_of_an_input_is_a_reason_for_the_steps_that_read_it(root, file, expected):
    if file.endswith(".toml"):
        edit(root / file, "clock_mhz = 1500", "clock_mhz = 1501")
    else:
        flip(root / file)
    answer = run(root, "--dry-run")
    direct = {
        item["step"]
        for item in answer.data["steps"]
        if any("runs before it" not in reason for reason in item["reasons"])
    }
    assert (answer.code, direct) == (0, expected)
    assert done(answer) > expected


MADE = {
    f"{FOLDER}/model.onnx": of("export", variants=VARIANTS[:1]),
    f"{FOLDER}/manifest.json": of("export", variants=VARIANTS[:1]),
    f"{FOLDER}/golden.npz": of("export", variants=VARIANTS[:1]),
    f"{FOLDER}/validation.json": of("validate", variants=VARIANTS[:1]),
    f"{FOLDER}/check.json": of("check", variants=VARIANTS[:1]),
    "build/report.json": of("report"),
}


@pytest.mark.slow
@pytest.mark.parametrize("damage", [flip, lambda path: path.write_bytes(path.read_bytes()[:-7])], ids=["bit", "cut"])
@pytest.mark.parametrize(("file", "expected"), MADE.items(), ids=MADE)
def test_a_damaged_result_is_made_again_and_nothing_else(root, finished, file, expected, damage):
    """The same bytes result, so that no other step has a new input. An export's folder is replaced, so that what stood
    in it is made again too."""
    damage(root / file)
    answer = run(root)
    if expected == of("export", variants=VARIANTS[:1]):
        expected = of("export", "validate", "bench", "check", variants=VARIANTS[:1]) | of("report")
    assert (answer.code, done(answer)) == (0, expected)
    if "bench" not in file and file != "build/report.json":
        assert (root / file).read_bytes() == (finished / file).read_bytes()


def test_a_damaged_record_makes_its_step_run_again(root):
    (path,) = (root / "build/.edgekit/steps").glob("validate-*int8*")
    flip(path)
    assert done(run(root)) == of("validate", variants=VARIANTS[1:])


def test_a_changed_budget_runs_the_checks_and_the_report(root):
    edit(root / "edgekit.toml", '"10 KB"', '"20 KB"')
    assert done(run(root)) == of("check", "report")
    edit(root / "edgekit.toml", 'size = "20 KB"', 'variant = "*:int8"\nsize = "20 KB"')
    assert done(run(root)) == of("check", variants=VARIANTS[:1]) | of("report")


def test_a_budget_of_the_device_runs_the_checks_and_measures_nothing(root):
    edit(root / "device_profiles/board.toml", 'size = "20 MB"', 'size = "19 MB"')
    assert done(run(root)) == of("check", "report")


def test_a_comment_is_no_reason(root):
    for name in ("edgekit.toml", "device_profiles/board.toml"):
        (root / name).write_text(f"# hello\n{(root / name).read_text()}")
    assert done(run(root)) == set()


@pytest.mark.slow
def test_an_option_of_one_precision_runs_its_export_and_what_follows(root):
    (root / "edgekit.toml").write_text(f'{CONFIG}\n[[export]]\nvariant = "*:int8"\ncalibration_samples = 12\n')
    planned = run(root, "--dry-run").data["steps"]
    reason = next(item["reasons"] for item in planned if item["step"] == "export net/onnx onnx:int8")
    assert reason == ["options.calibration_samples changed"]
    assert done(run(root)) == of("export", "validate", "bench", "check", variants=VARIANTS[1:]) | of("report")


def test_another_version_of_a_tool_is_a_reason(root, monkeypatch):
    from edgekit.stages.pipeline import plan_builder

    known = plan_builder._version
    monkeypatch.setattr(
        plan_builder, "_version", lambda item: "99" if item.distribution == "onnxruntime" else known(item)
    )
    (root / "build/.edgekit/plan.json").unlink()  # the versions are installed ones: nothing tells it of this one
    answer = call("run", "--root", root, "--dry-run", "validate net/onnx onnx:int8")
    assert "validate net/onnx onnx:int8: versions.onnxruntime changed" in answer.out


def test_a_damaged_plan_is_made_again(root):
    for damage in (flip, lambda path: path.write_bytes(b"")):
        damage(root / "build/.edgekit/plan.json")
        assert (run(root).code, done(run(root))) == (0, set())


@pytest.mark.slow
def test_a_module_that_comes_before_an_installed_one_is_seen(tmp_path):
    """The plan is cached between runs, but a new module beside the code must be noticed."""
    (tmp_path / "net.py").write_text("import torch\nimport blocks\n\n\ndef build():\n    pass\n")
    (tmp_path / "edgekit.toml").write_text(
        'variants = ["onnx:float32"]\n[[models]]\npath = "net.py:build"\nframework = "torch"\n'
    )
    assert run(tmp_path, "import *").code != 0  # the module does not exist yet
    (tmp_path / "blocks.py").write_text("")
    made = call("run", "--emit-makefile", "--root", tmp_path).out
    assert "net.py blocks.py edgekit.toml" in made.replace("blocks.py net.py", "net.py blocks.py")


def test_a_model_of_the_project_comes_before_the_one_that_edgekit_ships(tmp_path):
    (tmp_path / "edgekit.toml").write_text(LINEAR)
    # A step that does not exist: the plan is made, but nothing is trained.
    assert call("run", "--force", "import *", "--root", tmp_path).code == 2
    shipped = call("run", "--emit-makefile", "--root", tmp_path).out
    assert f"{REPOSITORY}/models/linear/torch_model.py" in shipped
    shutil.copytree(REPOSITORY / "models/linear", tmp_path / "models/linear")
    own = call("run", "--emit-makefile", "--root", tmp_path).out
    assert " models/linear/torch_model.py" in own
    assert str(REPOSITORY) not in own


def test_an_exceeded_budget_is_exit_1_each_time(root):
    edit(root / "edgekit.toml", '"10 KB"', '"10 B"')
    for steps in (of("check", "report"), set()):
        answer = run(root)
        assert (answer.code, done(answer), answer.data["passed"]) == (1, steps, False)
    text = call("run", "--root", root)
    assert text.code == 1
    assert "FAILED  net/onnx onnx:int8: size_bytes" in text.out
    assert "exceeds the limit 10 B, set in edgekit.toml" in text.out


def test_a_failed_step_stops_only_its_dependents(root):
    added = '\n[[export]]\nvariant = "*:int8"\ncalibration_samples = 5000\n'
    (root / "edgekit.toml").write_text(CONFIG + added)
    answer = run(root)
    assert answer.code == 2
    assert "5000 calibration samples requested" in answer.err
    assert done(answer, "failed") == of("export", variants=VARIANTS[1:])
    assert done(answer, "blocked") == of("validate", "bench", "check", variants=VARIANTS[1:])
    assert done(answer) == of("report")
    assert len(json.loads((root / "build/report.json").read_text())["artifacts"]) == 1
    (root / "edgekit.toml").write_text(CONFIG)
    repaired = run(root)
    assert (repaired.code, done(repaired)) == (0, of("report"))
    assert len(json.loads((root / "build/report.json").read_text())["artifacts"]) == 2


@pytest.mark.slow
def test_a_layerwise_diff_runs_once_and_again_for_another_artifact(root):
    config, layers = root / "edgekit.toml", root / "build/net/onnx/onnx-int8/layers.json"
    edit(config, "[[models]]", 'layers = ["*:int8"]\n[[models]]')
    assert done(run(root)) == {"diff net/onnx onnx:int8", REPORT}
    first = json.loads(layers.read_text())
    assert [item["reference"] for item in first["tensors"]] == ["y"]
    shown = {
        item["variant"]: item["layers"] for item in json.loads((root / "build/report.json").read_text())["artifacts"]
    }
    assert shown == {"onnx:float32": None, "onnx:int8": first}
    assert done(run(root), "up to date") == EVERYTHING | {"diff net/onnx onnx:int8"}
    edit(config, "[[models]]", '[[export]]\nvariant = "*:int8"\ncalibration_samples = 2\n[[models]]')
    assert done(run(root)) == of("export", "validate", "bench", "check", "report", variants=["onnx:int8"]) | {
        "diff net/onnx onnx:int8"
    }
    again = json.loads(layers.read_text())
    assert again["artifact_sha256"] != first["artifact_sha256"]
    layers.unlink()
    assert done(run(root)) == {"diff net/onnx onnx:int8"}


def test_a_layerwise_diff_that_is_no_longer_requested_is_garbage(root):
    config, layers = root / "edgekit.toml", root / "build/net/onnx/onnx-int8/layers.json"
    edit(config, "[[models]]", 'layers = ["*:int8"]\n[[models]]')
    assert run(root, "diff *").code == 0
    assert call("verify", "--root", root).code == 0
    edit(config, 'layers = ["*:int8"]\n', "")
    assert call("gc", "--root", root).code == 0
    assert not layers.exists()
    assert layers.with_name("manifest.json").exists()


def test_steps_can_be_named_and_forced(root):
    shutil.rmtree(root / "build")
    answer = run(root, "validate * onnx:float32")
    assert done(answer) == of("import") | of("export", "validate", variants=VARIANTS[:1])
    forced = run(root, "--force", "--explain", "import *")
    assert forced.data["steps"][0]["reasons"] == ["--force was given"]
    wrong = call("run", "--root", root, "validte *")
    assert wrong.code == 2
    assert "no step is called 'validte *'; steps: import net/onnx; export net/onnx onnx:float32;" in wrong.err


def test_the_artifact_of_one_model_can_be_another_model(root):
    """The second model is the artifact of the first, so it comes later, in any order of the file."""
    second = f'[[models]]\nname = "again"\npath = "{FOLDER}/model.onnx"\nvariants = ["onnx:float32"]\n'
    (root / "edgekit.toml").write_text(CONFIG.replace("[[models]]", f"{second}\n[[models]]", 1))
    shutil.rmtree(root / "build")
    answer = run(root, "validate again/*")
    assert (answer.code, answer.err and "validate again/onnx" in answer.err) == (0, True)
    assert "import net/onnx" in done(answer)


REFUSED = {
    "device": (
        '["board"]',
        '["bord"]',
        "line 8: bench.devices.0: unknown device 'bord'; known: board, chromium, chromium-webgpu, ek-ra6m4, ",
    ),
    "model": ('path = "net.onnx"', 'path = "nte.onnx"', "line 4: models.0.path: nte.onnx: no such file or folder"),
    "reference": (
        'path = "net.onnx"\nsample = "inputs.npz"',
        'name = "liner"',
        "line 4: models.0.name: unknown model 'liner'; known: autoencoder, ",
    ),
    "sample": ('"inputs.npz"', '"input.npz"', "line 3: input.npz: no such file or folder"),
    "target": ('"onnx:int8"', '"onxn:int8"', "line 1: variants.1: unknown target 'onxn'; known: executorch,"),
    "precision": ('"onnx:int8"', '"onnx:int9"', "line 1: variants.1: unknown precision 'int9'; known: dynamic,"),
    "unit": ('"10 KB"', '"10 XB"', "line 13: budgets.0.size: '10 XB' is not a size; write a number and one of B, KB"),
    "format": ('"json"', '"jsno"', "line 16: reports.0.format: unknown report format 'jsno'; known: "),
    "unwritable": ('"build/report.json"', '"net.onnx/r.json"', "line 17: reports.0.path: cannot write "),
    "folder": ('"build/report.json"', '"device_profiles"', "device_profiles: it is a folder"),
    "itself": ('"build/report.json"', '"edgekit.toml"', "it is the project file itself"),
    "inside": ('"build/report.json"', f'"{FOLDER}/model.onnx"', f"{FOLDER} is the folder of a step"),
    "circle": (
        '"build/report.json"',
        '"inputs.npz"',
        "the steps wait for one another: import net/onnx -> report json",
    ),
    "twice": (
        "[bench]",
        '[[models]]\npath = "net.onnx"\nsample = "inputs.npz"\n[bench]',
        "the step import net/onnx is defined twice; give one of the models another name",
    ),
    "the same report": (
        'path = "build/report.json"',
        'path = "r.md"\n[[reports]]\nformat = "markdown"\npath = "r.md"',
        "report markdown r.md writes r.md, and so does report json r.md",
    ),
    "no such core": (
        'variants = ["onnx:float32", "onnx:int8"]',
        'variants = ["onnx:float32"]\nvalidate_on = ["boar"]',
        "validate_on.0: unknown device 'boar'",
    ),
    "no core to emulate": (
        'variants = ["onnx:float32", "onnx:int8"]',
        'variants = ["onnx:float32"]\nvalidate_on = ["stm32l4r5-nucleo"]',
        "validate_on.0: stm32l4r5-nucleo cannot be emulated: its profile has no [emulation] table",
    ),
    "calibration": (
        'sample = "inputs.npz"',
        "",
        "line 1: variants.1: onnx:int8 of net needs calibration samples",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_input_is_one_sentence_with_file_and_line_and_loses_nothing(root, name):
    old, new, sentence = REFUSED[name]
    edit(root / "edgekit.toml", old, new)
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    answer = call("run", "--root", root)
    assert (answer.code, answer.out) == (2, "")
    assert f"Error: {root}/edgekit.toml: line " in answer.err
    assert sentence in answer.err
    assert len(answer.err.strip().splitlines()) == 1
    assert before == {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_a_report_that_cannot_be_written_is_reported_with_its_line(root):
    """The kernel refuses the write only when it happens, so no earlier check can find it."""
    edit(root / "edgekit.toml", '"build/report.json"', '"/proc/report.json"')
    answer = call("run", "--root", root)
    assert answer.code == 2
    assert f"{root}/edgekit.toml: line 17: reports.0.path: cannot write /proc/report.json: " in answer.err


def test_this_host_has_no_emulated_tier(root):
    edit(root / "edgekit.toml", '["board"]', '["host"]\ntiers = ["emulated"]')
    answer = call("run", "--root", root)
    assert answer.code == 2
    assert "line 9: bench.tiers: none of these devices can be emulated" in answer.err


def test_what_lacks_calibration_is_left_out_unless_it_is_named(root):
    edit(root / "edgekit.toml", 'sample = "inputs.npz"', "")
    edit(root / "edgekit.toml", '"onnx:float32", "onnx:int8"', '"onnx"')
    answer = call("run", "--root", root, "--dry-run")
    assert answer.code == 0
    assert "warning export net/onnx: skipped onnx:int8: no calibration samples; set calibration or sample" in answer.err
    assert "onnx:float16" in answer.out
    assert "onnx:int8" not in answer.out


def test_records_of_a_newer_edgekit_are_refused(root):
    (root / "build/.edgekit/version.json").write_text('{"schema_version": 2}')
    for command in ("run", "gc"):
        answer = call(command, "--root", root)
        assert answer.code == 2
        assert "a newer edgekit wrote these records (schema_version 2; this one reads 1): update edgekit" in answer.err
    assert (root / FOLDER / "model.onnx").exists()


def test_a_missing_edgekit_toml_is_exit_2(tmp_path):
    answer = call("run", "--root", tmp_path)
    assert answer.code == 2
    assert f"{tmp_path}/edgekit.toml: no such file; create one with: edgekit init" in answer.err


@pytest.mark.slow
def test_a_second_run_says_that_it_waits_and_does_nothing_twice(root):
    with (root / "build/.edgekit/lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        child = spawn("run", "--root", root)
        assert child.stderr is not None
        line = child.stderr.readline()
        assert line.startswith("Another edgekit process is running in this folder (PID ")
        assert child.poll() is None
        fcntl.flock(lock, fcntl.LOCK_UN)
    out, _ = child.communicate(timeout=60)
    assert (child.returncode, out) == (0, f"nothing to do: {len(EVERYTHING)} steps are up to date\n")


TRAINED = (
    '[[models]]\nname = "linear"\nframework = "torch"\ntraining = { epochs = 100000 }\nvariants = ["onnx:float32"]\n'
)


@pytest.mark.slow
def test_ctrl_c_is_130_and_the_next_run_goes_on_with_the_rest(root):
    """The training would take minutes; the other model is finished earlier."""
    shutil.rmtree(root / "build")
    (root / "edgekit.toml").write_text(CONFIG.replace("[bench]", f"{TRAINED}\n[bench]"))
    child = spawn("run", "--root", root, "--jobs", "2", start_new_session=True)
    deadline = time.monotonic() + 120
    wanted = [root / FOLDER / "validation.json", root / "build/linear/torch/.checkpoint"]
    while not all(path.exists() for path in wanted) and time.monotonic() < deadline and child.poll() is None:
        time.sleep(0.05)
    time.sleep(0.3)  # the record is written after the result
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=30)
    assert child.returncode == 130, err
    assert "Interrupted" in err
    assert "Traceback" not in err
    assert not list((root / "build").rglob(".edgekit-*"))
    edit(root / "edgekit.toml", "epochs = 100000", "epochs = 1")
    answer = run(root, "validate *")
    assert answer.code == 0, answer.err
    assert "import net/onnx" in done(answer, "up to date")
    assert "validate net/onnx onnx:float32" in done(answer, "up to date")
    assert {"train linear/torch", "export linear/torch onnx:float32"} <= done(answer)


LINEAR = f"{CONFIG.partition('[[models]]')[0]}{TRAINED}".replace("100000", "1").replace(', "onnx:int8"', "", 1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """Return a project with its own reference model, trained for one epoch."""
    root = tmp_path_factory.mktemp("taught")
    shutil.copytree(REPOSITORY / "models/linear", root / "models/linear")
    (root / "models/linear/points.csv").write_text("1,2\n")
    (root / "edgekit.toml").write_text(LINEAR)
    answer = call("run", "--root", root, "--json")
    assert answer.code in (0, 1), answer.err  # one epoch may drift more than the model's budget allows
    return root


TAUGHT = {
    "torch_model.py": ("train", "export"),
    "keras_model.py": (),
    "data.py": ("train",),
    "points.csv": ("train",),
}
TABLES = {
    ("epochs = 30", "epochs = 31"): ("train",),
    ("golden = 64", "golden = 65"): ("train",),
    ("max_abs_error = 0.06", "max_abs_error = 0.07"): ("validate",),
    ("drift = 0.02", "drift = 0.03"): ("check",),
    ('title = "One', 'title = "A'): (),
    ("The smallest", "A small"): (),
}


@pytest.mark.slow
@pytest.mark.parametrize(("change", "kinds"), [*TAUGHT.items(), *TABLES.items()], ids=str)
def test_a_changed_input_of_a_reference_model_runs_the_steps_that_read_it(trained, tmp_path, change, kinds):
    root = Path(shutil.copytree(trained, tmp_path / "project"))
    folder = root / "models/linear"
    if change in TAUGHT:
        (folder / change).write_text((folder / change).read_text() + "\n")
    else:
        edit(folder / "model.toml", *change)
    answer = run(root, "--dry-run")
    assert answer.code == 0, answer.err
    direct = {
        item["kind"]
        for item in answer.data["steps"]
        if any("runs before it" not in reason for reason in item["reasons"])
    }
    assert direct == set(kinds)


@pytest.mark.slow
def test_a_training_that_reproduces_its_weights_runs_no_dependents(trained, tmp_path):
    """Only the report runs again, because it shows the duration."""
    root = Path(shutil.copytree(trained, tmp_path / "project"))
    path = root / "models/linear/data.py"
    path.write_text(path.read_text() + "# a comment\n")
    assert done(run(root)) == {"train linear/torch"}


def test_gc_removes_what_is_no_longer_needed_and_nothing_else(root):
    (root / "build/net/onnx/mine").mkdir()
    (root / "build/net/onnx/mine/notes.txt").write_text("by hand")
    edit(root / "edgekit.toml", ', "onnx:int8"', "")
    edit(root / "edgekit.toml", "build/report.json", "build/other.json")
    gone = root / "build/net/onnx/onnx-int8"
    (gone / "check.json").write_text("{}")
    dry = call("gc", "--dry-run", "--root", root, "--json")
    assert dry.code == 0
    assert "build/net/onnx/onnx-int8/model.onnx" in dry.data["would_remove"]
    assert (gone / "model.onnx").exists()
    answer = call("gc", "--root", root, "--json")
    assert set(answer.data["removed"]) == set(dry.data["would_remove"]) >= {"build/report.json"}
    assert answer.data["changed_and_kept"] == ["build/net/onnx/onnx-int8/check.json"]
    assert [path.name for path in gone.iterdir()] == ["check.json"]
    assert (root / "build/net/onnx/mine/notes.txt").exists()
    after = run(root)
    assert (after.code, done(after)) == (0, {"report json build/other.json"})
    assert call("gc", "--root", root).out == "0 files, 0 B freed\n"


@pytest.mark.slow
def test_gc_waits_for_a_run_that_is_under_way(root):
    with (root / "build/.edgekit/lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        child = spawn("gc", "--root", root)
        assert child.stderr is not None
        assert "waiting for it to end" in child.stderr.readline()
        fcntl.flock(lock, fcntl.LOCK_UN)
    child.communicate(timeout=60)
    assert child.returncode == 0


def test_init_writes_a_file_that_run_accepts(finished, tmp_path):
    for name in ("net.onnx", "net.weights", "inputs.npz"):
        shutil.copy(finished / name, tmp_path)
    answer = call("init", "--root", tmp_path)
    assert answer.code == 0
    assert "for net.onnx; run it with: edgekit run" in answer.out
    text = (tmp_path / "edgekit.toml").read_text()
    assert 'sample = "inputs.npz"' in text
    ran = run(tmp_path, "validate * onnx:*")
    assert ran.code == 0, ran.err
    assert done(ran) == of("import") | of("export", "validate", variants=VARIANTS[:1])
    again = call("init", "--root", tmp_path)
    assert again.code == 2
    assert f"{tmp_path}/edgekit.toml already exists; use --force to replace it" in again.err
    assert call("init", "--force", "--root", tmp_path).code == 0


def test_init_finds_code_without_executing_it_and_files_by_their_kind(tmp_path):
    (tmp_path / "net.py").write_text("from torch import nn\n1 / 0\n\n\ndef build():\n    return nn.ReLU()\n")
    (tmp_path / "test_net.py").write_text("import torch\n\n\ndef build():\n    pass\n")
    (tmp_path / "tool.py").write_text("def build():\n    pass\n")
    (tmp_path / "wide.py").write_text("import keras\n\n\ndef build(width):\n    pass\n")
    (tmp_path / "net.safetensors").write_bytes(b"")
    (tmp_path / "a.keras").write_bytes(b"")
    (tmp_path / "notes.pt").write_bytes(b"no archive")
    answer = call("init", "--root", tmp_path, "--json")
    assert answer.data["models"] == ["a.keras", "net.py:build"]
    text = (tmp_path / "edgekit.toml").read_text()
    assert 'path = "net.py:build"\nframework = "torch"\nweights = "net.safetensors"' in text
    assert call("run", "--dry-run", "--root", tmp_path).code == 0


def test_init_in_an_empty_folder_takes_a_reference_model(tmp_path):
    answer = call("init", "--root", tmp_path)
    assert "for a reference model" in answer.out
    dry = call("run", "--dry-run", "--root", tmp_path)
    assert dry.code == 0
    assert "train linear/keras: it has not run yet" in dry.out


def test_a_model_that_exceeds_a_device_is_not_benched_on_it(tmp_path, finished):
    """The verdict is recorded and other steps continue; with a larger device, the step runs."""
    root = shutil.copytree(finished, tmp_path / "project")
    board = root / "device_profiles/board.toml"
    whole = board.read_text()
    small = whole.replace('kind = "board"', 'kind = "microcontroller"').replace("[memory]", '[memory]\nflash = "64 B"')
    board.write_text(small)
    answer = call("run", "--root", root)
    assert answer.code == 1
    assert "FAILED  net/onnx onnx:float32 does not fit board: its file of" in answer.out
    assert "is larger than 64 B of flash" in answer.out
    assert not (root / FOLDER / "bench-board.json").exists()
    again = call("run", "--root", root)
    assert (again.code, "nothing to do" in again.out) == (1, True)
    board.write_text(whole)
    assert call("run", "--root", root).code == 0
    assert (root / FOLDER / "bench-board.json").exists()


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.exhaustive
def test_the_makefile_example_is_made_once(tmp_path):
    """In examples/makefile-project, a second make does nothing, and a new sample runs the steps again."""
    folder = shutil.copytree(REPOSITORY / "examples/makefile-project", tmp_path / "project")
    python = sys.executable  # the first python in PATH may lack edgekit

    def make(*arguments):
        tools = (f"PYTHON={python}", f"EDGEKIT={python} -P -m edgekit")
        command = ["make", "--no-print-directory", *tools, *arguments]
        # The tests may run below `make test`, whose variables must not reach this make.
        its_own = ("MAKELEVEL", "MAKEFLAGS", "MFLAGS")
        variables = {name: value for name, value in os.environ.items() if name not in its_own}
        return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=240)

    first = make()
    assert first.returncode == 0, first.stderr
    assert (folder / "build/report.md").read_text().startswith("# edgekit report")
    assert len(list(folder.glob("build/*/*/*/check.json"))) == 1
    second = make()
    assert (second.returncode, second.stdout) == (0, "make: Nothing to be done for 'all'.\n")
    assert "nothing to do" in call("run", "--root", folder).out
    edit(folder / "edgekit.toml", '"64 KB"', '"64 B"')
    broken = make()
    assert broken.returncode == 2
    assert "exceeds the limit 64 B" in broken.stdout
    assert make().returncode == 2  # the failed target is not considered up to date
