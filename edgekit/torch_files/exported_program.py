"""The records of exported programs (`.pt2`): checking them against the schema of PyTorch.

`torch.export.load` trusts its file: names end up in source code that torch.fx compiles, targets are resolved by getattr
from `torch`, shape expressions and guards are evaluated as Python, and descriptions of inputs may name a module to
import. So each text in the records has a rule here, by the class and the field of PyTorch's schema
(torch/_export/serde/schema.py, version 8.20 of torch 2.13). A key or a field without a rule is refused.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import keyword
import string
import types
import typing
from collections.abc import Callable
from typing import Any

from edgekit.torch_files.operators import is_allowed
from edgekit.torch_files.shape_expressions import NotArithmetic, check_shape_expression, check_symbol

_MAX_NAME = 1000
_MAX_TEXT = 10_000
_MAX_INT = 2**63
_NAME_START = frozenset(string.ascii_letters + "_")
_NAME_PART = frozenset(string.ascii_letters + string.digits + "_")
_PRINTABLE = frozenset(string.ascii_letters + string.digits + string.punctuation + " ")

# Functions of Python and torch on symbolic sizes (`_SYM_OPS` in torch/_export/serde/serialize.py).
_SIZE_FUNCTIONS = frozenset(
    [
        *(
            f"_operator.{name}"
            for name in "eq ne le ge lt gt neg pos mul add sub floordiv mod pow truediv and_ or_ lshift rshift".split()  # noqa: SIM905
        ),
        "_operator.getitem",
        "math.trunc",
        *(f"torch.sym_{name}" for name in ("float", "int", "ite", "max", "min", "not", "sqrt")),
        "torch._sym_sqrt",
    ]
)
# Operators that take graphs, whose nodes are checked like all others.
_GRAPH_OPERATORS = frozenset(
    {"cond", "map_impl", "scan", "while_loop", "wrap_with_autocast", "wrap_with_set_grad_enabled"}
)
# Custom objects are C++ classes or pickles; tokens order effects, which no allowed operator has.
_REFUSED_CLASSES = frozenset(
    {"CustomObjArgument", "InputToCustomObjSpec", "InputTokenSpec", "OutputTokenSpec", "TokenArgument"}
)
_CONTAINERS = frozenset(
    {
        "builtins.dict",
        "builtins.list",
        "builtins.tuple",
        "collections.OrderedDict",
        "torch.fx.immutable_collections.immutable_dict",
        "torch.fx.immutable_collections.immutable_list",
    }
)


class RefusedProgram(ValueError):
    """Error for a record that does not fit the schema, or contains what PyTorch would execute."""


def checked_program(record: bytes) -> bytes:
    """Return a program's record without its free texts, after checking everything else.

    Guards, stack traces and other notes of the exporter are dropped: PyTorch compiles the former, and needs none.

    Args:
        record: The content of `models/NAME.json`.

    Returns:
        The record for PyTorch's loader.

    Raises:
        RefusedProgram: The record is damaged, does not fit the schema, or contains what PyTorch would execute.
    """
    from torch._export.serde import schema

    program = _parse(record)
    _drop_notes(program)
    _check(schema.ExportedProgram, program, "")
    return json.dumps(program).encode()


def checked_payloads(record: bytes) -> dict[str, Any]:
    """Check a table of weights or constants.

    Args:
        record: The content of `data/weights/NAME_weights_config.json` or of that of the constants.

    Returns:
        The entries by the tensor's name.

    Raises:
        RefusedProgram: The record is damaged, does not fit the schema, or names anything but raw tensors.
    """
    from torch._export.serde import schema

    config = _parse(record)
    _check(schema.PayloadConfig, config, "")
    entries: dict[str, Any] = config.get("config", {})
    for name, entry in entries.items():
        file, meta = entry.get("path_name", ""), entry.get("tensor_meta")
        # `opaque_obj_*` payloads go through pickle, `custom_obj_*` through TorchBind.
        kind, _, number = file.partition("_")
        if (
            entry.get("use_pickle") is not False
            or meta is None
            or kind not in ("weight", "tensor")
            or not number.isdigit()
        ):
            raise RefusedProgram(f"'{file[:80]}', the data of '{name[:80]}', is not a plain tensor")
        if any("as_int" not in size for size in (*meta.get("sizes", ()), *meta.get("strides", ()))):
            raise RefusedProgram(f"the tensor '{name[:80]}' has no fixed size")
    return entries


def _parse(record: bytes) -> Any:
    try:
        value = json.loads(record)
    except (ValueError, RecursionError) as error:
        raise RefusedProgram(f"it is damaged ({error})") from error
    if not isinstance(value, dict):
        raise RefusedProgram("it is damaged (it is not an object)")
    return value


def _drop_notes(program: Any) -> None:
    """Remove what only explains a program, and from the rest of the notes what is not plain."""
    if "guards_code" in program:
        program["guards_code"] = []
    module = program.get("graph_module")
    if isinstance(module, dict) and "metadata" in module:
        module["metadata"] = {}
    pending = [program]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            if isinstance(value.get("metadata"), dict) and "target" in value:
                value["metadata"] = {key: text for key, text in value["metadata"].items() if _is_plain_note(key, text)}
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)


def _is_plain_note(key: str, text: Any) -> bool:
    """Return whether PyTorch only stores or compares this note on the origin of a node."""
    if not isinstance(text, str) or len(text) > _MAX_TEXT or not _PRINTABLE.issuperset(text):
        return False
    if key in ("nn_module_stack", "torch_fn"):
        return key == "torch_fn" or all(entry.count(",") >= 2 for entry in text.split(";"))
    if key == "source_fn_stack":  # names of functions, which PyTorch looks up with getattr
        entries = [entry.split(",") for entry in text.split(";")]
        return all(len(entry) == 2 and _is_path(entry[1]) for entry in entries)
    return False


def _check(kind: Any, value: Any, where: str) -> None:
    """Raise RefusedProgram unless the value fits a type of the schema.

    Args:
        kind: The type: a class of the schema, or a builtin or generic type.
        value: The JSON value.
        where: The class and the field of the schema that have this type; '' for the whole record.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        _check(arguments[0], value, where)
    elif origin in (typing.Union, types.UnionType):
        if value is not None:
            _check(next(argument for argument in arguments if argument is not type(None)), value, where)
    elif origin is list:
        for element in _expect(list, value, where):
            _check(arguments[0], element, where)
    elif origin is dict:
        for key, element in _expect(dict, value, where).items():
            _check_text(f"{where} keys", key)
            _check(arguments[1], element, where)
    elif isinstance(kind, type) and dataclasses.is_dataclass(kind):
        _check_fields(kind, _expect(dict, value, where))
    else:
        _check_scalar(kind, value, where)


def _expect(kind: type, value: Any, where: str) -> Any:
    if not isinstance(value, kind):
        raise RefusedProgram(f"{where or 'it'} is not a {kind.__name__}")
    return value


def _check_fields(kind: type, value: dict[str, Any]) -> None:
    """Check an object against a dataclass of the schema; of a union it has exactly one field."""
    from torch._export.serde import schema
    from torch._export.serde.union import _Union

    if kind.__name__ in _REFUSED_CLASSES:
        raise RefusedProgram(f"it contains a {kind.__name__}, which is no plain tensor or number")
    hints = _hints(kind, vars(schema))
    if issubclass(kind, _Union) and len(value) != 1:
        raise RefusedProgram(f"a {kind.__name__} has not exactly one value")
    for key, child in value.items():
        if key not in hints:
            raise RefusedProgram(f"a {kind.__name__} has the unknown key '{key[:80]}'")
        _check(hints[key], child, f"{kind.__name__}.{key}")


_known_hints: dict[type, dict[str, Any]] = {}


def _hints(kind: type, names: dict[str, Any]) -> dict[str, Any]:
    if kind not in _known_hints:
        fields = {field.name for field in dataclasses.fields(kind)}
        hints = typing.get_type_hints(kind, globalns=names)
        _known_hints[kind] = {name: hint for name, hint in hints.items() if name in fields}
    return _known_hints[kind]


def _check_scalar(kind: Any, value: Any, where: str) -> None:
    if kind is str:
        _check_text(where, _expect(str, value, where))
    elif kind is bool:
        _expect(bool, value, where)
    elif kind is float:
        if value not in ("Infinity", "-Infinity", "NaN"):
            number = _expect((int, float), value, where)  # type: ignore[arg-type]
            if isinstance(number, int):
                _check_int(number, where)
    elif kind is int:
        _check_int(value, where)
    elif isinstance(kind, type) and issubclass(kind, enum.IntEnum):
        _check_int(value, where)
        if value not in {int(member) for member in kind}:
            raise RefusedProgram(f"{where} has the unknown value {value}")
    else:
        raise RefusedProgram(f"{where} has a type that edgekit does not know")


def _check_int(value: Any, where: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > _MAX_INT:
        raise RefusedProgram(f"{where} is not a 64-bit integer")


# Rules for texts


def _check_text(where: str, text: str) -> None:
    """Apply the rule for the texts of a field of the schema."""
    rule = _RULES.get(where)
    if rule is None:
        raise RefusedProgram(f"it has texts in {where}, which edgekit does not know")
    rule(text)


def _value_name(text: str) -> None:
    # torch.fx writes the names of values, arguments and subgraphs into the source code that it compiles.
    if not _is_identifier(text):
        raise RefusedProgram(f"the graph has a value named '{text[:80]}', which is not an identifier")


def _optional_value_name(text: str) -> None:
    if text:
        _value_name(text)


def _tensor_name(text: str) -> None:
    # torch.fx writes the attribute into source code, and sets it on a module.
    if not _is_path(text):
        raise RefusedProgram(
            f"a parameter, buffer or constant is named '{text[:80]}', and names may consist of letters, digits,"
            " underscores and dots only"
        )


def _module_path(text: str) -> None:
    # A module that is called several times appears as path@1, path@2, …
    path, _, number = text.partition("@")
    if text and not (_is_path(path) and (number.isdigit() or "@" not in text)):
        raise RefusedProgram(f"a module is named '{text[:80]}', which is not a dotted name")


def _operator(text: str) -> None:
    parts = text.split(".")
    known = text in _SIZE_FUNCTIONS
    if parts[:2] == ["torch", "ops"] and len(parts) == 5:
        namespace, name, overload = parts[2:]
        known = is_allowed(f"{namespace}::{name}", "" if overload == "default" else overload)
    elif parts[:3] == ["torch", "ops", "higher_order"] and len(parts) == 4:
        known = parts[3] in _GRAPH_OPERATORS
    if not known:
        raise RefusedProgram(f"the graph calls '{text[:80]}', which is not one of PyTorch's operators on tensors")


def _expression(text: str) -> None:
    try:
        check_shape_expression(text)
    except NotArithmetic as error:
        raise RefusedProgram(
            f"the graph has a shape expression that is more than arithmetic: '{text[:80]}' ({error})"
        ) from error


def _symbol(text: str) -> None:
    try:
        check_symbol(text)
    except NotArithmetic as error:
        raise RefusedProgram(str(error)) from error


def _argument_text(text: str) -> None:
    # Arguments of operators, such as the mode of a padding; no allowed operator takes the name of a file.
    if len(text) > _MAX_TEXT:
        raise RefusedProgram("an argument is a text of more than 10,000 characters")


def _plain_text(text: str) -> None:
    if len(text) > _MAX_NAME or not _PRINTABLE.issuperset(text):
        raise RefusedProgram(f"it contains the text '{text[:80]!a}'")


def _one_of(*known: str) -> Callable[[str], None]:
    def check(text: str) -> None:
        if text not in known:
            raise RefusedProgram(f"it contains '{text[:80]}' where {', '.join(known)} are known")

    return check


def _input_structure(text: str) -> None:
    # The names of keyword arguments, at depth 1, become parameters of the function that torch.fx compiles.
    _check_tree(_parsed_tree(text), depth=0, identifiers_to_depth=1)


def _output_structure(text: str) -> None:
    _check_tree(_parsed_tree(text), depth=0, identifiers_to_depth=-1)


def _parsed_tree(text: str) -> Any:
    """Return a description of nested inputs or outputs: JSON in a text, with JSON in the texts of that."""
    if len(text) > 10 * _MAX_TEXT:
        raise RefusedProgram("a description of inputs or outputs is too long")
    try:
        protocol, tree = json.loads(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise RefusedProgram("a description of inputs or outputs is damaged") from error
    if protocol != 1:
        raise RefusedProgram("a description of inputs or outputs has an unknown version")
    return tree


def _check_tree(tree: Any, depth: int, identifiers_to_depth: int) -> None:
    if depth > 32:
        raise RefusedProgram("inputs or outputs are nested too deeply")
    if not isinstance(tree, dict) or set(tree) != {"type", "context", "children_spec"}:
        raise RefusedProgram("a description of inputs or outputs is damaged")
    kind, context = tree["type"], tree["context"]
    if kind is not None and kind not in _CONTAINERS:
        raise RefusedProgram(f"inputs or outputs are of the type '{str(kind)[:80]}', which is no tuple, list or dict")
    if context is not None:
        _check_keys(context, identifiers=depth <= identifiers_to_depth)
    for child in _expect(list, tree["children_spec"], "a description of inputs or outputs"):
        _check_tree(child, depth + 1, identifiers_to_depth)


def _check_keys(context: Any, *, identifiers: bool) -> None:
    """Check the keys of a dict of inputs or outputs, which torch.fx writes into source code between single quotes."""
    try:
        keys = json.loads(context)
    except (ValueError, TypeError, RecursionError) as error:
        raise RefusedProgram("a description of inputs or outputs is damaged") from error
    # An object would be taken for an enumeration, whose module PyTorch imports.
    for key in [] if keys is None else _expect(list, keys, "the keys of inputs or outputs"):
        is_int = isinstance(key, int) and not isinstance(key, bool) and abs(key) <= _MAX_INT
        is_text = isinstance(key, str) and len(key) <= _MAX_NAME and (_PRINTABLE - {"'", "\\"}).issuperset(key)
        if not (is_text and _is_identifier(key) if identifiers else is_text or is_int):
            raise RefusedProgram(f"an input or output has the key {str(key)[:80]!a}, which is no plain name")


def _is_identifier(text: str) -> bool:
    return (
        0 < len(text) <= _MAX_NAME
        and text[0] in _NAME_START
        and _NAME_PART.issuperset(text)
        and not keyword.iskeyword(text)
        and not (text.startswith("__") and text.endswith("__"))
    )


def _is_path(text: str) -> bool:
    """Return whether the text is a dotted name without Python's own attributes; the items of a list are numbers."""
    parts = text.split(".")
    return len(text) <= _MAX_NAME and all(
        part and _NAME_PART.issuperset(part) and not (part.startswith("__") and part.endswith("__")) for part in parts
    )


_RULES: dict[str, Callable[[str], None]] = {
    "Argument.as_operator": _operator,
    "Argument.as_string": _argument_text,
    "Argument.as_string_to_argument keys": _argument_text,
    "Argument.as_strings": _argument_text,
    "BufferMutationSpec.buffer_name": _tensor_name,
    "ConstantValue.as_string": _argument_text,
    "Device.type": _one_of("cpu", "cuda", "meta", "mps", "xpu"),
    "ExportedProgram.opset_version keys": _value_name,
    "ExportedProgram.range_constraints keys": _symbol,
    "ExportedProgram.torch_version": _plain_text,
    "ExportedProgram.verifiers": _one_of("ATEN", "TRAINING", ""),
    "GradientToParameterSpec.parameter_name": _tensor_name,
    "GradientToUserInputSpec.user_input_name": _value_name,
    "Graph.sym_bool_values keys": _value_name,
    "Graph.sym_float_values keys": _value_name,
    "Graph.sym_int_values keys": _value_name,
    "Graph.tensor_values keys": _value_name,
    "GraphArgument.name": _value_name,
    "GraphModule.treespec_namedtuple_fields keys": _tensor_name,
    "InputToBufferSpec.buffer_name": _tensor_name,
    "InputToConstantInputSpec.name": _optional_value_name,
    "InputToParameterSpec.parameter_name": _tensor_name,
    "InputToTensorConstantSpec.tensor_constant_name": _tensor_name,
    "ModuleCallEntry.fqn": _module_path,
    "ModuleCallSignature.forward_arg_names": _value_name,
    "ModuleCallSignature.in_spec": _input_structure,
    "ModuleCallSignature.out_spec": _output_structure,
    "NamedArgument.name": _optional_value_name,
    "NamedTupleDef.field_names": _value_name,
    "Node.metadata": _argument_text,  # what `_drop_notes` left
    "Node.metadata keys": _one_of("nn_module_stack", "source_fn_stack", "torch_fn"),
    "Node.name": _optional_value_name,
    "Node.target": _operator,
    "ParameterMutationSpec.parameter_name": _tensor_name,
    "PayloadConfig.config keys": _tensor_name,
    "PayloadMeta.path_name": _value_name,
    "SymBoolArgument.as_name": _value_name,
    "SymExpr.expr_str": _expression,
    "SymFloatArgument.as_name": _value_name,
    "SymIntArgument.as_name": _value_name,
    "TensorArgument.name": _value_name,
    "UserInputMutationSpec.user_input_name": _value_name,
}
