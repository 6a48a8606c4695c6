"""From edgekit.toml to step keys: every setting and every named file is part of the keys of the right steps.

No step is executed: the keys decide which steps a run executes.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from _helpers.support import REPOSITORY

from edgekit.config.project import load_project
from edgekit.core.build.file_digests import FileDigests
from edgekit.core.build.run_state import RunState
from edgekit.core.build.step_records import StepRecords
from edgekit.core.environment.project import Project
from edgekit.stages.pipeline.plan import plan

CONFIG = """\
variants = ["onnx:float32", "onnx:int8"]

[[models]]
path = "code/net.py:build"
framework = "torch"
weights = "net.safetensors"
inputs = ["x:batch,8:float32"]
calibration = "photos"
image_range = [0.0, 1.0]
dims = { batch = 1 }
reads = ["classes.txt"]

[[models]]
path = "pack.nets:build"
name = "second"
framework = "keras"
calibration = "make.py:samples"
variants = ["onnx:float32"]

[bench]
devices = ["board", "host"]
threads = 1
min_duration_s = 1.0
min_runs = 50

[[export]]
variant = "*:int8"
calibration_samples = 100

[[budgets]]
model = "net"
size = "1 KB"

[[reports]]
format = "json"
path = "r.json"
"""


@pytest.fixture
def root(tmp_path) -> Path:
    files = {
        "code/net.py": "import torch\nfrom blocks import conv\n",
        "code/blocks.py": "import torch\n",
        "code/other.py": "import torch\n",
        "pack/__init__.py": "",
        "pack/nets.py": "import keras\nfrom pack import layers\n",
        "pack/layers.py": "",
        "make.py": "import numpy\n",
        "net.safetensors": "weights",
        "photos/inner/a.png": "a",
        "classes.txt": "cat",
        "notes.txt": "nothing",
        "edgekit.toml": CONFIG,
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "device_profiles").mkdir()
    profile = (REPOSITORY / "device_profiles/raspberry-pi-4b.toml").read_text()
    (tmp_path / "device_profiles/board.toml").write_text(profile)
    return tmp_path


def keys(root):
    graph = plan(Project(root), load_project(root)).graph
    state = RunState(StepRecords(root / "build"), FileDigests(root))
    return {step.name: state.key(step).digest for step in graph.steps}


def changed_keys(root, change):
    before = keys(root)
    change(root)
    after = keys(root)
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


def edit(old, new, name="edgekit.toml"):
    def change(root):
        text = (root / name).read_text()
        assert old in text
        (root / name).write_text(text.replace(old, new, 1))

    return change


def flip(name):
    def change(root):
        content = bytearray((root / name).read_bytes() or b"#")
        content[-1] ^= 1
        (root / name).write_bytes(content)

    return change


NET = [f"net/torch {variant}" for variant in ("onnx:float32", "onnx:int8")]
SECOND = "second/keras onnx:float32"
EXPORTS = {f"export {name}" for name in NET}
BENCHES = {f"bench {name} on {device}" for name in (*NET, SECOND) for device in ("board", "host")}
CHECKS = {f"check {name}" for name in NET}

FILES = {
    "code/net.py": {"import net/torch"} | EXPORTS,
    "code/blocks.py": {"import net/torch"} | EXPORTS,
    "code/other.py": set(),
    "net.safetensors": {"import net/torch"},
    "photos/inner/a.png": {"import net/torch"},
    "classes.txt": {"import net/torch"},
    "pack/__init__.py": {"import second/keras", f"export {SECOND}"},
    "pack/nets.py": {"import second/keras", f"export {SECOND}"},
    "pack/layers.py": {"import second/keras", f"export {SECOND}"},
    "make.py": {"import second/keras"},
    "notes.txt": set(),
}


@pytest.mark.parametrize(("name", "expected"), FILES.items(), ids=FILES)
def test_a_flipped_bit_of_a_file_is_in_the_keys_of_the_steps_that_read_it(root, name, expected):
    assert changed_keys(root, flip(name)) == expected


SETTINGS = {
    "inputs": ('"x:batch,8:float32"', '"x:batch,9:float32"', {"import net/torch"}),
    "image_range": ("[0.0, 1.0]", "[0.0, 2.0]", {"import net/torch"}),
    "dims": ("batch = 1", "batch = 2", {"import net/torch"} | EXPORTS),
    "calibration_samples": ("= 100", "= 101", {f"export {NET[1]}"}),
    "layout": ("calibration_samples = 100", 'calibration_samples = 100\nlayout = "NHWC"', {f"export {NET[1]}"}),
    "opset": ("[[budgets]]", "[[export]]\nopset = 18\n[[budgets]]", EXPORTS | {f"export {SECOND}"}),
    "threads": ("threads = 1", "threads = 2", BENCHES),
    "min_duration_s": ("= 1.0\n", "= 2.0\n", BENCHES),
    "min_runs": ("min_runs = 50", "min_runs = 51", BENCHES),
    "size": ("1 KB", "2 KB", CHECKS),
    "the pattern of a budget": ('model = "net"', 'variant = "*:int8"\nmodel = "net"', {f"check {NET[0]}"}),
    "a budget that is no stricter way to say it": ('"1 KB"', '"1000 B"', set()),
    "the pattern of an option": ('"*:int8"', '"onnx:int?"', set()),
    "a comment": ("[bench]", "# words\n[bench]", set()),
}


@pytest.mark.parametrize(("old", "new", "expected"), SETTINGS.values(), ids=SETTINGS)
def test_a_setting_is_in_the_keys_of_the_steps_that_depend_on_it(root, old, new, expected):
    assert changed_keys(root, edit(old, new)) == expected


DEVICE = {
    "clock": ("clock_mhz = 1500", "clock_mhz = 1600", {name for name in BENCHES if name.endswith("board")}),
    "budget": ('size = "20 MB"', 'size = "30 MB"', {f"check {name}" for name in (*NET, SECOND)}),
    "title": ('title = "', 'title = "A ', set()),
}


@pytest.mark.parametrize(("old", "new", "expected"), DEVICE.values(), ids=DEVICE)
def test_a_device_profile_is_in_the_keys_of_bench_or_check(root, old, new, expected):
    assert changed_keys(root, edit(old, new, "device_profiles/board.toml")) == expected


ON_BOARD = {f"validate {name} on board" for name in (*NET, SECOND)}


def test_validation_on_an_emulated_core_is_a_step_per_artifact_that_check_and_report_read(root):
    enable = edit('["onnx:float32", "onnx:int8"]', '["onnx:float32", "onnx:int8"]\nvalidate_on = ["board"]')
    checks = {f"check {name}" for name in (*NET, SECOND)}
    assert changed_keys(root, enable) == ON_BOARD | checks | {"report json r.json"}
    assert changed_keys(root, edit("clock_mhz = 1500", "clock_mhz = 1600", "device_profiles/board.toml")) == {
        *(name for name in BENCHES if name.endswith("board")),
        *ON_BOARD,
    }
    graph = plan(Project(root), load_project(root)).graph
    step = graph.by_name[f"validate {SECOND} on board"]
    assert step.output == "build/second/keras/onnx-float32/validation-board.json"
    assert f"export {SECOND}" in step.after


def test_counting_on_an_emulated_core_is_a_step_before_the_bench_that_reads_it(root):
    enable = edit("threads = 1", 'threads = 1\ntiers = ["host", "emulated"]')
    counted = {f"emulate {name} on board" for name in (*NET, SECOND)}
    on_board = {name for name in BENCHES if name.endswith("board")}
    after = {f"check {name}" for name in (*NET, SECOND)} | {"report json r.json"}
    names = changed_keys(root, enable)
    assert counted | on_board <= names <= counted | on_board | after
    graph = plan(Project(root), load_project(root)).graph
    step, bench = graph.by_name[f"emulate {SECOND} on board"], graph.by_name[f"bench {SECOND} on board"]
    assert (step.output, step.kind.measures) == ("build/second/keras/onnx-float32/emulated-board.json", False)
    assert (step.name in bench.after, bench.kind.measures) == (True, True)
    assert changed_keys(root, edit("min_runs = 50", "min_runs = 60")) == BENCHES  # and no inference is counted again
    assert changed_keys(root, edit("threads = 1", "threads = 2")) == counted | BENCHES
    assert changed_keys(root, edit("clock_mhz = 1500", "clock_mhz = 1600", "device_profiles/board.toml")) == (
        counted | on_board
    )


def test_layer_errors_are_a_step_of_the_selected_variants_that_reports_read(root):
    enable = edit('["onnx:float32", "onnx:int8"]', '["onnx:float32", "onnx:int8"]\nlayers = ["*:int8"]')
    assert changed_keys(root, enable) == {f"diff {NET[1]}", "report json r.json"}
    graph = plan(Project(root), load_project(root)).graph
    step = graph.by_name[f"diff {NET[1]}"]
    assert step.output == "build/net/torch/onnx-int8/layers.json"
    assert {f"export {NET[1]}", "import net/torch"} <= set(step.after)
    assert changed_keys(root, flip("code/net.py")) >= {f"diff {NET[1]}"}
    assert changed_keys(root, edit('layers = ["*:int8"]', 'layers = ["onnx:i*"]')) == set()


def test_variants_that_do_not_expose_intermediates_are_noted_and_left_out(root):
    edit('["onnx:float32", "onnx:int8"]', '["onnx:float32", "executorch"]\nlayers = ["*:float32"]')(root)
    cached_plan = plan(Project(root), load_project(root))
    diffs = {step.name for step in cached_plan.graph.steps if step.kind == "diff"}
    assert diffs == {f"diff {NET[0]}", f"diff {SECOND}"}
    details = {note.step: note.detail for note in cached_plan.notes}
    assert details["diff net/torch executorch:float32"] == "skipped: executorch does not expose intermediate tensors"


def test_variants_without_an_emulated_runtime_are_noted_and_left_out(root):
    edit('["onnx:float32", "onnx:int8"]', '["onnx:float32", "executorch:float32"]\nvalidate_on = ["board"]')(root)
    cached_plan = plan(Project(root), load_project(root))
    assert "skipped: the emulated core does not run executorch" in [note.detail for note in cached_plan.notes]
    on_board = {
        step.name for step in cached_plan.graph.steps if step.kind == "validate" and step.name.endswith(" on board")
    }
    assert on_board == {f"validate {NET[0]} on board", f"validate {SECOND} on board"}


def test_adding_or_removing_a_variant_does_not_change_the_keys_of_the_others(root):
    more = changed_keys(root, edit('"onnx:int8"]', '"onnx:int8", "onnx:float16"]'))
    assert {name for name in more if "float16" not in name} == {"report json r.json"}
    less = changed_keys(root, edit('"onnx:int8", "onnx:float16"]', '"onnx:int8"]'))
    assert more == less


def test_each_step_comes_after_those_whose_files_it_reads(root):
    graph = plan(Project(root), load_project(root)).graph
    earlier: set[str] = set()
    for step in graph.steps:
        assert {writer.name for read in step.reads if (writer := graph.writer(read.path))} <= set(step.after) <= earlier
        earlier.add(step.name)
    assert graph.by_name[f"bench {NET[0]} on host"].kind.measures
    assert graph.steps[-1].kind.runs_last


def test_variants_that_a_device_does_not_run_are_noted_and_left_out(root):
    edit('devices = ["board", "host"]', 'devices = ["stm32l4r5-nucleo"]')(root)
    cached_plan = plan(Project(root), load_project(root))
    assert not [step for step in cached_plan.graph.steps if step.kind == "bench"]
    assert "skipped: stm32l4r5-nucleo runs tflite only" in [note.detail for note in cached_plan.notes]
