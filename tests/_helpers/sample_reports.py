"""A small synthetic report: artifacts, validations, benches and verdicts of a model that does not exist."""

from dataclasses import replace
from pathlib import Path

from edgekit.core.environment import plugin_registry
from edgekit.core.numerics.layerwise_diff import TensorDiff
from edgekit.core.numerics.output_comparison import Comparison, Figure
from edgekit.core.numerics.timing import Distribution
from edgekit.core.records.artifact import Artifact, Manifest
from edgekit.core.records.emulated_measurement import Counts, EmulatedLatency
from edgekit.core.records.layer_errors import LayerErrors
from edgekit.core.records.measurement import Measurement
from edgekit.core.records.report import Report, ReportRow
from edgekit.core.records.runtime_versions import RuntimeVersion, RuntimeVersions
from edgekit.core.records.source import SourceModel
from edgekit.core.records.validation import Drift, Validation
from edgekit.core.values.budgets import Verdict
from edgekit.core.values.specs import Signature, TensorSpec

SIGNATURE = Signature((TensorSpec("x", ("batch", 1), "float32"),), (TensorSpec("y", ("batch", 1), "float32"),))
WALL = Distribution.of([1_000_000, 1_200_000, 9_000_000])
HOST = "Intel(R) Xeon(R) Platinum 8370C CPU @ 2.80GHz, 2 cores"


def parts(variant):
    """`tflite:int8-tuned` as target, precision and tag."""
    target, name = variant.split(":")
    precision, _, tag = name.partition("-")
    return target, precision, tag


def artifact(variant, model):
    target, precision, tag = parts(variant)
    options = {"recipe": {"target": target, "precision": precision}} if tag else {}
    manifest = Manifest(
        model, target, precision, "litert", "model.bin", "0" * 64, 1_234_567, SIGNATURE, {"kind": "keras"},
        ("keras", target), options,
    )  # fmt: skip
    return Artifact(Path("build") / model / "keras" / manifest.variant.slug, manifest)


def comparison(output="y", sqnr=31.4, error=0.01):
    figures = (Figure("max_abs_error", error, None), Figure("sqnr_db", sqnr, 20.0))
    return Comparison(output, 64, 3, figures)


def validation(*comparisons, metric="accuracy"):
    agreement, limit = (0.987, 0.98) if metric == "accuracy" else (None, None)
    drift = Drift(metric, 0.9712, 0.9698, 0.0014, 1000, agreement, limit)
    return Validation("tiny", "keras", "tflite", "int8", "0" * 64, "litert", comparisons, drift)


def on_core(device="raspberry-pi-4b", equal=True):
    """A validation on a device's emulated core, whose outputs equal the host's or differ from them."""
    figure = Figure("max_abs_error", 0.0 if equal else 0.75, 0.1)
    checked = validation(comparison())
    return replace(checked, drift=None, device=device, against_host=(Comparison("y", 64, 3, (figure,)),))


def measurement(device="pixel-2", **changes):
    latency = {"host": 1.2, "analytic": 0.0125}
    bench = Measurement(
        "tiny", "keras", "tflite", "int8", "0" * 64, device, "litert", 1_234_567, 1_000_000, latency, 12.5, 1.9, 20,
        WALL, WALL, 1, (1,), HOST, 5_000_000, 4_000_000, 569, 1000,
    )  # fmt: skip
    return replace(bench, **changes)


def verdict(passed, rule="size_bytes", figure=1_234_567.0, limit=400_000.0, device=None):
    return Verdict("tiny", "keras", "tflite:int8", rule, figure, limit, passed, "model.toml", device)


def by_layer(variant="tflite:int8", model="tiny", count=4, diverges=True):
    """The error of an artifact by layer; with `diverges` it diverges at `dense`, the last layer but one."""
    target, precision, tag = parts(variant)
    names = [*(f"conv{index}" for index in range(count - 2)), "dense", "probabilities"]
    losses = {"dense": 15.0} if diverges else {}
    tensors = tuple(
        TensorDiff(
            name, f"{name}_1", (8,), None if index == 0 else 44.0 - losses.get(name, index / count), 0.9999,
            0.004 * index, (0.0, 1.0), (0.0, 0.9), 16.0 if name in losses else 0.0,
        )
        for index, name in enumerate(names)
    )  # fmt: skip
    provenance = "0" * 64, "source", "5" * 64, 16
    return LayerErrors(model, "keras", target, precision, *provenance, tensors, (), ("Quantize",), tag)


def row(variant="tflite:int8", model="tiny", checked=None, measurements=(), verdicts=(), emulated=(), layers=None,
        runtime_versions=()):  # fmt: skip
    made = artifact(variant, model)
    lists = (tuple(measurements), tuple(verdicts), tuple(emulated))
    return ReportRow(made, checked, *lists, layers, tuple(runtime_versions))


def source():
    return SourceModel("tiny", "keras", "model.keras", "0" * 64, SIGNATURE, "classification", "accuracy", 0.97, 1234)


def report(*rows):
    return Report("0.1.0", HOST, (source(),), rows)


def mixed_report():
    """An artifact that passes with two benches, one that fails, and one without any results."""
    benches = [measurement("raspberry-pi-4b"), measurement("pixel-2")]
    unmeasured = replace(verdict(False, "drift", None), detail="no drift was measured; run: edgekit validate")
    return report(
        row(checked=validation(comparison()), measurements=benches, verdicts=[verdict(True, limit=2e6)]),
        row("onnx:int8", checked=validation(comparison(sqnr=None)), verdicts=[verdict(False), unmeasured]),
        row("torchscript:float32"),
    )


EMULATED = EmulatedLatency(
    "cortex-a72", 4, 4, Counts(2.5e6, 4e5, 1e5, 1e5, 1.2e6, 0, 3e5, 4e5, 9e4, 12_300), 3.21, 3.0, 3.4, "4 timings",
    7_500_000,
)  # fmt: skip


VERSIONS = RuntimeVersions(
    "0" * 64,
    "raspberry-pi-4b",
    (
        RuntimeVersion("ai-edge-litert==2.2.0", EMULATED),
        RuntimeVersion("ai-edge-litert==2.3.0", replace(EMULATED, counts=replace(EMULATED.counts, instructions=2.6e6))),
    ),
)


def render(name, document, **options):
    return plugin_registry.load("edgekit.reports", name, "REPORT").render(document, **options)
