"""The source kind of TorchScript archives.

Loading an archive runs its TorchScript code, which reaches PyTorch's registered operators and no Python. Which of them
it may call is checked before it is loaded.
"""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgekit.contracts.source import (
    Build,
    LoadedModel,
    SourceKind,
    UserModel,
    declared_inputs,
    fixed_inputs,
    reconcile_signature,
)
from edgekit.core.environment.requirements import TORCH
from edgekit.core.errors import InputError
from edgekit.core.numerics.metrics import Array
from edgekit.core.values.fixed_inputs import FixedInput, without_fixed
from edgekit.core.values.specs import Signature
from edgekit.sources._module import LoadedTorch, output_names
from edgekit.sources._script_module import module_of_script
from edgekit.sources._torch_norms import norm_gradient
from edgekit.torch_files import script_archive

# edgekit's own exports store their signature here; TorchScript itself keeps the names of inputs, but no shapes.
_SIGNATURE_RECORD = "extra/edgekit.json"


class LoadedTorchScript(LoadedTorch):
    """A `torch.jit.ScriptModule` in eval mode."""

    kind = "torchscript"

    def with_examples(self, inputs: Mapping[str, Array]) -> LoadedModel:
        return LoadedModel.with_examples(self, inputs)  # an archive is called, and converted, as it is

    def data_reads(self) -> tuple[str, ...]:
        return ()  # a script keeps its branches

    def _norm_gradient(self, calls: Sequence[list[Array]]) -> tuple[float, int, list[list[Array]]]:
        def convert() -> Any:
            return module_of_script(self.model, self.signature, "samples cannot be synthesized")

        # A script calls its operators out of Python's sight.
        return norm_gradient(self.cached("module of the script", convert), calls)


def load_script(path: Path) -> Any:
    """Load a TorchScript archive.

    Args:
        path: The archive.

    Returns:
        The `torch.jit.ScriptModule` on the CPU, in eval mode.

    Raises:
        InputError: The file is damaged, of another format, or calls what a file may not call.
    """
    try:
        return script_archive.load_script(path).eval()
    except (RuntimeError, ValueError) as error:
        reason = next(iter(str(error).splitlines()), "")[:200]
        raise InputError(f"{path}: this is not a TorchScript archive, or it is damaged ({reason})") from error


class TorchScriptSource(SourceKind):
    """The kind of TorchScript archives; channels first.

    The shapes of the inputs come from edgekit's own record in the archive, else from the user.
    """

    name = "torchscript"
    requires = (TORCH,)
    variables = {"CUDA_VISIBLE_DEVICES": "-1"}
    layout = "first"
    suffixes = (".pt", ".pth", ".ts", ".torchscript", ".jit")
    takes_numbers = True
    writes_fixed = True

    def recognizes(self, path: Path) -> bool:
        if not super().recognizes(path) or not zipfile.is_zipfile(path):
            return False
        # Checkpoints share the suffixes and the zip format; only TorchScript archives have a table of constants.
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())

    def load(self, path: Path, signature: Signature, build: Build | None) -> LoadedTorchScript:
        return LoadedTorchScript(load_script(path), signature)

    def import_model(self, user_model: UserModel, folder: Path) -> tuple[str, Signature]:
        import torch

        assert user_model.path is not None  # a TorchScript archive is a file
        module = load_script(user_model.path)
        reader = torch._C.PyTorchFileReader(str(user_model.path))
        shutil.copyfile(user_model.path, folder / "model.pt")
        if reader.has_record(_SIGNATURE_RECORD):
            recorded = Signature.from_dict(json.loads(reader.get_record(_SIGNATURE_RECORD)))
            signature = reconcile_signature(recorded, user_model, str(user_model.path))
            fixed = fixed_inputs(user_model, signature)
            if fixed:
                _with_constants(module, fixed).save(str(folder / "model.pt"))
            return "model.pt", without_fixed(signature, fixed)
        inputs = declared_inputs(user_model)
        arguments = [argument.name for argument in module.forward.schema.arguments[1:]]  # the first one is self
        if len(inputs) != len(arguments):
            raise InputError(
                f"{user_model.path}: this model takes {len(arguments)} inputs ({', '.join(arguments)});"
                f" {len(inputs)} were declared"
            )
        fixed = fixed_inputs(user_model, Signature(inputs, ()))
        if fixed:
            module = _with_constants(module, fixed)
            module.save(str(folder / "model.pt"))
            inputs = without_fixed(Signature(inputs, ()), fixed).inputs
        return "model.pt", Signature(inputs, output_names(module, inputs, user_model.examples))


def _with_constants(script: Any, fixed: Sequence[FixedInput]) -> Any:
    """Return an archive's module with constants for some of its inputs, as a script of its own.

    A trace would keep the branch of its example only; a script decides branches on constants when it is frozen.
    """
    import torch
    from torch.jit._recursive import create_script_module

    constants = {item.position: item for item in fixed}
    holder = torch.nn.Module()
    holder.inner = script
    parameters, passed = list[str](), list[str]()
    for index, argument in enumerate(script.forward.schema.arguments[1:]):  # the first one is self
        item = constants.get(index)
        if item is None:
            parameters.append(f"x{index}: {argument.type.annotation_str}")
            passed.append(f"x{index}")
        elif isinstance(argument.type, torch.TensorType):
            holder.register_buffer(f"fixed_{index}", torch.from_numpy(item.array()))
            passed.append(f"self.fixed_{index}")
        else:
            number = float(item.value) if isinstance(argument.type, torch.FloatType) else item.value
            passed.append(repr(number))
    # Private, but the only way to a script whose methods are text: a public class needs a file with its source.
    outer = create_script_module(holder.eval(), lambda _module: [], share_types=False)
    outer.define(f"def forward(self, {', '.join(parameters)}):\n    return self.inner({', '.join(passed)})\n")
    return outer.eval()


SOURCE = TorchScriptSource()
