"""Tests of fitting a board's cost model to synthetic measurements, without a board and without an emulator."""

from __future__ import annotations

import tomllib
from dataclasses import replace

import pytest

from edgekit.config.device_profile import MeasuredSpec, load_profile
from edgekit.core.environment.project import open_project, shipped
from edgekit.core.errors import InputError
from edgekit.devices.boards.board_profile import not_emulated, profile_document, read_document, to_toml
from edgekit.devices.boards.machine import BoardCache, BoardCore, BoardState, Machine
from edgekit.devices.cost_models import emulated_core, reference_networks
from edgekit.devices.cost_models.emulated_core import Coefficients, TimingRow
from edgekit.devices.emulation import emulator
from edgekit.stages.benchmark import fit_board, fit_cost_model
from edgekit.stages.benchmark.fit_board import BoardFitOptions, check_options
from edgekit.stages.context import Context

BASE = shipped("device_profiles") / "raspberry-pi-4b.toml"
TABLE = shipped("device_profiles") / "measured" / fit_cost_model.MEASURED_FILE
TRUE = Coefficients(0.7, 6.0, 3.0, 9.0, 2.0)
MEASURED = MeasuredSpec("pi", "a board", "2026-11-30", "ai-edge-litert 2.3.0", 0.02)
FAMILIES = ("autoencoder", "resnet", "mobilenet_v1", "mobilenet_v2")

CACHES = (
    BoardCache(1, "Data", 64, 4, False),
    BoardCache(1, "Instruction", 64, 4, False),
    BoardCache(2, "Unified", 512, 8, False),
    BoardCache(3, "Unified", 2048, None, True),
)
FEATURES = ("fp", "asimd", "aes", "crc32", "atomics", "fphp", "asimdhp", "cpuid", "asimddp", "i8mm")
BIG = tuple(BoardCore(cpu, "Cortex-A76", 1024, 2_400_000, 0x41, 0xD0B, 4, 1, FEATURES, CACHES) for cpu in (4, 5))
LITTLE = tuple(BoardCore(cpu, "Cortex-A55", 446, 1_800_000, 0x41, 0xD05, 2, 0, FEATURES[:4], ()) for cpu in range(4))
MACHINE = Machine(
    "Orange \"Pi\" 5", "aarch64", "6.1", (3, 11, 2), "glibc 2.36", (*LITTLE, *BIG), 8 << 30, 7 << 30, 1, 0.0,
    BoardState({}, {}, (), {}, 0, None),
)  # fmt: skip


def synthetic_rows(noise=(0.0,)):
    """Rows of four families whose latencies are those of known coefficients, with errors that repeat."""
    context = Context(open_project(BASE.parents[1]), None, lambda event: None)
    clock_mhz = load_profile(BASE).cores[0].clock_mhz
    rows = []
    counted = fit_cost_model.read_counts(context, TABLE, "raspberry-pi-4b")
    counted = [entry for key, entry in counted.items() if key != fit_cost_model.POST_PROCESS]
    for index, family in enumerate(FAMILIES):
        counts = counted[index % len(counted)]
        for threads in (1, 4):
            work = counts.workload(threads)
            latency_ms = TRUE.latency_ms(work, clock_mhz) * (1 + noise[len(rows) % len(noise)])
            rows.append(TimingRow(family, family, counts.precision, work, latency_ms))
    return rows


def test_a_fit_to_exact_latencies_predicts_families_that_were_left_out():
    fit = fit_board.fit_rows("pi", load_profile(BASE), synthetic_rows(), MEASURED)
    assert fit.spec.cycles_per_instruction == pytest.approx(TRUE.cycles_per_instruction, rel=0.05)
    assert all(abs(prediction.error) < 0.02 for prediction in fit.fitted)
    # The priors draw a fit to few rows towards typical costs.
    assert all(abs(prediction.error) < 0.05 for prediction in fit.predictions)
    assert fit.spec.measured.mean_error < 0.02
    assert (fit.spec.rows, fit.spec.threads) == (8, (1, 4))
    assert "8 own measurements on pi, 2026-11-30" in fit.spec.fitted_with


def test_errors_and_intervals_are_those_of_the_board_s_own_families_left_out():
    rows = synthetic_rows((0.2, -0.1, -0.15))
    fit = fit_board.fit_rows("pi", load_profile(BASE), rows, MEASURED)
    left_out = emulated_core.leave_family_out(rows, load_profile(BASE))
    mean, largest = emulated_core.errors(left_out)
    assert fit.spec.measured.mean_error == pytest.approx(mean, rel=0.01)
    assert fit.spec.measured.max_error == pytest.approx(largest, rel=0.01)
    assert largest > 0.1
    assert (fit.spec.unseen_one_thread, fit.spec.unseen_several_threads) == (4, 4)
    assert fit.spec.width_one_thread > max(abs(entry.error) for entry in left_out if entry.row.threads == 1)
    # A row is never predicted from its own family: another latency of it changes no prediction of it.
    changed = [replace(row, latency_ms=2 * row.latency_ms) if row.family == "resnet" else row for row in rows]
    again = emulated_core.leave_family_out(changed, load_profile(BASE))
    assert [entry.predicted_ms for entry in again if entry.row.family == "resnet"] == [
        entry.predicted_ms for entry in left_out if entry.row.family == "resnet"
    ]


def test_the_profile_of_a_fit_is_read_again_with_the_measurements(tmp_path):
    document = profile_document("pi", MACHINE, None, "2026-11-30")
    fit = fit_board.fit_rows("pi", load_profile(BASE), synthetic_rows(), MEASURED)
    path = tmp_path / "pi-fitted.toml"
    path.write_text(fit_cost_model.with_cost(to_toml(document), fit.spec))
    profile = load_profile(path)
    assert profile.cost == fit.spec
    assert replace(profile, cost=None) == read_document(document, "pi")


def test_a_board_without_a_profile_is_described_by_what_it_shows():
    document = profile_document("pi", MACHINE, None, "2026-11-30")
    profile = read_document(document, "pi")
    assert profile.title == 'Orange "Pi" 5'
    assert [(core.name, core.count, core.clock_mhz) for core in profile.cores] == [
        ("Cortex-A76", 2, 2400),
        ("Cortex-A55", 4, 1800),
    ]
    core, emulation = profile.cores[0], profile.emulation
    assert (core.l1d_kib, core.l2_kib, core.l2_scope, core.l3_kib) == (64, 512, "core", 2048)
    assert (emulation.cpu, emulation.part, emulation.l2_ways, emulation.l3_ways) == ("cortex-a76", 0xD0B, 8, 16)
    # QEMU's core does not execute these instructions, so that a runtime must not see them.
    assert "i8mm" not in emulation.features
    assert "asimddp" in emulation.features
    assert not_emulated(MACHINE) == ("i8mm",)
    assert profile.memory.ram == 8 << 30
    assert profile.provenance["cores.0.clock_mhz"] == "read from pi on 2026-11-30: cpufreq/cpuinfo_max_freq"
    assert tomllib.loads(to_toml(document)) == document


def test_what_a_hostile_board_says_of_itself_stays_text(tmp_path):
    hostile = 'x"\n[budgets]\nsize = "1 B"\x7f\ud800\x1b[2J'
    cores = tuple(replace(core, name=hostile) for core in BIG)
    document = profile_document("pi", replace(MACHINE, model=hostile, cores=cores), None, "2026-11-30")
    path = tmp_path / "hostile.toml"
    path.write_text(to_toml(document))
    profile = load_profile(path)
    assert profile.title == profile.cores[0].name == 'x"?[budgets]?size = "1 B"???[2J'
    assert profile.budgets.size is None


def a72(**changes):
    cores = tuple(BoardCore(cpu, "Cortex-A72", None, 1_800_000, 0x41, 0xD08, 0, 3, FEATURES[:3]) for cpu in range(4))
    return replace(MACHINE, **{"model": "Raspberry Pi 4 Model B Rev 1.4", "cores": cores, **changes})


def test_what_a_board_shows_replaces_what_its_profile_says_and_the_rest_stays():
    document = profile_document("pi", a72(memory_bytes=4 << 30), BASE, "2026-11-30")
    profile, base = read_document(document, "pi"), load_profile(BASE)
    assert (profile.cores[0].clock_mhz, base.cores[0].clock_mhz) == (1800, 1500)
    assert (profile.memory.ram, profile.title) == (4 << 30, "Raspberry Pi 4 Model B Rev 1.4")
    assert (profile.cores[0].l2_kib, profile.budgets, profile.soc) == (base.cores[0].l2_kib, base.budgets, base.soc)
    # Published timings and their coefficients are those of another board.
    assert (profile.cost, profile.emulation.published_as) == (None, None)
    assert not any(key.startswith("cost") or key == "emulation.published_as" for key in profile.provenance)
    single = read_document(profile_document("pi", a72(cores=a72().cores[:2]), BASE, "2026-11-30"), "pi")
    assert (single.cores[0].count, single.run.threads) == (2, 2)
    assert tomllib.loads(to_toml(document)) == document


@pytest.mark.parametrize(
    ("machine", "base", "message"),
    [
        (replace(MACHINE, architecture="armv7l"), None, "has the architecture armv7l, and emulated cores are aarch64"),
        (MACHINE, BASE, "describes another core than pi has: part 0xd08, not 0xd0b"),
        (a72(), None, "pi does not show the sizes of its caches; name a profile"),
        (replace(MACHINE, cores=()), None, "the part number of its cores and its clock rate"),
        (MACHINE, BASE.with_name("stm32l4r5-nucleo.toml"), "cannot be emulated"),
    ],
)
def test_a_board_that_cannot_be_described_is_one_sentence(machine, base, message):
    with pytest.raises(InputError, match=message):
        profile_document("pi", machine, base, "2026-11-30")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (BoardFitOptions(networks=("alexnet",)), "unknown reference network 'alexnet'"),
        (
            BoardFitOptions(networks=("mobilenet_v1", "tiny_ds_cnn")),
            "a fit needs networks of 3 families, .* of mobilenet_v1;",
        ),
        (BoardFitOptions(threads=(8,)), "8 threads were requested, and the fastest cores are 4x Cortex-A72"),
    ],
)
def test_what_cannot_be_fitted_is_refused_before_anything_is_measured(options, message):
    with pytest.raises(InputError, match=message):
        check_options(options, load_profile(BASE))


def test_one_thread_is_always_measured_and_quick_means_small_networks():
    profile = load_profile(BASE)
    assert check_options(BoardFitOptions(), profile) == (tuple(reference_networks.BOARD), (1, 4))
    networks, threads = check_options(BoardFitOptions(quick=True, threads=(3, 2)), profile)
    assert (networks, threads) == (reference_networks.BOARD_QUICK, (1, 2, 3))
    assert len({reference_networks.BOARD[name] for name in networks}) >= fit_board.MIN_FAMILIES
    assert all(hasattr(reference_networks, name) for name in reference_networks.BOARD)


@pytest.mark.parametrize(
    ("machine", "version", "threads", "remarks"),
    [
        (a72(), fit_cost_model.pinned_runtime_version(), (1, 4), []),
        (MACHINE, fit_cost_model.pinned_runtime_version(), (1, 4), ["the emulated core lacks i8mm"]),
        (a72(), "1.0", (1,), ["pi has ai-edge-litert 1.0, and the emulated core", "a bench runs with 4 threads here"]),
    ],
)
def test_a_fit_says_in_what_the_emulated_core_differs_from_the_board(machine, version, threads, remarks):
    guest = emulator.Guest("pi", load_profile(BASE), load_profile(BASE).emulation, None)
    subject = fit_board._Subject("pi", None, machine, guest, f"ai-edge-litert {version}", BoardFitOptions())
    found = fit_board._remarks(subject, threads)
    assert len(found) == len(remarks)
    assert all(text.startswith(start) for text, start in zip(found, remarks, strict=True))
