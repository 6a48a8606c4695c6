"""The file that `edgekit init` writes: its examples are good ones."""

import re

import pytest

from edgekit.config.project import load_project
from edgekit.stages.models.init import FoundModel, render_config

FOUND = {
    "nothing": (),
    "a file": (FoundModel("net.onnx", sample="inputs.npz"),),
    "code": (FoundModel("net.py:build", "torch", "net.safetensors"),),
    "both": (FoundModel('odd "name".keras'), FoundModel("net.py:build", "keras", None, "net.npz")),
}


@pytest.mark.parametrize("found", FOUND.values(), ids=FOUND)
def test_it_is_good_as_it_is_and_with_every_example_in_it(tmp_path, found):
    text = render_config(found)
    everything = re.sub(r"(?m)^# (?=\[|\w+ = )", "", text)
    assert everything.count("\n[bench]") == 1
    for content in (text, everything):
        (tmp_path / "edgekit.toml").write_text(content)
        config = load_project(tmp_path).value
        assert [item.path for item in config.models] == ([item.path for item in found] or [None])
    assert config.bench is not None
    assert config.budgets[0].size == 500_000
    assert config.export_options("x", "onnx:int8") == {"calibration_samples": 100}
