"""Runtimes on a board: which wheels, how they get there, and a board of another architecture."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from _helpers.boards import needs_sshd
from _helpers.emulation import DEVICE, needs_emulator, one_op
from _helpers.support import call

from edgekit.core.environment.requirements import NUMPY, ONNXRUNTIME
from edgekit.core.errors import InputError
from edgekit.devices.boards.install import _as_site, platforms
from edgekit.devices.boards.machine import BoardState, Machine

MACHINE = Machine(
    "", "aarch64", "6.1", (3, 11, 2), "glibc 2.36", (), None, None, 0, 0.0, BoardState({}, {}, (), {}, 0, None)
)


def test_wheels_of_the_board_s_c_library_and_older_ones_are_looked_for():
    tags = platforms(MACHINE)
    assert (tags[0], tags[-2:]) == ("manylinux_2_36_aarch64", ("manylinux_2_17_aarch64", "manylinux2014_aarch64"))
    assert platforms(replace(MACHINE, libc="glibc 2.17"))[0] == "manylinux_2_17_aarch64"


@pytest.mark.parametrize("changes", [{"libc": ""}, {"libc": "musl 1.2"}, {"architecture": "riscv64"}])
def test_a_board_for_which_there_are_no_wheels_is_refused(changes):
    with pytest.raises(InputError, match="there are no wheels of runtimes for"):
        platforms(replace(MACHINE, **changes))


def wheel(folder: Path, name: str, version: str, files: dict[str, str]) -> Path:
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        for file, content in files.items():
            archive.writestr(file, content)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


def test_what_a_wheel_keeps_in_its_data_folder_is_put_on_the_module_path(tmp_path):
    path = wheel(tmp_path, "demo", "1.0", {"demo-1.0.data/purelib/demo/a.py": "", "demo-1.0.data/scripts/run": "x"})
    with zipfile.ZipFile(_as_site(path, tmp_path / "site")) as archive:
        names = archive.namelist()
    assert "demo/a.py" in names
    assert not any("data" in name for name in names)


@pytest.mark.slow
@needs_sshd
def test_wheels_of_a_folder_are_installed_used_replaced_and_removed(board, wrapped, tmp_path):
    wrapped('exec "$PYTHON" -S "$@"')
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    for item in (NUMPY, ONNXRUNTIME):
        wheel(wheels, item.distribution, item.version(), {f"{item.module}/__init__.py": ""})
    answer = call("devices", "install", "pi", "--runtime", "onnxruntime", "--wheels", wheels, "--json")
    assert answer.code == 0, answer.err
    assert answer.data["sent_bytes"] > 0
    assert len(answer.data["wheels"]) == 2
    probed = call("devices", "probe", "pi", "--json").data
    assert probed["runtimes"]["onnxruntime"] == ONNXRUNTIME.version()
    assert probed["environments"] == [answer.data["folder"]]
    again = call("devices", "install", "pi", "--runtime", "onnxruntime", "--wheels", wheels, "--json")
    assert again.data["sent_bytes"] == 0
    assert call("devices", "remove", "pi").code == 0
    assert not board.store.exists()
    assert call("devices", "probe", "pi").code == 2


@pytest.mark.slow
@needs_sshd
def test_a_folder_without_the_wheels_is_one_sentence(board, tmp_path):
    answer = call("devices", "install", "pi", "--wheels", tmp_path)
    assert answer.code == 2
    assert "there are no wheels in this folder" in answer.err
    wheel(tmp_path, "other", "1.0", {})
    answer = call("devices", "install", "pi", "--wheels", tmp_path)
    assert answer.code == 4
    assert "selecting wheels for" in answer.err


def test_a_board_that_is_gone_can_be_forgotten(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEKIT_CONFIG", str(tmp_path))
    assert call("devices", "add", "pi", "--ssh", "pi@none-such.invalid").code == 0
    assert call("devices", "remove", "pi").code == 2
    assert call("devices", "remove", "pi", "--forget").code == 0
    assert call("devices", "--json").data["boards"] == []
    assert call("devices", "remove", DEVICE, "--forget").code == 2


@needs_sshd
@needs_emulator
@pytest.mark.exhaustive
@pytest.mark.timeout(1800)
def test_a_board_of_another_architecture_is_installed_validated_and_measured(arm64_board, tmp_path):
    one_op(tmp_path, "onnx")
    answer = call("devices", "install", "pi", "--runtime", "onnxruntime")
    assert answer.code == 0, answer.err
    probed = call("devices", "probe", "pi", "--json").data
    assert (probed["architecture"], probed["runtimes"]["onnxruntime"]) == ("aarch64", ONNXRUNTIME.version())
    assert "Cortex-A72" in probed["description"]
    answer = call("validate", "one_op", "--device", "pi", "--root", tmp_path, "--json")
    assert answer.code == 0, answer.err
    assert answer.data["validations"][0]["passed"]
    answer = call(
        *("bench", "one_op", "--device", "pi", "--min-duration", "0", "--min-runs", "3", "--timeout", "300"),
        *("--root", tmp_path, "--json"),
    )
    assert answer.code == 0, answer.err
    (execution,) = answer.data["measurements"][0]["executions"]
    assert "Cortex-A72" in execution["description"]
    assert execution["latency_ms"] > 0
    assert execution["tier"] == "device"
    arm64_board.wait_until_idle()
