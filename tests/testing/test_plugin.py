"""The pytest plugin in the example project, unchanged and with deliberate failures."""

import json
import shutil
import subprocess
import sys

import pytest
from _helpers.support import REPOSITORY

from edgekit.testing import assert_size_budget
from edgekit.testing.plugin import Figures


def run(folder, *arguments):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240)


@pytest.fixture
def project(tmp_path):
    return shutil.copytree(REPOSITORY / "examples" / "pytest-project", tmp_path / "project")


@pytest.mark.exhaustive
def test_the_example_project_passes_and_reports_what_fails(project):
    result = run(project)
    assert result.returncode == 0, result.stdout
    assert "4 passed" in result.stdout

    text = (project / "test_model.py").read_text()
    broken = (
        text.replace('"10 KB"', '"1 KB"').replace("max_drop=0.02", "max_drop=-0.5").replace('"50 ms"', '"0.0001ms"')
    )
    (project / "test_model.py").write_text(broken)
    failed = run(project)
    assert failed.returncode == 1
    for message in ("allowed 1 KB (1000 bytes)", "a drop of", "allowed -0.5", "ms (host) on host, allowed 0.0001 ms"):
        assert message in failed.stdout, failed.stdout


def test_slow_tests_can_be_skipped(project):
    result = run(project, "--edgekit-skip-slow")
    assert result.returncode == 0
    assert "4 skipped" in result.stdout


def test_loading_the_plugin_imports_nothing_heavy():
    code = "import sys, edgekit.testing.plugin; print({'tensorflow', 'torch', 'numpy', 'pydantic'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.stdout.strip() == "set()"


def test_figures_are_compared_with_the_accepted_ones(tmp_path):
    path = tmp_path / "edgekit-figures.json"
    with pytest.raises(AssertionError, match="accept these with: pytest --edgekit-update"):
        Figures(path, update=False).check("net", {"bytes": 100})
    Figures(path, update=True).check("net", {"bytes": 100})
    assert json.loads(path.read_text()) == {"net": {"bytes": 100}}
    figures = Figures(path, update=False)
    figures.check("net", {"bytes": 100.9})
    figures.check("net", {"bytes": 50})
    with pytest.raises(AssertionError, match=r"bytes: 102, but accepted is 100 \(\+2\.0 %\)"):
        figures.check("net", {"bytes": 102})
    figures.check("net", {"bytes": 102}, tolerance=0.05)
    with pytest.raises(AssertionError, match=r"drop: 0\.1, but no accepted value"):
        figures.check("net", {"drop": 0.1})


def test_a_damaged_file_of_figures_is_a_one_line_error(tmp_path):
    path = tmp_path / "edgekit-figures.json"
    path.write_text("{")
    with pytest.raises(AssertionError, match="this file is not valid JSON"):
        Figures(path, update=False).check("net", {"bytes": 1})


def test_a_size_budget_applies_to_any_file(tmp_path):
    path = tmp_path / "model.bin"
    path.write_bytes(b"0" * 1500)
    assert_size_budget(path, "1.5 KB")
    assert_size_budget(path, 1500)
    with pytest.raises(AssertionError, match=r"1\.5 KB \(1500 bytes\), allowed 1 KB \(1000 bytes\)"):
        assert_size_budget(path, "1 KB")
