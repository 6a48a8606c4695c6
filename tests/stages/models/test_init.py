"""The file that `edgekit init` writes: its examples are valid."""

import re

import pytest

from edgekit.config.project import load_project
from edgekit.stages.models.init import FoundModel, render_config

MODELS = {
    "nothing": (),
    "a file": (FoundModel("net.onnx", sample="inputs.npz"),),
    "code": (FoundModel("net.py:build", "torch", "net.safetensors"),),
    "both": (FoundModel('odd "name".keras'), FoundModel("net.py:build", "keras", None, "net.npz")),
}


@pytest.mark.parametrize("models", MODELS.values(), ids=MODELS)
def test_it_is_valid_as_written_and_with_every_example_uncommented(tmp_path, models):
    text = render_config(models)
    uncommented = re.sub(r"(?m)^# (?=\[|\w+ = )", "", text)
    assert uncommented.count("\n[bench]") == 1
    for content in (text, uncommented):
        (tmp_path / "edgekit.toml").write_text(content)
        config = load_project(tmp_path).value
        assert [model.path for model in config.models] == ([model.path for model in models] or [None])
    assert config.bench is not None
    assert config.budgets[0].size == 500_000
    assert config.export_options("x", "onnx:int8") == {"calibration_samples": 100}
