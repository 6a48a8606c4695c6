"""The HTML page in a real browser: charts, sorting, filters, dark mode, narrow screens, print, keyboard."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from _helpers.sample_reports import mixed_report, render, report, row
from reports.test_html import full

from edgekit.core.environment import plugin_registry
from edgekit.core.records.regressions import RegressionThresholds
from edgekit.stages.gates.regressions import compare_reports

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = next((path for name in BROWSERS if (path := shutil.which(name))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="there is no browser here: apt-get install chromium"),
]

# As root, in a container, without looking for anything outside.
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=BROWSER, args=list(ARGUMENTS))
        yield running
        running.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The pages that the tests open, written once."""
    folder = tmp_path_factory.mktemp("pages")
    changed = report(*full().rows, *mixed_report().rows, row(model="bare"))
    for name, made in (("full", changed), ("empty", report())):
        (folder / f"{name}.html").write_text(render("html", made))
    (folder / "sizes.html").write_text(render("html", report(*map(sized, (90_000, 56_700_000, 999, 1_234)))))
    old, new = report(*full(1).rows, row(model="gone")), report(*full(2).rows)
    changes = compare_reports(old, new, ("old.json", "new.json"), RegressionThresholds())
    (folder / "changes.html").write_text(
        plugin_registry.load("edgekit.reports", "html", "REPORT").render_changes(changes)
    )
    return folder


def sized(size_bytes: int) -> Any:
    artifact_row = row(model=f"of{size_bytes}")
    manifest = replace(artifact_row.artifact.manifest, size_bytes=size_bytes)
    return replace(artifact_row, artifact=replace(artifact_row.artifact, manifest=manifest))


class Page:
    """A page with its console errors and its requests."""

    def __init__(self, page: Any, file: Path) -> None:
        self.page = page
        self.errors: list[str] = []
        self.requests: list[str] = []
        page.on("console", lambda message: self.errors.append(message.text))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))
        page.goto(file.as_uri())

    def column(self, table: str, name: str) -> list[str]:
        """The visible cells of a table's column."""
        return self.page.evaluate(
            """([id, name]) => {
                const table = document.getElementById(id);
                const heads = [...table.tHead.rows[0].cells].map((cell) => cell.textContent.trim());
                const rows = [...table.tBodies[0].rows].filter((row) => row.offsetParent !== null);
                return rows.map((row) => row.cells[heads.indexOf(name)].textContent.trim());
            }""",
            [table, name],
        )

    def head(self, table: str, name: str) -> Any:
        return self.page.locator(f"#{table} thead th", has=self.page.get_by_role("button", name=name, exact=True))


@pytest.fixture
def look(browser, files):
    """Opens a page; checks at the end that it had no errors and loaded nothing else."""
    opened: list[Page] = []

    def opener(name: str = "full", **options: Any) -> Page:
        page = Page(browser.new_page(**{"viewport": {"width": 1280, "height": 900}, **options}), files / f"{name}.html")
        opened.append(page)
        return page

    yield opener
    for page in opened:
        page.page.close()
        assert page.errors == []
        assert [url for url in page.requests if not url.startswith(("file:", "data:"))] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_chart_is_drawn(look, scheme):
    page = look(color_scheme=scheme).page
    page.evaluate("for (const item of document.querySelectorAll('details')) item.open = true")
    boxes = page.evaluate(
        """() => [...document.querySelectorAll("svg[role=img]")].map((svg) => {
            const own = svg.getBoundingClientRect();
            const boxes = [...svg.querySelectorAll("path, use, text")].map((item) => item.getBoundingClientRect());
            const drawn = boxes.filter((box) => box.width + box.height > 0);
            const style = getComputedStyle(svg.querySelector("text"));
            return {
                width: own.width, height: own.height, label: svg.getAttribute("aria-label"), fill: style.fill,
                marks: drawn.length,
                outside: drawn.filter((box) => box.left < own.left - 12 || box.right > own.right + 12).length,
            };
        })"""
    )
    assert len(boxes) > 20
    for box in boxes:
        assert box["width"] > 60, box
        assert box["height"] > 15, box
        assert box["marks"] >= 3, box
        assert box["outside"] == 0, box
        assert box["fill"] not in ("none", "rgb(0, 0, 0)"), box  # a variable that is not known is black


def test_a_page_about_nothing_works(look):
    page = look("empty")
    assert page.page.locator("h2").count() >= 2
    page.page.locator("#search").fill("x")


def test_changes_sort_and_filter(look):
    page = look("changes")
    assert page.column("t-changes", "verdict") == ["gone", "new", "new", "new"]
    page.head("t-changes", "verdict").get_by_role("button").click()
    page.page.locator("#by-model").select_option("gone/keras")
    assert page.column("t-changes", "verdict") == ["gone"]


def test_a_table_sorts_by_value_and_says_so(look):
    page = look()
    head = page.head("t-artifacts", "max error")
    assert head.get_attribute("aria-sort") == "none"
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    up = page.column("t-artifacts", "max error")
    figures = [float(text) for text in up if text != "-"]
    assert figures == sorted(figures)
    assert len(set(figures)) > 2
    assert up[len(figures) :] == ["-", "-"]  # what has no figure comes last, both ways
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    down = page.column("t-artifacts", "max error")
    assert [float(text) for text in down[: len(figures)]] == sorted(figures, reverse=True)
    assert down[len(figures) :] == ["-", "-"]


def test_sizes_sort_by_bytes_and_not_by_text(look):
    page = look()
    button = page.head("t-side-by-side", "pixel-2").get_by_role("button")
    button.click()
    first = page.column("t-side-by-side", "pixel-2")
    assert first.index("20 us") < first.index("1 ms")
    assert first.index("1 ms") < first.index("3 ms")


def test_quantities_sort_by_value_across_units(look):
    page = look("sizes")
    button = page.head("t-artifacts", "size").get_by_role("button")
    button.click()
    assert page.column("t-artifacts", "size") == ["999 B", "1.23 KB", "90 KB", "56.7 MB"]
    button.click()
    assert page.column("t-artifacts", "size") == ["56.7 MB", "90 KB", "1.23 KB", "999 B"]


def test_only_one_column_is_the_sorted_one(look):
    page = look()
    for name in ("size", "model"):
        page.head("t-artifacts", name).get_by_role("button").click()
    sorted_ones = page.page.locator("#t-artifacts th[aria-sort=ascending], #t-artifacts th[aria-sort=descending]")
    assert sorted_ones.all_inner_texts() == ["model"]


def test_the_keyboard_sorts_with_a_visible_focus(look):
    page = look()
    page.head("t-artifacts", "size").get_by_role("button").focus()
    page.page.keyboard.press("Tab")
    page.page.keyboard.press("Enter")
    assert page.head("t-artifacts", "of float32").get_attribute("aria-sort") == "ascending"
    outline = page.page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"


def test_a_filter_holds_for_tables_charts_and_evidence(look):
    page = look()
    page.page.locator("#by-model").select_option("model1/keras")
    assert set(page.column("t-artifacts", "model")) == {"model1/keras"}
    assert set(page.column("t-side-by-side", "model")) == {"model1/keras"}
    assert page.page.locator("#t-matrix tbody tr:visible th").all_inner_texts() == ["model1/keras"]
    visible = page.page.locator("#tradeoffs h3:visible, #devices h3:visible").all_inner_texts()
    assert set(visible) == {"model1/keras"}
    assert page.page.locator("#evidence details.evidence:visible").count() == 3
    assert page.page.locator("#shown").inner_text() == "3 of 10 rows"


def test_filters_narrow_one_another_down_and_can_be_lifted(look):
    page = look()
    page.page.locator("#by-target").select_option("tflite")
    page.page.get_by_label("Search", exact=True).fill("INT8 model0")
    assert page.column("t-artifacts", "variant") == ["tflite:int8"]
    assert page.page.locator("#t-matrix tbody tr:visible").count() == 4  # the overview is about whole models
    page.page.get_by_label("Search", exact=True).fill("")
    page.page.locator("#by-target").select_option("all")
    assert len(page.column("t-artifacts", "variant")) == 10
    assert page.page.locator("#shown").inner_text() == ""


def test_failed_artifacts_can_be_shown_alone(look):
    page = look()
    page.page.locator("#by-verdict").select_option("failed")
    assert page.column("t-artifacts", "rules") == ["FAILED 2 of 2"]


def brightness(page: Page) -> float:
    color = page.page.evaluate("getComputedStyle(document.body).backgroundColor")
    return sum(int(part) for part in color.removeprefix("rgb(").rstrip(")").split(",")) / 3


@pytest.mark.parametrize(("scheme", "first"), [("light", "light"), ("dark", "dark")])
def test_light_and_dark_follow_the_system_until_the_button_is_pressed(look, scheme, first):
    page = look(color_scheme=scheme)
    dark = scheme == "dark"
    button = page.page.get_by_role("button", name="Dark")
    assert (brightness(page) < 60) == dark
    assert button.get_attribute("aria-pressed") == str(dark).lower()
    button.click()
    assert (brightness(page) < 60) != dark
    assert button.get_attribute("aria-pressed") == str(not dark).lower()
    page.page.reload()
    assert (brightness(page) < 60) != dark  # the choice is remembered


def luminance(red: float, green: float, blue: float) -> float:
    """Relative luminance, WCAG 2.2."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in (red, green, blue)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_have_enough_contrast(look, scheme):
    """WCAG 2.2: 4.5 to 1 for text, 3 to 1 for the marks of a chart."""
    page = look(color_scheme=scheme)

    def color(name: str) -> list[float]:
        text = page.page.evaluate(
            """(name) => {
                const probe = document.body.appendChild(document.createElement("i"));
                probe.style.color = `var(--${name})`;
                const found = getComputedStyle(probe).color;
                probe.remove();
                return found;
            }""",
            name,
        )
        return [int(part) / 255 for part in text.removeprefix("rgb(").rstrip(")").split(",")]

    ground = luminance(*color("ground"))
    for name, least in {
        **dict.fromkeys(("ink", "faint", "accent", "good", "bad", "doubt"), 4.5),
        **{f"s{index}": 3.0 for index in range(6)},
    }.items():
        high, low = sorted((luminance(*color(name)), ground), reverse=True)
        assert (high + 0.05) / (low + 0.05) >= least, name


def test_the_main_table_fits_a_usual_screen(look):
    box = "item => [item.scrollWidth, item.clientWidth]"
    content, visible = look().page.locator("[aria-labelledby=c-artifacts]").evaluate(box)
    assert content <= visible


def test_a_narrow_screen_needs_no_sideways_scrolling(look):
    page = look(viewport={"width": 380, "height": 800})
    page.page.locator("#evidence summary").first.click()
    assert page.page.evaluate("document.documentElement.scrollWidth") <= 380
    commands = page.page.locator("#evidence details[open] .commands dd")
    heights = commands.evaluate_all("items => items.map(item => item.getBoundingClientRect().height)")
    assert max(heights) < 40  # one line and its scroll bar: no option is split at its hyphens
    assert page.page.locator("#t-artifacts").is_visible()


def test_a_variant_links_to_its_evidence_and_opens_it(look):
    page = look()
    page.page.locator("#t-artifacts").get_by_role("link", name="onnx:int8").first.click()
    opened = page.page.locator("#evidence details[open]")
    assert opened.count() == 1
    assert "edgekit export model0 --framework keras --target onnx:int8" in opened.inner_text()


def test_the_variants_of_every_table_link_to_their_evidence(look):
    page = look()
    links = page.page.locator("table.figures tbody th a")
    rows = page.page.locator("table.figures tbody tr:has(th)").count()
    assert links.count() == rows > 30
    page.page.locator("#t-side-by-side").get_by_role("link", name="onnx:int8").first.click()
    assert page.page.locator("#evidence details[open]").count() == 1


def test_the_evidence_is_a_table_to_a_screen_reader(look):
    page = look()
    page.page.locator("#evidence summary").first.click()
    opened = page.page.locator("#evidence details.evidence[open]")
    assert opened.get_by_role("rowheader", name="sqnr_db").count() == 2  # here, and on the emulated core
    assert opened.get_by_role("columnheader").all_inner_texts() == ["figure", "value", "tolerance", "verdict"]
    assert opened.get_by_role("img", name="divergence at dense").bounding_box()["height"] > 60
    opened.locator("summary", has_text="Table of all layers").click()
    assert opened.get_by_role("rowheader", name="3 dense").count() == 1
    assert opened.get_by_role("columnheader").all_inner_texts()[4:] == ["layer", "SQNR", "cosine", "max error"]
    color = "item => getComputedStyle(item).color"
    passed = opened.get_by_role("cell", name="passed").first.evaluate(color)
    assert passed == page.page.locator("p.verdict, .good").last.evaluate(color)


def test_print_is_light_and_shows_all_the_evidence(look):
    page = look(color_scheme="dark")
    page.page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    page.page.emulate_media(media="print")
    assert not page.page.locator("#filter").is_visible()
    assert page.page.locator("details:not([open])").count() == 0
    assert brightness(page) > 200
    page.page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert page.page.locator("details[open]").count() == 0


def test_tables_are_tables_to_a_screen_reader(look):
    page = look()
    names = page.page.get_by_role("table").evaluate_all("tables => tables.map(table => table.caption.textContent)")
    assert all(names)
    assert page.page.get_by_role("rowheader", name="tflite:int8").count() >= 2
    assert page.page.get_by_role("img").count() > 20
    assert page.page.locator("[role=region]:not([aria-label]):not([aria-labelledby])").count() == 0
