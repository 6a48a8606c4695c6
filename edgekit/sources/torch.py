"""PyTorch modules: a state dict, loaded with weights_only, in the network that code makes; or a `.pt2` program."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgekit.contracts.source import Build, SourceKind, UserModel, declared_inputs, reconcile_signature
from edgekit.core.environment.requirements import SAFETENSORS, TORCH, require
from edgekit.core.errors import InputError
from edgekit.core.values.specs import Dim, Signature, TensorSpec
from edgekit.sources._exported import load_program
from edgekit.sources._module import LoadedTorch, output_names, positional, probed, program_module

_WRAPPERS = ("state_dict", "model_state_dict")  # where training scripts put the weights in a checkpoint


class Torch(SourceKind):
    """Channels first."""

    name = "torch"
    requires = (TORCH,)
    variables = {
        "CUDA_VISIBLE_DEVICES": "-1",
        # Threads of OpenMP that wait spin: where other processes want the cores too, training takes ten times as long.
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    layout = "first"
    suffixes = (".pt2",)

    def load(self, path: Path, signature: Signature, build: Build | None) -> LoadedTorch:
        if path.suffix == ".pt2":
            return LoadedTorch(_load_program(path, signature), signature)
        if build is None:
            raise InputError(f"{path}: bare PyTorch weights need the code that builds the network around them")
        module = _module(build)
        _fill(module, path, f"{path}: these weights do not fit the network that the code builds; train it again")
        return LoadedTorch(_returning_tensors(module.eval(), signature), signature)

    def import_model(self, given: UserModel, folder: Path) -> tuple[str, Signature]:
        if given.path is not None:
            found = _program_signature(load_program(given.path), given.path)
            shutil.copyfile(given.path, folder / "model.pt2")
            return "model.pt2", reconcile_signature(found, given, str(given.path))
        import torch

        assert given.build is not None  # a model is a file or code
        module = _module(given.build).eval()
        if given.weights is not None:
            _fill(module, given.weights, "")
        torch.save(module.state_dict(), folder / "weights.pt")
        return "weights.pt", Signature(declared_inputs(given), output_names(module, declared_inputs(given)))


def _load_program(path: Path, signature: Signature) -> Any:
    program = load_program(path)
    return program_module(program, signature, tuple(program.example_inputs[0]))


def _returning_tensors(module: Any, signature: Signature) -> Any:
    """The module, or one around it where it returns a dict, which tracing refuses."""
    try:
        returned = probed(module, signature.inputs)
    except Exception:  # noqa: BLE001 - zeros of these sizes are nothing it takes: it says so when it is run in earnest
        return module
    if isinstance(returned, Mapping):
        return positional(module, len(signature.inputs), len(signature.outputs))
    return module


def _module(build: Build) -> Any:
    import torch

    module = build()
    if not isinstance(module, torch.nn.Module):
        raise InputError(f"what the code makes is of type {type(module).__name__}, not a torch.nn.Module")
    return module


def _weights(path: Path) -> Mapping[str, Any]:
    """The state dict in a checkpoint or safetensors file, without unpickling anything but tensors."""
    if path.suffix == ".safetensors":
        require((SAFETENSORS,), "reading .safetensors files")
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return dict(load_file(path))
        except (SafetensorError, OSError) as error:
            raise InputError(f"{path}: this is not a safetensors file, or it is damaged ({error})") from error
    import torch

    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file of weights") from None
    except Exception as error:  # pickle, zip and runtime errors of many types: all mean the same to the user
        raise InputError(
            f"{path}: this is not a PyTorch checkpoint of plain weights, or it is damaged; edgekit does not unpickle"
            " whole modules: save module.state_dict(), and name the code that builds the module"
        ) from error
    nested = next((found[key] for key in _WRAPPERS if isinstance(found, dict) and key in found), found)
    if not isinstance(nested, dict) or not nested:
        raise InputError(f"{path}: this checkpoint holds a {type(nested).__name__} where a state dict belongs")
    return nested


def _fill(module: Any, path: Path, misfit: str) -> None:
    """Loads the weights into the module. Raises InputError, `misfit` or what does not fit."""
    weights = _weights(path)
    try:
        module.load_state_dict(weights)
    except (RuntimeError, TypeError, AttributeError) as error:
        reason = "; ".join(line.strip() for line in str(error).splitlines()[1:3])[:300]
        raise InputError(misfit or f"{path}: these weights do not fit the network ({reason})") from error


def _program_signature(program: Any, path: Path) -> Signature:
    """Inputs and outputs of an exported program. Raises InputError for others than tensors."""
    nodes = {node.name: node for node in program.graph.nodes}
    wanted = program.graph_signature
    symbols: dict[str, str] = {}
    sides = []
    for names in (wanted.user_inputs, wanted.user_outputs):
        specs = []
        for name in names:
            value = nodes[name].meta.get("val") if isinstance(name, str) and name in nodes else None
            if value is None or not hasattr(value, "shape"):
                raise InputError(f"{path}: this program takes or returns {name!r}, which is no tensor")
            shape: list[Dim] = []
            for index, dim in enumerate(value.shape):
                usual = "batch" if index == 0 else f"{name}_dim{index}"
                shape.append(dim if isinstance(dim, int) else symbols.setdefault(str(dim), usual))
            specs.append(TensorSpec(name, tuple(shape), str(value.dtype).removeprefix("torch.")))
        sides.append(tuple(specs))
    return Signature(*sides)


SOURCE = Torch()
