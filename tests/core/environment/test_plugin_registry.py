"""Plug-ins by file name and by entry point."""

import sys
import types
from importlib import metadata

import pytest

from edgekit.core.environment import plugin_registry
from edgekit.core.errors import InputError


@pytest.fixture
def entry_points(monkeypatch):
    """Return a function that replaces all entry points by (group, name, value) triples."""

    def install(*triples):
        points = [metadata.EntryPoint(name, value, group) for group, name, value in triples]

        def entry_points_of(*, group):
            return metadata.EntryPoints(point for point in points if point.group == group)

        monkeypatch.setattr(metadata, "entry_points", entry_points_of)

    install()
    return install


@pytest.fixture
def third_party(monkeypatch):
    """Create a module of a third party that defines a target."""
    module = types.ModuleType("third_party_target")
    module.TARGET = object()
    monkeypatch.setitem(sys.modules, "third_party_target", module)
    return module


def test_names_are_the_file_names_with_hyphens(entry_points):
    assert plugin_registry.names("edgekit.targets") == [
        "executorch",
        "lite-interpreter",
        "onnx",
        "saved-model",
        "tflite",
        "torchscript",
    ]


def test_files_that_begin_with_an_underscore_are_no_plug_ins(entry_points):
    assert not any(name.startswith(("_", "-")) for name in plugin_registry.names("edgekit.reports"))
    assert "base" not in plugin_registry.names("edgekit.reports")


def test_loading_gives_the_attribute_of_the_module(entry_points):
    report = plugin_registry.load("edgekit.reports", "markdown", "REPORT")
    assert report is sys.modules["edgekit.reports.markdown"].REPORT


def test_a_name_with_a_hyphen_stands_for_a_file_with_an_underscore(entry_points):
    assert plugin_registry.load("edgekit.targets", "lite-interpreter", "TARGET").name == "lite-interpreter"


@pytest.mark.parametrize("name", ["lite_interpreter", "TFLite", "_base", "__init__", ""])
def test_a_name_that_is_not_spelt_exactly_is_refused_with_the_list(entry_points, name):
    with pytest.raises(InputError) as caught:
        plugin_registry.load("edgekit.targets", name, "TARGET")
    names = "executorch, lite-interpreter, onnx, saved-model, tflite, torchscript"
    assert str(caught.value) == f"unknown target '{name}'; known: {names}"
    assert caught.value.exit_code == 2


def test_entry_points_of_the_group_are_listed_without_being_imported(entry_points):
    entry_points(("edgekit.targets", "coreml", "no_such_module_anywhere"), ("other.group", "alien", "x"))
    names = plugin_registry.names("edgekit.targets")
    assert "coreml" in names
    assert "alien" not in names
    assert names == sorted(names)
    assert "no_such_module_anywhere" not in sys.modules


def test_an_entry_point_is_loaded_by_its_module(entry_points, third_party):
    entry_points(("edgekit.targets", "coreml", "third_party_target"))
    assert plugin_registry.load("edgekit.targets", "coreml", "TARGET") is third_party.TARGET


def test_our_own_plug_in_takes_precedence_over_an_entry_point_of_the_same_name(entry_points, third_party):
    entry_points(("edgekit.targets", "tflite", "third_party_target"))
    assert plugin_registry.names("edgekit.targets").count("tflite") == 1
    assert plugin_registry.load("edgekit.targets", "tflite", "TARGET") is not third_party.TARGET


def test_an_entry_point_of_another_group_is_not_found(entry_points, third_party):
    entry_points(("edgekit.runtimes", "coreml", "third_party_target"))
    with pytest.raises(InputError, match="unknown target 'coreml'"):
        plugin_registry.load("edgekit.targets", "coreml", "TARGET")


def test_the_error_lists_third_parties_too(entry_points):
    entry_points(("edgekit.targets", "coreml", "third_party_target"))
    with pytest.raises(InputError, match="known: coreml, executorch, lite-interpreter"):
        plugin_registry.load("edgekit.targets", "nothing", "TARGET")


class Thing:
    """The base class of a kind's plug-ins."""

    def __init__(self, name):
        self.name = name


KIND = plugin_registry.PluginKind("edgekit.targets", "TARGET", Thing, "edgekit.things")


def test_a_kind_has_a_group_of_its_own_and_checks_what_it_loads(entry_points, third_party):
    entry_points(("edgekit.things", "coreml", "third_party_target"))
    assert KIND.third_party_names() == ["coreml"]
    assert "coreml" in KIND.names()
    with pytest.raises(InputError, match="the thing 'coreml' of another package is not a Thing"):
        KIND.load("coreml")
    third_party.TARGET = Thing("core-ml")
    with pytest.raises(InputError, match="the thing 'coreml' of another package calls itself 'core-ml'"):
        KIND.load("coreml")
    third_party.TARGET = Thing("coreml")
    assert KIND.load("coreml") is third_party.TARGET
    with pytest.raises(InputError, match="unknown thing 'x'; known: coreml, "):
        KIND.load("x")
