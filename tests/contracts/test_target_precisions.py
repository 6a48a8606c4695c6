"""Precisions that a target of another package defines."""

import subprocess
import sys
import types
from dataclasses import replace
from importlib import metadata

import pytest
from _helpers.sample_reports import comparison, measurement, render, report, row, validation
from _helpers.support import call

from edgekit.config.loader import validate
from edgekit.config.types import PrecisionName
from edgekit.contracts.target import TARGETS, Target
from edgekit.core.errors import InputError
from edgekit.core.numerics.applicable_tolerances import explain_limit, tolerances_for_precision
from edgekit.core.values import precisions as table
from edgekit.core.values.precisions import Precision, find_precision, parse_precision, precision_names
from edgekit.core.values.quantization_recipe import Recipe
from edgekit.core.values.specs import Variant
from edgekit.core.values.tolerances import Tolerances
from edgekit.reports._html.charts import color_of

INT3 = Precision(
    "int3",
    "int3 weights, floating-point activations",
    weight_bits=3,
    activation_bits=None,
    is_float=False,
    tolerances=Tolerances(min_sqnr_db=6.0),
    tolerance_reason="weights of 8 levels",
    ceiling_db=40.0,
    arithmetic="int8",
    color="#123456",
)


@pytest.fixture
def provide(monkeypatch):
    """Return a function that installs a target of another package with the given precisions."""
    points = []
    monkeypatch.setattr(table, "_registered", {})
    monkeypatch.setattr(
        metadata, "entry_points", lambda *, group: metadata.EntryPoints(p for p in points if p.group == group)
    )

    def install(target_name, *precisions, **attributes):
        class ThirdParty(Target):
            name = target_name
            routes = {"torch": tuple(precision.name for precision in precisions)}
            extra_precisions = precisions
            _convert = describe = None

        for attribute, value in attributes.items():
            setattr(ThirdParty, attribute, value)
        ThirdParty.__abstractmethods__ = frozenset()
        module = types.ModuleType(f"third_party_{target_name}")
        module.TARGET = ThirdParty()
        monkeypatch.setitem(sys.modules, module.__name__, module)
        points.append(metadata.EntryPoint(target_name, module.__name__, "edgekit.targets"))

    return install


def test_its_precision_is_parsed_without_naming_the_target(provide):
    provide("coreml", INT3)
    assert parse_precision("int3") == "int3"
    assert Variant.parse("coreml:int3") == Variant("coreml", "int3")
    assert Recipe("coreml", "int3").variant == Variant("coreml", "int3", "tuned")


def test_its_precision_has_tolerances_and_their_explanation(provide):
    provide("coreml", INT3)
    assert tolerances_for_precision("int3") == Tolerances(min_sqnr_db=6.0)
    assert explain_limit("int3", "min_sqnr_db", None, None) == "default of int3: weights of 8 levels"


def test_its_precision_is_listed_in_the_error_for_an_unknown_one(provide):
    provide("coreml", INT3)
    answer = call("export", "tiny", "--precision", "int9")
    assert answer.code == 2
    assert answer.err == (
        "Error: unknown precision 'int9'; known: dynamic, float16, float32, int16x8, int3, int4, int8\n"
    )


def test_configuration_files_accept_its_precision(provide):
    provide("coreml", INT3)
    accepted = validate({"int3": 1.0}, dict[PrecisionName, float], "model.toml")
    assert accepted == {"int3": 1.0}
    with pytest.raises(InputError) as caught:
        validate({"int9": 1.0}, dict[PrecisionName, float], "model.toml")
    assert str(caught.value) == (
        "model.toml: int9: input should be 'float32', 'float16', 'dynamic', 'int8', 'int16x8', 'int4' or 'int3'"
        " (got 'int9')"
    )


def test_its_precision_has_its_colour_in_the_charts_of_the_html_report(provide):
    provide("coreml", INT3)
    assert color_of("int3") == "#123456"
    rows = [
        row(f"coreml:{name}", checked=validation(comparison()), measurements=[measurement("pixel-2")])
        for name in ("float32", "int3")
    ]
    page = render("html", report(*rows))
    assert "#123456" in page
    assert "Colors: float32, int3" in page


def test_a_definition_that_differs_from_another_target_s_is_refused_when_the_target_is_loaded(provide):
    provide("coreml", INT3)
    provide("vendor", replace(INT3, ceiling_db=1.0))
    TARGETS.load("coreml")
    with pytest.raises(InputError) as caught:
        TARGETS.load("vendor")
    assert str(caught.value) == (
        "the target 'vendor' defines the precision 'int3' differently from the target 'coreml'; rename one of them"
    )
    assert find_precision("int3") == INT3


def test_integer_activations_without_calibration_are_refused_when_the_target_is_loaded(provide):
    provide("coreml", replace(INT3, activation_bits=8))
    with pytest.raises(InputError) as caught:
        TARGETS.load("coreml")
    assert str(caught.value) == (
        "the target 'coreml' defines the precision 'int3' with integer activations, which need real inputs;"
        " add it to `calibrated`"
    )


def test_integer_activations_with_calibration_are_accepted(provide):
    provide("coreml", replace(INT3, activation_bits=8), calibrated=frozenset({"int3"}))
    assert find_precision("int3").needs_calibration


def test_a_target_that_cannot_be_loaded_does_not_hide_the_precisions_of_others(provide):
    provide("broken", replace(INT3, name="int2", activation_bits=8))
    provide("coreml", INT3)
    assert parse_precision("int3") == "int3"
    assert "int2" not in precision_names()


@pytest.mark.parametrize(
    "module",
    ["stages.context", "stages.selection", "stages.benchmark.bench", "stages.gates.check", "stages.pipeline.plan"],
)
def test_whatever_reads_precisions_can_find_those_of_targets(module):
    code = f"import edgekit.{module}; from edgekit.core.values import precisions; assert precisions._providers"
    subprocess.run([sys.executable, "-c", code], check=True)
