"""TorchScript archives. Loading one runs its own TorchScript, which reaches PyTorch's operators and nothing else."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

from edgekit.contracts.source import Build, SourceKind, UserModel, declared_inputs, reconcile_signature
from edgekit.core.environment.requirements import TORCH
from edgekit.core.errors import InputError
from edgekit.core.values.specs import Signature
from edgekit.sources._module import LoadedTorch, output_names

_SIGNATURE_RECORD = "extra/edgekit.json"


class LoadedTorchScript(LoadedTorch):
    """A ScriptModule in eval mode."""

    kind = "torchscript"


def load_script(path: Path) -> Any:
    """The ScriptModule in eval mode. Raises InputError when the file is damaged, or no TorchScript."""
    import torch

    try:
        return torch.jit.load(str(path), map_location="cpu").eval()
    except (RuntimeError, ValueError) as error:
        reason = next(iter(str(error).splitlines()), "")[:200]
        raise InputError(f"{path}: this is not a TorchScript archive, or it is damaged ({reason})") from error


class TorchScript(SourceKind):
    """Names of inputs come from the code; shapes from the user, or from edgekit's own record in the archive."""

    name = "torchscript"
    requires = (TORCH,)
    variables = {"CUDA_VISIBLE_DEVICES": "-1"}
    layout = "first"
    suffixes = (".pt", ".pth", ".ts", ".torchscript", ".jit")

    def recognizes(self, path: Path) -> bool:
        if not super().recognizes(path) or not zipfile.is_zipfile(path):
            return False
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())

    def load(self, path: Path, signature: Signature, build: Build | None) -> LoadedTorchScript:
        return LoadedTorchScript(load_script(path), signature)

    def import_model(self, given: UserModel, folder: Path) -> tuple[str, Signature]:
        import torch

        assert given.path is not None  # TorchScript is a file
        module = load_script(given.path)
        reader = torch._C.PyTorchFileReader(str(given.path))
        shutil.copyfile(given.path, folder / "model.pt")
        if reader.has_record(_SIGNATURE_RECORD):
            found = Signature.from_dict(json.loads(reader.get_record(_SIGNATURE_RECORD)))
            return "model.pt", reconcile_signature(found, given, str(given.path))
        inputs = declared_inputs(given)
        wanted = [item.name for item in module.forward.schema.arguments[1:]]
        if len(inputs) != len(wanted):
            raise InputError(
                f"{given.path}: this model takes {len(wanted)} inputs ({', '.join(wanted)});"
                f" {len(inputs)} were declared"
            )
        return "model.pt", Signature(inputs, output_names(module, inputs))


SOURCE = TorchScript()
