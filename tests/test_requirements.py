"""The lock files: exact pins, hashes for every package, no host, and what the project says it needs."""

from __future__ import annotations

import re

import pytest
from _helpers.support import REPOSITORY
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

FILES = ("requirements.lock", "requirements-cuda.lock", "requirements-cpu.lock")
ENTRY = re.compile(
    r"(?P<pin>[A-Za-z0-9._-]+==[^\s;]+)(?P<marker> ; [^\\\n]+)?(?: \\\n    --hash=sha256:[0-9a-f]{64})+\n"
)


@pytest.mark.parametrize("file", FILES)
def test_every_package_is_pinned_with_hashes_and_nothing_else_is_in_the_file(file: str) -> None:
    text = re.sub(r"^#.*\n", "", (REPOSITORY / file).read_text(), flags=re.MULTILINE)
    assert text
    assert ENTRY.sub("", text) == ""  # no URL, no option, no package without a hash


def test_the_lock_satisfies_what_this_project_requires() -> None:
    import tomllib

    with (REPOSITORY / "pyproject.toml").open("rb") as stream:
        project = tomllib.load(stream)["project"]
    named = [*project["dependencies"], *(name for extra in project["optional-dependencies"].values() for name in extra)]
    pins = dict(match["pin"].split("==") for match in ENTRY.finditer((REPOSITORY / "requirements.lock").read_text()))
    for requirement in map(Requirement, named):
        if requirement.name != "edgekit":
            version = pins[re.sub(r"[-_.]+", "-", requirement.name).lower()]
            assert SpecifierSet(str(requirement.specifier)).contains(version, prereleases=True), requirement


def test_wheels_of_every_supported_python_and_machine_are_covered() -> None:
    """A release for four Pythons and two machines has many files: one hash would be that of one machine's file."""
    text = (REPOSITORY / "requirements.lock").read_text()
    entry = next(match[0] for match in ENTRY.finditer(text) if match["pin"].startswith("numpy=="))
    assert entry.count("--hash=") > 12
