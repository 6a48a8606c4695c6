"""A cached plan is loaded until something that it depends on changes."""

import sys

import pytest

from edgekit.core.build import plan_cache
from edgekit.core.build.file_digests import FileDigests
from edgekit.core.build.graph import Step, StepInput, build_graph
from edgekit.core.build.plan_cache import CachedPlan
from edgekit.core.events import NoteEvent

HOST = "a host"


@pytest.fixture
def kept(tmp_path):
    root = tmp_path / "project"
    (root / "models").mkdir(parents=True)
    (root / "edgekit.toml").write_text("x = 1")
    (root / "models/net.py").write_text("")
    graph = build_graph([Step("a", "import", "out/a", reads=(StepInput("models/net.py"),), values={"n": [1]})], str)
    plan = CachedPlan(
        graph, (NoteEvent("a", "left out", warning=True),), ("edgekit.toml", "models/net.py", "gone.toml")
    )
    plan_cache.save(tmp_path / "plan.json", plan, root, FileDigests(root), HOST)
    return plan


def again(tmp_path, host=HOST):
    root = tmp_path / "project"
    return plan_cache.load(tmp_path / "plan.json", root, FileDigests(root), host)


def test_a_cached_plan_is_loaded_unchanged(kept, tmp_path):
    assert again(tmp_path) == kept


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "edgekit.toml").write_text("x = 2"),
        lambda root: (root / "models/net.py").write_text("import os"),
        lambda root: (root / "models/net.py").unlink(),
        lambda root: (root / "models/os.py").write_text(""),
        lambda root: (root / "gone.toml").write_text(""),
    ],
    ids=["file", "code", "gone", "a module beside it", "appeared"],
)
def test_a_change_in_the_project_invalidates_it(kept, tmp_path, change):
    change(tmp_path / "project")
    assert again(tmp_path) is None


def test_a_new_name_beside_a_file_invalidates_it_but_a_hidden_one_does_not(kept, tmp_path):
    (tmp_path / "project/out").mkdir()
    (tmp_path / "project/out/a").write_text("")
    assert again(tmp_path) is None  # a name beside edgekit.toml
    (tmp_path / "project/out/a").unlink()
    (tmp_path / "project/out").rmdir()
    (tmp_path / "project/.hidden").write_text("")
    assert again(tmp_path) == kept


def test_another_host_invalidates_it(kept, tmp_path):
    assert again(tmp_path, "another") is None


def test_a_newly_installed_distribution_invalidates_it(kept, tmp_path, monkeypatch):
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = plan_cache._installed_digest()
    monkeypatch.syspath_prepend(site)
    assert plan_cache._installed_digest() == before
    (site / "torch-99.0.dist-info").mkdir()
    assert plan_cache._installed_digest() != before


def test_a_change_in_edgekit_s_source_invalidates_it(kept, tmp_path, monkeypatch):
    (tmp_path / "package").mkdir()
    monkeypatch.setattr(plan_cache, "_PACKAGE", tmp_path / "package")
    assert again(tmp_path) is None
