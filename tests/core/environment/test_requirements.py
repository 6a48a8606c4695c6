"""Requirements: whether they are installed, without importing them, and the command that installs them."""

import importlib.util
import sys

import pytest

from edgekit.core.environment.requirements import NUMPY, Requirement, install_command, require, versions
from edgekit.core.errors import MissingDependency

ABSENT = Requirement("no_such_module_anywhere", "no-such-package", "torch")
ABSENT_TOO = Requirement("no_such_module_either", "another-package", "onnx")


def test_an_installed_requirement_has_a_version():
    assert NUMPY.installed()
    assert NUMPY.version() == sys.modules["numpy"].__version__


def test_an_absent_requirement_has_no_version():
    assert not ABSENT.installed()
    assert ABSENT.version() is None


def test_a_module_of_an_absent_package_is_absent():
    assert not Requirement("no_such_module_anywhere.inner", "x", "torch").installed()


def test_a_module_without_spec_counts_as_absent(monkeypatch):
    def broken(name):
        raise ValueError(f"{name}.__spec__ is None")

    monkeypatch.setattr(importlib.util, "find_spec", broken)
    assert not NUMPY.installed()


def test_the_check_does_not_import_the_module():
    before = set(sys.modules)
    require((Requirement("wsgiref", "x", "x"), Requirement("turtledemo", "x", "x")), "nothing")
    assert {"wsgiref", "turtledemo"}.isdisjoint(set(sys.modules) - before)


def test_installed_requirements_raise_no_error():
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


def test_versions_do_not_contain_absent_distributions():
    assert versions((ABSENT, NUMPY)) == {"numpy": sys.modules["numpy"].__version__}


def test_a_requirement_without_an_extra_is_installed_by_its_own_name():
    absent = Requirement("no_such_module_anywhere", "no-such-package")
    with pytest.raises(MissingDependency) as caught:
        require((absent,), "the target coreml")
    assert str(caught.value) == "the target coreml needs no-such-package; install it with: pip install no-such-package"
    assert absent.purpose == "no-such-package"


def test_a_requirement_may_have_its_own_install_command_and_purpose():
    absent = Requirement(
        "no_such_module_anywhere", "coremltools", adds="the target coreml", install="pip install x[coreml]"
    )
    assert install_command((absent, ABSENT)) == "pip install 'edgekit[torch]' && pip install x[coreml]"
    assert absent.purpose == "the target coreml"


def test_an_unknown_extra_is_not_an_error():
    assert Requirement("no_such_module_anywhere", "x", "no-such-extra").purpose == "x"
