"""Every reference model, untrained, from both frameworks to the targets: the file computes what the network computes.

The shared project of the other tests has `linear` and `simple_cnn` in every variant; `make matrix` does that for all
models, trained.
"""

from pathlib import Path

import pytest
from support import call

from edgekit.core.project import open_project
from edgekit.stages.routes import targets

SAME_WAY = "lite-interpreter"  # by way of the very TorchScript file
PROVEN_ELSEWHERE = {"linear", "simple_cnn"}
MODELS = sorted(set(open_project(Path(__file__).parent).models()) - PROVEN_ELSEWHERE)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", MODELS)
def test_every_target_computes_what_the_network_computes(name, tmp_path):
    trained = call("train", name, "--framework", "both", "--epochs", "0", "--root", tmp_path)
    assert trained.code == 0, trained.err
    variants = [f"{target}:float32" for target in targets() if target != SAME_WAY] + ["tflite:int8"]
    chosen = [word for variant in variants for word in ("--target", variant)]
    exported = call("export", name, *chosen, "--root", tmp_path, "--json")
    assert exported.code == 0, exported.err
    assert len(exported.data["artifacts"]) == 2 * len(variants)
    validated = call("validate", name, "--precision", "float32", "--root", tmp_path, "--json")
    unequal = [item for item in validated.data["validations"] if not item["passed"]]
    assert not unequal, unequal
    assert validated.code == 0, validated.err
    # Untrained weights say nothing of what int8 costs; the runtimes have to take the files all the same.
    quantized = call("validate", name, "--precision", "int8", "--root", tmp_path, "--json")
    assert quantized.code in (0, 1), quantized.err
    assert len(quantized.data["validations"]) == 2
