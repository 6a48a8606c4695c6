"""Checking of SavedModel folders before TensorFlow loads them.

A SavedModel is a program. `tf.saved_model.load` runs parts of it (functions that initialize tables and resources), and
TensorFlow's security guide says to run untrusted models in a sandbox only. So the file is parsed first, and everything
in it must be on a list: the operators of every graph and function, the classes of its objects, and the files it names.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from edgekit.core.environment.contained_files import (
    copy_plain_file,
    open_plain_file,
    require_plain_file,
    require_plain_folder,
)
from edgekit.core.errors import InputError
from edgekit.core.values.specs import Dim, Signature, TensorSpec

MAIN_FILE = "saved_model.pb"
# The signature that TensorFlow Serving uses where a request names none.
SERVING_SIGNATURE = "serving_default"
# The limit of the protobuf format itself.
_MAX_BYTES = 2**31 - 1
# Files that TensorFlow reads beside `saved_model.pb`, the variables and the assets. Only the first two are copied.
_OPTIONAL_FILES = ("fingerprint.pb", "keras_metadata.pb", "debug/saved_model_debug_info.pb")
_COPIED_OPTIONAL_FILES = _OPTIONAL_FILES[:2]
_VARIABLES = re.compile(r"variables\.(index|data-\d{5}-of-\d{5})")

# Every SavedModel contains functions with these operators. They save and restore the variables, and TensorFlow's own
# loader does not call them: it restores the variables itself.
_CHECKPOINT_OPERATORS = frozenset({"SaveV2", "RestoreV2", "MergeV2Checkpoints"})
# They read a file whose name is an input, which must be an asset of the SavedModel.
_TEXT_FILE_OPERATORS = frozenset({"InitializeTableFromTextFile", "InitializeTableFromTextFileV2"})
_CALL_OPERATORS = frozenset({"PartitionedCall", "StatefulPartitionedCall"})
# Collections with the names of operators that the loader of TensorFlow 1 models runs.
_INITIALIZER_COLLECTIONS = ("saved_model_main_op", "legacy_init_op", "table_initializer")
_INITIALIZER_SIGNATURE = "__saved_model_init_op"
_ASSETS_COLLECTION = "saved_model_assets"

# Classes that `tf.saved_model.load` creates by a registered name. Other names are code that a user has registered.
_REGISTERED_CLASSES = frozenset({"", "tf.StaticHashTable", "tf.TrackableConstant"})
# Types of objects without a registered name. Keras' types are loaded as plain containers.
_OBJECT_TYPES = re.compile(
    r"|_generic_user_object|signature_map|trackable_(dict|list|tuple)_wrapper|optimizer|tf_deprecated_optimizer"
    r"|_tf_keras_\w+"
)
# At most this many operators are listed in a message.
_LISTED = 5
# The name of the main graph, where functions have theirs.
_MAIN = ""


@cache
def allowed_operators() -> frozenset[str]:
    """Return the operators that every part of a SavedModel may contain."""
    text = Path(__file__).with_name("saved_model_operators.txt").read_text(encoding="utf-8")
    return frozenset(word for line in text.splitlines() if not line.startswith("#") for word in line.split())


class SavedModelFile:
    """A parsed `saved_model.pb` that passed the checks.

    Attributes:
        files: The files of the SavedModel that are copied, relative to its folder, without `saved_model.pb`.
        operators: The operators of the main graph and of all functions that run, by their types, once each time.
        rewritten: Whether TensorFlow can load the copy only.
    """

    def __init__(self, path: Path) -> None:
        """Parse and check a SavedModel.

        Args:
            path: The folder.

        Raises:
            InputError: The SavedModel is damaged, has operators, objects or files that are not allowed, or contains
                symbolic links.
        """
        self.path = path
        content = _read(path)
        proto = _parse(path, content)
        graph = proto.meta_graphs[0]
        _check_objects(graph.object_graph_def, path)
        if os.path.lexists(path / "variables"):
            require_plain_folder(path / "variables")
        assets = [f"assets/{asset.filename}" for asset in _assets(graph, path)]
        variables = sorted(
            f"variables/{file.name}"
            for file in (path / "variables").glob("variables.*")
            if _VARIABLES.fullmatch(file.name)
        )
        present = [name for name in _OPTIONAL_FILES if os.path.lexists(path / name)]
        for name in (*variables, *assets, *present):
            require_plain_file(path, name)
        copied = [name for name in present if name in _COPIED_OPTIONAL_FILES]
        self.files: tuple[str, ...] = tuple(dict.fromkeys((*variables, *assets, *copied)))
        program = _Program(graph, path)
        program.check()
        self.operators = program.running_operators()
        self.rewritten = _remove_optimizers(graph.object_graph_def)
        self._content = proto.SerializeToString(deterministic=True) if self.rewritten else content

    def copy(self, target: Path) -> None:
        """Copy the SavedModel without files that do not belong to it, and without the state of optimizers.

        Args:
            target: The folder to create.

        Raises:
            InputError: A file is missing, or is not a regular file.
        """
        target.mkdir()
        (target / MAIN_FILE).write_bytes(self._content)
        for name in self.files:
            copy_plain_file(self.path / name, target / name)


@dataclass(frozen=True)
class SavedVariable:
    """A variable of a SavedModel.

    Attributes:
        elements: The number of its values.
        size_bytes: Their size in bytes.
    """

    elements: int
    size_bytes: int


def saved_model_folder(path: Path) -> Path:
    """Return the folder of a SavedModel.

    Args:
        path: Its main file.

    Returns:
        The folder.

    Raises:
        InputError: The file has another name, under which TensorFlow does not find it.
    """
    if path.name != MAIN_FILE:
        raise InputError(f"{path}: this is not a SavedModel, whose main file is {MAIN_FILE} in a folder of its own")
    return path.parent


def read_signature(path: Path) -> Signature:
    """Read the inputs and outputs of the serving signature of a checked SavedModel.

    Args:
        path: The folder.

    Returns:
        The tensors, sorted by name as TensorFlow stores them; unknown dimensions are symbolic.

    Raises:
        InputError: There is no such signature, or a tensor has no rank.
    """
    definitions = _parse(path, _read(path)).meta_graphs[0].signature_def
    if SERVING_SIGNATURE not in definitions:
        listed = ", ".join(sorted(definitions)) or "none"
        raise InputError(f"{path}: this SavedModel has no signature '{SERVING_SIGNATURE}' (its signatures: {listed})")
    definition = definitions[SERVING_SIGNATURE]
    return Signature(_tensors(path, definition.inputs), _tensors(path, definition.outputs))


def _tensors(path: Path, infos: Mapping[str, Any]) -> tuple[TensorSpec, ...]:
    import tensorflow as tf

    specs = []
    for name, info in sorted(infos.items()):
        if info.tensor_shape.unknown_rank:
            raise InputError(f"{path}: '{name}' has no rank in this SavedModel; export it with a shape")
        sizes = [dim.size for dim in info.tensor_shape.dim]
        symbols = ["batch", *(f"{name}_dim{index}" for index in range(1, len(sizes)))]
        # strict=False: a scalar has no dimensions, but `symbols` has at least the batch.
        dims: list[Dim] = [symbol if size < 0 else int(size) for size, symbol in zip(sizes, symbols, strict=False)]
        specs.append(TensorSpec(name, tuple(dims), tf.dtypes.as_dtype(info.dtype).name))
    return tuple(specs)


def read_variables(path: Path) -> tuple[SavedVariable, ...]:
    """Read the sizes of the variables of a checked SavedModel, without those of TensorFlow's own records.

    Args:
        path: The folder.

    Returns:
        One entry per variable.

    Raises:
        InputError: The files of the variables are damaged.
    """
    import tensorflow as tf

    prefix = path / "variables" / "variables"
    if not prefix.with_suffix(".index").is_file():
        return ()
    try:
        reader = tf.train.load_checkpoint(str(prefix))
        shapes, dtypes = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
    except Exception as error:  # TensorFlow raises errors of many types: all mean that the files are damaged
        reason = next(iter(str(error).splitlines()), type(error).__name__)[:200]
        raise InputError(f"{path}: the variables of this SavedModel are damaged ({reason})") from error
    variables = []
    for name, shape in sorted(shapes.items()):
        if dtypes[name].is_floating:  # the others are counters, and the graph of objects as a text
            elements = math.prod(shape)
            variables.append(SavedVariable(elements, elements * dtypes[name].size))
    return tuple(variables)


def _read(path: Path) -> bytes:
    require_plain_file(path, MAIN_FILE)
    with open_plain_file(path / MAIN_FILE) as stream:
        content = stream.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise InputError(f"{path / MAIN_FILE}: this file is larger than 2 GiB, the limit of its format")
    return content


def _parse(path: Path, content: bytes) -> Any:
    """Return the `SavedModel` message, which has one graph."""
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    proto = saved_model_pb2.SavedModel()
    try:
        proto.ParseFromString(content)
    except DecodeError as error:
        raise InputError(f"{path}: this is not a SavedModel, or it is damaged") from error
    count = len(proto.meta_graphs)
    if count == 0:
        raise InputError(f"{path}: this is not a SavedModel, or it is damaged (it contains no graph)")
    if count > 1:
        raise InputError(f"{path}: this SavedModel contains {count} graphs; export it with a single one, for serving")
    return proto


def _assets(graph: Any, path: Path) -> list[Any]:
    """Return the `AssetFileDef`s, from the same place as TensorFlow's loaders."""
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import meta_graph_pb2

    if graph.asset_file_def or _ASSETS_COLLECTION not in graph.collection_def:
        return list(graph.asset_file_def)
    assets = []
    for value in graph.collection_def[_ASSETS_COLLECTION].any_list.value:
        try:
            assets.append(meta_graph_pb2.AssetFileDef.FromString(value.value))
        except DecodeError:
            raise InputError(f"{path}: this SavedModel is damaged: its list of assets cannot be read") from None
    return assets


def _check_objects(objects: Any, path: Path) -> None:
    """Raise InputError if loading an object would run code that is registered under a name."""
    for node in objects.nodes:
        if node.WhichOneof("kind") == "asset" and node.children:  # they would replace the asset's path
            raise InputError(f"{path}: this SavedModel is damaged: an asset has attributes")
        kind = node.user_object.identifier
        for name, allowed in (
            (node.registered_name, node.registered_name in _REGISTERED_CLASSES),
            (node.registered_saver, not node.registered_saver),
            (kind, _OBJECT_TYPES.fullmatch(kind)),
        ):
            if not allowed:
                raise InputError(
                    f"{path}: this SavedModel contains an object of the custom type {name!r}; only TensorFlow's own"
                    " and Keras' types are loaded: export the model without it"
                )


def _remove_optimizers(objects: Any) -> bool:
    """Detach the optimizers with slot variables, such as Adam's moments, from the object graph; return whether any is.

    TensorFlow calls `add_slot` of each of them while it loads. An optimizer whose class is not registered, such as one
    of Keras 2 beside Keras 3, is a plain object without this method, and the whole model would not load.
    """
    optimizers = {index for index, node in enumerate(objects.nodes) if node.slot_variables}
    for node in objects.nodes:
        kept = [child for child in node.children if child.node_id not in optimizers]
        # Detached as well as emptied: restoring the checkpoint looks for slots of every optimizer that it reaches.
        if len(kept) < len(node.children):
            del node.children[:]
            node.children.extend(kept)
        del node.slot_variables[:]
    return bool(optimizers)


def _functions_in(attributes: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names of the functions in the attributes of a node."""
    for value in attributes.values():
        for function in [value.func] if value.HasField("func") else value.list.func:
            yield function.name
            yield from _functions_in(function.attr)


def _node_name(reference: str) -> str:
    """Return the name of the node that an input such as `^name`, `name:0` or `name:output:0` refers to."""
    return reference.removeprefix("^").partition(":")[0]


class _Program:
    """The graph and the functions of a SavedModel: which parts run, and what they contain."""

    def __init__(self, graph: Any, path: Path) -> None:
        self._graph = graph
        self._path = path
        self._objects = graph.object_graph_def
        # As in `tf.saved_model.load`: without an object graph, the model is one of TensorFlow 1.
        self._is_v1 = not graph.HasField("object_graph_def")
        self._functions = {function.signature.name: function for function in graph.graph_def.library.function}
        self._nodes = {node.name: node for node in graph.graph_def.node}
        if len(self._functions) != len(graph.graph_def.library.function) or len(self._nodes) != len(
            graph.graph_def.node
        ):
            raise InputError(f"{path}: this SavedModel is damaged: two operators or functions have the same name")
        self._by_name: dict[str, dict[str, Any]] = {}
        self._gradients: dict[str, list[str]] = {}
        for gradient in graph.graph_def.library.gradient:
            self._gradients.setdefault(gradient.function_name, []).append(gradient.gradient_func)

    def check(self) -> None:
        """Raise InputError if an operator is not allowed, or not in its place."""
        everything = [*self._nodes.values(), *self._nodes_of(self._functions)]
        special = _CHECKPOINT_OPERATORS | _TEXT_FILE_OPERATORS
        known = allowed_operators() | special | self._functions.keys()
        unknown = sorted({node.op for node in everything} - known)
        if unknown:
            listed = ", ".join(map(repr, unknown[:_LISTED])) + (" …" if len(unknown) > _LISTED else "")
            raise InputError(
                f"{self._path}: this SavedModel contains operators that edgekit does not run ({listed}): they are"
                " unknown, or access files, processes, the network or Python; export the model without them"
            )
        self._check_checkpoint_operators()
        self._check_text_files()

    def running_operators(self) -> tuple[str, ...]:
        """Return the types of the operators that run, without calls of functions of the SavedModel."""
        signature = self._closure(self._called(self._running_nodes))
        nodes = [*self._running_nodes, *self._nodes_of(signature)]
        return tuple(node.op for node in nodes if node.op not in _CALL_OPERATORS | self._functions.keys())

    def _check_checkpoint_operators(self) -> None:
        """Allow them only where the saver has them, and where neither loading nor running the model gets to."""
        running = [*self._running_nodes, *self._nodes_of(self._running_functions)]
        misplaced = {node.op for node in running if node.op in _CHECKPOINT_OPERATORS}
        saver = self._graph.saver_def
        ends = (saver.save_tensor_name, saver.restore_op_name)
        saving = self._closure(self._called(self._ancestors(ends)))
        for name, function in self._functions.items():
            operators = {node.op for node in function.node_def} & _CHECKPOINT_OPERATORS
            # TensorFlow may replace a function by another one that implements the same interface.
            if operators and (name not in saving or "api_implements" in function.attr):
                misplaced |= operators
        if self._is_v1:  # its loader runs the saver's operator that restores the variables
            restoring = self._ancestors([saver.restore_op_name])
            functions = self._closure(self._called(restoring))
            misplaced |= {
                node.op
                for function, node in self._located(restoring, functions)
                if node.op in _CHECKPOINT_OPERATORS
                and not (node.op == "RestoreV2" and self._reads_the_checkpoint(function, node))
            }
        if misplaced:
            raise InputError(
                f"{self._path}: this SavedModel reads or writes checkpoint files when it is loaded or run"
                f" ({', '.join(sorted(misplaced))}); only its functions that save and restore the variables may"
            )

    def _reads_the_checkpoint(self, function: str, node: Any) -> bool:
        restoring = self._ancestors([self._graph.saver_def.restore_op_name])
        filename = self._graph.saver_def.filename_tensor_name
        callers = self._callers(self._located(restoring, self._closure(self._called(restoring))))
        return bool(node.input) and self._comes_from(function, node.input[0], frozenset({filename}), None, callers)

    def _check_text_files(self) -> None:
        """Require that tables are initialized from assets of the SavedModel only.

        A table's file name is an input. It must be an argument that the loader binds to the path of an asset.
        """
        if self._is_v1:
            tensors = frozenset(asset.tensor_info.name for asset in _assets(self._graph, self._path))
            running = self._ancestors(self._initializers)
            functions = self._closure(self._called(running))
            # The loader passes the paths of assets to the initializers. Elsewhere the operator's own value counts.
            others = self._ancestors(
                [*self._signature_outputs, *self._variables, self._graph.saver_def.restore_op_name]
            )
            unbound = [*others, *self._nodes_of(self._closure(self._called(others)))]
        else:
            tensors, running, functions, unbound = frozenset(), [], self._object_functions, []
        places = self._located(running, functions)
        callers = self._callers(places)
        bad = any(node.op in _TEXT_FILE_OPERATORS for node in unbound) or not all(
            len(node.input) > 1 and self._comes_from(function, node.input[1], tensors, "asset", callers)
            for function, node in places
            if node.op in _TEXT_FILE_OPERATORS
        )
        if bad:
            raise InputError(
                f"{self._path}: this SavedModel fills a table from a text file that is not one of its assets"
                " (InitializeTableFromTextFile); export the model with the file as an asset"
            )

    def _comes_from(
        self,
        function: str,
        reference: str,
        tensors: frozenset[str],
        kind: str | None,
        callers: Mapping[str, list[tuple[str, Any]]],
    ) -> bool:
        """Return whether a value is always one that the loader passes in.

        Args:
            function: The function that reads the value, or `_MAIN`.
            reference: The input that reads it.
            tensors: The tensors of the main graph that the loader passes values to.
            kind: The kind of the objects that the loader binds to arguments of functions.
            callers: Function -> the nodes that call it, with the functions that contain them.
        """
        pending, visited = [(function, reference)], set()
        while pending:
            place = pending.pop()
            if place in visited:
                continue
            visited.add(place)
            if place[0] == _MAIN:
                sources = self._sources_in_main(place[1], tensors)
            else:
                sources = self._sources_in_function(*place, kind, callers)
            if sources is None:
                return False
            pending.extend(sources)
        return True

    def _sources_in_main(self, reference: str, tensors: frozenset[str]) -> list[tuple[str, str]] | None:
        """Return where a value comes from: nowhere if the loader passes it in, None if it is computed."""
        if (reference if ":" in reference else f"{reference}:0") in tensors:
            return []
        node = self._nodes.get(_node_name(reference))
        return [(_MAIN, node.input[0])] if node is not None and node.op == "Identity" and node.input else None

    def _sources_in_function(
        self, name: str, reference: str, kind: str | None, callers: Mapping[str, list[tuple[str, Any]]]
    ) -> list[tuple[str, str]] | None:
        function = self._functions[name]
        arguments = [argument.name for argument in function.signature.input_arg]
        if reference not in arguments:
            node = self._nodes_by_name(name).get(_node_name(reference))
            return [(name, node.input[0])] if node is not None and node.op == "Identity" and node.input else None
        if any(argument.number_attr or argument.type_list_attr for argument in function.signature.input_arg):
            return None  # one argument stands for several inputs of a call
        index = arguments.index(reference)
        sources = []
        for caller, node in callers.get(name, ()):
            plain_call = node.op in _CALL_OPERATORS and node.attr["f"].func.name == name
            if not plain_call or index >= len(node.input) or len(self._called([node])) > 1:
                return None
            sources.append((caller, node.input[index]))
        bound = name in self._objects.concrete_functions
        if bound and not self._is_bound(name, index - len(arguments), kind):
            return None
        return sources if sources or bound else None

    def _is_bound(self, function: str, index: int, kind: str | None) -> bool:
        """Return whether the loader binds an object of this kind to an argument, counted from the last one."""
        inputs = self._objects.concrete_functions[function].bound_inputs
        if kind is None or -index > len(inputs) or not 0 <= inputs[index] < len(self._objects.nodes):
            return False
        bound: bool = self._objects.nodes[inputs[index]].WhichOneof("kind") == kind
        return bound

    @cached_property
    def _initializers(self) -> list[str]:
        collections = self._graph.collection_def
        names = [
            name for key in _INITIALIZER_COLLECTIONS if key in collections for name in collections[key].node_list.value
        ]
        if _INITIALIZER_SIGNATURE in self._graph.signature_def:
            names += self._outputs_of(self._graph.signature_def[_INITIALIZER_SIGNATURE])
        return names

    @cached_property
    def _signature_outputs(self) -> list[str]:
        signatures = self._graph.signature_def
        return [
            name for key in signatures if key != _INITIALIZER_SIGNATURE for name in self._outputs_of(signatures[key])
        ]

    def _outputs_of(self, signature: Any) -> list[str]:
        names = []
        for info in signature.outputs.values():
            sparse = info.coo_sparse
            names += [info.name, sparse.values_tensor_name, sparse.indices_tensor_name, sparse.dense_shape_tensor_name]
            names += [component.name for component in info.composite_tensor.components]
        return names

    @cached_property
    def _variables(self) -> list[str]:
        """The operators that a collection names for a variable: the loader runs some of them."""
        from google.protobuf.message import DecodeError
        from tensorflow.core.framework import variable_pb2

        names = []
        for collection in self._graph.collection_def.values():
            for content in collection.bytes_list.value:
                try:
                    variable = variable_pb2.VariableDef.FromString(content)
                except DecodeError:
                    continue  # a collection of something else
                names += [variable.initializer_name, variable.initial_value_name, variable.snapshot_name]
        return names

    @cached_property
    def _running_nodes(self) -> list[Any]:
        return self._ancestors([*self._initializers, *self._signature_outputs, *self._variables])

    @cached_property
    def _object_functions(self) -> set[str]:
        """The functions that the object graph names: `tf.saved_model.load` calls some, and users the others."""
        names = set(self._objects.concrete_functions)
        for node in self._objects.nodes:
            names.update(node.function.concrete_functions)
            names |= {node.bare_concrete_function.concrete_function_name, node.captured_tensor.concrete_function}
        return self._closure(names)

    @cached_property
    def _running_functions(self) -> set[str]:
        return self._object_functions | self._closure(self._called(self._running_nodes))

    def _nodes_by_name(self, function: str) -> dict[str, Any]:
        if function not in self._by_name:
            self._by_name[function] = {node.name: node for node in self._functions[function].node_def}
        return self._by_name[function]

    def _callers(self, places: Iterable[tuple[str, Any]]) -> dict[str, list[tuple[str, Any]]]:
        callers: dict[str, list[tuple[str, Any]]] = {}
        for function, node in places:
            for name in self._called([node]):
                callers.setdefault(name, []).append((function, node))
        return callers

    def _nodes_of(self, functions: Iterable[str]) -> list[Any]:
        return [node for name in functions for node in self._functions[name].node_def]

    def _located(self, nodes: Iterable[Any], functions: Iterable[str]) -> list[tuple[str, Any]]:
        """Return nodes of the main graph and of functions, each with the name of its function."""
        inside = [(name, node) for name in functions for node in self._functions[name].node_def]
        return [*((_MAIN, node) for node in nodes), *inside]

    def _called(self, nodes: Iterable[Any]) -> set[str]:
        """Return the functions that nodes call, or receive to call."""
        names: set[str] = set()
        for node in nodes:
            names.update(_functions_in(node.attr), [node.op])
        return names & self._functions.keys()

    def _closure(self, functions: Iterable[str]) -> set[str]:
        """Return the functions, and all that they call."""
        return set(
            _reachable(
                set(functions) & self._functions.keys(),
                lambda name: {
                    *self._called(self._functions[name].node_def),
                    *(gradient for gradient in self._gradients.get(name, ()) if gradient in self._functions),
                },
            )
        )

    def _ancestors(self, references: Iterable[str]) -> list[Any]:
        """Return the nodes of the main graph that compute these tensors or run before these operators."""
        names = _reachable(
            {_node_name(reference) for reference in references} & self._nodes.keys(),
            lambda name: {_node_name(reference) for reference in self._nodes[name].input} & self._nodes.keys(),
        )
        return [self._nodes[name] for name in names]


def _reachable(start: set[str], next_of: Callable[[str], set[str]]) -> list[str]:
    found, pending = set(start), list(start)
    while pending:
        new = next_of(pending.pop()) - found
        found |= new
        pending.extend(new)
    return sorted(found)
