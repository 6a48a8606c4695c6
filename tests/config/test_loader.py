"""Loading TOML: invalid data are errors with a clear message."""

from dataclasses import dataclass, field
from typing import Literal

import pytest

from edgekit.config.loader import STRICT, read_toml, validate
from edgekit.core.errors import InputError


@dataclass(frozen=True)
class Wheel:
    size: int
    kind: Literal["road", "trail"] = "road"

    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class Bike:
    name: str
    wheels: tuple[Wheel, ...]
    spare: Wheel | None = None
    weight: float | None = None
    parts: dict[str, Wheel] = field(default_factory=dict)

    __pydantic_config__ = STRICT

    def __post_init__(self):
        if not self.wheels:
            raise ValueError("wheels: a bike has some")


GOOD = {"name": "b", "wheels": [{"size": 26}]}


def refusal(**changes):
    data = {key: value for key, value in {**GOOD, **changes}.items() if value is not ...}
    with pytest.raises(InputError) as caught:
        validate(data, Bike, "bike.toml")
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_good_data_becomes_frozen_dataclasses_with_defaults():
    bike = validate({**GOOD, "weight": 9, "spare": {"size": 20, "kind": "trail"}}, Bike, "bike.toml")
    assert bike == Bike("b", (Wheel(26),), Wheel(20, "trail"), 9.0)


def test_an_unknown_key_is_refused_with_the_allowed_ones():
    assert refusal(nmae="x") == (
        "bike.toml: nmae: unknown key; allowed: name, parts, spare, weight, wheels; nearest: name"
    )


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"wheels": [{"size": 26}, {"size": 26, "colour": "red"}]}, "wheels.1.colour"),
        ({"spare": {"size": 26, "colour": "red"}}, "spare.colour"),
        ({"parts": {"front": {"size": 26, "colour": "red"}}}, "parts.front.colour"),
    ],
)
def test_an_unknown_key_of_an_inner_table_is_refused_with_that_table_s_keys(changes, key):
    assert refusal(**changes) == f"bike.toml: {key}: unknown key; allowed: kind, size"


@pytest.mark.parametrize("name", ["int", "str", "float", "none", "list[int]"])
def test_an_unknown_key_that_is_spelt_like_a_type_is_named(name):
    allowed = "name, parts, spare, weight, wheels"
    assert refusal(**{name: 3}) == f"bike.toml: {name}: unknown key; allowed: {allowed}"


def test_a_missing_key_is_named():
    assert refusal(name=...) == "bike.toml: name: this key is missing"
    assert refusal(wheels=[{}]) == "bike.toml: wheels.0.size: this key is missing"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"name": 3}, "name: input should be a valid string (got 3)"),
        ({"wheels": 3}, "wheels: input should be a valid array (got 3)"),
        ({"wheels": [{"size": 1.5}]}, "wheels.0.size: input should be a valid integer (got 1.5)"),
        ({"wheels": [{"size": "26"}]}, "wheels.0.size: input should be a valid integer (got '26')"),
        ({"wheels": [{"size": True}]}, "wheels.0.size: input should be a valid integer (got True)"),
        ({"weight": "9"}, "weight: input should be a valid number (got '9')"),
        ({"weight": True}, "weight: input should be a valid number (got True)"),
    ],
)
def test_a_value_of_another_type_is_refused_and_not_converted(changes, sentence):
    assert refusal(**changes) == f"bike.toml: {sentence}"


def test_a_value_that_is_not_among_the_choices_is_refused_with_them():
    sentence = refusal(wheels=[{"size": 26, "kind": "mud"}])
    assert sentence == "bike.toml: wheels.0.kind: input should be 'road' or 'trail' (got 'mud')"


def test_an_error_of_the_dataclass_itself_keeps_its_message():
    assert refusal(wheels=[]) == "bike.toml: file: wheels: a bike has some"


@pytest.fixture
def toml(tmp_path):
    def write(content):
        path = tmp_path / "bike.toml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def test_a_toml_file_is_read(toml):
    assert read_toml(toml('name = "ä"\n[[wheels]]\nsize = 26\n'), Bike, "bike") == Bike("ä", (Wheel(26),))


def test_the_message_names_the_file(toml):
    path = toml('name = "b"\nwheels = [{size = 26}]\nx = 1\n')
    with pytest.raises(InputError) as caught:
        read_toml(path, Bike, "bike")
    assert str(caught.value).startswith(f"{path}: x: unknown key")


@pytest.mark.parametrize(
    "content",
    [b"name = ", b"name = 'a'\nname = 'b'\n", b"\xff\xfe", b"wheels = " + b"1" * 5000],
    ids=["cut off", "a key twice", "no UTF-8", "a number too long"],
)
def test_invalid_toml_is_a_one_line_error(toml, content):
    path = toml(content)
    with pytest.raises(InputError) as caught:
        read_toml(path, Bike, "bike")
    assert str(caught.value).startswith(f"{path}: this bike is not valid TOML (")


def test_a_missing_and_an_empty_file_are_one_line_errors(toml, tmp_path):
    with pytest.raises(InputError, match="no such bike"):
        read_toml(tmp_path / "gone.toml", Bike, "bike")
    with pytest.raises(InputError, match="this bike is empty"):
        read_toml(toml(b""), Bike, "bike")


def test_a_date_is_not_accepted_as_text(toml):
    path = toml("name = 2024-01-31\nwheels = [{size = 26}]\n")
    with pytest.raises(InputError, match="name: "):
        read_toml(path, Bike, "bike")
