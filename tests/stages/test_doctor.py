"""Requirements are declared where they are used, and the doctor finds each of them."""

import importlib
import pkgutil
import sys
import tomllib
import types
from importlib import metadata

import pytest
from _helpers.support import REPOSITORY, call

import edgekit
from edgekit.contracts.target import Target
from edgekit.core.environment.requirements import EXTRAS, NUMPY, Requirement
from edgekit.stages.doctor import confinement_problem, diagnose
from edgekit.workers import confinement
from edgekit.workers.environment import Environment


def test_the_doctor_finds_every_requirement_that_a_module_of_edgekit_declares():
    declared = set()
    for module in pkgutil.walk_packages(edgekit.__path__, "edgekit."):
        if module.name.endswith("__main__") or "._onnx.operators" in module.name:
            continue
        values = vars(importlib.import_module(module.name)).values()
        declared |= {value for value in values if isinstance(value, Requirement)}
    assert declared - {NUMPY} == set(diagnose().requirements)


def test_every_requirement_of_edgekit_belongs_to_an_extra_that_asks_for_it():
    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for requirement in diagnose().requirements:
        assert any(line.startswith(requirement.distribution) for line in extras[requirement.extra]), requirement
        assert requirement.purpose == EXTRAS[requirement.extra]


@pytest.fixture
def third_party(monkeypatch):
    """A target of another package, whose requirement is missing, and one that cannot be imported."""

    class CoreMl(Target):
        name = "coreml"
        requires = {"torch": (Requirement("no_such_module", "coremltools", adds="the target coreml"),)}
        _convert = describe = None

    CoreMl.__abstractmethods__ = frozenset()
    module = types.ModuleType("third_party_target")
    module.TARGET = CoreMl()
    monkeypatch.setitem(sys.modules, "third_party_target", module)
    points = [
        metadata.EntryPoint("coreml", "third_party_target", "edgekit.targets"),
        metadata.EntryPoint("gone", "no_such_module_anywhere", "edgekit.targets"),
    ]
    monkeypatch.setattr(
        metadata, "entry_points", lambda *, group: metadata.EntryPoints(p for p in points if p.group == group)
    )


def test_the_doctor_reports_whether_workers_are_confined(monkeypatch):
    reason = confinement.unavailable_reason()
    data = call("doctor", "--json").data
    assert (data["workers_confined"], data["workers_not_confined_because"]) == (reason is None, reason)
    monkeypatch.setenv("EDGEKIT_CONFINEMENT", "off")
    assert "models are not confined: EDGEKIT_CONFINEMENT is off\n" in call("doctor").out
    monkeypatch.setenv("EDGEKIT_CONFINEMENT", "yes")
    assert call("doctor").code == 2


def test_the_doctor_lets_a_worker_try_what_is_denied(monkeypatch):
    monkeypatch.setattr(confinement, "unavailable_reason", lambda: None)
    monkeypatch.setattr(Environment, "limits", lambda *_: {"cpus": None, "memory_limit_bytes": None, "confine": None})
    assert confinement_problem() == "a confined worker could still write files, use the network, run programs"


def test_the_doctor_reports_what_plug_ins_of_other_packages_need(third_party):
    answer = call("doctor")
    assert answer.code == 0
    assert "missing: the target coreml; install with: pip install coremltools\n" in answer.out
    assert "broken: the target 'gone' of another package (no_such_module_anywhere) cannot be loaded" in answer.out
    packages = call("doctor", "--json").data["packages"]
    (package,) = [package for package in packages if package["package"] == "coremltools"]
    assert package == {
        "package": "coremltools",
        "version": None,
        "extra": "",
        "adds": "the target coreml",
        "install": "pip install coremltools",
    }
