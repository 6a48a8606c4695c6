"""The typed reader of records: what it accepts, and where and how it refuses the rest."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any, Literal

import pytest

from edgekit.core.errors import InputError
from edgekit.core.values.typed_json import Count, FileName, Milliseconds, NanIfNull, Sha256, Share, decode


class Colour(StrEnum):
    RED = "red"


@dataclass(frozen=True)
class Inner:
    share: Share
    pair: tuple[int, str] = (0, "")
    doubled: float = field(init=False)

    def __post_init__(self) -> None:
        if self.share == 0.5:
            raise ValueError("share must not be a half")
        object.__setattr__(self, "doubled", 2 * self.share)


@dataclass(frozen=True)
class Outer:
    count: Count = 0
    ms: Milliseconds = 0.0
    name: FileName = "x"
    sha256: Sha256 = "0" * 64
    flag: bool = False
    number: float = 0.0
    text: str = ""
    maybe: int | None = None
    dim: Count | str = 0
    colour: Colour = Colour.RED
    word: Literal["a", "b"] = "a"
    inner: tuple[Inner, ...] = ()
    table: Mapping[str, Count] = field(default_factory=dict)
    anything: Any = None
    stored: Annotated[float, NanIfNull()] = 0.0


def refusal(**data: Any) -> str:
    with pytest.raises(InputError) as caught:
        decode(Outer, data, "file.json", "write it again")
    message = str(caught.value)
    assert message.startswith("file.json: ")
    assert message.endswith("; write it again")
    assert message.isascii()
    assert len(message.splitlines()) == 1
    return message.removeprefix("file.json: ").removesuffix("; write it again")


def test_values_become_the_types_that_are_annotated() -> None:
    data = {
        "number": 3, "dim": "batch", "colour": "red", "inner": [{"share": 0.25, "pair": [1, "y"], "doubled": 9}],
        "table": {"a": 1}, "anything": [{"x": None}], "stored": None, "maybe": None,
    }  # fmt: skip
    outer = decode(Outer, json.loads(json.dumps(data)), "file.json")
    assert outer.inner == (Inner(0.25, (1, "y")),)
    assert outer.inner[0].doubled == 0.5  # computed: what the file says is ignored
    assert isinstance(outer.number, float)
    assert outer.colour is Colour.RED
    assert math.isnan(outer.stored)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({"count": -1}, "count: must be an integer of at least 0 (got -1)"),
        ({"count": True}, "count: must be an integer of at least 0 (got True)"),
        ({"count": 1.0}, "count: must be an integer of at least 0 (got 1.0)"),
        ({"count": 2**63}, "count: must be an integer of at least 0 (got 9223372036854775808)"),
        ({"ms": math.nan}, "ms: must be a number from 0 to 1e+12 (got nan)"),
        ({"ms": math.inf}, "ms: must be a number from 0 to 1e+12 (got inf)"),
        ({"ms": None}, "ms: must be a number from 0 to 1e+12 (got None)"),
        ({"number": 10**400}, "number: must be a finite number (got 1"),
        ({"number": "1"}, "number: must be a finite number (got '1')"),
        ({"flag": 1}, "flag: must be true or false (got 1)"),
        ({"name": "a/b"}, "name: must be a name of 1 to 255 characters without slashes, and not '.' or '..'"),
        ({"name": ".."}, "name: must be a name of 1 to 255 characters"),
        ({"name": "x\0"}, "name: must be a name of 1 to 255 characters"),
        ({"name": "x" * 256}, "name: must be a name of 1 to 255 characters"),
        ({"sha256": "0" * 63}, "sha256: must be a sha256 of 64 hexadecimal digits"),
        ({"text": "\ud800"}, "text: must be a text without lone surrogates (got '\\ud800')"),
        ({"maybe": "1"}, "maybe: must be an integer of at most 64 bits (got '1')"),
        ({"dim": []}, "dim: must be an integer of at least 0 or a text of at most 1,000,000 characters (got [])"),
        ({"colour": "blue"}, "colour: must be one of red (got 'blue')"),
        ({"word": ["a"]}, "word: must be one of a, b (got a list)"),
        ({"word": True}, "word: must be one of a, b (got True)"),
        ({"inner": {}}, "inner: must be a list (got {})"),
        ({"inner": [{"share": 0.1}, {"share": 1.5}]}, "inner[1].share: must be a number from 0 to 1 (got 1.5)"),
        ({"inner": [{}]}, "inner[0].share: this key is missing"),
        ({"inner": [{"share": 0.5}]}, "inner[0]: share must not be a half"),
        ({"inner": [{"share": 0.1, "pair": [1]}]}, "inner[0].pair: must be a list of 2 values (got a list)"),
        ({"inner": [{"share": 0.1, "x": 1}]}, "inner[0].x: unknown key; allowed: doubled, pair, share"),
        ({"table": {"a b": -1}}, "table['a b']: must be an integer of at least 0 (got -1)"),
        ({"table": []}, "table: must be an object (got [])"),
        ({"anything": {"": [math.inf]}}, "anything[''][0]: must be a finite number (got inf)"),
        ({"anything": {"\udfff": 1}}, "anything['\\udfff']: must be a text without lone surrogates"),
        ({"\ud800" * 500: 1}, "['\\ud800"),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_a_wrong_value_is_refused_with_its_place_and_what_is_allowed(data: dict[str, Any], sentence: str) -> None:
    assert refusal(**data).startswith(sentence)


def test_deep_nesting_is_refused() -> None:
    deep: Any = []
    for _ in range(200):
        deep = [deep]
    assert "is nested more than 32 levels deep" in refusal(anything=deep)


@pytest.mark.parametrize("data", [None, [], "text", 3])
def test_data_that_are_no_object_are_refused(data: Any) -> None:
    with pytest.raises(InputError, match=r"^file\.json: must be an object \(got "):
        decode(Outer, data, "file.json")
