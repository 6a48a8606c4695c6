"""Cost models that are fitted to a board, on a real sshd on this machine; one test has a real emulated core."""

from __future__ import annotations

from dataclasses import replace

import pytest
from _helpers.boards import needs_sshd
from _helpers.emulation import DEVICE, needs_emulator, one_op
from _helpers.support import call

from edgekit.config.board import BOARDS
from edgekit.config.device_profile import load_profile
from edgekit.contracts.executor import BenchRequest
from edgekit.core.environment.atomic_files import sha256_file
from edgekit.core.environment.project import open_project, shipped, user_profiles_folder
from edgekit.core.errors import Interrupted
from edgekit.core.records.artifact import load_artifact, write_manifest
from edgekit.core.units import format_ms
from edgekit.devices.boards import board as boards
from edgekit.devices.emulation import emulator
from edgekit.devices.executors import ssh
from edgekit.stages.benchmark import fit_board, fit_cost_model
from edgekit.stages.benchmark.fit_board import BoardFitOptions
from edgekit.stages.benchmark.fit_cost_model import pinned_runtime_version
from edgekit.stages.context import Context

pytestmark = [needs_sshd, pytest.mark.slow]

NETWORKS = ("tiny_autoencoder", "tiny_resnet8", "mobilenet_v2")
ARGUMENTS = ("--models", ",".join(NETWORKS), "--precision", "float32", "--threads", "1", "--quick")


def artifact_of(root, network):
    """A model of one operator whose file no other network has."""
    folder = root / network / "build" / "one_op" / "keras" / "tflite-float32"
    if not folder.is_dir():
        artifact = one_op(root / network)
        artifact.path.write_bytes(artifact.path.read_bytes() + network.encode())  # no runtime reads behind the end
        digest, size = sha256_file(artifact.path), artifact.path.stat().st_size
        files = tuple(replace(file, sha256=digest, size=size) for file in artifact.manifest.files)
        write_manifest(folder, replace(artifact.manifest, sha256=digest, size_bytes=size, files=files))
    return load_artifact(folder)


@pytest.fixture
def fitted(board, tmp_path, monkeypatch):
    """The board, which passes for an arm64 one, with models of one operator and the counts of published networks."""
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    assert board.add("pi", "--profile", DEVICE, "--replace").code == 0
    context = Context(open_project(tmp_path), None, lambda event: None)
    table = shipped("device_profiles") / "measured" / fit_cost_model.MEASURED_FILE
    published = list(fit_cost_model.read_counts(context, table, DEVICE).values())
    parse = boards.parse_machine

    def as_arm64(hello, probe):
        machine = parse(hello, probe)
        core = replace(machine.cores[0], name="Cortex-A72", part=0xD08, max_khz=1_800_000, caches=())
        return replace(machine, architecture="aarch64", cores=(replace(core, cpu=machine.cores[0].cpu),))

    class Counted:
        calls = 0

        def count(self, _guest, _model, network, precision):
            self.calls += 1
            return replace(published[NETWORKS.index(network)], network=network, precision=precision)

    counted = Counted()
    folders = emulator.setup.folders(load_profile(shipped("device_profiles") / f"{DEVICE}.toml").emulation, 1)
    installed = emulator.Installation(folders, "3.11", {"base": tmp_path / "wheels" / "site"}, ())
    monkeypatch.setattr(boards, "parse_machine", as_arm64)
    monkeypatch.setattr(fit_board, "export_network", lambda _c, network, *_: artifact_of(tmp_path, network))
    monkeypatch.setattr(fit_board, "count_network", counted.count)
    monkeypatch.setattr(ssh, "PROCESSES", 2)
    quick = BenchRequest(1, 0.0, 3, 0.2, 60.0)
    monkeypatch.setattr(BoardFitOptions, "request", lambda _self, threads: replace(quick, threads=threads))
    monkeypatch.setattr(emulator, "set_up", lambda *_: installed)
    monkeypatch.setattr(
        emulator, "open_guest", lambda name, profile: emulator.Guest(name, profile, profile.emulation, installed)
    )
    return counted


def fit(*arguments):
    return call("devices", "fit", "pi", *ARGUMENTS, "--max-noise", "5000%", *arguments)


def test_a_fit_writes_a_profile_that_predictions_of_the_board_come_from(fitted, tmp_path):
    answer = fit("--json")
    assert answer.code == 0, answer.err
    rows = answer.data["rows"]
    assert [(row["network"], row["threads"]) for row in rows] == [(network, 1) for network in NETWORKS]
    assert all(row["measured_ms"] > 0 and row["left_out_ms"] is not None for row in rows)
    profile = load_profile(user_profiles_folder() / "pi-fitted.toml")
    assert (BOARDS.load("pi").profile, profile.cost.rows) == ("pi-fitted", 3)
    assert profile.cost.measured.board == "pi"
    assert profile.cost.measured.max_error == pytest.approx(max(abs(row["left_out_error"]) for row in rows), rel=0.01)
    assert profile.cores[0].clock_mhz == 1800
    shown = call("devices", "show", "pi-fitted").out
    assert "3 own measurements on pi" in shown
    assert "calibrated on pi" in shown
    assert "mean error" in shown

    # Again: everything was kept, and the profile is the base of its successor.
    again = fit("--dry-run")
    assert again.code == 0, again.err
    assert fitted.calls == 3
    assert "measure " not in again.err
    assert f"{format_ms(rows[0]['measured_ms'])}" in again.out
    repeated = fit("--repeat", "--output", tmp_path / "device_profiles" / "mine.toml")
    assert repeated.code == 0, repeated.err
    assert repeated.err.count("measure ") == 3
    assert fitted.calls == 3
    assert load_profile(tmp_path / "device_profiles" / "mine.toml").cost.rows == 3
    assert BOARDS.load("pi").profile == "pi-fitted"


def test_an_interrupted_fit_keeps_what_was_measured(fitted, monkeypatch):
    measure, done = ssh._BoardBench.run, []

    def interrupted(self):
        if done:
            raise Interrupted("interrupted")
        done.append(self.step)
        return measure(self)

    monkeypatch.setattr(ssh._BoardBench, "run", interrupted)
    answer = fit()
    assert answer.code == 130
    assert done == ["measure tiny_autoencoder float32 on pi, 1 thread"]
    monkeypatch.setattr(ssh._BoardBench, "run", measure)
    answer = fit("--json")
    assert answer.code == 0, answer.err
    assert answer.err.count("measure ") == 2
    assert fitted.calls == 3


def test_a_throttled_board_is_refused_and_nothing_of_it_is_kept(fitted, monkeypatch):
    monkeypatch.setattr(ssh, "throttling", lambda *_: "it is too hot")
    answer = fit()
    assert answer.code == 4
    assert "the board was throttled (it is too hot); cool it" in answer.err
    assert not (user_profiles_folder() / "pi-fitted.toml").exists()
    assert BOARDS.load("pi").profile == DEVICE
    assert not list(fit_board._kept_folder().glob("timing-*"))


def test_a_noisy_board_is_measured_again_and_then_refused(fitted):
    answer = call("devices", "fit", "pi", *ARGUMENTS, "--max-noise", "0%")
    assert answer.code == 4
    assert answer.err.count("its processes differ by") == fit_board._ATTEMPTS + 1
    assert "the board is too noisy" in answer.err
    assert not list(fit_board._kept_folder().glob("timing-*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--threads", "two"), "'two' are no numbers of threads"),
        (("--threads", "0"), "'0' are no numbers of threads"),
        (("--threads", "64"), "64 threads were requested, and the fastest cores are 1x Cortex-A72"),
        (("--precision", "int4"), "unknown precision of reference networks 'int4'"),
        (("--max-noise", "much"), "'much' is not a percentage"),
        (("--models", "tiny_resnet8"), "a fit needs networks of 3 families"),
        (("--output", "profile.txt"), "a device profile is a .toml file"),
        (("--counted",), "are for published timings, and pi is a board"),
    ],
)
def test_options_that_do_not_fit_are_one_sentence(fitted, arguments, message):
    answer = call("devices", "fit", "pi", *arguments)
    assert answer.code == 2
    assert message in answer.err
    assert fitted.calls == 0


def test_options_of_boards_are_refused_for_profiles(tmp_path):
    for option in ("--quick", "--repeat"):
        answer = call("devices", "fit", "pixel-2", option, "--root", tmp_path)
        assert (answer.code, f"{option} is for boards, and pixel-2 is none" in answer.err) == (2, True)


def test_a_board_of_another_architecture_is_measured_but_not_predicted(board, tmp_path):
    answer = call("devices", "fit", "pi", "--quick")
    assert answer.code == 2
    assert "and emulated cores are aarch64; its latencies can be measured, but not predicted" in answer.err


@needs_emulator
@pytest.mark.exhaustive
@pytest.mark.timeout(900)
def test_a_board_is_measured_counted_fitted_and_predicted(arm64_board, tmp_path, monkeypatch):
    """With nothing replaced but the time that a measurement takes: the arm64 board is itself emulated, and slow."""
    guest = emulator.open_guest(DEVICE, load_profile(shipped("device_profiles") / f"{DEVICE}.toml"))
    (tmp_path / "arm64-python-modules").write_text(str(guest.installed.sites["base"]))
    monkeypatch.setattr(fit_board, "_kept_folder", lambda: tmp_path / "kept")
    monkeypatch.setattr(ssh, "PROCESSES", 1)
    networks = ("tiny_autoencoder", "tiny_resnet8", "tiny_ds_cnn")
    arguments = ("--quick", "--models", ",".join(networks), "--precision", "float32", "--threads", "1", "--json")
    answer = call("devices", "fit", "pi", *arguments)
    assert answer.code == 0, answer.err
    assert {row["network"] for row in answer.data["rows"]} == set(networks)
    assert all(row["instructions"] > 1e5 and row["measured_ms"] > 0 for row in answer.data["rows"])
    profile = load_profile(user_profiles_folder() / "pi-fitted.toml")
    assert profile.cost.rows == 3
    assert pinned_runtime_version() in profile.cost.measured.versions
    one_op(tmp_path)
    answer = call(
        *("bench", "one_op", "--device", "pi", "--tier", "emulated", "--threads", "1", "--min-duration", "0"),
        *("--min-runs", "3", "--root", tmp_path, "--json"),
    )
    assert answer.code == 0, answer.err
    (measurement,) = answer.data["measurements"]
    assert {"emulated", "device"} <= set(measurement["latency_ms"])
    assert "3 own measurements on pi" in measurement["emulated"]["calibration"]
