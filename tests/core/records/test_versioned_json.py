"""Decoding of versioned records, and refusals that name the file."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from edgekit.core.errors import InputError
from edgekit.core.records.layer_errors import layers_from_dict
from edgekit.core.records.measurement import measurement_from_dict
from edgekit.core.records.validation import validation_from_dict
from edgekit.core.records.versioned_json import decode_versioned

PATH = Path("build/it.json")


@pytest.mark.parametrize("read", [layers_from_dict, measurement_from_dict, validation_from_dict])
@pytest.mark.parametrize("data", [[], None, "text", 3])
def test_data_that_are_not_an_object_are_refused(read, data):
    with pytest.raises(InputError, match=r"^build/it\.json: not an? "):
        read(data, PATH)


@dataclass(frozen=True)
class Bench:
    size: int
    schema_version: int = 1


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({"schema_version": 1}, "size: this key is missing; run the bench again"),
        ({"schema_version": 2, "size": 3}, "not a bench result of version 1; run the bench again"),
        ({"schema_version": True, "size": 3}, "not a bench result of version 1; run the bench again"),
        ({"size": 3}, "not a bench result of version 1; run the bench again"),
        (
            {"schema_version": 1, "size": 3, "colour": 0},
            "colour: unknown key; allowed: schema_version, size; run the bench again",
        ),
        ({"schema_version": 1, "size": None}, "size: must be an integer of at most 64 bits (got None)"),
    ],
)
def test_a_missing_unknown_or_mistyped_key_is_refused(data, sentence):
    with pytest.raises(InputError) as caught:
        decode_versioned(Bench, data, PATH, "a bench result", "run the bench again", version=1)
    assert str(caught.value).startswith(f"{PATH}: {sentence}")


def test_the_keys_of_an_older_version_are_renamed():
    older = {"schema_version": 1, "bytes": 3}
    bench = decode_versioned(Bench, older, PATH, "a bench", "bench", version=2, older={1: {"bytes": "size"}})
    assert bench == Bench(3, 2)


def test_a_key_that_every_record_has_may_be_missing_in_older_ones_only():
    options = {"version": 2, "older": {1: {}}, "always": ("size",)}
    assert decode_versioned(Optional, {"schema_version": 1}, PATH, "a bench", "bench", **options) == Optional(0, 2)
    with pytest.raises(InputError, match="size: this key is missing; bench"):
        decode_versioned(Optional, {"schema_version": 2}, PATH, "a bench", "bench", **options)


@dataclass(frozen=True)
class Optional:
    size: int = 0
    schema_version: int = 2
