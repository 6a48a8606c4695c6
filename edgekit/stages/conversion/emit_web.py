"""Writes artifacts as folders that a web page can serve: the model, its runtime, an ES module, and a page to try it."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.browser.packages import packages_folder, require_packages
from edgekit.browser.page import WEB_FOLDER
from edgekit.browser.runtime import BrowserRuntime
from edgekit.contracts.runtime import RUNTIMES
from edgekit.core.environment.atomic_files import staged_folder
from edgekit.core.errors import InputError
from edgekit.core.numerics import batching
from edgekit.core.numerics.metrics import Array
from edgekit.core.records.artifact import Artifact
from edgekit.core.units import format_bytes
from edgekit.core.values.specs import TensorSpec
from edgekit.stages.context import Context
from edgekit.stages.conversion.routes import runtimes_of

# The name by which TypeScript finds the types of `model.mjs`.
DECLARATIONS = "model.d.mts"
_TEMPLATES = WEB_FOLDER / "emitted"
# The files of the packages that a page without WebGPU may fetch.
_RUNTIME_FILES = {
    "onnxruntime-web": ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"),
    "litert-js": (
        *("index.js", "wasm-utils.js"),
        *(
            f"wasm/litert_wasm_{kind}internal.{suffix}"
            for kind in ("", "compat_", "threaded_")
            for suffix in ("js", "wasm")
        ),
    ),
}
# The names of TypeScript; the arrays of float16 need a library of types that is newer than most projects'.
_ARRAYS = {
    "float32": "Float32Array",
    "float64": "Float64Array",
    "float16": "ArrayLike<number>",
    "int8": "Int8Array",
    "uint8": "Uint8Array",
    "bool": "Uint8Array",
    "int16": "Int16Array",
    "uint16": "Uint16Array",
    "int32": "Int32Array",
    "uint32": "Uint32Array",
    "int64": "BigInt64Array",
    "uint64": "BigUint64Array",
}
# Golden samples that the page shows.
SAMPLES = 8
# The digits of a float32, which the page reads back without a loss.
_DIGITS = 9


def web_runtime_of(target: str) -> BrowserRuntime | None:
    """Return the runtime of a browser for a target's files, or None.

    Args:
        target: The name of the target.
    """
    runtimes = map(RUNTIMES.load, runtimes_of(target))
    return next((runtime for runtime in runtimes if isinstance(runtime, BrowserRuntime)), None)


def check_targets(targets: Iterable[str]) -> None:
    """Raise an error unless a browser runs at least one target, or the runtimes are not set up.

    Args:
        targets: The names of the targets.

    Raises:
        InputError: No browser runs any of the targets.
        MissingDependency: The runtimes of the browser are not set up.
    """
    if not any(map(web_runtime_of, targets)):
        raise InputError(
            "no artifact for a browser is selected: they run onnx and tflite files", parameters=("target",)
        )
    require_packages()


def emit_beside(context: Context, artifacts: Sequence[Artifact]) -> tuple[Path, ...]:
    """Write artifacts as folders for web pages next to them, such as `onnx-float32-web`.

    Args:
        context: The project; artifacts that no runtime of a browser takes go to its failures.
        artifacts: The artifacts; those that browsers do not run are ignored.

    Returns:
        The folders that were written.

    Raises:
        InputError: A folder cannot be written.
        MissingDependency: The runtimes of the browser are not set up.
        DiskFull: The disk is full.
    """
    folders = (
        context.attempt(f"emit {artifact.label}", partial(emit_web, context, artifact, runtime), str)
        for artifact in artifacts
        if (runtime := web_runtime_of(artifact.manifest.target)) is not None
    )
    return tuple(folder for folder in folders if folder is not None)


def emit_web(context: Context, artifact: Artifact, runtime: BrowserRuntime) -> Path:
    """Write an artifact as a folder for web pages.

    Args:
        context: The project.
        artifact: The artifact.
        runtime: The runtime of the browser for it.

    Returns:
        The folder.

    Raises:
        InputError: The runtime does not take the artifact's inputs or outputs, or the artifact is damaged.
        MissingDependency: The runtimes of the browser are not set up.
        DiskFull: The disk is full.
    """
    manifest, model = artifact.manifest, artifact.verified_path()
    reason = runtime.refusal(manifest.signature)
    if reason:
        raise InputError(f"{artifact.label}: {reason}")
    record = require_packages()
    final = artifact.folder.with_name(f"{artifact.folder.name}-web")
    with staged_folder(Path(os.path.realpath(final))) as staging:  # a link stays one
        for template in sorted(_TEMPLATES.iterdir()):
            shutil.copyfile(template, staging / template.name)
        _copy_runtime(runtime.name, staging / "runtime")
        for path in artifact.paths:
            shutil.copyfile(path, staging / path.name)
        title = f"{runtime.title} {record.version(runtime.name)}"
        description = _description(context, artifact, runtime.name, model.name, title)
        _write_json(staging / "model.json", description)
        _write_json(staging / "samples.json", _samples(artifact))
        (staging / DECLARATIONS).write_text(_declarations(artifact), encoding="ascii")
        (staging / "README.md").write_text(_readme(title), encoding="utf-8")
    return final


def _copy_runtime(name: str, to: Path) -> None:
    to.mkdir()
    shutil.copyfile(WEB_FOLDER / f"{name}.mjs", to / f"{name}.mjs")
    for file in _RUNTIME_FILES[name]:
        path = to / name / file
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(packages_folder() / name / file, path)


def _write_json(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data, allow_nan=False), encoding="ascii")


def _description(context: Context, artifact: Artifact, runtime: str, file: str, title: str) -> dict[str, Any]:
    """Return what the module and the page read of the model."""
    manifest = artifact.manifest
    spec = context.spec(manifest.model) if manifest.model in context.project.models() else None
    ranges = _ranges(artifact)
    inputs = [_tensor(tensor) for tensor in manifest.signature.inputs]
    for entry, tensor in zip(inputs, manifest.signature.inputs, strict=True):
        image = _image(tensor, ranges[tensor.name])
        if image is not None and spec is not None and spec.input.name == tensor.name:
            image["range"] = list(spec.input.range or image["range"])
            image["normalisation"] = spec.input.normalisation
        entry["image"] = image
    return {
        "model": manifest.model,
        "variant": str(manifest.variant),
        "sha256": manifest.sha256,
        "file": file,
        "runtime": runtime,
        "task": manifest.source.get("task"),
        "classes": [] if spec is None else list(spec.output.classes),
        "facts": [str(manifest.variant), title, format_bytes(manifest.size_bytes)],
        "inputs": inputs,
        "outputs": [_tensor(tensor) for tensor in manifest.signature.outputs],
    }


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    """Return a tensor as the module takes it: real values of the whole tensor, quantized by one scale if it is."""
    data = {"name": spec.name, "dtype": spec.dtype, "shape": list(spec.shape)}
    if spec.quantization is None or len(spec.quantization.scale) != 1:
        return data
    limits = np.iinfo(spec.dtype)
    return {**data, "quantization": asdict(spec.quantization), "limits": [int(limits.min), int(limits.max)]}


def _ranges(artifact: Artifact) -> dict[str, tuple[float, float]]:
    """Return a usual range of pixels that holds the golden samples, by input."""
    ranges = {}
    for name, array in artifact.golden().inputs.items():
        low, high = (float(array.min()), float(array.max())) if array.size else (0.0, 1.0)
        if low < 0:
            ranges[name] = (-1.0, 1.0) if high <= 1 and low >= -1 else (low, max(high, low + 1))
        else:
            ranges[name] = (0.0, 255.0) if high > 1 else (0.0, 1.0)
    return ranges


def _image(spec: TensorSpec, value_range: tuple[float, float]) -> dict[str, Any] | None:
    """Return how an input is an image; None if it is none."""
    sizes = spec.shape[1:]
    if spec.layout not in ("NHWC", "NCHW") or len(sizes) != 3 or (spec.shape[0] != 1 and spec.fixed_batch is not None):
        return None
    planar = spec.layout == "NCHW"
    channels, height, width = sizes if planar else (sizes[2], sizes[0], sizes[1])
    if channels not in (1, 3, 4) or not (isinstance(height, int) and isinstance(width, int)):
        return None
    return {
        "height": height,
        "width": width,
        "channels": channels,
        "planar": planar,
        "range": list(value_range),
        "normalisation": "",
    }


def _samples(artifact: Artifact) -> list[dict[str, Any]]:
    """Return the first golden samples, each one call: real values by name, with the outputs of the source model."""
    golden, signature = artifact.golden(), artifact.manifest.signature
    entries = []
    for index in range(min(SAMPLES, batching.n_samples(signature, golden.inputs))):
        inputs = batching.select_samples(signature, golden.inputs, index, index + 1)
        rows = {spec.name: batching.samples_per_call(spec) for spec in signature.outputs}
        outputs = {name: array[index * rows[name] : (index + 1) * rows[name]] for name, array in golden.outputs.items()}
        entries.append({"inputs": _numbers(inputs), "outputs": _numbers(outputs)})
    return entries


def _numbers(arrays: dict[str, Array]) -> dict[str, list[Any]]:
    return {name: [_number(value) for value in array.ravel().tolist()] for name, array in arrays.items()}


def _number(value: Any) -> Any:
    """Return a number as JSON has it: without infinities, and with the digits of a float32."""
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None
    return int(value)


def _declarations(artifact: Artifact) -> str:
    """Return the types of the module. Names are quoted as JSON in ASCII, which TypeScript reads as the same string."""
    signature = artifact.manifest.signature

    def entries(specs: Sequence[TensorSpec], wrap: str) -> str:
        return "".join(
            f"  /** {_shape(spec)} {spec.dtype} */\n  {json.dumps(spec.name)}: {wrap}<{_array(spec)}>;\n"
            for spec in specs
        )

    return f"""\
/** The values of a tensor in the order of memory, the last dimension first to vary. */
export interface Tensor<Values> {{
  data: Values;
  shape: number[];
}}

/** Values of an input, with a shape if the model leaves more than one dimension open. */
export type Input<Values> = Values | Plain<Values> | Tensor<Values>;

/** An array or typed array of the same kind of numbers. */
export type Plain<Values> = Values extends ArrayLike<infer Value> ? ArrayLike<Value> : never;

export interface Inputs {{
{entries(signature.inputs, "Input")}}}

export interface Outputs {{
{entries(signature.outputs, "Tensor")}}}

export interface LoadOptions {{
  /** The number of threads (default: 1); more need a page that is isolated from other origins. */
  threads?: number;
}}

/** Fetch the runtime and the model. Later calls return at once. */
export function load(options?: LoadOptions): Promise<unknown>;

/** Run one inference on real values by input name. */
export function predict(inputs: Inputs): Promise<Outputs>;
"""


def _array(spec: TensorSpec) -> str:
    return "Float32Array" if spec.quantization is not None else _ARRAYS[spec.dtype]


def _shape(spec: TensorSpec) -> str:
    # A symbolic name is the model's, and could end the comment.
    return "x".join(str(dim) if isinstance(dim, int) else "N" for dim in spec.shape) or "scalar"


def _readme(title: str) -> str:
    return f"""\
# A model for web pages

- `index.html`: a page to try the model.
- `model.mjs`, `{DECLARATIONS}`: `load()` and `predict()` for pages of your own.
- `model.json`, `samples.json`: the inputs and outputs, and samples with the outputs of the source model.
- `runtime/`: {title}, unchanged but for the path of one import of LiteRT.js; ONNX Runtime is under the MIT License,
  LiteRT.js under the Apache License 2.0.

Serve the folder by any web server, for example `python3 -m http.server`, and open `index.html`. In a page of your own:

```js
import {{ load, predict }} from './model.mjs';
await load();
const outputs = await predict(inputs); // by name: {{ data, shape }}
```

`load({{ threads: 4 }})` uses four threads. Browsers allow that only in a page that comes with the headers
`Cross-Origin-Opener-Policy: same-origin` and `Cross-Origin-Embedder-Policy: require-corp`.

Servers should send `.wasm` files as `application/wasm`, compressed with brotli or gzip.
"""
