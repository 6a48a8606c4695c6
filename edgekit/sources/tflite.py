"""The source kind of .tflite files, executed by LiteRT; quantized files are dequantized into float32."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgekit.contracts.source import Build, LoadedModel, SourceKind, UserModel, fixed_inputs, reconcile_signature
from edgekit.core.environment.requirements import LITERT
from edgekit.core.errors import InputError
from edgekit.core.numerics.affine_quantization import from_tensor, to_tensor
from edgekit.core.numerics.metrics import Array, sqnr_db
from edgekit.core.numerics.random_inputs import UnknownSize, random_inputs
from edgekit.core.numerics.tensor_layout import Permutation
from edgekit.core.values.fixed_inputs import FixedInput, without_fixed
from edgekit.core.values.specs import Signature
from edgekit.tflite_files.constants import parameters_of
from edgekit.tflite_files.dequantize import in_float32
from edgekit.tflite_files.ends import layouts, permuted, with_constants, with_signature
from edgekit.tflite_files.graph import ends, inline_buffers, operators_of, parse, parse_content, read_signature, text

# A float model and its quantized file agree to some 20 dB or better; less says that the file saturates values, or that
# the samples are not what it was made for.
_SUSPICIOUS_DB = 10.0
# How LiteRT reports an operator of an application.
_CUSTOM = re.compile(r"unresolved custom op: (.+?)\.?$")
# Operators with state that only a new interpreter resets.
_KEEPS_RESOURCES = frozenset({"VAR_HANDLE", "HASHTABLE"})
# The types of inputs and outputs that other formats have too.
_DTYPES = frozenset({"float32", "float16", "float64", "int64", "int32", "uint32", "int16", "int8", "uint8", "bool"})
# Samples on which the two are compared.
_COMPARED = 16


class LoadedTFLite(LoadedModel):
    """The content of a .tflite file, executed by LiteRT on one thread."""

    kind = "tflite"

    def __init__(self, model: bytes, signature: Signature) -> None:
        super().__init__(model, signature)
        self._parsed: Any = None
        self._interpreter: Any = None

    def at(self, signature: Signature, sizes: Mapping[str, int]) -> LoadedModel:
        copied = super().at(signature, sizes)
        assert isinstance(copied, LoadedTFLite)
        copied._interpreter = None  # of its own: a copy may have other shapes
        return copied

    def _run(self, inputs: list[Array]) -> list[Array]:
        model = self._flatbuffer()
        ins, outs = ends(model)
        if self._interpreter is None:
            self._interpreter = _interpreter(self.model)
        indices = {spec.name: (spec, index) for spec, index in ins}
        fed = [(*indices[spec.name], array) for spec, array in zip(self.signature.inputs, inputs, strict=True)]
        for _, index, array in fed:
            if tuple(self._interpreter._get_tensor_details(index, 0)["shape"]) != array.shape:
                self._interpreter.resize_tensor_input(index, array.shape)
        self._interpreter.allocate_tensors()
        for spec, index, array in fed:
            self._interpreter.set_tensor(index, to_tensor(array, spec))
        self._interpreter.invoke()
        results = {spec.name: from_tensor(self._interpreter.get_tensor(index), spec) for spec, index in outs}
        return [results[spec.name] for spec in self.signature.outputs]

    def reset(self) -> None:
        super().reset()
        self._interpreter = None if _KEEPS_RESOURCES & self._operators() else self._interpreter
        if self._interpreter is not None:
            self._interpreter.reset_all_variables()  # the state of recurrent operators

    def _flatbuffer(self) -> Any:
        if self._parsed is None:
            self._parsed = parse_content(self.model)
        return self._parsed

    def _operators(self) -> set[str]:
        return operators_of(self._flatbuffer())

    def parameters(self) -> dict[str, Array]:
        return parameters_of(self._flatbuffer())

    def _with_constants(self, constants: Sequence[FixedInput | None]) -> bytes:
        return with_constants(self.model, {item.spec.name: item.array() for item in constants if item is not None})

    def _permuted(self, inputs: list[Permutation | None], outputs: list[Permutation | None]) -> bytes:
        return permuted(self.model, self._in_file_order(inputs, 0), self._in_file_order(outputs, 1))

    def _in_file_order(self, orders: list[Permutation | None], side: int) -> list[Permutation | None]:
        specs = (self.signature.inputs, self.signature.outputs)[side]
        by_name = {spec.name: order for spec, order in zip(specs, orders, strict=True)}
        return [by_name[spec.name] for spec, _ in ends(self._flatbuffer())[side]]


def _interpreter(content: bytes) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    try:
        interpreter = Interpreter(model_content=content, num_threads=1)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)[:200]
        custom = _CUSTOM.search(reason)
        if custom:
            raise InputError(
                f"LiteRT has no operator {custom[1]}, which this .tflite file computes with: it is a custom operator of"
                " the application that the file was made for; cut the model before it, or name the model that the file"
                " was made of"
            ) from error
        raise InputError(f"LiteRT cannot load this .tflite file ({reason})") from error
    return interpreter


class TFLiteSource(SourceKind):
    """The kind of .tflite files; channels last."""

    name = "tflite"
    requires = (LITERT,)
    variables = {"CUDA_VISIBLE_DEVICES": "-1"}
    layout = "last"
    suffixes = (".tflite",)
    writes_fixed = True
    intermediate = False
    compared_by_runtime = True

    def load(self, path: Path, signature: Signature, build: Build | None) -> LoadedTFLite:
        parse(path)  # reports damage
        return LoadedTFLite(path.read_bytes(), signature)

    def import_model(self, user_model: UserModel, folder: Path) -> tuple[str, Signature]:
        path = user_model.path
        assert path is not None  # a .tflite model is a file
        model = parse(path)
        _check(model, path)
        if len(model.signatureDefs or ()) > 1:
            first = text(model.signatureDefs[0].signatureKey)
            user_model.notes.append(
                f"the file has {len(model.signatureDefs)} signatures: the first one, {first}, is used"
            )
        content = inline_buffers(path.read_bytes())
        signature = reconcile_signature(read_signature(path), user_model, str(path))
        if not user_model.as_stored:
            content, signature = _float_content(content, signature, user_model)
        fixed = fixed_inputs(user_model, signature)
        if fixed:
            signature = without_fixed(signature, fixed)
            content = with_constants(content, {item.spec.name: item.array() for item in fixed})
        signature = _with_known_layouts(signature, layouts(parse_content(content)))
        # Quantizers address a file's inputs by its signature.
        (folder / "model.tflite").write_bytes(with_signature(content))
        return "model.tflite", signature


def _with_known_layouts(signature: Signature, known: Mapping[str, str]) -> Signature:
    return Signature(
        *(
            tuple(replace(spec, layout=known.get(spec.name, spec.layout)) for spec in side)
            for side in (signature.inputs, signature.outputs)
        )
    )


def _check(model: Any, path: Path) -> None:
    """Raise InputError for a file that LiteRT does not run, or whose inputs and outputs no other format has."""
    flex = sorted(name.removeprefix("Flex") for name in operators_of(model) if name.startswith("Flex"))
    if flex:
        raise InputError(
            f"{path}: this file computes with TensorFlow's own operators ({', '.join(flex)}), which need TensorFlow in"
            " the application (the Flex delegate); name the Keras model or SavedModel that it was made of instead"
        )
    signature = tuple(spec for side in ends(model) for spec, _ in side)
    if model.signatureDefs and model.signatureDefs[0].subgraphIndex:
        raise InputError(
            f"{path}: the first signature of this file is not its first graph, which interpreters run; write a file"
            " with one signature"
        )
    for spec in signature:
        if spec.dtype not in _DTYPES:
            raise InputError(
                f"{path}: '{spec.name}' is a tensor of the type {spec.dtype}, which no other target has; cut the model"
                " behind it, and compute the rest in the application"
            )
    if not ends(model)[0]:
        raise InputError(f"{path}: this model has no inputs")


def _float_content(content: bytes, signature: Signature, user_model: UserModel) -> tuple[bytes, Signature]:
    """Return the file and its signature in float32; notes say what was replaced, and what difference that makes."""
    rewritten = in_float32(content)
    if not rewritten.types:
        return content, signature
    after = Signature(*(tuple(spec for spec, _ in side) for side in ends(parse_content(rewritten.content))))
    types = " and ".join(sorted(rewritten.types))
    if rewritten.types == {"float16"}:
        user_model.notes.append("the weights are float16: they were converted into float32")
        return rewritten.content, after
    what = "the network is" if rewritten.activations else "the weights are"
    note = f"{what} quantized ({types}): dequantized into float32, which is the reference of what is exported"
    user_model.notes.append(note + _agreement(content, rewritten.content, (signature, after), user_model))
    return rewritten.content, after


def _agreement(
    original: bytes, rewritten: bytes, signatures: tuple[Signature, Signature], user_model: UserModel
) -> str:
    """Return the clause that says how well the outputs of both files agree; empty if they cannot be run here."""
    before, after = signatures
    try:
        inputs = user_model.examples or random_inputs(after, {})
    except UnknownSize:
        return ""
    names = {spec.name for spec in after.inputs}
    if not names <= set(inputs):
        return ""
    few = {name: array[:_COMPARED] for name, array in inputs.items() if name in names}
    files = LoadedTFLite(original, before), LoadedTFLite(rewritten, after)
    first, second = (model.run(few) for model in files)
    worst = min(sqnr_db(first[name], second[name]) for name in second)
    agreement = f"; its outputs agree with the file's to {worst:.1f} dB"
    if worst < _SUSPICIOUS_DB:
        agreement += ", which is little: the quantized file saturates values, or the samples are unlike its own"
    return agreement


SOURCE = TFLiteSource()
