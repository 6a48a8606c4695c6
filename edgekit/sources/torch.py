"""The source kind of PyTorch modules: `.pt2` programs, folders of transformers, and state dicts for code's networks."""

from __future__ import annotations

import contextlib
import copy
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgekit.contracts.source import Build, SourceKind, UserModel, declared_inputs, fixed_inputs, reconcile_signature
from edgekit.core.environment.requirements import TORCH
from edgekit.core.errors import InputError
from edgekit.core.numerics.metrics import Array
from edgekit.core.values.specs import Dim, Signature, TensorSpec
from edgekit.sources._checkpoint import read_weights
from edgekit.sources._exported import load_program
from edgekit.sources._key_value_caches import CACHE_NOTE, asks_for_caches, without_caches
from edgekit.sources._module import LoadedTorch, example_tensors, output_names, program_module
from edgekit.sources._module_outputs import outputs_of
from edgekit.sources._pretrained_folder import copy_pretrained, is_pretrained_folder, load_pretrained
from edgekit.sources._regular_module import in_float32, keywords_of, observed, other_floats, with_plain_weights


class TorchSource(SourceKind):
    """The kind of PyTorch modules; channels first."""

    name = "torch"
    requires = (TORCH,)
    variables = {
        "CUDA_VISIBLE_DEVICES": "-1",
        # Waiting OpenMP threads spin by default; with other processes on the same cores, training took ten times as
        # long.
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    layout = "first"
    suffixes = (".pt2",)
    takes_numbers = True

    def recognizes(self, path: Path) -> bool:
        return super().recognizes(path) or is_pretrained_folder(path)

    def load(self, path: Path, signature: Signature, build: Build | None) -> LoadedTorch:
        if path.is_dir():
            return _loaded(load_pretrained(path).eval(), signature)
        if path.suffix == ".pt2":
            return _loaded(_load_program(path, signature), signature)
        if build is None:
            raise InputError(f"{path}: bare PyTorch weights need the code that builds the network")
        module = _module(build)
        _fill(module, path, f"{path}: these weights do not fit the network that the code builds; train it again")
        return _loaded(module.eval(), signature)

    def import_model(self, user_model: UserModel, folder: Path) -> tuple[str, Signature]:
        if user_model.path is not None and user_model.path.is_dir():
            copy_pretrained(user_model.path, folder / "model")
            return "model", _module_signature(load_pretrained(folder / "model").eval(), user_model)
        if user_model.path is not None:
            program = load_program(user_model.path)
            described = _program_signature(program, user_model.path)
            if other_floats(program):
                described = Signature(in_float32(described.inputs), in_float32(described.outputs))
            shutil.copyfile(user_model.path, folder / "model.pt2")
            return "model.pt2", reconcile_signature(described, user_model, str(user_model.path))
        import torch

        assert user_model.build is not None  # a model is a file or code
        module = _module(user_model.build).eval()
        if user_model.weights is not None:
            note = _fill(module, user_model.weights, "")
            if note:
                user_model.notes.append(note)
        torch.save(module.state_dict(), folder / "weights.pt")
        return "weights.pt", _module_signature(module, user_model)


def _load_program(path: Path, signature: Signature) -> Any:
    program = load_program(path)
    return program_module(program, signature, tuple(program.example_inputs[0]))


def _module_signature(module: Any, user_model: UserModel) -> Signature:
    """Return the declared inputs of a module, with the names of its outputs; a cache among those is noted."""
    inputs = declared_inputs(user_model)
    if other_floats(module):
        inputs = in_float32(inputs)
    plain, varying = _with_fixed(with_plain_weights(module), inputs, user_model)
    if asks_for_caches(module):
        # Encoders have the setting too, and return no cache.
        if not _returns_tensors(plain, varying, user_model.examples):
            user_model.notes.append(CACHE_NOTE)
        without_caches(module)
    return Signature(inputs, output_names(plain, varying, user_model.examples))


def _with_fixed(
    module: Any, inputs: tuple[TensorSpec, ...], user_model: UserModel
) -> tuple[Any, tuple[TensorSpec, ...]]:
    """Return the module with the inputs that the user fixed as constants, and the other inputs."""
    fixed = fixed_inputs(user_model, Signature(inputs, ()), numbers=True)
    if not fixed:
        return module, inputs
    loaded = LoadedTorch(module, Signature(inputs, ())).with_fixed(fixed)
    return loaded.model, loaded.signature.inputs


def _returns_tensors(module: Any, inputs: tuple[TensorSpec, ...], samples: Mapping[str, Array] | None) -> bool:
    """Return whether all that a module returns are tensors; False also if it does not take the inputs."""
    try:
        keywords = keywords_of(module, [spec.name for spec in inputs])
        outputs_of(observed(module, example_tensors(inputs, samples), keywords))
    except Exception:  # noqa: BLE001 - `output_names` reports it
        return False
    return True


def _loaded(module: Any, signature: Signature) -> LoadedTorch:
    others = other_floats(module)
    without_caches(module)
    loaded = LoadedTorch(with_plain_weights(module), signature)
    if others:
        loaded.notes = (f"the network has weights in {' and '.join(others)}: it was rebuilt in float32",)
    return loaded


def _module(build: Build) -> Any:
    import torch

    module = build()
    if not isinstance(module, torch.nn.Module):
        raise InputError(f"the code returns an object of type {type(module).__name__}, not a torch.nn.Module")
    # A copy: loading changes it, and the code may return one module of its own at every call.
    with contextlib.suppress(Exception):  # weights that a hook computed cannot be copied
        return copy.deepcopy(module)
    return module


def _fill(module: Any, path: Path, misfit: str) -> str:
    """Load the weights into the module; if they do not fit, raise InputError with `misfit` or PyTorch's reason.

    Returns:
        A note that says which weights of the file were chosen; empty if there was no choice.
    """
    weights, note = read_weights(path, module.state_dict())
    try:
        module.load_state_dict(weights)
    except (RuntimeError, TypeError, AttributeError) as error:
        # The first line only names the module's class; the next ones list missing, unexpected and misshapen keys.
        reason = "; ".join(line.strip() for line in str(error).splitlines()[1:3])[:300]
        raise InputError(misfit or f"{path}: these weights do not fit the network ({reason})") from error
    return note


def _program_signature(program: Any, path: Path) -> Signature:
    """Return the signature of an exported program; raise InputError for inputs and outputs that are not tensors."""
    nodes = {node.name: node for node in program.graph.nodes}
    graph_signature = program.graph_signature
    symbols: dict[str, str] = {}
    sides = []
    for names in (graph_signature.user_inputs, graph_signature.user_outputs):
        specs = []
        for name in names:
            value = nodes[name].meta.get("val") if isinstance(name, str) and name in nodes else None
            if value is None or not hasattr(value, "shape"):
                raise InputError(f"{path}: this program takes or returns {name!r}, which is not a tensor")
            shape: list[Dim] = []
            for index, dim in enumerate(value.shape):
                # Equal symbols (s0, s1, ...) of the program get one readable name, that of their first use.
                default = "batch" if index == 0 else f"{name}_dim{index}"
                shape.append(dim if isinstance(dim, int) else symbols.setdefault(str(dim), default))
            specs.append(TensorSpec(name, tuple(shape), str(value.dtype).removeprefix("torch.")))
        sides.append(tuple(specs))
    return Signature(*sides)


SOURCE = TorchSource()
