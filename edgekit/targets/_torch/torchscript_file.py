"""TorchScript archives: tracing, quantizing, reproducible writing, and reading.

`torch.jit.save` (torch 2.13) writes debug records with source paths of the machine, and class names with a counter of
the process (`___torch_mangle_17`). Inference needs neither. `save` removes both, so that the same model gives the same
bytes on every machine.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import operator
import re
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.contracts.target import ConversionRequest, malformed_file_error
from edgekit.core.environment.atomic_files import read_bytes
from edgekit.core.errors import InputError
from edgekit.core.numerics import batching
from edgekit.core.records.source import LoadedSource
from edgekit.core.values.specs import ModelDescription, OpCount, Signature
from edgekit.targets._torch import exact_values
from edgekit.torch_files import script_archive
from edgekit.torch_files.script_contents import read_contents

# TorchScript stores no names or shapes of inputs and outputs: an extra file of the archive holds them.
SIGNATURE_RECORD = "edgekit.json"

# The engine with kernels for ARM, which the lite interpreter's quantized files are for; torch defaults to x86's.
QUANTIZED_ENGINE = "qnnpack"

# Samples per call during calibration. It must not change: the histogram observer rebins per call, so the batch size
# decides the ranges and with them the bytes of the file.
_CALIBRATION_BATCH = 32

_MANGLED = re.compile(rb"___torch_mangle_(\d+)")

# Records that the archive writer adds by itself; copying them as well would duplicate them.
_WRITER_RECORDS = ("version", "byteorder", ".data/serialization_id")

# The names under which torch's FLOP counter counts operators of a frozen graph.
_COUNTED_AS = {"aten::linear": "aten::addmm", "aten::conv2d": "aten::convolution"}


def to_torchscript(source: LoadedSource, job: ConversionRequest) -> Any:
    """Trace the source on one sample and freeze it, quantized if the precision is int8.

    Args:
        source: A PyTorch module, or a TorchScript module, which is frozen only.
        job: The request; its calibration samples are used for int8.

    Returns:
        The frozen `torch.jit.ScriptModule`; freezing folds batch norms into convolutions.
    """
    import torch

    module = source.model
    if isinstance(module, torch.jit.ScriptModule):
        return torch.jit.freeze(module.eval())
    example = tuple(map(torch.from_numpy, source.examples(1)))
    reads = source.data_reads()
    if reads and job.precision != "int8":
        return torch.jit.freeze(_scripted(source, example, reads))
    if job.precision == "int8":
        module = _quantize(module, example, source, job)
    with torch.no_grad(), warnings.catch_warnings():
        # torch 2.13 deprecates TorchScript as a whole, and warns at every trace.
        warnings.simplefilter("ignore", DeprecationWarning)
        traced = torch.jit.trace(module, example)
        source.reset()  # the trace was a call: a buffer that calls change would be stored with its next value
        return torch.jit.freeze(traced)


def _scripted(source: LoadedSource, example: tuple[Any, ...], reads: Sequence[str]) -> Any:
    """Compile a module whose code decides by values, of which a trace keeps the decision for one sample.

    A module that torch.jit cannot compile is traced after all if the trace agrees with it on other samples, as it does
    if the code only checks its input.
    """
    import torch

    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch 2.13 deprecates TorchScript as a whole, and warns at every trace
        try:
            return torch.jit.script(source.model)
        except Exception as error:  # torch.jit raises errors of many types for code that it does not compile
            with contextlib.suppress(Exception):
                traced = torch.jit.trace(source.model, example, check_trace=False)
                if _agrees(traced, source):
                    return traced
            raise InputError(
                "this network is neither traceable nor scriptable: its code reads values that depend on the input,"
                f" which a trace does not record: {reads[0]}; write it with tensor operators such as torch.where"
            ) from error


# Samples on which a trace must agree with code that decides by values, besides their negatives.
_AGREEING_SAMPLES = 16


def _agrees(traced: Any, source: LoadedSource) -> bool:
    """Return whether a trace and its source have the same outputs for samples, and for the samples' negatives."""
    import torch

    count = _AGREEING_SAMPLES if source.signature.batch else 1
    samples = [torch.from_numpy(array) for array in source.examples(count)]
    for index in range(count):
        rows = [tensor[index : index + 1] if source.signature.batch else tensor for tensor in samples]
        negatives = [-row if row.is_floating_point() else row for row in rows]
        for tensors in (rows, negatives):
            result = traced(*tensors)
            outputs = result if isinstance(result, (list, tuple)) else [result]
            pairs = zip(source.call(*tensors), outputs, strict=True)
            if not all(torch.allclose(expected, actual, equal_nan=True) for expected, actual in pairs):
                return False
    return True


def traced_signature(module: Any, source: LoadedSource) -> Signature:
    """Return the source's signature, with symbolic dimensions fixed where the trace supports one size only.

    A trace may turn a size into a constant, so module and source are run with another size of each symbol.

    Args:
        module: The traced module.
        source: The source that was traced.

    Returns:
        The signature of the traced module.
    """
    state = [(buffer, buffer.clone()) for buffer in module.buffers()]
    # First dimensions have no size in the samples: they count these, and a call has one.
    sizes = {**dict.fromkeys(source.signature.symbols, 1), **source.sizes, source.signature.batch or "": 1}
    fixed: dict[str, int] = {}
    for symbol in source.signature.symbols:
        traced_size = sizes[symbol]
        # Twice the size too: the source may take multiples of a stride only.
        others = [{**sizes, symbol: size} for size in (traced_size + 1, 2 * traced_size)]
        if not all(_shapes_agree(module, source, other) for other in others):
            fixed[symbol] = traced_size
    for buffer, value in state:
        buffer.copy_(value)
    source.reset()
    return source.signature.sized(fixed)


def _shapes_agree(module: Any, source: LoadedSource, sizes: dict[str, int]) -> bool:
    """Return whether module and source have outputs of the same shapes at these sizes."""
    import torch

    sized = source.signature.sized(sizes)
    inputs = [torch.from_numpy(array) for array in source.at(sized, sizes).examples(1)]
    try:
        with torch.no_grad():
            expected = [tuple(output.shape) for output in source.call(*inputs)]
    except (RuntimeError, IndexError, ValueError):
        return True  # the source does not support this size either
    try:
        with torch.no_grad():
            result = module(*inputs)
    except RuntimeError:
        return False
    outputs = result if isinstance(result, (list, tuple)) else [result]
    return expected == [tuple(output.shape) for output in outputs]


def _quantize(module: Any, example: tuple[Any, ...], source: LoadedSource, job: ConversionRequest) -> Any:
    """Quantize for qnnpack by post-training static quantization in FX graph mode, weights per channel."""
    converted = _quantize_static(module, example, source, job, ())
    try:
        _run(converted, example)
    except RuntimeError:
        # qnnpack (torch 2.13) cannot add tensors of different shapes, or with very different scales as in an LSTM
        # cell; such a network keeps its additions in float.
        converted = _quantize_static(module, example, source, job, _ADDITIONS)
        _run(converted, example)
    return converted


# Functions of `operator`, and of `torch` where it has one of the same name.
_ADDITIONS = ("add", "iadd")


def _run(module: Any, example: tuple[Any, ...]) -> None:
    import torch

    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the deprecation warnings of _quantize_static
        module(*example)


def _quantize_static(
    module: Any, example: tuple[Any, ...], source: LoadedSource, job: ConversionRequest, in_float: tuple[str, ...]
) -> Any:
    """Quantize every supported operator but those of the names `in_float`."""
    import torch
    from torch.ao.quantization import QConfig, QConfigMapping, default_per_channel_weight_observer
    from torch.ao.quantization.observer import HistogramObserver
    from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

    torch.backends.quantized.engine = QUANTIZED_ENGINE
    # Reducing the range to 7 bits avoids overflow in x86 kernels without VNNI; qnnpack accumulates without overflow.
    activation = HistogramObserver.with_args(reduce_range=False)
    mapping = QConfigMapping().set_global(QConfig(activation=activation, weight=default_per_channel_weight_observer))
    for name in in_float:
        mapping.set_object_type(getattr(operator, name), None)
        mapping.set_object_type(getattr(torch, name, torch.add), None)
    assert job.calibration is not None  # checked by Target.convert
    with torch.no_grad(), warnings.catch_warnings():
        # torch 2.13 deprecates quantize_fx, but its successors do not write files for the lite interpreter.
        warnings.simplefilter("ignore")
        prepared = prepare_fx(copy.deepcopy(module), mapping, example)
        exact_values.keep(prepared, example)
        for arrays in batching.iter_batches(source.signature, job.calibration, _CALIBRATION_BATCH):
            prepared(*map(torch.from_numpy, arrays))
        return _make_clamps_contiguous(convert_fx(prepared))


def _make_clamps_contiguous(module: Any) -> Any:
    """Insert `contiguous()` in front of every clamp."""
    # qnnpack's clamp (torch 2.13) silently permutes the elements of channels-last tensors, which its convolutions
    # return.
    import torch
    import torch.nn.functional as F

    modules = (torch.nn.ReLU6, torch.nn.Hardtanh)
    functions = (F.relu6, F.hardtanh, torch.clamp, torch.clip)
    graph = module.graph
    submodules = dict(module.named_modules())
    for node in list(graph.nodes):
        is_clamp = (
            (node.op == "call_module" and isinstance(submodules.get(node.target), modules))
            or (node.op == "call_function" and node.target in functions)
            or (node.op == "call_method" and node.target in ("clamp", "clip"))
        )
        if is_clamp and node.all_input_nodes:
            producer = node.all_input_nodes[0]
            with graph.inserting_before(node):
                node.replace_input_with(producer, graph.call_method("contiguous", (producer,)))
    module.recompile()
    return module


def save(module: Any, signature: Signature, path: Path) -> None:
    """Write the archive with its signature, without debug records, and with names that do not depend on the process.

    Args:
        module: The frozen module.
        signature: Inputs and outputs, which TorchScript does not store.
        path: The file to write.
    """
    import torch

    buffer = io.BytesIO()
    torch.jit.save(module, buffer, _extra_files={SIGNATURE_RECORD: json.dumps(asdict(signature), sort_keys=True)})
    path.write_bytes(_canonical(buffer.getvalue()))


def _canonical(content: bytes) -> bytes:
    """Return the archive without debug records, its mangled class names renumbered from 0."""
    import torch

    reader = torch._C.PyTorchFileReader(io.BytesIO(content))
    records = [
        name for name in reader.get_all_records() if name not in _WRITER_RECORDS and not name.endswith(".debug_pkl")
    ]
    numbers: set[int] = set()
    for name in records:
        text = name.encode() + (reader.get_record(name) if _contains_class_names(name) else b"")
        numbers |= {int(match[1]) for match in _MANGLED.finditer(text)}
    new_numbers = {number: index for index, number in enumerate(sorted(numbers))}

    def rename(text: bytes) -> bytes:
        return _MANGLED.sub(lambda match: b"___torch_mangle_%d" % new_numbers[int(match[1])], text)

    archive = io.BytesIO()
    writer = torch._C.PyTorchFileWriter(archive)
    for name in records:
        record = reader.get_record(name)
        # A name may change its length: code is plain text, and pickles store class names up to a line feed.
        data = rename(record) if _contains_class_names(name) else record
        writer.write_record(rename(name.encode()).decode(), data, len(data))
    writer.write_end_of_file()
    return archive.getvalue()


def _contains_class_names(record: str) -> bool:
    return record.endswith((".py", ".pkl"))


def read_record(path: Path, name: str) -> bytes | None:
    """Read a record of an archive.

    Args:
        path: The archive.
        name: The name of the record.

    Returns:
        The bytes of the record, or None if the archive has no record of that name.

    Raises:
        InputError: The file is empty, truncated or no PyTorch archive.
    """
    import torch

    read_bytes(path, "model file")
    try:
        reader = torch._C.PyTorchFileReader(str(path))
        return bytes(reader.get_record(name)) if reader.has_record(name) else None
    except RuntimeError as error:
        raise malformed_file_error(path, "PyTorch", "it is not a complete zip archive") from error


def read_signature(path: Path) -> Signature | None:
    """Read the signature that `save` wrote into the archive.

    Args:
        path: The archive.

    Returns:
        The signature, or None if another tool wrote the archive.

    Raises:
        InputError: The file is empty, truncated or no PyTorch archive.
    """
    record = read_record(path, f"extra/{SIGNATURE_RECORD}")
    return None if record is None else Signature.from_dict(json.loads(record))


def load(path: Path) -> Any:
    """Load the module of an archive.

    Args:
        path: The archive.

    Returns:
        The `torch.jit.ScriptModule`, on the CPU.

    Raises:
        InputError: The file is empty, truncated, a checkpoint of weights, of another format, or calls what a file may
            not call.
    """
    import torch

    torch.backends.quantized.engine = QUANTIZED_ENGINE  # loading packs weights for the engine that is set
    try:
        return script_archive.load_script(path)
    except (RuntimeError, ValueError) as error:
        raise malformed_file_error(path, "TorchScript", next(iter(str(error).splitlines()), "")[:200]) from error


def describe(path: Path, format_name: str) -> ModelDescription:
    """Describe an archive: operators, parameters, signature and, where input shapes are known, multiply-accumulates.

    Args:
        path: The archive.
        format_name: The name of the target, for the description.

    Returns:
        The description.

    Raises:
        InputError: The file is empty, truncated, a checkpoint of weights, or of another format.
    """
    try:
        contents = read_contents(path)
    except ValueError as error:
        raise malformed_file_error(path, "TorchScript", str(error)) from error
    signature = read_signature(path) or Signature((), ())
    macs = _macs(path, signature)
    tensors = contents.tensors
    return ModelDescription(
        format=format_name,
        signature=signature,
        ops=tuple(
            OpCount(name, count, (macs or {}).get(_COUNTED_AS.get(name, name)))
            for name, count in contents.operators.most_common()
        ),
        tensors=len(tensors),
        # Freezing stores weights as constants; an archive without tensors keeps them where this reader does not look.
        parameters=sum(int(np.prod(shape)) for shape, _ in tensors) if tensors else None,
        weight_bytes=sum(int(np.prod(shape)) * size for shape, size in tensors),
        macs=None if macs is None else sum(macs.values()),
        activation_bytes=None,
        quantized_tensors=sum(size == 1 for _, size in tensors),
        metadata={} if signature.inputs else {"signature": "none in the file: TorchScript keeps no names or shapes"},
    )


def _macs(path: Path, signature: Signature) -> dict[str, int] | None:
    """Return multiply-accumulates by operator, counted on one sample of zeros, or None if input shapes are unknown.

    Counting runs the model, so the archive is loaded, but only one in which edgekit stored the shapes.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    if not signature.inputs or any(isinstance(dim, str) for spec in signature.inputs for dim in spec.shape[1:]):
        return None
    module = load(path)
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
    # One multiply-accumulate is two floating-point operations.
    return {str(op).replace(".", "::"): flops // 2 for op, flops in counter.get_flop_counts()["Global"].items()}


def _packed_flops(_input: Any, weights: Any, *_args: Any, out_val: Any, **_kwargs: Any) -> int:
    """Return 2 * outputs * weights per output."""
    weight = weights.unpack()[0]  # (out, in / groups, ...)
    return int(2 * out_val.numel() * weight.numel() // weight.shape[0])


# FlopCounterMode then passes tensors, not shapes, and packed weights have no shape.
_packed_flops._get_raw = True  # type: ignore[attr-defined]


def manifest_options(source: LoadedSource, job: ConversionRequest) -> dict[str, str]:
    """Return the conversion options for the manifest.

    Args:
        source: The source that was converted.
        job: The request.

    Returns:
        Method, quantization engine and granularity, by name.
    """
    options = {"method": "the source's own script" if source.kind == "torchscript" else "trace", "frozen": "yes"}
    if job.precision == "int8":
        options |= {"quantized_engine": QUANTIZED_ENGINE, "weights": "per channel"}
    return options
