from __future__ import annotations

import pytest

from edgekit.contracts.target import Target
from edgekit.core.errors import InputError
from edgekit.core.values.specs import Route, Variant
from edgekit.stages.conversion import routes


def target(name: str, **kinds: tuple[str, ...]) -> Target:
    """A target that only has routes."""
    return type(name, (Target,), {"name": name, "routes": kinds, "_convert": None, "describe": None})()


BRIDGES = (("onnx", "torch"), ("keras", "torch"), ("torch", "far"), ("far", "farther"))


def test_a_direct_converter_comes_before_a_bridge() -> None:
    both = target("t", keras=("float32",), torch=("float32", "int8"))
    assert routes.find_routes("keras", both, "float32", BRIDGES)[0] == Route(("keras", "t"))
    assert routes.find_routes("keras", both, "int8", BRIDGES)[0] == Route(("keras", "torch", "t"))


def test_the_shortest_route_over_several_bridges_is_found() -> None:
    (route,) = routes.find_routes("onnx", target("t", farther=("int8",)), "int8", BRIDGES)
    assert route == Route(("onnx", "torch", "far", "farther", "t"))
    assert route.bridges == (("onnx", "torch"), ("torch", "far"), ("far", "farther"))
    assert (route.source_kind, route.converter_kind, str(route)) == (
        "onnx",
        "farther",
        "onnx -> torch -> far -> farther -> t",
    )


def test_an_unreachable_target_has_no_route_even_with_cyclic_edges() -> None:
    cycle = (("a", "b"), ("b", "a"))
    assert routes.find_routes("a", target("t", torch=("int8",)), "int8", cycle) == ()


def test_a_file_of_the_target_is_not_made_again_from_itself() -> None:
    onnx = routes.load_target("onnx")
    found = {kind: [str(route) for route in routes.available_routes(kind, onnx, "int8", routes.edges())]
             for kind in ("keras", "saved-model", "onnx")}  # fmt: skip
    assert found == {
        "keras": ["keras -> onnx", "keras -> torch -> onnx"],
        "saved-model": ["saved-model -> onnx"],
        "onnx": ["onnx -> onnx", "onnx -> torch -> onnx"],
    }


def test_an_empty_selection_means_every_target_and_a_precision_filters_them() -> None:
    everything = routes.parse_selection((), None)
    assert {target.name for target, precision in everything if precision is None} >= {"tflite", "onnx", "torchscript"}
    assert [target.name for target, _ in routes.parse_selection((), "int16x8")] == ["onnx", "tflite"]


def test_a_precision_on_request_is_selected_by_its_name_only() -> None:
    rare = type(target("rare", keras=("float32", "int4")))
    rare.on_request = frozenset({"int4"})

    def selected(precision: str | None) -> list[str]:
        chosen = routes.select_variants(("keras",), [(rare(), precision)], kinds_named=True, targets_named=True)
        return [str(variant) for _, variant, _ in chosen]

    assert selected(None) == ["rare:float32"]
    assert selected("int4") == ["rare:int4"]
    assert (rare().precisions, rare().default_precisions) == (("float32", "int4"), ("float32",))


def test_a_variant_and_a_target_with_a_precision_mean_the_same() -> None:
    (first,) = routes.parse_selection(("tflite:int8",), None)
    (second,) = routes.parse_selection(("tflite",), "int8")
    assert (first[0].name, first[1]) == (second[0].name, second[1]) == ("tflite", "int8")


def test_a_tuned_variant_is_exported_from_its_recipe_only() -> None:
    with pytest.raises(InputError, match="int8-tuned is converted with a recipe: pass the recipe file, such as build"):
        routes.parse_selection(("tflite:int8-tuned",), None)


def test_every_kind_is_exported_to_the_variants_that_it_reaches() -> None:
    selected = routes.select_variants(
        ("keras", "torch"),
        routes.parse_selection(("onnx:int8", "torchscript"), None),
        kinds_named=False,
        targets_named=True,
    )
    assert [(kind, str(variant)) for kind, variant, _ in selected] == [
        ("keras", "onnx:int8"),
        ("torch", "onnx:int8"),
        ("keras", "torchscript:float32"),
        ("keras", "torchscript:int8"),
        ("torch", "torchscript:float32"),
        ("torch", "torchscript:int8"),
    ]


def test_an_unreachable_target_that_was_not_named_is_skipped() -> None:
    everything = routes.parse_selection((), None)
    selected = routes.select_variants(("torch",), everything, kinds_named=True, targets_named=False)
    assert Variant("onnx", "int8") in [variant for _, variant, _ in selected]


def test_an_unreachable_target_that_was_named_is_rejected() -> None:
    alien = target("alien", mars=("int8",))
    with pytest.raises(InputError, match="no route from keras to alien:int8"):
        routes.select_variants(("keras",), [(alien, "int8")], kinds_named=True, targets_named=True)


def test_keras_reaches_the_targets_of_pytorch_through_the_bridge() -> None:
    executorch = routes.load_target("executorch")
    (route,) = routes.available_routes("keras", executorch, "int8", routes.bridges())
    assert str(route) == "keras -> torch -> executorch"
    assert routes.why_unreachable("keras", executorch, "int8", routes.bridges()) is None


def test_an_unreachable_variant_has_a_reason() -> None:
    alien = target("alien", mars=("int8",))
    assert (
        routes.why_unreachable("keras", alien, "int8", routes.bridges()) == "only mars can be converted to alien:int8"
    )


def test_a_route_is_written_with_commas_or_arrows() -> None:
    assert routes.parse_route("keras,torch, tflite") == routes.parse_route("keras -> torch -> tflite")
