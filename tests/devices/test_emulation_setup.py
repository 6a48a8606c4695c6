"""Messages where the emulation is not set up or not possible, and what its folders depend on. Needs no QEMU."""

from __future__ import annotations

import hashlib
import json
import re
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from _helpers.emulation import DEVICE, one_op
from _helpers.support import REPOSITORY, call

from edgekit.config.device_profile import Core, EmulationSpec, load_profile
from edgekit.core.environment.project import open_project
from edgekit.core.environment.user_cache import cache_folder, locked
from edgekit.core.errors import InputError, MissingDependency, StepFailed, StepTimedOut
from edgekit.devices.emulation import emulator, folders, guest, pins, setup, tools
from edgekit.devices.emulation.setup import Installation

SPEC = EmulationSpec("cortex-a72", 0xD08, ("fp", "asimd"), revision=3, l1d_ways=2)
CORE = Core("Cortex-A72", 4, 1500, l1d_kib=32, l2_kib=1024, l2_scope="cluster")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache folder."""
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def pretend_set_up(spec, cores, sets=("base",)):
    """Create empty folders with the records of a device that is set up."""
    device = folders.folders(spec, cores)
    created = [device.root, device.device, device.plugin_folder, *(folders.site(name, "3.11") for name in sets)]
    for folder in created:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / folders.RECORD).write_text(json.dumps({"python": "3.11"}))
    return created


def test_the_cache_folder_is_the_user_s_choice(monkeypatch, tmp_path):
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("EDGEKIT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "edgekit"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "edgekit"


def test_a_cache_folder_that_cannot_be_created_is_reported(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"), locked(tmp_path / "file" / "below"):
        pass


def test_cpuinfo_is_what_linux_writes():
    blocks = SPEC.cpuinfo(2).split("\n\n")
    assert blocks[0].splitlines() == [
        "processor\t: 0",
        "BogoMIPS\t: 108.00",
        "Features\t: fp asimd",
        "CPU implementer\t: 0x41",
        "CPU architecture: 8",
        "CPU variant\t: 0x0",
        "CPU part\t: 0xd08",
        "CPU revision\t: 3",
    ]
    assert blocks[1].startswith("processor\t: 1\n")


def test_another_core_has_another_folder_and_the_same_root():
    one, other = folders.folders(SPEC, 4), folders.folders(replace(SPEC, part=0xD03), 4)
    assert one.device != other.device
    assert (one.root, one.plugin_folder) == (other.root, other.plugin_folder)
    assert folders.folders(SPEC, 2).device != one.device


def test_other_pins_have_another_folder(monkeypatch):
    before = folders.site("base", "3.11")
    assert folders.site("base", "3.13") != before
    monkeypatch.setitem(pins.WHEELS, "base", ("numpy==1.0.0",))
    assert folders.site("base", "3.11") != before


def test_the_guest_s_runtimes_are_those_of_this_project():
    """Results of host and guest are compared, so versions must be equal; torch is pinned to a build without CUDA."""
    locked_pins = [line.split()[0] for line in (REPOSITORY / "requirements.lock").read_text().splitlines()]
    assert [pin for pin in pins.BASE_WHEELS if pin not in locked_pins] == []


def test_a_shared_cache_is_divided_by_the_root_of_the_threads():
    assert guest.cache_arguments(SPEC, CORE, 1) == ["l1=32768:2", "l2=1048576:16"]
    assert guest.cache_arguments(SPEC, CORE, 4) == ["l1=32768:2", "l2=524288:16"]
    private_l2 = replace(CORE, l2_scope="core", l3_kib=2048)
    assert guest.cache_arguments(SPEC, private_l2, 4) == ["l1=32768:2", "l2=1048576:16", "l3=1048576:16"]
    assert guest.cache_arguments(SPEC, private_l2, 2)[2] == "l3=1482752:16"  # whole sets
    assert guest.cache_arguments(SPEC, replace(CORE, l1d_kib=None), 1) == []


def test_the_guest_has_its_own_packages_and_no_variables_of_this_host(tmp_path, monkeypatch):
    monkeypatch.setenv("LD_LIBRARY_PATH", "/of/this/host")
    where = folders.folders(SPEC, 4)
    installed = Installation(where, "3.11", {"torch": Path("/t/site"), "base": Path("/b/site")})
    command = guest.guest_command(installed, "base", SPEC, ("-m", "x"), scratch=tmp_path, plugin=("out=a,b", "l1=1:1"))
    assert command.variables["PYTHONPATH"] == f"{tmp_path}/lib:/b/site:/t/site"
    assert "LD_LIBRARY_PATH" not in command.variables
    assert f"{where.plugin},out=a,,b,l1=1:1" in command.command  # QEMU reads two commas as a literal one
    assert command.command[-4:] == (str(where.sysroot / "usr/bin/python3.11"), "-sP", "-m", "x")
    assert [path.name for path in (tmp_path / "lib").iterdir()] == ["edgekit"]


@pytest.mark.parametrize("command", [("bench", "--tier", "emulated"), ("validate",)])
def test_an_emulation_that_is_not_set_up_is_exit_3_with_the_command_to_run(tmp_path, command):
    one_op(tmp_path)
    answer = call(command[0], "one_op", "--device", DEVICE, *command[1:], "--root", tmp_path)
    assert answer.code == 3
    assert f"the emulation of {DEVICE} is not set up; run: edgekit devices setup {DEVICE}" in answer.err


def test_a_folder_without_a_record_is_not_set_up():
    created = pretend_set_up(SPEC, 4)
    assert setup.find(SPEC, 4, ("base",)) is not None
    for folder in created:
        (folder / folders.RECORD).write_text("{")
        assert setup.find(SPEC, 4, ("base",)) is None
        (folder / folders.RECORD).write_text('{"python": "3.11"}')
    assert setup.find(SPEC, 4, ("base", "torch")) is None


@pytest.mark.parametrize("missing", ["qemu-aarch64", "cc", "dpkg-deb", "apt-get"])
def test_a_missing_program_is_exit_3_with_the_apt_line(tmp_path, monkeypatch, missing):
    package = {"qemu-aarch64": "qemu-user", "cc": "gcc", "dpkg-deb": "dpkg", "apt-get": "apt"}[missing]
    hidden = {missing} if missing != "cc" else {"cc", "gcc", "clang"}
    monkeypatch.setattr(tools.shutil, "which", lambda name: None if name in hidden else f"/usr/bin/{name}")
    answer = call("devices", "setup", DEVICE, "--root", tmp_path)
    assert answer.code == 3
    assert f"the emulation needs {missing}; install it with: apt-get install {package}" in answer.err


@pytest.mark.parametrize(
    ("text", "reported"),
    [("qemu-aarch64 version 9.2.1 (Debian)", "is version 9.2"), ("gibberish", "is of an unknown version")],
)
def test_a_qemu_that_does_not_load_the_plugin_is_exit_3(monkeypatch, text, reported):
    monkeypatch.setattr(tools.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(tools, "run", lambda *words, **options: text)
    with pytest.raises(MissingDependency, match=rf"needs QEMU 4 to 8 \(.*\), but /usr/bin/qemu-aarch64 {reported}"):
        tools.require_plugin_api()


@pytest.mark.parametrize("text", ["qemu-aarch64 version 7.2.22 (Debian 1:7.2)", "qemu-aarch64 version 8.2.2"])
def test_a_qemu_that_loads_the_plugin_passes(monkeypatch, text):
    monkeypatch.setattr(tools.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(tools, "run", lambda *words, **options: text)
    tools.require_plugin_api()


def test_a_fetch_that_fails_leaves_nothing_behind(cache, monkeypatch):
    def refuse(command, what, **options):
        if "--version" in command:
            return "qemu-aarch64 version 7.2.0"
        raise StepFailed(f"{what}: no network", step=what)

    monkeypatch.setattr(tools.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(tools, "run", refuse)
    with pytest.raises(StepFailed, match="no network"):
        setup.set_up(SPEC, 4, ("base",), lambda text: None)
    assert [path.name for path in folders.home().iterdir()] == [".lock"]


def test_concurrent_set_ups_wait_for_each_other_and_build_each_part_once(monkeypatch):
    built = []

    def build(name):
        def make(staging, *_):
            built.append(name)
            time.sleep(0.05)
            return {"python": "3.11"}

        return make

    monkeypatch.setattr(tools.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(tools, "require_plugin_api", lambda: None)
    monkeypatch.setattr(setup, "_wheels_into", lambda name, python, say: build("wheels"))
    for name in ("_compile", "_fetch_root", "_describe"):
        monkeypatch.setattr(setup, name, build(name))
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda _: setup.set_up(SPEC, 4, ("base",), lambda text: None), range(2)))
    assert sorted(built) == ["_compile", "_describe", "_fetch_root", "wheels"]
    assert sorted(len(installed.added) for installed in results) == [0, 4]
    assert results[0].folders == results[1].folders


def test_a_set_up_that_was_not_checked_is_checked_the_next_time(tmp_path, monkeypatch):
    profile = load_profile(open_project(tmp_path).device_file(DEVICE))
    pretend_set_up(profile.emulation, profile.cores[0].count)
    checked = []

    def check(guest, say):
        checked.append(guest.name)
        if len(checked) == 1:
            raise StepFailed("it does not run")

    monkeypatch.setattr(emulator, "_check", check)
    assert call("devices", "setup", DEVICE, "--root", tmp_path).code == 4
    assert call("devices", "setup", DEVICE, "--root", tmp_path).code == 0
    assert call("devices", "setup", DEVICE, "--root", tmp_path).code == 0
    assert checked == [DEVICE, DEVICE]


def build_parts(monkeypatch):
    """Replace what downloads and compiles by files of a few bytes."""
    monkeypatch.setattr(tools.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(tools, "require_plugin_api", lambda: None)

    def make(staging, *_):
        (staging / "lib" / "__pycache__").mkdir(parents=True)
        (staging / "lib" / "module.py").write_text("x = 1")
        (staging / "link").symlink_to("lib")
        return {"python": "3.11"}

    monkeypatch.setattr(setup, "_wheels_into", lambda name, python, say: make)
    for name in ("_compile", "_fetch_root", "_describe"):
        monkeypatch.setattr(setup, name, make)


def damage_content(folder):
    (folder / "lib" / "module.py").write_text("x = 2")


def damage_link(folder):
    (folder / "link").unlink()
    (folder / "link").symlink_to("/etc")


def damage_by_a_file(folder):
    (folder / "lib" / "more.py").touch()


def damage_by_a_gap(folder):
    (folder / "lib" / "module.py").unlink()


@pytest.mark.parametrize("damage", [damage_content, damage_link, damage_by_a_file, damage_by_a_gap])
def test_a_part_that_has_changed_is_noticed_and_made_again(monkeypatch, damage):
    build_parts(monkeypatch)
    first = setup.set_up(SPEC, 4, ("base",), lambda text: None)
    assert len(first.added) == 4
    part = first.sites["base"].parent
    damage(part)
    told = []
    again = setup.set_up(SPEC, 4, ("base",), told.append)
    assert again.added == ("downloading arm64 wheels: ai-edge-litert==2.3.0, numpy==2.3.5, onnxruntime==1.32.0",)
    assert told == [f"{again.added[0]} again, since files in {part.name} have changed"]
    assert (part / "lib" / "module.py").read_text() == "x = 1"
    assert (part / "link").readlink() == Path("lib")


def test_records_and_bytecode_that_are_written_later_are_no_change(monkeypatch):
    build_parts(monkeypatch)
    installed = setup.set_up(SPEC, 4, ("base",), lambda text: None)
    for part in installed.parts:
        (part / "lib" / "__pycache__" / "module.pyc").write_bytes(b"x")
    (installed.folders.device / "checked.json").write_text("{}")
    assert setup.set_up(SPEC, 4, ("base",), lambda text: None).added == ()


def test_every_pinned_wheel_has_hashes():
    for pin in (*pins.BASE_WHEELS, *pins.TORCH_WHEELS):
        entry = pins.with_hashes(pin)
        assert entry.startswith(f"{pin} ")
        assert re.fullmatch(r"\S+( \\\n    --hash=sha256:[0-9a-f]{64})+\n", entry)


@pytest.mark.slow
def test_a_wheel_with_another_hash_is_refused(tmp_path, monkeypatch):
    """By pip itself, from a folder: the file is a wheel of the right name, version and platform."""
    wheel = tmp_path / "wheels" / "mpmath-1.3.0-py3-none-any.whl"
    wheel.parent.mkdir()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("mpmath-1.3.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: mpmath\nVersion: 1.3.0\n")
        archive.writestr("mpmath-1.3.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("mpmath-1.3.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    (tmp_path / "scratch").mkdir()
    with pytest.raises(StepFailed, match="DO NOT MATCH THE HASHES"):
        setup._download("mpmath==1.3.0", "3.11", tmp_path / "scratch")
    good = f"mpmath==1.3.0 --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n"
    monkeypatch.setattr(pins, "with_hashes", lambda pin: good)
    setup._download("mpmath==1.3.0", "3.11", tmp_path / "scratch")
    assert [path.name for path in (tmp_path / "scratch").glob("*.whl")] == [wheel.name]


def test_a_command_that_fails_is_reported_with_its_error_line():
    with pytest.raises(StepFailed, match=r"try: sh failed \(E: no such package\)"):
        tools.run(["sh", "-c", "echo one >&2; echo 'E: no such package' >&2; echo two >&2; exit 100"], "try")
    with pytest.raises(StepFailed, match=r"try: no-such-program cannot be started"):
        tools.run(["no-such-program"], "try")
    with pytest.raises(StepTimedOut, match=r"try: timed out after 0\.2 s"):
        tools.run(["sleep", "10"], "try", timeout_s=0.2)


def test_removing_the_last_device_removes_the_shared_parts(tmp_path):
    names = (DEVICE, "raspberry-pi-5")
    for name in names:
        profile = load_profile(open_project(tmp_path).device_file(name))
        pretend_set_up(profile.emulation, profile.cores[0].count)
    assert len(call("devices", "remove", DEVICE, "--root", tmp_path, "--json").data["removed"]) == 1
    assert list(folders.home().glob("root-*"))
    answer = call("devices", "remove", "raspberry-pi-5", "--root", tmp_path)
    assert answer.out.count("removed ") == 4
    assert [path.name for path in folders.home().iterdir()] == [".lock"]
    assert call("devices", "remove", DEVICE, "--root", tmp_path).out == f"{DEVICE} was not set up\n"


def test_a_device_without_an_emulation_table_is_refused(tmp_path):
    answer = call("devices", "setup", "stm32l4r5-nucleo", "--root", tmp_path)
    assert answer.code == 2
    assert "stm32l4r5-nucleo cannot be emulated: its profile has no [emulation] table" in answer.err


def test_a_runtime_that_is_not_emulated_is_refused(tmp_path):
    answer = call("devices", "setup", DEVICE, "--runtime", "executorch", "--root", tmp_path)
    assert answer.code == 2
    assert "available runtimes: litert, onnxruntime, torchscript" in answer.err


def test_the_emulated_tier_needs_a_device(tmp_path):
    one_op(tmp_path)
    answer = call("bench", "one_op", "--tier", "emulated", "--root", tmp_path)
    assert answer.code == 2
    assert "the emulated tier needs a device (see --device)" in answer.err


def test_the_doctor_lists_what_the_emulated_tier_needs(monkeypatch):
    monkeypatch.setattr(tools.shutil, "which", lambda name: None if name == "qemu-aarch64" else f"/usr/bin/{name}")
    assert "missing: the emulated tier; install with: apt-get install qemu-user" in call("doctor").out
    assert call("doctor", "--json").data["missing_tools"] == ["qemu-user"]


def test_a_set_of_wheels_with_a_package_in_another_version_has_a_folder_of_its_own():
    other = pins.wheel_set_with("onnxruntime==1.30.0")
    assert pins.wheels(other) == ("ai-edge-litert==2.3.0", "numpy==2.3.5", "onnxruntime==1.30.0")
    assert folders.site(other, "3.11") != folders.site("base", "3.11")
    assert pins.wheel_set_with(pins.pinned("onnxruntime")) == "base"
    assert pins.with_hashes("onnxruntime==1.30.0") == "onnxruntime==1.30.0\n"
    assert not pins.has_hashes("onnxruntime==1.30.0")
    assert all(pins.has_hashes(pin) for pin in pins.wheels("base"))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--with", "onnxruntime"), "'onnxruntime' is not a package with one version, such as onnxruntime==1.31.0"),
        (("--with", "onnxruntime>=1"), "'onnxruntime>=1' is not a package with one version"),
        (("--with", "--index-url==1"), "'--index-url==1' is not a package with one version"),
        (("--with", "onnxruntime==1 ; x"), "'onnxruntime==1 ; x' is not a package with one version"),
        (("--with", "torch==2.8.0"), "the version of torch on emulated cores cannot be chosen; only that of:"),
        (("--with", "ai-edge-litert==2.2.0"), "none of these artifacts runs on litert"),
        (("--with", pins.pinned("onnxruntime")), "is the version that is used anyway; name another one"),
        (("--with", "onnxruntime==1.30.0", "--tier", "emulated"), "leave out --tier, --executor, --runtime"),
        (("--with", "onnxruntime==1.30.0", "--max-regression", "x"), "--max-regression: "),
    ],
)
def test_versions_that_cannot_be_compared_are_one_sentence(tmp_path, arguments, sentence):
    one_op(tmp_path, "onnx")
    answer = call("bench", "one_op", "--device", DEVICE, *arguments, "--root", tmp_path)
    assert answer.code == 2
    assert sentence in answer.err
    assert "Traceback" not in answer.err


def test_versions_are_compared_on_a_device(tmp_path):
    one_op(tmp_path, "onnx")
    answer = call("bench", "one_op", "--with", "onnxruntime==1.30.0", "--root", tmp_path)
    assert (answer.code, "--with needs a device to emulate" in answer.err) == (2, True)
    answer = call("bench", "one_op", "--device", DEVICE, "--with", "onnxruntime==1.30.0", "--root", tmp_path)
    assert (answer.code, "is not set up" in answer.err) == (3, True)
