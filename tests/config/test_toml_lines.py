"""The line of each key, in a text whose lines are known and in texts that hypothesis generates."""

import json
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.config.toml_lines import key_lines, line_of

TEXT = '''# a comment with [brackets] = "and an equals sign"
top = "a # in a string"   # and one after it

[table]
plain = 1
"quoted key" = [1, 2,
  3, # a comment ] in an array
  [4, 5]]
long = """
[not.a.table]
key = 1 \\""" ""
end"""
literal = \'\'\'
]]} \'\'\'
dotted . "in.ner" = 1979-05-27 07:32:00

[[models]]
name = 'one'
own = { weights = "w}", inputs = ["a", "b"], deep = { x = 1 } }

[[models]]
name = "two"
  [models.training]
  epochs = 3
  [[models.budgets]]
  size = "1 KB"
'''

LINES = {
    ("top",): 2,
    ("table",): 4,
    ("table", "plain"): 5,
    ("table", "quoted key"): 6,
    ("table", "quoted key", 1): 6,
    ("table", "quoted key", 2): 7,
    ("table", "quoted key", 3, 1): 8,
    ("table", "long"): 9,
    ("table", "literal"): 13,
    ("table", "dotted", "in.ner"): 15,
    ("models",): 17,
    ("models", 0): 17,
    ("models", 0, "own", "inputs", 1): 19,
    ("models", 0, "own", "deep", "x"): 19,
    ("models", 1): 21,
    ("models", 1, "name"): 22,
    ("models", 1, "training", "epochs"): 24,
    ("models", 1, "budgets", 0): 25,
    ("models", 1, "budgets", 0, "size"): 26,
}


@pytest.mark.parametrize(("location", "line"), LINES.items(), ids=str)
def test_each_key_and_element_has_its_line(location, line):
    assert key_lines(TEXT)[location] == line


def locations(data, base=()):
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        yield (*base, key)
        yield from locations(value, (*base, key))


def test_exactly_the_keys_and_elements_of_the_text_have_a_line():
    assert set(key_lines(TEXT)) == set(locations(tomllib.loads(TEXT)))


def test_a_missing_key_has_the_line_of_the_table_around_it():
    lines = key_lines(TEXT)
    assert line_of(("models", 1, "nmae"), lines) == 21
    assert line_of(("nothing",), lines) is None


def to_toml(value):
    if isinstance(value, dict):
        return (
            "{"
            + ", ".join(f"{json.dumps(key, ensure_ascii=False)} = {to_toml(item)}" for key, item in value.items())
            + "}"
        )
    if isinstance(value, list):
        return "[" + ", ".join(map(to_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


plain = st.text(st.characters(exclude_categories=("C",)), max_size=8)
values = st.recursive(
    plain | st.integers(-9, 9) | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(plain, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(plain, values, max_size=4))
def test_every_location_of_any_file_is_found_on_its_line(data):
    text = "\n".join(f"{json.dumps(key, ensure_ascii=False)} = {to_toml(value)}" for key, value in data.items())
    lines = key_lines(text)
    parsed = tomllib.loads(text)
    assert set(lines) == set(locations(parsed))
    for number, key in enumerate(parsed, 1):
        assert lines[(key,)] == number
