"""The pages themselves: links resolve, the README is short and true, and the site builds."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from _helpers.documented_commands import REPOSITORY, pages
from _helpers.support import call

LINK = re.compile(r"(?<!!)\[[^\]]*\]\((?!https?:|mailto:)([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")
SOURCES = ("keras", "torch", "onnx", "saved-model", "torchscript", "tflite")


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as Python-Markdown's toc makes them."""
    found = set()
    for heading in re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE):
        text, _, attributes = heading.partition("{ #")
        slug = re.sub(r"[^\w\s-]", "", text.strip().lower())
        found.add(attributes.rstrip(" }") or re.sub(r"[-\s]+", "-", slug).strip("-"))
    return found


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_internal_links_resolve(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for match in LINK.finditer(text):
        path, _, anchor = (match[1] or match[2]).partition("#")
        target = page.parent / path if path else page
        if "reference/cli/" in target.as_posix():
            continue  # generated; the build of the site checks these
        assert target.resolve().exists(), path
        if anchor and target.suffix == ".md" and "<!-- generated" not in target.read_text(encoding="utf-8"):
            assert anchor in anchors(target), match[0]


def test_the_readme_is_short() -> None:
    assert len((REPOSITORY / "README.md").read_text(encoding="utf-8").splitlines()) < 200


def test_the_table_of_the_readme_is_what_edgekit_targets_prints() -> None:
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([\w-]+)` \| (.*) \|$", readme, re.MULTILINE)
    documented = {name: tuple(cell.strip() for cell in cells.split("|")) for name, cells in rows}
    reached = call("targets", "--json").data["targets"]
    real = {}
    for target in sorted({item["target"] for item in reached}):
        items = [item for item in reached if item["target"] == target]
        routes = {item["source"]: item["routes"] for item in items}
        precisions = dict.fromkeys(precision for by_precision in routes.values() for precision in by_precision)
        requested = [name for name in precisions if any(name in item["on_request"] for item in items)]
        cell = ", ".join(name for name in precisions if name not in requested)
        cell += f"; on request {', '.join(requested)}" if requested else ""
        real[target] = (*(_way(routes.get(source, {})) for source in SOURCES), cell)
    assert documented == real


def _way(routes: dict[str, list[str]]) -> str:
    """`direct`, or by which formats, for the first precision."""
    if not routes:
        return "-"
    between = next(iter(routes.values()))[1:-1]
    return f"via {', '.join(between)}" if between else "direct"


@pytest.mark.slow
def test_the_site_builds_and_loads_nothing_from_other_hosts(tmp_path: Path) -> None:
    pytest.importorskip("material")
    pytest.importorskip("mkdocstrings")
    build = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", tmp_path / "site"],
        cwd=REPOSITORY, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert build.returncode == 0, build.stdout + build.stderr
    for page in (tmp_path / "site").rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert not re.findall(r'<(?:script|img|iframe|source)[^>]+src="(?:https?:)?//', text), page
        assert not re.findall(r'<link[^>]+rel="(?:stylesheet|preconnect|preload)"[^>]+href="(?:https?:)?//', text), page
    for style in (tmp_path / "site").rglob("*.css"):
        assert not re.findall(r"url\(['\"]?(?:https?:)?//", style.read_text(encoding="utf-8")), style
