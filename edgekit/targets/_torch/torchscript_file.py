"""TorchScript archives: tracing, quantizing, writing them the same way twice, and reading what is in them.

`torch.jit.save` writes debug records that hold source paths of this machine, and class names with a counter of this
process (`___torch_mangle_17`). Neither matters to inference; both are taken out, so that the same model gives the same
bytes wherever it is exported.
"""

from __future__ import annotations

import copy
import io
import json
import operator
import re
import warnings
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.contracts.target import ConversionRequest, malformed_file_error
from edgekit.core.environment.atomic_files import read_bytes
from edgekit.core.numerics import batching
from edgekit.core.records.source import LoadedSource
from edgekit.core.values.specs import ModelDescription, OpCount, Signature

SIGNATURE_RECORD = "edgekit.json"
"""TorchScript has no names or shapes of inputs and outputs: an extra file of the archive holds them."""

QUANTIZED_ENGINE = "qnnpack"
_MANGLED = re.compile(rb"___torch_mangle_(\d+)")
_VOLATILE = ("version", "byteorder", ".data/serialization_id")
_COUNTED_AS = {"aten::linear": "aten::addmm", "aten::conv2d": "aten::convolution"}


def scripted(source: LoadedSource, job: ConversionRequest) -> Any:
    """The module, quantized if asked for, traced on one sample and frozen, which folds batch norm."""
    import torch

    module = source.model
    if isinstance(module, torch.jit.ScriptModule):
        return torch.jit.freeze(module.eval())
    example = tuple(map(torch.from_numpy, source.examples(1)))
    if job.precision == "int8":
        module = _quantized(module, example, source, job)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # TorchScript is deprecated as a whole: said once, elsewhere
        return torch.jit.freeze(torch.jit.trace(module, example))


def kept(module: Any, source: LoadedSource) -> Signature:
    """The source's signature, its symbolic dimensions fixed where the traced module is good for one size only.

    A trace may have turned a size into a constant: each symbol is tried with another size on module and source.
    """
    sizes = dict(source.sizes)
    fixed: dict[str, int] = {}
    for symbol in source.signature.symbols:
        usual = 1 if symbol == source.signature.batch else sizes[symbol]
        if not _holds(module, source, {**sizes, source.signature.batch or "": 1, symbol: usual + 1}):
            fixed[symbol] = usual
    return source.signature.sized(fixed)


def _holds(module: Any, source: LoadedSource, sizes: dict[str, int]) -> bool:
    """Whether module and source agree on the shapes of their outputs at these sizes."""
    import torch

    at = source.signature.sized(sizes)
    inputs = [torch.zeros([int(dim) for dim in spec.shape], dtype=getattr(torch, spec.dtype)) for spec in at.inputs]
    try:
        with torch.no_grad():
            wanted = [tuple(item.shape) for item in source.call(*inputs)]
    except (RuntimeError, IndexError, ValueError):
        return True  # the source has no such size itself
    try:
        with torch.no_grad():
            result = module(*inputs)
    except RuntimeError:
        return False
    return wanted == [tuple(item.shape) for item in (result if isinstance(result, (list, tuple)) else [result])]


def _quantized(module: Any, example: tuple[Any, ...], source: LoadedSource, job: ConversionRequest) -> Any:
    """Post-training static quantization in FX graph mode, weights per channel, for qnnpack (the ARM kernels).

    qnnpack adds no tensors of different shapes: where that stops the network, additions stay in float.
    """
    converted = _statically_quantized(module, example, source, job, ())
    try:
        _try(converted, example)
    except RuntimeError:
        converted = _statically_quantized(module, example, source, job, _ADDITIONS)
        _try(converted, example)
    return converted


_ADDITIONS = ("add", "iadd")


def _try(module: Any, example: tuple[Any, ...]) -> None:
    import torch

    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as in quantizing it
        module(*example)


def _statically_quantized(
    module: Any, example: tuple[Any, ...], source: LoadedSource, job: ConversionRequest, in_float: tuple[str, ...]
) -> Any:
    import torch
    from torch.ao.quantization import QConfig, QConfigMapping, default_per_channel_weight_observer
    from torch.ao.quantization.observer import HistogramObserver
    from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

    torch.backends.quantized.engine = QUANTIZED_ENGINE
    activation = HistogramObserver.with_args(reduce_range=False)
    mapping = QConfigMapping().set_global(QConfig(activation=activation, weight=default_per_channel_weight_observer))
    for name in in_float:
        mapping.set_object_type(getattr(operator, name), None)
        mapping.set_object_type(getattr(torch, name, torch.add), None)
    assert job.calibration is not None  # the base has made sure
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated upstream, and nothing else quantizes for the lite interpreter
        prepared = prepare_fx(copy.deepcopy(module), mapping, example)
        for arrays in batching.iter_batches(source.signature, job.calibration, 32):
            prepared(*map(torch.from_numpy, arrays))
        return _contiguous_before_clamps(convert_fx(prepared))


def _contiguous_before_clamps(module: Any) -> Any:
    """qnnpack's clamp mixes up the elements of tensors in channels-last order, which is how its convolutions return
    them (torch 2.13): such a tensor is put into the usual order first."""
    import torch
    import torch.nn.functional as F

    modules = (torch.nn.ReLU6, torch.nn.Hardtanh)
    functions = (F.relu6, F.hardtanh, torch.clamp, torch.clip)
    graph = module.graph
    parts = dict(module.named_modules())
    for node in list(graph.nodes):
        clamps = (
            (node.op == "call_module" and isinstance(parts.get(node.target), modules))
            or (node.op == "call_function" and node.target in functions)
            or (node.op == "call_method" and node.target in ("clamp", "clip"))
        )
        if clamps and node.all_input_nodes:
            before = node.all_input_nodes[0]
            with graph.inserting_before(node):
                node.replace_input_with(before, graph.call_method("contiguous", (before,)))
    module.recompile()
    return module


def save(module: Any, signature: Signature, path: Path) -> None:
    """Writes the archive: the signature in it, no debug records, and names that do not depend on the process."""
    import torch

    buffer = io.BytesIO()
    torch.jit.save(module, buffer, _extra_files={SIGNATURE_RECORD: json.dumps(asdict(signature), sort_keys=True)})
    path.write_bytes(_canonical(buffer.getvalue()))


def _canonical(content: bytes) -> bytes:
    import torch

    reader = torch._C.PyTorchFileReader(io.BytesIO(content))
    records = [name for name in reader.get_all_records() if name not in _VOLATILE and not name.endswith(".debug_pkl")]
    numbers: set[int] = set()
    for name in records:
        text = name.encode() + (reader.get_record(name) if _holds_names(name) else b"")
        numbers |= {int(match[1]) for match in _MANGLED.finditer(text)}
    renamed = {number: index for index, number in enumerate(sorted(numbers))}

    def rename(text: bytes) -> bytes:
        return _MANGLED.sub(lambda match: b"___torch_mangle_%d" % renamed[int(match[1])], text)

    out = io.BytesIO()
    writer = torch._C.PyTorchFileWriter(out)
    for name in records:
        record = reader.get_record(name)
        # Class names stand in code, and in pickles as text that ends with a line feed: both may change their length.
        data = rename(record) if _holds_names(name) else record
        writer.write_record(rename(name.encode()).decode(), data, len(data))
    writer.write_end_of_file()
    return out.getvalue()


def _holds_names(record: str) -> bool:
    return record.endswith((".py", ".pkl"))


def read_record(path: Path, name: str) -> bytes | None:
    """A record of the archive, or None. Raises InputError when the file is no such archive."""
    import torch

    read_bytes(path, "model file")
    try:
        reader = torch._C.PyTorchFileReader(str(path))
        return bytes(reader.get_record(name)) if reader.has_record(name) else None
    except RuntimeError as error:
        raise malformed_file_error(path, "PyTorch", "it is not a complete zip archive") from error


def read_signature(path: Path) -> Signature | None:
    """The signature that edgekit wrote into the archive, or None in a file of another maker."""
    record = read_record(path, f"extra/{SIGNATURE_RECORD}")
    return None if record is None else Signature.from_dict(json.loads(record))


def load(path: Path) -> Any:
    """The module. Raises InputError when the file is empty, truncated, a checkpoint, or something else."""
    import torch

    if read_record(path, "constants.pkl") is None:
        raise malformed_file_error(
            path, "TorchScript", "it has no code in it; a checkpoint of weights alone is not a model"
        )
    torch.backends.quantized.engine = QUANTIZED_ENGINE
    try:
        return torch.jit.load(str(path), map_location="cpu")
    except (RuntimeError, ValueError) as error:
        raise malformed_file_error(path, "TorchScript", next(iter(str(error).splitlines()), "")[:200]) from error


def describe(path: Path, format_name: str) -> ModelDescription:
    """Operators, parameters and signature; multiply-accumulates where the file tells its input shapes."""
    module = load(path)
    graph = module.inlined_graph
    signature = read_signature(path) or Signature((), ())
    macs = _macs(module, signature)
    counts = Counter(node.kind() for node in graph.nodes() if not node.kind().startswith("prim::"))
    tensors = _constants(graph)
    return ModelDescription(
        format=format_name,
        signature=signature,
        ops=tuple(
            OpCount(name, count, (macs or {}).get(_COUNTED_AS.get(name, name))) for name, count in counts.most_common()
        ),
        tensors=len(tensors),
        parameters=sum(int(np.prod(shape)) for shape, _ in tensors),
        weight_bytes=sum(int(np.prod(shape)) * size for shape, size in tensors),
        macs=None if macs is None else sum(macs.values()),
        activation_bytes=None,
        quantized_tensors=sum(size == 1 for _, size in tensors),
        metadata={} if signature.inputs else {"signature": "none in the file: TorchScript keeps no names or shapes"},
    )


def _constants(graph: Any) -> list[tuple[tuple[int, ...], int]]:
    """Shape and bytes an element of every learned tensor of a frozen graph, packed weights unpacked."""
    import torch

    found: list[tuple[tuple[int, ...], int]] = []
    for node in graph.findAllNodes("prim::Constant"):
        value = node.output().toIValue()
        if isinstance(value, torch.Tensor) and value.dim() > 0:
            found.append((tuple(value.shape), value.element_size()))
        elif isinstance(value, torch.ScriptObject) and hasattr(value, "unpack"):
            found += [
                (tuple(part.shape), part.element_size()) for part in value.unpack() if isinstance(part, torch.Tensor)
            ]
    return found


def _macs(module: Any, signature: Signature) -> dict[str, int] | None:
    """By operator, counted while the module runs one sample of zeros; None when the input shapes are not known."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    if not signature.inputs or any(isinstance(dim, str) for spec in signature.inputs for dim in spec.shape[1:]):
        return None
    examples = [
        torch.zeros([dim if isinstance(dim, int) else 1 for dim in spec.shape], dtype=getattr(torch, spec.dtype))
        for spec in signature.inputs
    ]
    quantized = torch.ops.quantized
    packed = dict.fromkeys(
        (quantized.conv2d, quantized.conv2d_relu, quantized.linear, quantized.linear_relu), _packed_flops
    )
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=packed) as counter:
        module(*examples)
    return {str(op).replace(".", "::"): flops // 2 for op, flops in counter.get_flop_counts()["Global"].items()}


def _packed_flops(_input: Any, weights: Any, *_args: Any, out_val: Any, **_kwargs: Any) -> int:
    """2 * outputs * weights that each output meets; packed weights are (out, in / groups, ...)."""
    weight = weights.unpack()[0]
    return int(2 * out_val.numel() * weight.numel() // weight.shape[0])


_packed_flops._get_raw = True  # type: ignore[attr-defined]  # FlopCounterMode then hands over tensors, not shapes


def options(source: LoadedSource, job: ConversionRequest) -> dict[str, str]:
    """What the manifest says of how the archive was made."""
    made = {"method": "the source's own script" if source.kind == "torchscript" else "trace", "frozen": "yes"}
    return {**made, "quantized_engine": QUANTIZED_ENGINE, "weights": "per channel"} if job.precision == "int8" else made
