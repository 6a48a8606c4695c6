"""Decoding of versioned records, and refusals that name the file."""

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


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({"schema_version": 1}, "this bench result has a missing or mistyped key ('size')"),
        ({"schema_version": 2, "size": 3}, "not a bench result of version 1; run the bench again"),
        ({"size": 3}, "not a bench result of version 1; run the bench again"),
        ({"schema_version": 1, "size": 3, "colour": 0}, "not a bench result of version 1; run the bench again"),
        ({"schema_version": 1, "size": None}, "this bench result has a missing or mistyped key"),
    ],
)
def test_a_missing_unknown_or_mistyped_key_is_refused(data, sentence):
    keys = ("schema_version", "size")
    with (
        pytest.raises(InputError) as caught,
        decode_versioned(data, PATH, "a bench result", "run the bench again", keys=keys, version=1) as values,
    ):
        assert values["size"] + 1
    assert str(caught.value).startswith(f"{PATH}: {sentence}")
