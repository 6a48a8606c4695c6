"""The source kind of PyTorch modules: `.pt2` programs, and state dicts for a network that code builds."""

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

# Keys under which training scripts store the weights in a checkpoint (Lightning; PyTorch's tutorial on checkpoints).
_WRAPPERS = ("state_dict", "model_state_dict")


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

    def load(self, path: Path, signature: Signature, build: Build | None) -> LoadedTorch:
        if path.suffix == ".pt2":
            return LoadedTorch(_load_program(path, signature), signature)
        if build is None:
            raise InputError(f"{path}: bare PyTorch weights need the code that builds the network")
        module = _module(build)
        _fill(module, path, f"{path}: these weights do not fit the network that the code builds; train it again")
        return LoadedTorch(_returning_tensors(module.eval(), signature), signature)

    def import_model(self, user_model: UserModel, folder: Path) -> tuple[str, Signature]:
        if user_model.path is not None:
            described = _program_signature(load_program(user_model.path), user_model.path)
            shutil.copyfile(user_model.path, folder / "model.pt2")
            return "model.pt2", reconcile_signature(described, user_model, str(user_model.path))
        import torch

        assert user_model.build is not None  # a model is a file or code
        module = _module(user_model.build).eval()
        if user_model.weights is not None:
            _fill(module, user_model.weights, "")
        torch.save(module.state_dict(), folder / "weights.pt")
        return "weights.pt", Signature(declared_inputs(user_model), output_names(module, declared_inputs(user_model)))


def _load_program(path: Path, signature: Signature) -> Any:
    program = load_program(path)
    return program_module(program, signature, tuple(program.example_inputs[0]))


def _returning_tensors(module: Any, signature: Signature) -> Any:
    """Return the module, wrapped if it returns a dict, which torch.jit.trace refuses."""
    try:
        returned = probed(module, signature.inputs)
    except Exception:  # noqa: BLE001 - symbolic sizes of 2 may not suit the module; a real run reports real errors
        return module
    if isinstance(returned, Mapping):
        return positional(module, len(signature.inputs), len(signature.outputs))
    return module


def _module(build: Build) -> Any:
    import torch

    module = build()
    if not isinstance(module, torch.nn.Module):
        raise InputError(f"the code returns an object of type {type(module).__name__}, not a torch.nn.Module")
    return module


def _weights(path: Path) -> Mapping[str, Any]:
    """Return the state dict in a checkpoint or safetensors file; only tensors are unpickled."""
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
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file of weights") from None
    except Exception as error:  # pickle, zip and runtime errors of many types: all mean the same to the user
        raise InputError(
            f"{path}: this is not a PyTorch checkpoint of plain weights, or it is damaged; edgekit does not unpickle"
            " whole modules: save module.state_dict(), and name the code that builds the module"
        ) from error
    is_dict = isinstance(checkpoint, dict)
    weights = next((checkpoint[key] for key in _WRAPPERS if is_dict and key in checkpoint), checkpoint)
    if not isinstance(weights, dict) or not weights:
        raise InputError(f"{path}: this checkpoint contains a {type(weights).__name__}, not a state dict")
    return weights


def _fill(module: Any, path: Path, misfit: str) -> None:
    """Load the weights into the module; if they do not fit, raise InputError with `misfit` or PyTorch's reason."""
    weights = _weights(path)
    try:
        module.load_state_dict(weights)
    except (RuntimeError, TypeError, AttributeError) as error:
        # The first line only names the module's class; the next ones list missing, unexpected and misshapen keys.
        reason = "; ".join(line.strip() for line in str(error).splitlines()[1:3])[:300]
        raise InputError(misfit or f"{path}: these weights do not fit the network ({reason})") from error


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
