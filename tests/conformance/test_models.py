"""Every reference model, barely trained, from both frameworks to the targets: the files compute what the networks do.

The shared project of the other tests has `linear` and `simple_cnn` in every variant; `make matrix` does that for all
models, well trained.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from _helpers.reference_pairs import MODELS as FOLDER
from _helpers.reference_pairs import NAMES
from _helpers.support import SHARED_MODELS, call

from edgekit.config.model import load_model_spec
from edgekit.core.records import samples
from edgekit.stages.conversion.routes import targets

SAME_WAY = "lite-interpreter"  # by way of the very TorchScript file
MODELS = [name for name in NAMES if name not in SHARED_MODELS]
# Targets that are exported only where they are named need not take every source.
TARGETS = [name for name, target in targets().items() if name != SAME_WAY and not target.only_named]
VARIANTS = [f"{target}:float32" for target in TARGETS] + ["tflite:int8"]

pytestmark = [pytest.mark.exhaustive, pytest.mark.timeout(1800)]


class Everything(NamedTuple):
    """What the commands answered for all models at once: their workers stay warm."""

    root: Path
    exported: Any
    float32: Any
    int8: Any


@pytest.fixture(scope="module")
def everything(trained_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Everything:
    root = tmp_path_factory.mktemp("models") / "project"
    shutil.copytree(trained_models, root)
    chosen = [word for variant in VARIANTS for word in ("--target", variant)]
    # Few samples: nothing here looks at the ranges of int8, and each takes the recurrent networks a tenth of a second.
    exported = call("export", *MODELS, *chosen, "--calibration-samples", "20", "--root", root, "--json")
    float32 = call("validate", *MODELS, "--precision", "float32", "--root", root, "--json")
    # Barely trained weights say nothing of what int8 costs; the runtimes have to take the files all the same.
    int8 = call("validate", *MODELS, "--precision", "int8", "--root", root, "--json")
    return Everything(root, exported, float32, int8)


@pytest.mark.parametrize("name", MODELS)
def test_every_model_trains_in_both_frameworks_and_learns_something(trained_models: Path, name: str) -> None:
    """Look at one epoch only, of few digits: `make bench-seeds MODELS=` measures how well the models learn."""
    spec = load_model_spec(FOLDER / name)
    folders = [trained_models / "build" / name / kind / "source" for kind in ("keras", "torch")]
    keras, torch = (json.loads((folder / "source.json").read_text()) for folder in folders)
    assert (keras["kind"], torch["kind"]) == ("keras", "torch")
    assert keras["parameters"] == torch["parameters"]
    assert keras["data"] == torch["data"]
    for folder, source in zip(folders, (keras, torch), strict=True):
        kept = samples.load(folder / "test.npz", "test samples")
        count = 200 if spec.data.default == "mnist-5k" else spec.data.test
        assert kept.outputs[spec.output.name].shape == (count, *spec.output.shape)
        assert 0.0 <= source["metric_value"] <= 1.0
        assert source["history"]["loss"][0] > 0


@pytest.mark.parametrize("name", MODELS)
def test_every_target_computes_what_the_network_computes(everything: Everything, name):
    made = Counter(item["manifest"]["model"] for item in everything.exported.data["artifacts"])
    assert made[name] == 2 * len(VARIANTS), everything.exported.err
    judged = [item for item in everything.float32.data["validations"] if item["model"] == name]
    assert len(judged) == 2 * (len(VARIANTS) - 1)
    # The classes of barely trained weights lie so near to one another that rounding decides between them.
    failed = [
        (item["kind"], item["target"], figure)
        for item in judged
        for figure in item["comparisons"][0]["figures"]
        if not figure["passed"]
    ]
    assert not failed
    assert all(item["comparisons"][0]["problem"] is None for item in judged)
    quantized = [item for item in everything.int8.data["validations"] if item["model"] == name]
    assert {item["kind"] for item in quantized} == {"keras", "torch"}
    assert all(item["comparisons"][0]["problem"] is None for item in quantized)


@pytest.mark.parametrize("name", MODELS)
def test_both_frameworks_multiply_as_often(everything: Everything, name):
    counts = []
    for kind in ("keras", "torch"):
        path = everything.root / "build" / name / kind / "tflite-float32"
        counts.append(call("inspect", path, "--json").data["description"]["macs"])
    # PyTorch unrolls a recurrent layer, and its first step has nothing to multiply the state by.
    assert counts[1] == pytest.approx(counts[0], rel=0.05)
