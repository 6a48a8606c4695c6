"""Quantization-aware fine-tuning in both frameworks."""

from __future__ import annotations

import pytest
from _helpers.support import call

from edgekit.core.events import NoteEvent, ProgressEvent


@pytest.mark.exhaustive
def test_fine_tuning_leaves_a_float_source_that_converts_to_int8(lab) -> None:
    plain = lab.train("torch", epochs=5)
    tuned = lab.train("torch", epochs=5, qat=True)
    record = tuned.training["qat"]
    assert (record["tool"], record["quantizer"], record["epochs"]) == ("torchao PT2E", "XNNPACKQuantizer", 1)
    assert len(record["loss"]) == 1
    assert tuned.training["weights_sha256"] != plain.training["weights_sha256"]
    assert (tuned.signature, tuned.parameters) == (plain.signature, plain.parameters)
    assert tuned.history == plain.history  # the float training before it is the same
    assert any("qat_loss" in event.figures for event in lab.events if isinstance(event, ProgressEvent))

    options = ("--target", "executorch:int8", "--calibration-samples", "16")
    answer = call("export", "blobs", "--framework", "torch", *options, "--root", lab.root)
    assert answer.code == 0, answer.err
    answer = call("validate", "--root", lab.root, "--json")
    assert answer.code == 0, answer.err
    assert [item["passed"] for item in answer.data["validations"]] == [True]


def test_a_time_limit_that_leaves_no_time_for_it_is_reported(lab) -> None:
    source = lab.train("torch", epochs=50, qat=True, time_limit_s=0.001)
    assert source.training["qat"]["epochs"] == 0
    assert "the time limit left no time for quantization-aware training" in [
        event.detail for event in lab.events if isinstance(event, NoteEvent)
    ]


@pytest.mark.slow
def test_keras_models_are_fine_tuned_too(lab) -> None:
    plain = lab.train("keras", epochs=1)
    tuned = lab.train("keras", epochs=1, qat=True)
    record = tuned.training["qat"]
    assert (record["tool"], record["weights"], record["epochs"]) == (
        "edgekit.quantization_aware",
        "int8 per channel",
        1,
    )
    assert len(record["loss"]) == 1
    assert tuned.training["weights_sha256"] != plain.training["weights_sha256"]
    assert (tuned.signature, tuned.parameters) == (plain.signature, plain.parameters)
    assert tuned.history == plain.history
