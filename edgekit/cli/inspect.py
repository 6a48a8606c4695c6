"""edgekit inspect"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekit.cli._session import CommandSession, common_options
from edgekit.core.escape import line

if TYPE_CHECKING:
    from edgekit.core.values.specs import TensorSpec
    from edgekit.stages.conversion.inspect import Inspection


@click.command("inspect", short_help="Show the contents of an artifact or a model file.")
@click.argument("path", type=click.Path(path_type=Path))
@common_options
def command(session: CommandSession, path: Path) -> int:
    """Show the contents of an artifact folder, or of a .tflite, .onnx, .pt or .ptl file.

    Prints operators with counts and multiply-accumulates, tensors, parameters, quantization and signature. Only
    TorchScript models are run, on one sample of zeros, to count their multiply-accumulates.

    \b
    Example:
      edgekit inspect build/simple_cnn/keras/tflite-int8
      edgekit inspect somebody/elses/model.onnx --json
    """
    from dataclasses import asdict

    from edgekit.cli._common import artifact_data
    from edgekit.stages.conversion.inspect import inspect

    model_path = path if path.is_absolute() or path.exists() else session.root / path
    with session.context() as context:
        inspection = inspect(context, model_path)
    data = {
        "file": str(inspection.path),
        "size_bytes": inspection.size_bytes,
        "description": {**asdict(inspection.description), "signature": asdict(inspection.signature)},
        "artifact": None if inspection.artifact is None else artifact_data(inspection.artifact),
    }
    session.print_result(data, lambda: _render(inspection, session.color))
    return 0


def _render(inspection: Inspection, color: bool) -> str:
    from edgekit.core.units import format_bytes, format_count
    from edgekit.reports.console import table

    description = inspection.description
    unknown = "unknown"
    facts = [
        ("file", str(inspection.path)),
        ("format", description.format),
        ("size", format_bytes(inspection.size_bytes)),
        (
            "parameters",
            unknown
            if description.parameters is None
            else f"{description.parameters:,} in {format_bytes(description.weight_bytes)}",
        ),
        (
            "multiply-accumulates",
            unknown if description.macs is None else f"{description.macs:,} ({format_count(description.macs)})",
        ),
        ("tensors", f"{description.tensors}, {description.quantized_tensors} quantized"),
        (
            "activations",
            unknown
            if description.activation_bytes is None
            else f"{format_bytes(description.activation_bytes)} in total",
        ),
        *((f"input {spec.name}", _format_tensor(spec)) for spec in inspection.signature.inputs),
        *((f"output {spec.name}", _format_tensor(spec)) for spec in inspection.signature.outputs),
        *((key, value) for key, value in description.metadata.items() if value),
    ]
    if inspection.artifact is not None:
        manifest = inspection.artifact.manifest
        facts.append(("route", " -> ".join(manifest.route)))
        facts += [("note", note) for note in manifest.notes]
    width = max(len(name) for name, _ in facts)
    ops = [(op.name, str(op.count), "" if op.macs is None else f"{op.macs:,}") for op in description.ops]
    lines = "".join(line(f"{name:<{width}}  {value}") for name, value in facts)
    return lines + table(("operator", "count", "multiply-accumulates"), ops, left=1, color=color)


def _format_tensor(spec: TensorSpec) -> str:
    shape = "x".join(str(dim) for dim in spec.shape) or "scalar"
    parts = [shape, spec.dtype, *([spec.layout] if spec.layout else [])]
    if spec.quantization is not None:
        scales, zeros = spec.quantization.scale, spec.quantization.zero_point
        parts.append(f"scale {scales[0]:.6g} zero point {zeros[0]}" if len(scales) == 1 else f"{len(scales)} scales")
    return " ".join(parts)
