"""What has to be installed, found without importing it."""

import importlib.util
import sys
import tomllib
from pathlib import Path

import pytest

from edgekit.core.environment import requirements
from edgekit.core.environment.requirements import NUMPY, Requirement, require, versions
from edgekit.core.errors import MissingDependency

ABSENT = Requirement("no_such_module_anywhere", "no-such-package", "torch")
ABSENT_TOO = Requirement("no_such_module_either", "another-package", "onnx")


def test_what_is_there_is_installed_and_has_a_version():
    assert NUMPY.installed()
    assert NUMPY.version() == sys.modules["numpy"].__version__


def test_what_is_absent_is_not_installed_and_has_no_version():
    assert not ABSENT.installed()
    assert ABSENT.version() is None


def test_a_module_of_an_absent_package_is_absent():
    assert not Requirement("no_such_module_anywhere.inner", "x", "torch").installed()


def test_a_module_without_spec_counts_as_absent(monkeypatch):
    def broken(name):
        raise ValueError(f"{name}.__spec__ is None")

    monkeypatch.setattr(importlib.util, "find_spec", broken)
    assert not NUMPY.installed()


def test_looking_does_not_import():
    before = set(sys.modules)
    require((Requirement("wsgiref", "x", "x"), Requirement("turtledemo", "x", "x")), "nothing")
    assert {"wsgiref", "turtledemo"}.isdisjoint(set(sys.modules) - before)


def test_nothing_missing_raises_nothing():
    require((NUMPY,), "counting")
    require((), "nothing")


def test_a_missing_package_becomes_the_command_that_installs_it():
    with pytest.raises(MissingDependency) as caught:
        require((NUMPY, ABSENT), "the target torchscript")
    expected = "the target torchscript needs no-such-package; install it with: pip install 'edgekit[torch]'"
    assert str(caught.value) == expected
    assert caught.value.exit_code == 3


def test_several_missing_packages_are_one_command():
    with pytest.raises(MissingDependency) as caught:
        require((ABSENT, ABSENT_TOO, ABSENT_TOO), "this")
    assert "this needs no-such-package, another-package" in str(caught.value)
    assert str(caught.value).endswith("pip install 'edgekit[onnx,torch]'")


def test_versions_leave_out_what_is_absent():
    assert versions((ABSENT, NUMPY)) == {"numpy": sys.modules["numpy"].__version__}


def test_every_extra_that_is_told_to_users_exists_and_asks_for_the_package():
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    for item in requirements.ALL:
        asked = project["optional-dependencies"][item.extra]
        assert any(line.startswith(item.distribution) for line in asked), item


def test_the_doctor_knows_what_every_extra_adds():
    from edgekit.cli import doctor

    assert {item.extra for item in requirements.ALL} == set(doctor._ADDS)
