"""The same hostile names through every output, each read back by a parser of its format.

Names come from users' files and may hold anything: they must stay text in a terminal, a CI log, Markdown, CSV, XML,
JSON, HTML, a makefile, C and MLflow.
"""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
import sys
import unicodedata
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from html.parser import HTMLParser

import pytest
from _helpers.hostile_names import HOSTILE, ORDINARY, hostile_report, write_hostile_project
from _helpers.sample_reports import render
from _helpers.support import call

from edgekit.cli._progress import VERBOSE, Watcher
from edgekit.core import escape
from edgekit.core.build.graph import Step, build_graph
from edgekit.core.build.makefile_export import makefile
from edgekit.core.errors import InputError
from edgekit.core.events import FailEvent, FinishEvent, NoteEvent, OverviewEvent, ProgressEvent, StartEvent
from edgekit.core.values.specs import Signature, TensorSpec
from edgekit.reports._shared import model_card
from edgekit.stages.conversion.sbom import sbom
from edgekit.targets._tflite.c_array import CModel, files

NAMES = (*HOSTILE, *ORDINARY)
named = pytest.mark.parametrize("name", NAMES, ids=ascii)


def assert_inert(text: str) -> None:
    """Assert that a terminal shows the text as it is, and that no CI system reads a command in it."""
    for line in text.split("\n"):
        odd = [character for character in line if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")]
        assert not odd, ascii(line)
        assert not re.search("[\u061c\u200b\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]", line), ascii(line)
        assert not line.lstrip().startswith("::"), line
        assert not re.search(r"##\w*\[", line), line


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_names_stay_as_they_are(name):
    assert escape.visible(name) == name
    assert escape.terminal(name) == name


# --- terminal ---


@pytest.mark.slow
@named
def test_the_console_report_is_inert_and_has_no_further_lines(name):
    text = escape.terminal(render("console", hostile_report(name)))
    assert_inert(text)
    sentences = [line for line in text.split("\n") if line.startswith("FAILED")]
    assert len(sentences) == 2


@pytest.mark.slow
@named
def test_commands_print_names_from_records_inertly(name, tmp_path):
    write_hostile_project(tmp_path, name.replace("\ud800", "?"))  # JSON files are UTF-8
    for command in (("report",), ("check", "-v"), ("check", "--max-size", "1 B"), ("verify", "--strict")):
        answer = call(*command, "--root", tmp_path)
        # Names that are no names of files are refused when the record is read, and quoted in the error.
        assert answer.code in (0, 1) or (answer.code == 2 and "manifest.json: " in answer.err)
        assert_inert(answer.out)
        assert_inert(answer.err)


@named
def test_errors_and_json_are_inert(name):
    argument = name.replace("\0", "")
    answer = call("report", f"./{argument}", "--json")
    assert answer.code == 2
    assert_inert(answer.err)
    assert answer.err.count("\n") == 1
    assert_inert(answer.out)
    assert argument in answer.data["error"]["message"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


EVENTS = (
    lambda name: OverviewEvent("", 0, 4, (name,), (name, name)),
    StartEvent,
    lambda name: ProgressEvent(name, 1, 2, {name: 1.0}),
    lambda name: FinishEvent(name, name),
    lambda name: FailEvent(name, name, f"{name}\n{name}"),
    lambda name: NoteEvent(name, name, warning=True),
)


@named
@pytest.mark.parametrize("is_terminal", [True, False])
def test_progress_is_inert(name, is_terminal, monkeypatch):
    stream = Terminal() if is_terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "400")
    with Watcher(VERBOSE) as watcher:
        for event in EVENTS:
            watcher(event(name))
            if is_terminal:
                watcher._bar.refresh()
    # what rich writes: styles, movements of the cursor, carriage returns
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", stream.getvalue())
    assert_inert(text)
    if "[red]" in name:
        assert name in text


# --- CI systems ---


def workflow_commands(text: str) -> list[tuple[str, dict[str, str], str]]:
    """Parse workflow commands as GitHub's runner does: a line is a command, or else plain output."""
    commands = []
    for line in re.split("\r\n|\r|\n", text.removesuffix("\n")):
        match = re.fullmatch(r"::([a-z-]+)(?: ([^:]*(?::(?!:)[^:]*)*))?::(.*)", line)
        assert match, line
        properties = dict(part.split("=", 1) for part in (match[2] or "").split(","))
        commands.append((match[1], properties, match[3]))
    return commands


def unescaped(text: str) -> str:
    for code, character in (("%0A", "\n"), ("%0D", "\r"), ("%3A", ":"), ("%2C", ","), ("%25", "%")):
        text = text.replace(code, character)
    return text


@named
def test_workflow_commands_are_only_ours(name):
    commands = workflow_commands(render("github-annotations", hostile_report(name)))
    assert [command for command, _, _ in commands] == [
        command for command, _, _ in workflow_commands(render("github-annotations", hostile_report("plain")))
    ]
    assert {key for _, properties, _ in commands for key in properties} <= {"file", "title"}
    title = f"{name}/keras tflite:int8: size_bytes"
    shown = "\n".join(map(escape.visible, re.split("\r\n|\r|\n", title)))
    assert unescaped(commands[0][1]["title"]) == shown


@named
def test_code_quality_is_one_json_document(name):
    findings = json.loads(render("gitlab-codequality", hostile_report(name)))
    assert len(findings) == 2
    assert all(name in finding["description"] for finding in findings)


@named
def test_junit_has_the_structure_of_a_harmless_report(name):
    tree = ET.fromstring(render("junit", hostile_report(name)).encode())
    plain = ET.fromstring(render("junit", hostile_report("plain")).encode())
    assert [(item.tag, sorted(item.attrib)) for item in tree.iter()] == [
        (item.tag, sorted(item.attrib)) for item in plain.iter()
    ]
    assert tree[0].get("name") == escape.visible(f"{name}/keras tflite:int8")


# --- Markdown ---


class Tags(HTMLParser):
    """The tags, attributes and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, tuple[str, ...]]] = []
        self.values: list[tuple[str, str]] = []
        self.text = ""
        self.comments: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: Iterable[tuple[str, str | None]]) -> None:
        attrs = list(attrs)
        self.tags.append((tag, tuple(sorted(key for key, _ in attrs))))
        self.values += [(key, value or "") for key, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_comment(self, data: str) -> None:
        self.comments.append(data)


def rendered(text: str) -> Tags:
    from markdown_it import MarkdownIt

    return Tags(MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(text))


def words(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.slow
@named
@pytest.mark.parametrize("form", ["markdown", "github-summary"])
def test_markdown_has_the_structure_of_a_harmless_report(name, form):
    page, plain = (rendered(render(form, hostile_report(text))) for text in (name, "plain"))
    assert page.tags == plain.tags
    assert set(page.comments) <= {" "}
    assert words(escape.visible(f"{name}/keras tflite:int8 on {name}: size_bytes")) in words(page.text)


@named
def test_markdown_has_no_link_mention_or_issue(name):
    """GitHub links these in the text of the rendered page; an empty comment divides them."""
    text = render("markdown", hostile_report(name))
    assert not re.search(r"\w://|www\.|@\w|(?<![\w&])#\d|\$\w(?<!\\)", text.replace("\\$", ""))
    assert_inert(text)


def test_prose_of_a_model_card_keeps_its_links_and_loses_its_html():
    text = model_card._list(["see https://example.org/a_b", "<img src=x onerror=alert(1)> \x1b[2J"])
    assert "see https://example.org/a_b\n" in text
    assert {tag for tag, _ in rendered(text).tags} == {"ul", "li"}
    assert_inert(text)


# --- CSV ---


def cells(name: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(render("csv", hostile_report(name)))))


@named
def test_no_cell_of_the_csv_is_a_formula(name):
    table, plain = cells(name), cells("plain")
    assert [len(row) for row in table] == [len(row) for row in plain]
    for row, plain_row in zip(table[1:], plain[1:], strict=True):
        for cell, plain_cell in zip(row, plain_row, strict=True):
            if plain_cell != cell:  # a name
                assert not re.match("[=+\\-@\t\r\uff1d\uff0b\uff0d\uff20]|::", cell)
                assert not re.search(r';\s*"?[=+@-]', cell)
    assert_inert(render("csv", hostile_report(name)))


def test_negative_numbers_stay_numbers():
    assert [escape.csv_cell(value) for value in (-1.5, -2, True, None, "-x")] == [-1.5, -2, True, None, "'-x"]


# --- JSON ---


@named
def test_json_keeps_the_name_exactly(name):
    document = json.loads(escape.json_text(render("json", hostile_report(name))))
    manifest = document["artifacts"][0]["manifest"]
    assert manifest["model"] == manifest["notes"][0] == manifest["signature"]["inputs"][0]["name"] == name


@named
def test_the_bill_of_materials_has_valid_package_urls(name):
    document = json.loads(json.dumps(sbom(hostile_report(name).rows[0].artifact, None)))
    (package,) = [item for item in document["components"] if item["type"] == "library"]
    assert re.fullmatch(r"pkg:pypi/[A-Za-z0-9._~%-]+@[A-Za-z0-9._~%-]+", package["purl"])
    assert package["name"] == name


# --- HTML ---


@pytest.mark.slow
@named
def test_html_has_the_structure_of_a_harmless_report(name):
    text = render("html", hostile_report(name))
    page, plain = Tags(text), Tags(render("html", hostile_report("plain")))
    assert page.tags == plain.tags
    assert page.comments == []
    assert {key for key, _ in page.values if key.startswith("on") or key in ("style", "src")} == set()
    assert all(value.startswith(("#", "data:")) for key, value in page.values if key == "href")
    assert [tag for tag, _ in page.tags].count("script") == 1
    ids = [value for key, value in page.values if key == "id"]
    assert len(ids) == len(set(ids))
    assert not any(re.search(r"\s", value) for value in ids)
    assert_inert(text)


# --- make, C, MLflow ---


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_runs_each_step_under_its_name_and_nothing_else(tmp_path):
    steps, refused = [], []
    for index, name in enumerate(NAMES):
        step = Step(name, "export", f"out/{index}{name.replace('/', '_')}")
        try:
            makefile(build_graph([step], str), tmp_path, "edgekit.toml")
        except InputError as error:
            assert_inert(str(error))
            refused.append(name)
        else:
            steps.append(step)
    assert set(refused) <= {name for name in NAMES if re.search(r"[\x00-\x1f\x7f-\x9f\ud800;|]|\(.*\)$|\\$", name)}
    assert len(steps) > 20
    (tmp_path / "edgekit.toml").write_text("")
    (tmp_path / "Makefile").write_text(makefile(build_graph(steps, str), tmp_path, "edgekit.toml"))
    tool = tmp_path / "tool"
    tool.write_text('#!/bin/sh\nprintf "%s\\n" "$2" >> ran\n')
    tool.chmod(0o755)
    process = subprocess.run(
        ["make", "-s", "EDGEKIT=./tool", "edgekit"], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert process.returncode == 0, process.stderr
    assert sorted((tmp_path / "ran").read_text().rstrip("\n").split("\n")) == sorted(step.name for step in steps)
    assert {path.name for path in tmp_path.iterdir()} == {"edgekit.toml", "Makefile", "tool", "ran"}


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
def test_a_compiler_accepts_c_files_with_these_names(tmp_path):
    specs = tuple(TensorSpec(name, (1, 2), "float32") for name in NAMES)
    for name in NAMES:
        model = CModel(escape.c_identifier(name), b"x", Signature(specs, specs), 1, (name, "CONV_2D"), name)
        for file, text in files(model).items():
            (tmp_path / file).write_text(text, encoding="utf-8")
            assert_inert(text)
    sources = [str(path) for path in tmp_path.glob("*.c")]
    warnings = ["-Wall", "-Wextra", "-Werror", "-Wno-bidi-chars"]
    process = subprocess.run(["cc", "-std=c99", "-fsyntax-only", *warnings, *sources], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    for path in tmp_path.glob("*_ops.h"):
        assert set(re.findall(r"resolver\.(.*);", path.read_text(encoding="utf-8"))) <= {
            f"Add{method}()" for method in re.findall(r"resolver\.Add(\w*)\(\);", path.read_text(encoding="utf-8"))
        }


@pytest.mark.slow
@named
def test_mlflow_accepts_the_names_of_metrics(name):
    validate = pytest.importorskip("mlflow.utils.validation")
    validate._validate_metric_name(escape.mlflow_name("output", name, "max_abs_error"))
    validate._validate_param_name(escape.mlflow_name(name))
