"""GNU make executes the generated rules, with special characters in names and with folders."""

import shutil
import subprocess

import pytest

from edgekit.core.build.graph import Step, StepInput, build_graph
from edgekit.core.build.makefile_export import makefile

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def test_names_with_spaces_colons_dollar_signs_and_quotes(tmp_path):
    (tmp_path / "a $b: #1 %.bin").write_text("x")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/one.png").write_text("1")
    (tmp_path / "edgekit.toml").write_text("")
    first = Step("import a's", "import", "out/first.json", reads=(StepInput("a $b: #1 %.bin"), StepInput("photos")))
    second = Step("export $x", "export", "out/second.json", reads=(StepInput("out/first.json"),))
    graph = build_graph([second, first], lambda name: name)
    (tmp_path / "Makefile").write_text(makefile(graph, tmp_path, "edgekit.toml"))
    tool = tmp_path / "tool"
    tool.write_text(
        '#!/bin/sh\necho "did $2"\nmkdir -p out\n'
        'case "$2" in import*) :> out/first.json;; *) :> out/second.json;; esac\n'
    )
    tool.chmod(0o755)

    def make():
        command = ["make", "--no-print-directory", "-s", "EDGEKIT=./tool", "edgekit"]
        process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert process.returncode == 0, process.stderr
        return process.stdout.splitlines()

    assert make() == ["did import a's", "did export $x"]
    assert make() == []
    (tmp_path / "photos/two.png").write_text("2")
    assert make() == ["did import a's", "did export $x"]
