"""Counts of one artifact under several versions of its runtime: what is slower, and what is read back."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest
from _helpers.sample_reports import VERSIONS

from edgekit.core.errors import InputError
from edgekit.core.records.operator_costs import OperatorCost
from edgekit.core.records.runtime_versions import load_runtime_versions, runtime_versions_file


def with_operators(instructions):
    """The two versions, with operators whose instructions are given."""
    versions = [
        replace(
            version,
            emulated=replace(
                version.emulated,
                operators=tuple(OperatorCost(kind, kind.lower(), count / 1e6, count) for kind, count in counts.items()),
            ),
        )
        for version, counts in zip(VERSIONS.versions, instructions, strict=True)
    ]
    return replace(VERSIONS, versions=tuple(versions))


def test_a_version_that_executes_more_than_is_allowed_is_named_with_the_operators_that_explain_it():
    record = with_operators([{"CONV_2D": 2e6, "SOFTMAX": 5e5}, {"CONV_2D": 2.1e6, "SOFTMAX": 5e5}])
    (sentence,) = record.slower(0.02)
    assert sentence == (
        "ai-edge-litert==2.3.0 executes 4.0 % more instructions than ai-edge-litert==2.2.0"
        " (2.6 M against 2.5 M; 2 % are allowed): CONV_2D conv_2d 2 ms -> 2.1 ms"
    )
    assert record.slower(0.041) == ()


def test_a_version_that_executes_less_is_no_regression():
    faster = replace(VERSIONS, versions=VERSIONS.versions[::-1])
    assert faster.growth(faster.versions[1]) == pytest.approx(-0.1 / 2.6)
    assert faster.slower(0.0) == ()


@pytest.fixture
def file(tmp_path):
    path = tmp_path / runtime_versions_file("raspberry-pi-4b")
    path.write_text(json.dumps(asdict(VERSIONS)))
    return path


def test_a_record_comes_back(file):
    assert file.name == "runtime-versions-raspberry-pi-4b.json"
    assert load_runtime_versions(file) == VERSIONS


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"versions": []}, "at least two are compared"),
        ({"versions": asdict(VERSIONS)["versions"][:1]}, "at least two are compared"),
        ({"schema_version": 2}, "of version 1"),
        ({"artifact_sha256": "x"}, "artifact_sha256"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_damaged_record_is_one_sentence(file, changes, reason):
    file.write_text(json.dumps({**asdict(VERSIONS), **changes}))
    with pytest.raises(InputError) as caught:
        load_runtime_versions(file)
    message = str(caught.value)
    assert message.startswith(str(file))
    assert reason in message
    assert message.endswith("run the bench again")
