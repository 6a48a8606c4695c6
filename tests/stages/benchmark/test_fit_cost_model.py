"""Tests of fitting without an emulator: the timings of a device, and the table written into its profile."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from _helpers.support import call

from edgekit.config.device_profile import CostSpec, PropertyRange, load_profile
from edgekit.core.environment.project import open_project, shipped
from edgekit.core.errors import InputError
from edgekit.stages.benchmark import fit_cost_model
from edgekit.stages.context import Context

TABLE = shipped("device_profiles") / "measured" / fit_cost_model.MEASURED_FILE
COST = CostSpec(
    *(0.8, 8.0, 3.0, 4.0, 5.0, 4, (1, 4), 0.06, 9, 0.2, 19),
    fitted_with="4 timings from a table",
    properties={"L1 misses per instruction": PropertyRange(0.01, 0.02)},
)


COUNTED = [path.stem.removeprefix("counts_") for path in sorted(TABLE.parent.glob("counts_*.json"))]


def profile_of(name):
    return load_profile(shipped("device_profiles") / f"{name}.toml")


def context_of(root):
    return Context(open_project(root), None, lambda event: None)


def counts_of(root, name):
    return fit_cost_model.read_counts(context_of(root), TABLE, name)


@pytest.fixture
def profile(tmp_path):
    """A copy of a shipped profile."""
    source = open_project(tmp_path).device_file("pixel-2")
    path = tmp_path / "pixel-2.toml"
    path.write_text(source.read_text())
    return path


def test_the_shipped_table_has_timings_of_each_device_that_is_published(tmp_path):
    for name, path in open_project(tmp_path).device_files().items():
        device = load_profile(path)
        if device.emulation and device.emulation.published_as:
            timings = fit_cost_model.timings(TABLE, name, device)
            assert len(timings) >= 4
            assert all(timing.latency_ms > 0 and timing.source for timing in timings)


def test_a_device_without_timings_stays_uncalibrated(tmp_path):
    device = load_profile(open_project(tmp_path).device_file("raspberry-pi-5"))
    unpublished = replace(device, emulation=replace(device.emulation, published_as=None))
    message = "no timing of raspberry-pi-5 to fit its cost model; its latencies stay uncalibrated"
    with pytest.raises(InputError, match=message):
        fit_cost_model.timings(TABLE, "raspberry-pi-5", unpublished)


def test_a_timing_that_is_not_a_number_is_reported_with_its_line(tmp_path, profile):
    text = TABLE.read_text().replace("1x224x224x3,86,", "1x224x224x3,fast,")
    (tmp_path / "table.csv").write_text(text)
    with pytest.raises(InputError, match=r"table\.csv: line 4 has a missing or mistyped column"):
        fit_cost_model.timings(tmp_path / "table.csv", "pixel-2", load_profile(profile))


def test_the_cost_is_written_before_the_provenance_and_read_again(profile):
    before = load_profile(profile)
    fit_cost_model.write_cost(profile, COST)
    after = load_profile(profile)
    assert after.cost == COST
    assert replace(after, cost=None) == replace(before, cost=None)
    lines = profile.read_text().splitlines()
    assert any(line.startswith("[cost]") for line in lines[: lines.index("[provenance]")])


def test_writing_a_cost_again_replaces_it(profile):
    fit_cost_model.write_cost(profile, COST)
    once = profile.read_text()
    fit_cost_model.write_cost(profile, replace(COST, threads=(1,), properties={}))
    assert load_profile(profile).cost == replace(COST, threads=(1,), properties={})
    fit_cost_model.write_cost(profile, COST)
    assert profile.read_text() == once


def test_a_cost_that_cannot_be_read_again_is_not_written(profile):
    before = profile.read_text()
    with pytest.raises(InputError):
        fit_cost_model.write_cost(profile, replace(COST, fitted_with='a "quote'))
    assert profile.read_text() == before


def test_fitting_networks_without_counts_needs_the_emulation(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    table = tmp_path / "table.csv"
    table.write_text(TABLE.read_text())
    answer = call("devices", "fit", "pixel-2", "--measured", table, "--root", tmp_path)
    assert answer.code == 3
    assert "run: edgekit devices setup pixel-2" in answer.err
    answer = call("devices", "fit", "pixel-2", "--measured", table, "--counted", "--root", tmp_path)
    assert answer.code == 2
    assert "no network with a timing of pixel-2 was counted" in answer.err


@pytest.mark.parametrize("name", COUNTED)
def test_the_shipped_coefficients_are_what_a_fit_to_the_shipped_counts_finds(tmp_path, name):
    answer = call("devices", "fit", name, "--counted", "--dry-run", "--root", tmp_path, "--json")
    assert answer.code == 0, answer.err
    assert answer.data["cost"] == json.loads(json.dumps(asdict(profile_of(name).cost)))


@pytest.mark.parametrize("name", COUNTED)
def test_the_counts_of_a_network_are_whole(tmp_path, name):
    """The kinds sum up to all instructions, and the regions hold most of a network's work and no more."""
    for counts in counts_of(tmp_path, name).values():
        work = counts.workload(1).counts
        kinds = (work.loads, work.stores, work.branches, work.fmla, work.dot, work.simd, work.other)
        assert sum(kinds) == work.instructions
        parallel = sum(region[2] for region in counts.regions)
        expected = 0 if counts.network == fit_cost_model.POST_PROCESS[0] else 1
        assert parallel / work.instructions == pytest.approx(expected, abs=0.15)
        lines = [counts.workload(threads).counts.memory_misses for threads in (1, 2, 3, 4)]
        assert lines == sorted(lines)  # a smaller part of the shared cache never saves a line


def test_published_timings_of_a_detector_include_its_post_processing_on_one_thread(tmp_path):
    counts = counts_of(tmp_path, "raspberry-pi-4b")
    published = fit_cost_model.timings(TABLE, "raspberry-pi-4b", profile_of("raspberry-pi-4b"))
    pairs = fit_cost_model.published_rows(published, counts)
    work = next(row.work for timing, row in pairs if (timing.network, timing.threads) == ("efficientdet_lite0", 4))
    alone = counts["efficientdet_lite0", "float32"].workload(4)
    extra = counts[fit_cost_model.POST_PROCESS].workload(1).counts.instructions
    assert work.path.instructions - alone.path.instructions == pytest.approx(extra)
    without = {key: entry for key, entry in counts.items() if key != fit_cost_model.POST_PROCESS}
    families = {row.family for _, row in fit_cost_model.published_rows(published, without)}
    assert families == {"mobilenet_v1", "mobilenet_v2"}


def test_the_intervals_cover_nine_of_ten_networks_of_families_that_were_left_out(tmp_path):
    pooled = fit_cost_model.pooled_predictions(context_of(tmp_path), TABLE)
    cost = profile_of("raspberry-pi-4b").cost
    for several, width in ((False, cost.width_one_thread), (True, cost.width_several_threads)):
        ratios = [
            prediction.predicted_ms / prediction.row.latency_ms
            for prediction in pooled
            if prediction.predicted_ms and (prediction.row.threads > 1) == several
        ]
        covered = sum(1 / (1 + width) <= ratio <= 1 + width for ratio in ratios)
        assert covered >= 0.9 * len(ratios)


def test_the_description_of_a_device_shows_the_errors_of_its_cost_model(tmp_path, profile):
    fit_cost_model.write_cost(profile, COST)
    (tmp_path / "device_profiles").mkdir()
    Path(profile).rename(tmp_path / "device_profiles" / "pixel-2.toml")
    shown = call("devices", "show", "pixel-2", "--root", tmp_path).out
    assert "fitted with 4 timings from a table; nine of ten networks of unseen families are within:" in shown
    assert "at one thread by a factor of 1.06 (9 timings), at several threads by a factor of 1.20 (19 timings)" in shown
    text = (tmp_path / "device_profiles" / "pixel-2.toml").read_text()
    without = fit_cost_model._with_table(text, "cost", "")
    (tmp_path / "device_profiles" / "other.toml").write_text(without)
    assert "uncalibrated" in call("devices", "show", "other", "--root", tmp_path).out
