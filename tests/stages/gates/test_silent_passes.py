"""A gate does not pass on what is missing, unreadable, about something else, or out of range."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from _helpers.recorded_project import ARTIFACT, DEVICE, SOURCE_FOLDER, edit, make_project
from _helpers.support import Answer, call

from edgekit.core.errors import InputError
from edgekit.core.records.regressions import RegressionThresholds
from edgekit.stages.gates.gate import user_budgets

BENCH = f"bench-{DEVICE}.json"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_project(tmp_path)


def check(folder: Path, *arguments: object) -> Answer:
    return call("check", "--root", folder.parents[3], *arguments)


def verify(folder: Path) -> Answer:
    return call("verify", "--root", folder.parents[3])


def test_intact_records_pass(folder: Path) -> None:
    answer = check(folder)
    assert (answer.code, answer.err) == (0, "")
    assert "all passed" in answer.out
    assert (verify(folder).code, verify(folder).err) == (0, "")


# --- what cannot be read


def dangling(path: Path) -> None:
    shutil.rmtree(path)
    path.symlink_to("nowhere")


def loop(path: Path) -> None:
    shutil.rmtree(path)
    path.symlink_to(path.name)


def folder_as_manifest(path: Path) -> None:
    (path / "manifest.json").unlink()
    (path / "manifest.json").mkdir()


@pytest.mark.parametrize(
    "damage",
    [dangling, loop, folder_as_manifest, lambda path: (path / "manifest.json").unlink()],
    ids=["dangling", "loop", "folder", "missing"],
)
def test_an_artifact_that_cannot_be_read_fails_every_gate(folder: Path, damage: Any) -> None:
    shutil.copytree(folder, folder.parent / "tflite-float32")  # another one, which can be read
    damage(folder)
    answer = check(folder)
    assert answer.code == 2
    assert str(folder) in answer.err
    assert "1 artifacts could not be judged" in answer.out
    assert check(folder, "net").code == 2
    answer = verify(folder)
    assert answer.code == 1
    assert str(folder) in answer.out
    assert call("report", "--root", folder.parents[3]).code == 2


@pytest.mark.slow
@pytest.mark.skipif(os.getuid() != 0, reason="root drops its rights; for others a mode of 0 is enough")
@pytest.mark.parametrize("part", [ARTIFACT, ARTIFACT.parent, ARTIFACT.parent.parent, ARTIFACT / "manifest.json"])
def test_a_folder_without_permission_fails_every_gate(folder: Path, part: Path) -> None:
    root = folder.parents[3]
    for path in (root, *root.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    (root / part).chmod(0)
    for parent in root.parents:
        if not parent.stat().st_mode & 0o001:
            parent.chmod(0o755)
    for command, code in (("check", 2), ("verify", 1), ("report", 2)):
        # The first call imports what the second needs: the other user may not read Python's own folder.
        script = (
            "import os, sys; from click.testing import CliRunner; from edgekit.cli import app;"
            f"words = ['{command}', '--root', {str(root)!r}]; CliRunner().invoke(app, words);"
            "os.setgid(65534); os.setuid(65534); app(words)"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        assert done.returncode == code, (command, done.stdout, done.stderr)
        assert "permission denied" in done.stdout + done.stderr
        assert "Traceback" not in done.stderr


def test_a_source_without_its_description_is_found(folder: Path) -> None:
    (folder.parents[3] / SOURCE_FOLDER / "source.json").unlink()
    answer = verify(folder)
    assert answer.code == 1
    assert "missing" in answer.out


# --- what is about something else


@pytest.mark.parametrize(
    ("file", "changes", "code", "sentence"),
    [
        (BENCH, {"artifact_sha256": "0" * 64}, 1, "bench: it is about an earlier model file; run: edgekit bench"),
        (BENCH, {"precision": "float32"}, 1, "bench: it is about net/keras tflite:float32"),
        (BENCH, {"model": "other"}, 1, "bench: it is about other/keras tflite:int8"),
        (BENCH, {"device": "pixel-2"}, 2, "is about pixel-2: its name must be bench-pixel-2.json"),
        ("validation.json", {"artifact_sha256": "0" * 64}, 1, "the validation is of an earlier model file"),
        ("validation.json", {"kind": "torch"}, 1, "the validation is of net/torch tflite:int8"),
        ("validation.json", {"device": DEVICE}, 2, f"is about {DEVICE}, and not about this host"),
        (f"validation-{DEVICE}.json", {"device": None}, 2, "is about host, which its name does not say"),
        (f"validation-{DEVICE}.json", {"artifact_sha256": "0" * 64}, 1, "the validation is of an earlier model file"),
    ],
)
def test_a_result_of_something_else_fails(folder: Path, file: str, changes: Any, code: int, sentence: str) -> None:
    edit(folder / file, lambda data: data.update(changes))
    answer = check(folder)
    assert answer.code == code
    assert sentence in answer.out + answer.err


def test_figures_of_another_file_are_not_in_the_report(folder: Path) -> None:
    edit(folder / BENCH, lambda data: data.update(artifact_sha256="0" * 64))
    edit(folder / "validation.json", lambda data: data.update(artifact_sha256="0" * 64))
    (row,) = call("report", "--json", "--root", folder.parents[3]).data["artifacts"]
    assert [item["device"] for item in row["measurements"]] == ["host"]
    assert row["validation"] is None
    assert not row["passed"]


def test_an_emulation_of_another_file_is_outdated(folder: Path) -> None:
    edit(folder / f"emulated-{DEVICE}.json", lambda data: data.update(artifact_sha256="0" * 64))
    assert "outdated" in verify(folder).out


# --- verdicts that the file claims


def figure(name: str, **changes: Any) -> Any:
    def change(data: Any) -> None:
        (found,) = [item for item in data["comparisons"][0]["figures"] if item["name"] == name]
        found.update(changes)

    return change


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (figure("sqnr_db", value=1.0, passed=True), "output y: sqnr_db 1, tolerance >= 20"),
        (lambda data: data.update(comparisons=[]), "no output was compared"),
        (lambda data: data["comparisons"][0].update(figures=[]), "output y: nothing was measured"),
        (lambda data: data["comparisons"][0].update(samples=0, worst_sample=None), "output y: nothing was measured"),
        (lambda data: data["comparisons"][0].update(output="z"), "output y was not compared"),
        (
            lambda data: [item.update(limit=None) for item in data["comparisons"][0]["figures"]],
            "output y: no figure has a tolerance",
        ),
        (lambda data: data["drift"].update(top1_agreement=0.1), "top1_agreement 0.1 on 1000 test samples"),
    ],
)
@pytest.mark.parametrize("format_name", ["console", "junit", "gitlab-codequality", "html", "csv", "markdown"])
def test_verdicts_are_computed_from_figures_everywhere(
    folder: Path, change: Any, sentence: str, format_name: str
) -> None:
    if format_name == "html":
        pytest.importorskip("matplotlib")
    edit(folder / "validation.json", change)
    answer = check(folder, "--json")
    assert answer.code == 1
    (failed,) = [verdict for verdict in answer.data["verdicts"] if not verdict["passed"]]
    assert failed["rule"] == "equivalence"
    assert sentence in failed["detail"]
    shown = call("report", "--root", folder.parents[3], "--format", format_name)
    assert shown.code == 0
    fails = {
        "console": "FAIL",
        "junit": 'failures="1"',
        "gitlab-codequality": "major",
        "html": "failed",
        "csv": "False",
    }
    assert fails.get(format_name, "FAIL").lower() in shown.out.lower()


def test_a_device_without_a_comparison_with_this_host_fails(folder: Path) -> None:
    edit(folder / f"validation-{DEVICE}.json", lambda data: data.update(against_host=[]))
    answer = check(folder)
    assert answer.code == 1
    assert "no output was compared with that on this host" in answer.out


# --- figures out of range, and limits


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (lambda data: data["latency_ms"].update(host=-1), "latency_ms.host"),
        (lambda data: data["latency_ms"].update(host=math.nan), "NaN is not a JSON value"),
        (lambda data: data["latency_ms"].update(host=10**30), "latency_ms.host"),
        (lambda data: data["latency_ms"].update(hosts=1), "latency_ms.hosts"),
        (lambda data: data["wall"].update(p50_ms=-1), "wall.p50_ms"),
        (lambda data: data["wall"].update(count=0), "wall.count"),
        (lambda data: data["emulated"]["counts"].update(instructions=-1), "emulated.counts.instructions"),
        (lambda data: data.update(peak_memory_run_bytes=-1), "peak_memory_run_bytes"),
        (lambda data: data.update(size_bytes="9"), "size_bytes"),
    ],
)
def test_a_figure_out_of_range_is_exit_2(folder: Path, change: Any, place: str) -> None:
    edit(folder / BENCH, change)
    answer = check(folder)
    assert answer.code == 2
    assert place in answer.err
    assert len(answer.err.splitlines()) == 1


def baseline(folder: Path) -> Path:
    path = folder.parents[3] / "main.json"
    assert call("report", "--format", "json", "--output", path, "--root", folder.parents[3]).code == 0
    return path


def test_a_baseline_of_the_same_figures_passes(folder: Path) -> None:
    assert check(folder, "--baseline", baseline(folder)).code == 0


@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e400", "-1", "null", '"1"', "[]", "1e300"])
def test_a_baseline_that_is_no_figure_is_exit_2(folder: Path, value: str) -> None:
    path = baseline(folder)
    path.write_text(path.read_text().replace('"host": 1.2', f'"host": {value}'))
    assert f'"host": {value}' in path.read_text()
    answer = check(folder, "--baseline", path)
    assert answer.code == 2
    assert str(path) in answer.err
    answer = call("report", "--baseline", path, "--root", folder.parents[3])
    assert answer.code == 2


def test_the_verdicts_of_a_baseline_are_computed_from_its_figures(folder: Path) -> None:
    path = baseline(folder)
    data = json.loads(path.read_text())
    (budget, *_) = [item for item in data["artifacts"][0]["verdicts"] if item["limit"] is not None]
    budget.update(passed=False)
    path.write_text(json.dumps(data))
    assert check(folder, "--baseline", path, "--json").data["changes"]["changes"][-1]["state"] == "same"


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0])
def test_limits_and_thresholds_are_finite_and_not_negative(value: float) -> None:
    with pytest.raises(InputError, match="must be a finite number of at least 0"):
        RegressionThresholds(metric=value)
    with pytest.raises(InputError, match="the limit must be a finite number of at least 0"):
        user_budgets("here", size=None, peak_memory=None, drift=value, instructions=None, latency_ms=())
    with pytest.raises(InputError, match="the limit must be a finite number of at least 0"):
        user_budgets("here", size=None, peak_memory=None, drift=None, instructions=None, latency_ms=[("host", value)])


@pytest.mark.parametrize(
    "arguments",
    [
        ("--max-drift", "nan"),
        ("--max-drift", "inf"),
        ("--baseline", "main.json", "--max-metric-loss", "nan"),
        ("--max-latency", "host=nan"),
        ("--max-latency", "host=inf"),
        ("--max-size", f"{'9' * 400} KB"),
        ("--baseline", "main.json", "--max-regression", f"{'9' * 400}%"),
    ],
    ids=lambda value: " ".join(value)[:50],
)
def test_an_option_that_is_no_limit_is_exit_2(folder: Path, arguments: tuple[str, ...]) -> None:
    assert check(folder, *arguments).code == 2


@pytest.mark.parametrize("limit", ["nan", "inf", "-1.0", "-inf"])
@pytest.mark.parametrize("key", ["drift", "latency_ms = { host"])
def test_a_budget_in_edgekit_toml_that_is_no_limit_is_exit_2(tmp_path: Path, key: str, limit: str) -> None:
    end = " }" if "{" in key else ""
    (tmp_path / "edgekit.toml").write_text(
        f'variants = ["onnx:float32"]\n[[models]]\npath = "net.onnx"\n[[budgets]]\n{key} = {limit}{end}\n'
    )
    answer = call("run", "--dry-run", "--root", tmp_path)
    assert answer.code == 2
    assert "edgekit.toml: line 5: budgets.0." in answer.err
