"""The table of precisions."""

import ast
import re
from dataclasses import replace

import pytest
from _helpers.support import REPOSITORY

from edgekit.core.errors import InputError
from edgekit.core.values import precisions as table
from edgekit.core.values.precisions import (
    PRECISIONS,
    find_precision,
    is_precision,
    parse_precision,
    precision_names,
    register_precision,
)
from edgekit.core.values.tolerances import Tolerances

# Files that list names of precisions for another reason: names of tensor types, arithmetic of a core.
OTHER_NAMES = {
    "edgekit/core/values/specs.py",
    "edgekit/config/device_profile.py",
    "edgekit/stages/conversion/emit_web.py",
    "edgekit/sources/tflite.py",  # types of elements
    "edgekit/tflite_files/graph.py",
}

INT3 = replace(
    find_precision("int4"),
    name="int3",
    title="int3 weights, floating-point activations",
    weight_bits=3,
    tolerances=Tolerances(min_sqnr_db=6.0),
    color="#123456",
)


@pytest.fixture(autouse=True)
def _empty_registry(monkeypatch):
    monkeypatch.setattr(table, "_registered", {})
    monkeypatch.setattr(table, "_providers", [])


def test_the_built_in_precisions_stand_in_the_order_that_reports_use():
    assert precision_names() == ("float32", "float16", "dynamic", "int8", "int16x8", "int4")


@pytest.mark.parametrize("precision", PRECISIONS, ids=lambda precision: precision.name)
def test_every_precision_has_every_property(precision):
    assert precision.title
    assert precision.tolerance_reason and not precision.tolerance_reason.endswith(".")
    assert precision.tolerances.limits()
    assert 0 < precision.weight_bits <= 32
    assert 0 <= precision.anchor_db < precision.ceiling_db
    assert precision.arithmetic in {"float32", "int16", "int8"}
    assert re.fullmatch("#[0-9a-f]{6}", precision.color)


@pytest.mark.parametrize("field", ["name", "title", "color"])
def test_no_two_precisions_share_a_name_a_title_or_a_colour(field):
    values = [getattr(precision, field) for precision in PRECISIONS]
    assert len(set(values)) == len(values)


def test_the_properties_of_precisions_are_those_that_the_rest_of_edgekit_relies_on():
    def having(condition):
        return {precision.name for precision in PRECISIONS if condition(precision)}

    assert having(lambda item: item.is_float) == {"float32", "float16"}
    assert having(lambda item: item.needs_calibration) == {"int8", "int16x8"}
    assert having(lambda item: item.dynamic_ranges) == {"dynamic"}
    ranked = sorted((item.refine_rank, item.name) for item in PRECISIONS if item.refine_rank is not None)
    assert ranked == [(1, "int8"), (2, "dynamic"), (3, "int4")]


def test_the_reports_colours_are_in_the_page_in_the_order_of_the_table():
    css = (REPOSITORY / "edgekit/reports/_html/page/page.css").read_text()
    assert re.findall(r"--s\d: light-dark\((#\w+),", css) == [precision.color for precision in PRECISIONS]


@pytest.mark.parametrize("precision", precision_names())
def test_every_precision_parses_to_itself(precision):
    assert parse_precision(precision) == precision


@pytest.mark.parametrize("text", ["fp16", "INT8", "", " int8", "int8 "])
def test_a_precision_that_is_not_spelt_exactly_is_rejected_with_the_list(text):
    with pytest.raises(InputError) as caught:
        parse_precision(text)
    assert str(caught.value) == f"unknown precision '{text}'; known: dynamic, float16, float32, int16x8, int4, int8"
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("name", ["", "Int8", "int8-tuned", "a:b", "8bit"])
def test_a_malformed_name_is_rejected(name):
    with pytest.raises(ValueError) as caught:
        replace(INT3, name=name)
    assert str(caught.value) == f"the name of a precision must be lower-case letters and digits (got {name!r})"


def test_a_malformed_colour_is_rejected():
    with pytest.raises(ValueError) as caught:
        replace(INT3, color="red")
    assert str(caught.value) == "the colour of int3 must be written #rrggbb in lower case (got 'red')"


def test_registered_precisions_follow_the_built_in_ones_by_name():
    built_in = precision_names()
    register_precision(INT3, "the target 'b'")
    register_precision(replace(INT3, name="fp8"), "the target 'a'")
    assert precision_names() == (*built_in, "fp8", "int3")
    assert find_precision("int3") is INT3


def test_an_equal_definition_may_be_registered_again():
    register_precision(INT3, "the target 'a'")
    register_precision(replace(INT3), "the target 'b'")
    register_precision(find_precision("int8"), "the target 'b'")
    assert precision_names()[-1] == "int3"
    assert len(precision_names()) == len(PRECISIONS) + 1


def test_a_different_definition_of_a_registered_name_is_refused_with_both_owners():
    register_precision(INT3, "the target 'a'")
    with pytest.raises(InputError) as caught:
        register_precision(replace(INT3, weight_bits=4), "the target 'b'")
    assert str(caught.value) == (
        "the target 'b' defines the precision 'int3' differently from the target 'a'; rename one of them"
    )
    assert find_precision("int3") is INT3


def test_a_different_definition_of_a_built_in_precision_is_refused():
    with pytest.raises(InputError) as caught:
        register_precision(replace(find_precision("int8"), ceiling_db=1.0), "the target 'a'")
    assert str(caught.value) == (
        "the target 'a' defines the precision 'int8' differently from edgekit itself; rename one of them"
    )


def test_providers_are_asked_for_unknown_names_only(monkeypatch):
    calls = []

    def provide():
        calls.append("called")
        register_precision(INT3, "the target 'a'")

    table.add_precision_provider(provide)
    assert is_precision("int8") and calls == []
    assert is_precision("int3") and calls == ["called"]
    assert is_precision("int3") and calls == ["called"]
    assert not is_precision("int9") and calls == ["called", "called"]


def test_no_module_but_the_table_lists_three_or_more_precisions():
    """A target declares the precisions that it converts to; everything else reads the table."""
    names = set(precision_names())
    literals = (ast.Tuple, ast.List, ast.Set, ast.Dict, ast.Call, ast.BoolOp, ast.Compare)
    offenders = set()
    for path in sorted((REPOSITORY / "edgekit").rglob("*.py")):
        name = path.relative_to(REPOSITORY).as_posix()
        if name in OTHER_NAMES | {"edgekit/core/values/precisions.py"} or name.startswith("edgekit/targets/"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, literals):
                strings = {item.value for item in ast.walk(node) if isinstance(item, ast.Constant)}
                if len({text for text in strings if isinstance(text, str)} & names) >= 3:
                    offenders.add(f"{name}:{node.lineno}")
    assert not offenders


@pytest.mark.parametrize(
    ("bits", "name"),
    [(3.9, "int4"), (4, "int4"), (6.4, "int8"), (8, "int8"), (15, "float16"), (21.3, "float32"), (64, "float32")],
)
def test_the_width_of_weights_tells_a_precision(bits, name):
    assert table.precision_of_width(bits) == name
