"""Installed distributions, read from metadata folders that the tests write."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgekit.core.environment import distributions
from edgekit.core.environment.distributions import InstalledDistribution, installed_distributions

Install = Callable[..., InstalledDistribution]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Write the metadata of a distribution and return how it is read."""

    def write(folder: str = "site", record: str = "", fields: str = "", **files: object) -> InstalledDistribution:
        info = tmp_path / folder / "pack_age-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.4\nName: Pack.Age\nVersion: 1.0\n{fields}\n")
        (info / "RECORD").write_text(record)
        for name, content in files.items():
            (info / f"{name}.json").write_text(content if isinstance(content, str) else json.dumps(content))
        monkeypatch.setattr("sys.path", [str(tmp_path / folder)])
        installed_distributions.cache_clear()
        (distribution,) = installed_distributions()
        return distribution

    yield write
    monkeypatch.undo()
    installed_distributions.cache_clear()


@pytest.fixture(params=["importlib.metadata", "importlib_metadata"])
def reader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Metadata as the standard library returns it, and as the package of other libraries, once loaded, returns it."""
    monkeypatch.setattr(distributions, "metadata", pytest.importorskip(request.param))


RECORD = "pack_age/a.py,sha256=AAAA,3\npack_age/b.py,sha256=BBBB,4\n"


def test_the_hash_is_that_of_the_installed_files_but_not_of_what_the_installer_wrote(install: Install) -> None:
    by_installer = (
        "../../../bin/tool,sha256=CCCC,9\npack_age/__pycache__/a.pyc,,\npack_age-1.0.dist-info/INSTALLER,sha256=DDDD,4\n"
        "pack_age-1.0.dist-info/RECORD,,\n"
    )
    first = install("one", RECORD)
    assert first.hashed == "installed files"
    assert install("two", by_installer + RECORD).sha256 == first.sha256
    assert install("three", RECORD.replace("BBBB", "BBBC")).sha256 != first.sha256
    assert install("four", "").sha256 == ""


def test_the_hash_of_the_archive_comes_first_and_only_if_it_is_one(install: Install) -> None:
    url = {"url": "file:///a.whl", "archive_info": {"hashes": {"sha256": "a" * 64}}}
    assert install("one", RECORD, direct_url=url).sha256 == "a" * 64
    for number, damaged in enumerate(("{", "[]", {"archive_info": {"hashes": {"sha256": "/home"}}}, {"dir_info": {}})):
        assert install(f"damaged{number}", RECORD, direct_url=damaged).hashed == "installed files"


@pytest.mark.parametrize(
    ("fields", "licence", "is_expression"),
    [
        ("License-Expression: MIT OR Apache-2.0", "MIT OR Apache-2.0", True),
        ("License: BSD", "BSD", False),
        ("License: UNKNOWN", "", False),
        ("License: " + "x" * 400 + "\nClassifier: License :: OSI Approved :: MIT License", "MIT License", False),
        ("Classifier: Topic :: Games", "", False),
    ],
)
def test_the_licence_is_an_expression_or_a_name(
    install: Install, fields: str, licence: str, is_expression: bool
) -> None:
    distribution = install(fields=fields)
    assert (distribution.licence, distribution.is_expression) == (licence, is_expression)


@pytest.mark.usefixtures("reader")
def test_fields_may_be_missing(install: Install) -> None:
    found = install(record=RECORD)
    assert (found.version, found.licence, found.is_expression) == ("1.0", "", False)


def test_names_are_compared_in_one_form() -> None:
    assert distributions.normalize("Pack.Age__x") == "pack-age-x"
