"""Networks as other people write and save them: a few of those that `make zoo` converts, and how it keeps its cells."""

import sys

import pytest
from _helpers.support import REPOSITORY
from _helpers.warm_workers import warm_workers
from _helpers.zoo.catalog import sources
from _helpers.zoo.cells import DRIFT, EQUAL, FAULT, REFUSED, Cell, judge, run_cells
from _helpers.zoo.reasons import REASONS, standing_reason

from edgekit.session import Session

sys.path.append(str(REPOSITORY / "tests" / "benchmarks"))
import zoo

# Of each: code of `transformers` with a cache and tied weights, code with a decoding head, a checkpoint.
FEW = [("gpt2", "torchscript"), ("detector", "torchscript"), ("lenet_lightning", "onnx")]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of torch's loader of archives, which is deprecated
def test_a_few_networks_of_the_zoo_come_out_equal(tmp_path):
    with warm_workers(), Session(tmp_path) as session:
        judged = [judge(session, (name, target, "float32"), tmp_path / name) for name, target in FEW]
    assert [cell.verdict for cell in judged] == [EQUAL] * len(FEW), [cell.reason for cell in judged]
    assert all(0 < cell.size_bytes < 1_000_000 and cell.error < 1e-4 for cell in judged)


def test_a_cell_that_exceeds_its_memory_is_a_fault_and_the_next_one_is_run(tmp_path):
    # A source that imports PyTorch: one that fails at once could end before its memory is looked at.
    keys = [("gpt2", "onnx", "float32"), ("gpt2", "tflite", "float32")]
    found = list(run_cells(keys, tmp_path, timeout_s=60, memory_bytes=1))
    assert [cell.key for cell in found] == keys
    assert all(cell.verdict == FAULT and "GB" in cell.reason for cell in found)


def test_a_source_that_cannot_be_built_is_a_fault_with_its_error(tmp_path):
    (cell,) = run_cells([("unknown", "onnx", "float32")], tmp_path, timeout_s=60, memory_bytes=10**10)
    assert cell.verdict == FAULT
    assert "KeyError: 'unknown'" in cell.reason


def test_the_last_cell_of_a_key_counts(tmp_path):
    file = tmp_path / "cells.jsonl"
    first = Cell("gpt2", "onnx", "float32", FAULT, "not yet")
    file.write_text(f"{first.line()}\n{Cell('gpt2', 'onnx', 'float32', EQUAL).line()}\n")
    assert zoo.cells_in(file)[first.key].verdict == EQUAL


def test_the_table_counts_verdicts_and_numbers_reasons():
    shown = list(
        zoo.table(
            [
                Cell("gpt2", "onnx", "float32", EQUAL, "", 2.4, 400_000_000, 90_000, 1e-6, 120.0),
                Cell("gpt2", "tflite", "float32", REFUSED, "no such operator", 1.0),
                Cell("t5", "tflite", "float32", REFUSED, "no such operator", 1.0),
                Cell("gpt2", "onnx", "int8", DRIFT, "validate: sqnr_db", 3.0, 400_000_000, 30_000, 0.5, 12.0),
            ]
        )
    )
    assert "float32: 3 cells, 1 equal, 0 drift, 2 refused, 0 fault." in shown
    assert sum(line == "1. no such operator" for line in shown) == 1
    (row,) = [line for line in shown if line.startswith("| gpt2 | float32")]
    assert "equal (2 s, 400 MB, 90 kB)" in row
    assert "refused [1]" in row


def test_there_are_sources_of_every_family_and_reasons_for_refusals_only():
    found = sources()
    assert len(found) > 100
    assert {source.family for source in found.values() if source.default} >= {"transformers", "keras.applications"}
    assert all(reason[0].islower() and not reason.endswith(".") for reason in REASONS.values())
    assert not standing_reason("something went wrong")
