"""Names that mean something to an output: control sequences, markup, formulas, commands; and harmless ones."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from _helpers.sample_reports import (
    EMULATED,
    artifact,
    by_layer,
    comparison,
    measurement,
    on_core,
    report,
    row,
    validation,
    verdict,
)
from edgekit.core.environment.atomic_files import write_json
from edgekit.core.numerics.statistics import ClassDrift
from edgekit.core.records.artifact import write_manifest
from edgekit.core.records.layer_errors import LAYERS_FILE, to_dict
from edgekit.core.records.operator_costs import OperatorCost
from edgekit.core.records.regressions import WORSE, ChangeReport, MetricChange
from edgekit.core.values.specs import Signature, TensorSpec

HOSTILE = (
    "\x1b]0;title\x07",  # an operating system command of a terminal: the window's title
    "\x1b]8;;http://evil.example\x1b\\link\x1b]8;;\x1b\\",  # a terminal hyperlink
    "\x1b[2J\x1b[1;1Hgone",  # clear the screen
    "\x9b31mred",  # the one-byte form of a control sequence
    "over\rwritten",
    "back\x08\x08\x08\x08space",
    "nul\x00vt\x0bff\x0c",
    "file\u202etxt.exe",  # right-to-left override
    "isolate\u2066x\u2069",
    "zero\u200bwidth\ufeff",
    "line\u2028separator\u2029",
    "next\x85line",
    "half\ud800",  # a surrogate, as in the name of a file that is not UTF-8
    "x\n::error file=a.py::injected",
    "x\r\n::stop-commands::token",
    "::set-output name=a::b",
    "a ##[error]injected",
    "##vso[task.setvariable variable=a]b",
    "x\n\n# heading\n\n- item",
    "# heading",
    "1. item",
    "> quote",
    "a|b|c",
    "a\\|b",
    "`code` ``` fence",
    "[link](http://evil.example)",
    "![image](http://evil.example/x.png)",
    "<http://evil.example>",
    "http://evil.example www.evil.example",
    "<img src=x onerror=alert(1)>",
    "<details><summary>x",
    "<!-- comment",
    "--> &lt;b&gt; &amp;",
    "*bold* _emphasis_ ~~gone~~",
    "@everyone fixes #1",
    "$x$ $$y$$",
    "=cmd|' /C calc'!A0",
    '=HYPERLINK("http://evil.example")',
    "+1+2",
    "-2+3",
    "@SUM(A1)",
    "\t=1+1",
    "\r=1+1",
    "\uff1d1+1",
    "x;=1+1",
    'a","b',
    "]]>",
    "&#0; &quot; &bogus;",
    '"><script>alert(1)</script>',
    "</script><script>alert(1)</script>",
    "' onmouseover='alert(1)",
    'style="fill: red" <use href="#x"/>',
    "</style><svg onload=alert(1)>",
    "javascript:alert(1)",
    "{{ 7 * 7 }} {% raw %}",
    "[red]style[/red] [link=http://evil.example]x[/link]",
    "%s %d %25 100%",
    "*/ int x; /*",
    "$(shell touch injected) `touch injected` ; touch injected",
    "a=b # c",
    "../../etc/passwd",
    "a/b:c",
    "int",
)
# What people call their tensors, layers and files; no output changes them beyond its own syntax.
ORDINARY = (
    "simple_cnn",
    "StatefulPartitionedCall:0",
    "Größe",
    "層 1",
    "शब्द",
    "مرحبا",
    "conv2d/BiasAdd;conv2d/Conv2D",
    "👩‍🔬",
)


def hostile_report(name: str) -> Any:
    """A report with the name in every text that comes from a file."""
    made = artifact("tflite:int8", name)
    signature = Signature((TensorSpec(name, (1, 2), "float32"),), (TensorSpec(name, (1, 2), "float32"),))
    manifest = replace(
        made.manifest,
        file=name,
        files=(),
        signature=signature,
        source={"kind": "keras", "name": name},
        route=("keras", name, "tflite"),
        versions={name: name},
        notes=(name,),
        runtime=name,
    )
    checked = validation(comparison(name), replace(comparison(name), problem=name))
    drift = replace(checked.drift, classes=(ClassDrift(0, 50, 0.9, 0.8),))
    checked = replace(checked, model=name, drift=drift, stress=(comparison(name),), stress_cases=(name,) * 64)
    operators = (OperatorCost(name, name, 1.0, 10), OperatorCost("other", name, 2.0, None))
    bench = measurement(
        name, model=name, host=name, notes=(name,), operators=operators, emulated=replace(EMULATED, calibration=name),
        latency_ms={"host": 1.2, "analytic": 0.0125, "emulated": 3.2},
    )  # fmt: skip
    layers = by_layer(model=name)
    tensors = tuple(replace(tensor, reference=f"{name}{index}") for index, tensor in enumerate(layers.tensors))
    layers = replace(layers, tensors=tensors, only_actual=(name,), only_reference=(name,))
    failed = replace(verdict(False), model=name, origin=f"{name}/model.toml", device=name, detail=name, undecided=name)
    unmeasured = replace(verdict(False, figure=None), model=name, device=name, detail=name)
    emulated = replace(on_core(name), model=name, comparisons=(comparison(name),))
    first = row(
        "tflite:int8",
        name,
        checked,
        [bench, replace(bench, device="pixel-2")],
        [failed, unmeasured],
        [emulated],
        layers,
    )
    first = replace(first, artifact=replace(made, manifest=manifest))
    second = row("onnx:float32", name, replace(checked, target="onnx", precision="float32"))
    change = MetricChange(name, "keras", "tflite:int8", "size_bytes", 1.0, 2.0, WORSE, device=name, note=name)
    changes = ChangeReport(name, name, (change, replace(change, rule="latency_ms.host")))
    return replace(report(first, second), host=name, class_names={name: (name,)}, changes=changes)


def write_hostile_project(root: Path, name: str) -> Path:
    """Write an artifact whose records hold the name, and return its folder."""
    content = b"model"
    sha256 = hashlib.sha256(content).hexdigest()
    first = hostile_report(name).rows[0]
    folder = root / "build/net/keras/tflite-int8"
    folder.mkdir(parents=True)
    (folder / "model.tflite").write_bytes(content)
    manifest = replace(
        first.artifact.manifest, file="model.tflite", files=(), sha256=sha256, size_bytes=len(content), runtime="litert"
    )
    write_manifest(folder, manifest)
    write_json(folder / "validation.json", asdict(replace(first.validation, artifact_sha256=sha256)))
    bench = replace(first.measurements[0], artifact_sha256=sha256, size_bytes=len(content), device="host")
    write_json(folder / "bench-host.json", asdict(bench))
    write_json(folder / LAYERS_FILE, to_dict(replace(first.layers, artifact_sha256=sha256)))
    return folder
