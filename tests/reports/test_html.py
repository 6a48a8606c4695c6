"""The HTML page as text: self-contained, escaped, and without a mixture of tiers."""

import html
import re
from dataclasses import replace

import pytest
from _helpers.sample_reports import (
    EMULATED,
    by_layer,
    comparison,
    measurement,
    mixed_report,
    on_core,
    render,
    report,
    row,
    validation,
    verdict,
)

from edgekit.core.environment import plugin_registry
from edgekit.core.environment.requirements import Requirement
from edgekit.core.errors import MissingDependency
from edgekit.core.numerics.statistics import ClassDrift
from edgekit.core.records.regressions import BETTER, WORSE, ChangeReport, MetricChange
from edgekit.core.values.precisions import precision_names
from edgekit.core.values.tiers import TIER_NAMES, TIERS
from edgekit.reports._html.charts import color_of, marker_of
from edgekit.reports._html.tables import Column, TableCell

LIMIT_BYTES = 3_000_000
RULES = ("size_bytes", "peak_memory_bytes", "latency_ms.host", "latency_ms.analytic")


def emulated(**changes):
    latency = {"host": 1.2, "analytic": 0.0125, "emulated": 3.21}
    return measurement("raspberry-pi-4b", latency_ms=latency, emulated=replace(EMULATED, **changes))


def full(models=2, variants=("tflite:int8", "tflite:float32", "onnx:int8"), layers=4):
    """A report with all sections and distinct figures; int8 artifacts have a layer-wise diff of `layers` layers."""
    rows = []
    for model in range(models):
        for place, variant in enumerate(variants):
            checked = validation(comparison(error=0.01 * (place + 1)))
            drift = replace(checked.drift, artifact=0.97 - 0.001 * place, classes=(ClassDrift(0, 50, 0.9, 0.8),))
            benches = [emulated(), measurement("pixel-2", latency_ms={"host": 1.0 + place, "analytic": 0.02})]
            rules = [("size_bytes", None), *((rule, item.device) for item in benches for rule in RULES)]
            verdicts = [verdict(True, rule, limit=9e6, device=device) for rule, device in rules]
            name = f"model{model}"
            diff = by_layer(variant, name, layers) if variant.endswith("int8") else None
            measured = replace(checked, drift=drift)
            rows.append(row(variant, name, measured, benches, verdicts, [on_core()], diff))
    return report(*rows)


@pytest.fixture(scope="module")
def page():
    return render("html", full())


def section(text, name):
    return text.partition(f'id="{name}"')[2].partition("</section>")[0]


def test_the_page_loads_nothing(page):
    assert re.findall(r"[a-z]+://[^\s\"'<>)]+", page) == []
    assert not re.search(r"<(script|img|iframe|link)[^>]+(src|href)=\"(?!data:)", page)
    assert "default-src 'none'" in page


def test_ids_are_unique_and_every_reference_has_a_target(page):
    ids = re.findall(r"\bid=\"([^\"]+)\"", page)
    assert len(ids) == len(set(ids))
    references = {*re.findall(r"href=\"#([^\"]+)\"", page), *re.findall(r"url\(#([^)]+)\)", page)}
    assert references <= set(ids)


def test_names_are_text_and_never_markup():
    name = "<script>alert(1)</script>\"'&"
    first = full().rows[0]
    named = replace(first, artifact=replace(first.artifact, manifest=replace(first.artifact.manifest, model=name)))
    text = render("html", report(named))
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)" in text


def test_each_table_has_a_caption_and_each_chart_an_alternative(page):
    assert len(re.findall("<table", page)) == len(re.findall("<caption", page))
    charts = re.findall(r"<svg[^>]*>", page)
    assert charts.pop(0) == '<svg class="hidden" aria-hidden="true">'  # the markers, for all of them
    assert len(charts) > 10
    assert all('role="img"' in tag and re.search(r'aria-label="[^"]{10,}"', tag) for tag in charts)


def test_no_chart_shows_two_tiers(page):
    labels = re.findall(r'aria-label="([^"]*tier [^"]*)"', page)
    assert {tier for label in labels for tier in TIER_NAMES if f"tier {tier}" in label} == {
        "host",
        "analytic",
        "emulated",
    }
    assert all(sum(f"tier {tier}" in label for tier in TIER_NAMES) == 1 for label in labels)


def test_no_trade_off_uses_the_analytic_bound(page):
    assert "tier analytic" not in section(page, "tradeoffs")


def test_every_latency_of_the_tables_has_its_tier(page):
    for name in ("t-side-by-side", "t-tradeoffs"):
        rows = page.partition(f'id="{name}"')[2].partition("<tbody>")[2].partition("</table>")[0].split("<tr")[1:]
        assert len(rows) > 6
        assert all(sum(f">{tier}<" in item for tier in TIER_NAMES) == 1 for item in rows)


def test_the_emulated_tier_has_its_interval_or_is_marked_uncalibrated():
    assert "3.21 ms (3 ms .. 3.4 ms)" in render("html", report(row(measurements=[emulated()])))
    bare = emulated(low_ms=None, high_ms=None, calibration="uncalibrated")
    assert "3.21 ms (uncalibrated)" in render("html", report(row(measurements=[bare])))


def test_every_tier_is_explained_the_most_exact_first(page):
    explained = re.findall(r"<dt>(.*)</dt><dd>(.*)</dd>", section(page, "tiers"))
    assert [(name, html.unescape(text)) for name, text in explained] == [
        (tier.name, tier.worth) for tier in reversed(TIERS)
    ]


def test_the_evidence_has_tolerances_and_the_commands_that_reproduce_the_figures(page):
    text = section(page, "evidence")
    assert "&gt;= 20" in text
    for command in (
        "edgekit export model0 --framework keras --target tflite:int8 --route keras,tflite",
        "edgekit validate model0 --framework keras --target tflite:int8",
        # four threads were requested for the emulated tier; the host had one
        "edgekit bench tiny --framework keras --target tflite:int8"
        " --device raspberry-pi-4b --tier emulated --threads 4",
        "edgekit bench tiny --framework keras --target tflite:int8 --device pixel-2 --threads 1",
    ):
        assert f"<dd>{command}\n" in text


def test_the_stress_input_with_the_largest_error_is_named():
    checked = replace(validation(comparison()), stress=(comparison(sqnr=21.5),), stress_cases=("a", "b", "c", "zeros"))
    text = render("html", report(row(checked=checked)))
    assert "output y, stress inputs, largest error on zeros" in text
    assert "<dd>edgekit validate tiny --framework keras --target tflite:int8 --stress\n" in text


def test_the_verdict_of_an_emulated_core_has_a_column_and_its_evidence():
    cores = row(emulated=[on_core()]), row("onnx:int8", emulated=[on_core("pixel-2", equal=False)])
    text = render("html", report(*cores))
    table = section(text, "t-artifacts")
    heads = re.findall(r"<button[^>]*>([^<]+)<", table)
    assert heads[-3:] == ["on pixel-2", "on raspberry-pi-4b", "rules"]
    first, second = table.partition("<tbody>")[2].split("<tr>")[1:3]
    assert re.findall(r"<td[^>]*>([^<\n]+)", first)[-3:-1] == ["-", "equal"]
    assert re.findall(r"<td[^>]*>([^<\n]+)", second)[-3:-1] == ["NOT EQUAL", "-"]
    assert 'class="bad" data-sort="1">NOT EQUAL' in second
    assert "<b>validate pixel-2</b> output y, emulated, against the host" in text
    assert "<dd>edgekit validate tiny --framework keras --target onnx:int8 --device pixel-2\n" in text
    assert '<tr><th>max_abs_error<td>0.75<td>&lt;= 0.1<td class="bad">FAILED' in text


def test_error_by_layer_has_a_chart_a_table_and_its_command():
    counterpart = replace(by_layer("onnx:int8", diverges=False), reference="onnx:float32", only_actual=tuple("abcde"))
    text = render("html", report(row(layers=by_layer()), row("onnx:int8", layers=counterpart), row("onnx:int4")))
    diverging, sound, bare = section(text, "evidence").split('<details class="evidence"')[1:]
    assert re.search(
        r'<svg [^>]*aria-label="tiny/keras tflite:int8: SQNR of 4 layers [^"]*divergence at dense"', diverging
    )
    assert 'golden samples: <span class="bad">divergence at dense</span>' in diverging
    assert "<tr><th>1 conv0<td>exact<td>0.99990<td>0\n" in diverging
    assert '<tr class="bad"><th>3 dense<td>29.0 dB<td>0.99990<td>0.008\n' in diverging
    assert "Only in the artifact: Quantize<" in diverging
    assert "<dd>edgekit diff build/tiny/keras/tflite-int8\n" in diverging
    assert "against onnx:float32, 16 golden samples: <span>no divergence</span>" in sound
    assert "Only in the artifact: a, b, c and 2 more<" in sound
    assert "<dd>edgekit diff build/tiny/keras/onnx-float32 build/tiny/keras/onnx-int8\n" in sound
    assert "by-layer" not in bare


def test_the_overview_has_a_cell_for_every_artifact_and_a_dot_where_there_is_none():
    rows = [*full(2).rows, row("onnx:float16", "model9")]
    table = section(render("html", report(*rows)), "t-matrix").partition("</table>")[0]
    assert re.findall(r'scope="colgroup" colspan="(\d)">(\w+)<', table) == [("2", "onnx"), ("2", "tflite")]
    assert re.findall(r'scope="col">([^<]+)<', table) == ["model", "float16", "int8", "float32", "int8"]
    lines = table.partition("<tbody>")[2].split("</tr>")[:-1]
    assert [(item.count("passed, "), item.count("not judged, "), item.count("·")) for item in lines] == [
        (3, 0, 1),
        (3, 0, 1),
        (0, 1, 3),
    ]
    assert "1.0e-02" in lines[0]


def test_a_tuned_variant_has_a_column_of_its_own_beside_the_untuned_one():
    rows = row("tflite:int8-tuned", checked=validation(comparison(error=0.5))), row(), row("onnx:int8")
    text = render("html", report(*rows))
    table = section(text, "t-matrix").partition("</table>")[0]
    assert re.findall(r'scope="colgroup" colspan="(\d)">(\w+)<', table) == [("1", "onnx"), ("2", "tflite")]
    assert re.findall(r'scope="col">([^<]+)<', table) == ["model", "int8", "int8", "int8-tuned"]
    assert re.findall(r'href="#of-tiny-keras-([^"]+)"', table) == ["onnx-int8", "tflite-int8", "tflite-int8-tuned"]
    assert re.findall(r"<small>([^<]+)<", table) == ["-", "-", "5.0e-01"]


def test_a_size_is_compared_with_the_untuned_float32_file_of_the_target():
    def sized(variant, size_bytes):
        artifact_row = row(variant)
        manifest = replace(artifact_row.artifact.manifest, size_bytes=size_bytes)
        return replace(artifact_row, artifact=replace(artifact_row.artifact, manifest=manifest))

    rows = sized("tflite:float32", 4000), sized("tflite:int8", 1000), sized("tflite:float32-tuned", 2000)
    table = section(render("html", report(*rows)), "t-artifacts")
    shares = [re.findall(r"<td[^>]*>([^<\n]+)", item)[2] for item in table.partition("<tbody>")[2].split("<tr>")[1:]]
    assert shares == ["100 %", "25 %", "50 %"]


def test_a_change_of_a_tuned_variant_is_filtered_by_its_precision():
    items = (
        MetricChange("tiny", "keras", "tflite:int8-tuned", "size_bytes", 1000.0, 2000.0, WORSE),
        MetricChange("tiny", "keras", "lite-interpreter:int8", "size_bytes", 1000.0, 900.0, BETTER),
    )
    text = plugin_registry.load("edgekit.reports", "html", "REPORT").render_changes(ChangeReport("old", "new", items))
    choices = re.findall(r'data-by="(\w+)"><option value="">all</option>\n((?:<option>.*)?)</option>', text)
    assert dict(choices)["precision"] == "<option>int8"
    assert dict(choices)["target"] == "<option>lite-interpreter</option><option>tflite"


def test_a_chart_names_the_tuned_variant_as_such():
    drift = validation(comparison()).drift
    rows = (
        row("tflite:int8-tuned", checked=replace(validation(comparison()), drift=replace(drift, artifact=0.99))),
        row("tflite:int8", checked=validation(comparison())),
    )
    chart = section(render("html", report(*rows)), "tradeoffs").partition("<figure>")[2].partition("</figure>")[0]
    assert re.findall(r"<text[^>]*>(tflite:[^<]+)<", chart) == ["tflite:int8-tuned"]


@pytest.mark.parametrize(
    ("text", "sort", "key"),
    [
        ("1.23 MB", 1_234_567, None),
        ("12.4 us", 0.01242, None),
        ("1,000", 1000, None),
        ("28 %", 0.2842, "0.2842"),  # the text is rounded more than the figure
        ("+0.12", 0.0012, "0.0012"),  # points
        ("-0.5 .. +0.3", 0.003, "0.003"),
        ("3.21 ms (3 ms .. 3.4 ms)", 3.21, None),
        ("2.3e-06", 2.301e-06, None),
        ("-", None, None),
        ("12 KB", None, ""),
        ("passed 3", 0, "0"),
    ],
)
def test_a_cell_has_a_sort_value_only_if_the_page_cannot_read_it_from_the_text(text, sort, key):
    assert TableCell(text, sort).sort_key(Column("figure", True)) == key


def test_sections_without_figures_are_omitted():
    text = render("html", report(row(checked=validation(comparison()))))
    assert 'id="devices"' not in text
    assert 'id="classes"' not in text
    assert 'id="changes"' not in text
    assert 'id="tradeoffs"' not in text  # one point is no trade-off


def test_a_model_without_a_task_metric_is_named():
    rows = [*full(1).rows, row(model="own", checked=replace(validation(comparison()), drift=None))]
    assert "Not shown, since they have no task metric on a test set: own/keras." in render("html", report(*rows))


def test_classes_have_the_names_that_the_model_gives_them():
    named = replace(full(1), class_names={"model0": ("cat",)})
    assert re.search(r"<button[^>]*>cat</button>", section(render("html", named), "classes"))
    assert ">+10.0\n" in section(render("html", full(1)), "classes")


def test_failed_rules_come_first():
    text = render("html", mixed_report())
    assert all(text.index("exceeds the limit") < text.index(f'id="{name}"') for name in ("artifacts", "evidence"))
    assert "rules judged on 3 artifacts: 2 FAILED" in text


def test_each_precision_has_a_color_and_each_target_a_marker_of_its_own():
    assert len({color_of(name) for name in precision_names()}) == len(precision_names())
    targets = ("executorch", "lite-interpreter", "onnx", "tflite", "torchscript")
    assert len({marker_of(name, targets) for name in targets}) == len(targets)


@pytest.mark.slow
def test_a_report_on_all_reference_models_and_two_devices_stays_small():
    targets = {"tflite": 6, "onnx": 4, "executorch": 2, "lite-interpreter": 2, "torchscript": 2}
    variants = [f"{target}:{name}" for target, count in targets.items() for name in precision_names()[:count]]
    assert len(variants) == 16
    assert len(render("html", full(20, variants, 20)).encode()) < LIMIT_BYTES


def test_a_missing_package_is_reported_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr(Requirement, "installed", lambda self: False)
    with pytest.raises(MissingDependency, match=r"format html needs jinja2; .*pip install 'edgekit\[report\]'"):
        render("html", report())
