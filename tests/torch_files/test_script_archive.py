"""TorchScript archives and files for the lite interpreter: none may act when it is loaded or run."""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from _helpers.support import call
from _helpers.worker_side import script_attacks

from edgekit.core.errors import InputError
from edgekit.torch_files import script_archive

SUFFIXES = (".pt", ".ptl")


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """Return the path of the file that an attack creates if it runs."""
    return tmp_path / "written"


def refusal(path: Path) -> str:
    """Return the message with which the check refuses a file."""
    with pytest.raises((InputError, ValueError)) as caught:
        script_archive.check_script_archive(path)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


# The attacks are real: PyTorch's own loader carries them out.


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("kind", ["setstate", "forward", "save"])
def test_without_the_check_pytorch_writes_the_file(tmp_path: Path, marker: Path, kind: str, suffix: str) -> None:
    path = tmp_path / f"attack{suffix}"
    script_attacks.script(str(path), kind, str(marker))
    marker.unlink(missing_ok=True)
    script_attacks.load_unguarded(str(path), run=kind != "setstate")
    assert marker.exists()


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(("kind", "operator"), [("setstate", "from_file"), ("forward", "from_file"), ("save", "save")])
def test_an_archive_that_accesses_files_is_refused(
    tmp_path: Path, marker: Path, kind: str, operator: str, suffix: str
) -> None:
    path = tmp_path / f"attack{suffix}"
    script_attacks.script(str(path), kind, str(marker))
    marker.unlink(missing_ok=True)
    sentence = refusal(path)
    assert sentence.startswith(f"{path}: the code in ")
    assert operator in sentence
    for load in (script_archive.load_script, script_archive.load_mobile):
        with pytest.raises(InputError):
            load(path)
    assert not marker.exists()


@pytest.mark.slow
@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("kind", ["setstate", "forward", "save"])
@pytest.mark.parametrize("command", ["inspect", "compare", "export"])
def test_no_command_runs_the_attack(tmp_path: Path, marker: Path, command: str, kind: str, suffix: str) -> None:
    path, plain = tmp_path / f"attack{suffix}", tmp_path / f"plain{suffix}"
    script_attacks.script(str(path), kind, str(marker))
    script_attacks.script(str(plain), "plain")
    marker.unlink(missing_ok=True)
    samples = tmp_path / "samples.npz"
    np.savez(samples, x=np.ones((4, script_attacks.SIZE), np.float32))
    arguments = {
        "inspect": (path,),
        "compare": (plain, path, "--samples", samples),
        "export": (path, "--input", f"x:1,{script_attacks.SIZE}", "--target", "torchscript:float32"),
    }[command]
    answer = call(command, *arguments, *(("--root", tmp_path) if command == "export" else ()))
    assert not marker.exists()
    assert answer.code == 2, answer.err
    if (command, suffix) != ("export", ".ptl"):  # .ptl is no source
        assert "the code in " in answer.err


# Every way in which code can name an operator.

HIDDEN = {
    "in full": 'torch.from_file("MARK", True, 8)',
    "in pieces": 'torch . \n    from_file("MARK", True, 8)',
    "by its namespace": 'ops.aten.from_file("MARK", True, 8)',
    "by another module": 'torch.autograd.from_file("MARK", True, 8)',
    "as a method of a text": '"MARK".from_file(True, 8)',
    "by another name for torch": 'torch\n    y = t.from_file("MARK", True, 8)',
    "by another name for it": 'torch.from_file\n    y = t("MARK", True, 8)',
    "by another name for ops": 'ops.aten\n    y = t.from_file("MARK", True, 8)',
    "by getattr": 'getattr(torch, "from_file")("MARK", True, 8)',
    "by getattr of a text": 'getattr("MARK", "from_file")(True, 8)',
    "by getattr with an escape": 'getattr("MARK", "from\\x5ffile")(True, 8)',
    "by getattr with joined texts": 'getattr("MARK", "from_" "file")(True, 8)',
    "by getattr with a joined empty text": 'getattr("MARK", "" "from_file")(True, 8)',
    "by another name for getattr": 'getattr\n    y = t("MARK", "from_file")(True, 8)',
    "in another process": "ops.c10d.broadcast_([x], None, 0, 0, False, -1)",
    "of a namespace that is not there": "ops.evil.run(x)",
    "of a class that opens connections": '__torch__.torch.classes.dist_c10d.Store("MARK")',
    "of a class by another name": '__torch__.torch\n    y = t.classes.dist_c10d.Store("MARK")',
    "as a type comment": "torch.relu(x)  # type: (__torch__.torch.classes.dist_c10d.Store)",
    "after another kind of line end": 'torch.relu(x)\r    y = torch.from_file("MARK", True, 8)',
    "by a letter that looks alike": "torch.fr\u043em_file(x)",
    "after a form feed": "torch.relu(x)\f",
}


@pytest.mark.parametrize("name", HIDDEN)
def test_an_operator_is_found_however_it_is_named(tmp_path: Path, marker: Path, name: str) -> None:
    plain, path = tmp_path / "plain.pt", tmp_path / "attack.pt"
    script_attacks.script(str(plain), "plain")
    code = HIDDEN[name].replace("MARK", str(marker)).replace("\\", "\\\\")
    script_attacks.rewrite(str(plain), str(path), r"return torch\.relu\(x\)", f"t = {code}\n    return torch.relu(x)")
    refusal(path)
    assert not marker.exists()


def test_code_that_only_computes_is_accepted(tmp_path: Path) -> None:
    plain, path = tmp_path / "plain.pt", tmp_path / "edited.pt"
    script_attacks.script(str(plain), "plain")
    harmless = 't = torch.add_(x, 1.0000e+01)\n    u = ops.aten.relu_(t)\n    print("from_file", torch.size(u))'
    script_attacks.rewrite(str(plain), str(path), r"return torch\.relu\(x\)", f"{harmless}\n    return torch.relu(x)")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        module = script_archive.load_script(path)
    assert module(torch.ones(1, 8)).sum() == 88


# Everything else in an archive.

GLOBALS = (
    "cposix\nsystem\n",
    "cbuiltins\neval\n",
    "ctorch.package\nPackageImporter\n",
    "ctorch._utils\n_import_dotted_name\n",
)


@pytest.mark.parametrize("record", ["data.pkl", "constants.pkl", "bytecode.pkl", "code/__torch__.py.debug_pkl"])
@pytest.mark.parametrize("name", [*GLOBALS, "c__torch__.torch.classes.dist_c10d\nStore\n"])
def test_a_pickle_that_names_a_function_is_refused(tmp_path: Path, record: str, name: str) -> None:
    plain, path = tmp_path / "plain.ptl", tmp_path / "attack.ptl"
    script_attacks.script(str(plain), "plain")
    script_attacks.plant(str(plain), str(path), record, b"\x80\x02" + name.encode() + b")R.")
    assert refusal(path).startswith(f"{path}: edgekit does not load {record} in this archive: it names ")


@pytest.mark.parametrize(
    "content", [b"", b"\x80\x02", b"\x80\x02(", b"\x80\x02h\x05.", b"\x80\x04\x8c\x01a.", b"Dear model"]
)
def test_a_damaged_pickle_is_refused(tmp_path: Path, content: bytes) -> None:
    plain, path = tmp_path / "plain.pt", tmp_path / "attack.pt"
    script_attacks.script(str(plain), "plain")
    script_attacks.plant(str(plain), str(path), "data.pkl", content)
    assert refusal(path).startswith(f"{path}: edgekit does not load data.pkl in this archive: it ")


@pytest.mark.parametrize(
    "record", ["model.json", "attributes.pkl", "code/a.so", "bytecode.so", "code/../a.py", "CODE/a.py"]
)
def test_a_record_of_an_unknown_kind_is_refused(tmp_path: Path, record: str) -> None:
    plain, path = tmp_path / "plain.pt", tmp_path / "attack.pt"
    script_attacks.script(str(plain), "plain")
    script_attacks.plant(str(plain), str(path), record, b"x")
    assert f"'{record}' in this archive is neither code nor weights" in refusal(path)


def test_records_whose_names_differ_in_case_only_are_refused(tmp_path: Path) -> None:
    # PyTorch finds records without regard to case: the check might read one and the loader the other.
    plain, path = tmp_path / "plain.pt", tmp_path / "attack.pt"
    script_attacks.script(str(plain), "plain")
    with zipfile.ZipFile(plain) as archive, zipfile.ZipFile(path, "w") as copy:
        for name in archive.namelist():
            copy.writestr(name, archive.read(name))
        code = next(name for name in archive.namelist() if name.endswith(".py"))
        copy.writestr(code.replace("__torch__", "__TORCH__"), "torch.from_file")
    assert "two records of the same name" in refusal(path)


def test_a_flatbuffer_with_an_archive_behind_it_is_refused(tmp_path: Path) -> None:
    # PyTorch decides by the first bytes which format a file has; a zip archive may have anything before it.
    plain, path = tmp_path / "plain.ptl", tmp_path / "attack.ptl"
    script_attacks.script(str(plain), "plain")
    path.write_bytes(b"\0\0\0\0PTMF" + plain.read_bytes())
    assert refusal(path) == "it is not a zip archive"


def test_a_checkpoint_of_weights_is_no_model(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"weight": torch.ones(2)}, path)
    assert "it contains no code" in refusal(path)


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9, 0.99])
def test_a_truncated_archive_is_refused(tmp_path: Path, keep: float) -> None:
    plain, path = tmp_path / "plain.pt", tmp_path / "cut.pt"
    script_attacks.script(str(plain), "plain")
    content = plain.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    assert refusal(path) == "it is not a complete zip archive"


# What users have must still load.


class Everything(torch.nn.Module):
    """A module with what scripts contain: control flow, lists, texts, an LSTM, attributes and several methods."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Flatten(), torch.nn.Linear(144, 6)
        )
        self.lstm = torch.nn.LSTM(6, 5, batch_first=True)
        self.encoder = torch.nn.TransformerEncoderLayer(6, 2, 8, batch_first=True)
        self.classes = ["it's", 'say "hi"\n', "größe"]

    @torch.jit.export
    def helper(self, x: torch.Tensor, mode: str) -> torch.Tensor:
        if mode == "mean" and x.dim() > 1:
            return x.mean(1)
        raise ValueError(f"unknown mode {mode}")

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        x = self.layers(image)
        parts: list[torch.Tensor] = []
        for index in range(3):
            parts.append(x + index)
        hidden, _state = self.lstm(torch.stack(parts, 1))
        encoded = self.encoder(torch.stack(parts, 1))
        resized = torch.nn.functional.interpolate(image, scale_factor=2.0, mode="bilinear")
        print(len(self.classes), self.classes[0])
        return {"a": self.helper(hidden, "mean"), "b": encoded[:, -1, ::2] / 2, "c": resized[..., 0]}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", ["script", "trace", "freeze", "mobile", "mobile frozen"])
def test_what_pytorch_writes_is_accepted(tmp_path: Path, form: str) -> None:
    module, image = Everything().eval(), torch.ones(1, 1, 8, 8)
    path = tmp_path / "model.pt"
    if form == "trace":
        torch.jit.trace(module, image, strict=False, check_trace=False).save(path)
    else:
        scripted = torch.jit.script(module)
        scripted = scripted if form in ("script", "mobile") else torch.jit.freeze(scripted)
        if form.startswith("mobile"):
            scripted._save_for_lite_interpreter(str(path))
        else:
            scripted.save(path)
    script_archive.check_script_archive(path)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("mobile", [False, True])
def test_quantized_models_are_accepted(tmp_path: Path, mobile: bool) -> None:
    from torch.ao.quantization import get_default_qconfig_mapping
    from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

    torch.backends.quantized.engine = "qnnpack"
    image = torch.ones(1, 1, 8, 8)
    layers = (torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 6))
    prepared = prepare_fx(torch.nn.Sequential(*layers).eval(), get_default_qconfig_mapping("qnnpack"), image)
    prepared(image)
    quantized = torch.jit.trace(convert_fx(prepared), image)
    for index, module in enumerate((quantized, torch.jit.freeze(quantized))):
        path = tmp_path / f"{index}.pt"
        module._save_for_lite_interpreter(str(path)) if mobile else module.save(path)
        loaded = (script_archive.load_mobile if mobile else script_archive.load_script)(path)
        assert loaded(image).shape == (1, 6)
