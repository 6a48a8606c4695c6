"""Tests of fitting without an emulator: the timings of a device, and the table written into its profile."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from _helpers.support import call

from edgekit.config.device_profile import CostSpec, ThreadCost, load_profile
from edgekit.core.environment.project import open_project, shipped
from edgekit.core.errors import InputError
from edgekit.stages.benchmark import fit_cost_model

TABLE = shipped("device_profiles") / "measured" / fit_cost_model.MEASURED_FILE
COST = CostSpec(
    0.8, 8.0, (ThreadCost(1, 5.0, 2, 0.01, 0.02), ThreadCost(4, 9.5, 2, 0.03, 0.04)), "4 timings from a table"
)


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
            assert len(timings) == 4
            assert all(timing.latency_ms > 0 and timing.source for timing in timings)


def test_a_device_without_timings_stays_uncalibrated(tmp_path):
    device = load_profile(open_project(tmp_path).device_file("raspberry-pi-5"))
    message = "no timing of raspberry-pi-5 to fit its cost model; its latencies stay uncalibrated"
    with pytest.raises(InputError, match=message):
        fit_cost_model.timings(TABLE, "raspberry-pi-5", device)


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
    fit_cost_model.write_cost(profile, replace(COST, threads=COST.threads[:1]))
    assert load_profile(profile).cost == replace(COST, threads=COST.threads[:1])
    fit_cost_model.write_cost(profile, COST)
    assert profile.read_text() == once


def test_a_cost_that_cannot_be_read_again_is_not_written(profile):
    before = profile.read_text()
    with pytest.raises(InputError):
        fit_cost_model.write_cost(profile, replace(COST, fitted_with='a "quote'))
    assert profile.read_text() == before


def test_fitting_what_is_not_set_up_is_exit_3(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    answer = call("devices", "fit", "pixel-2", "--root", tmp_path)
    assert answer.code == 3
    assert "run: edgekit devices setup pixel-2" in answer.err


def test_the_description_of_a_device_shows_the_errors_of_its_cost_model(tmp_path, profile):
    fit_cost_model.write_cost(profile, COST)
    (tmp_path / "device_profiles").mkdir()
    Path(profile).rename(tmp_path / "device_profiles" / "pixel-2.toml")
    shown = call("devices", "show", "pixel-2", "--root", tmp_path).out
    assert "fitted with 4 timings from a table; 1 threads: mean error 1.0 %, largest 2.0 %" in shown
    assert "uncalibrated" in call("devices", "show", "raspberry-pi-5", "--root", tmp_path).out
