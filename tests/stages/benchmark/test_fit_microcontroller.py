"""Tests of fitting microcontrollers: the real networks of MLPerf Tiny and the shipped table of timings."""

from __future__ import annotations

from pathlib import Path

import pytest
from _helpers.support import call

from edgekit.config.device_profile import load_profile
from edgekit.core.environment.project import open_project, shipped
from edgekit.core.errors import InputError
from edgekit.stages.benchmark import fit_microcontroller

TABLE = shipped("device_profiles") / "measured" / fit_microcontroller.MEASURED_FILE
FITTED = [
    name
    for name, path in open_project(Path(__file__).parent).device_files().items()
    if (published := load_profile(path).published) is not None and published.round is not None
]
KERNELS = {"stm32h743-nucleo": 3, "stm32mp135f-dk": 4}
# As Silicon Labs' MLTK counts the four networks (mltk/models/tinyml); ds_cnn there is 2.657 M, resnet8 12.502 M.
MACS = {"ad": 264_192, "ic": 12_501_632, "kws": 2_656_768, "vww": 7_489_664}


def profile_of(name):
    return load_profile(shipped("device_profiles") / f"{name}.toml")


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", FITTED)
def test_the_shipped_coefficients_are_what_a_fit_finds(tmp_path, monkeypatch, name, tmp_path_factory):
    """The networks are exported into a cache that these tests share; their work is counted from the .tflite files."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache-of-networks"))
    answer = call("devices", "fit", name, "--root", tmp_path, "--json")
    assert answer.code == 0, answer.err
    shipped_kernels = profile_of(name).kernels
    assert shipped_kernels is not None
    assert answer.data["kernels"] == pytest.approx(vars(shipped_kernels))
    assert {row["network"]: row["macs"] for row in answer.data["rows"]} == MACS
    assert max(abs(row["left_out_error"]) for row in answer.data["rows"]) == pytest.approx(
        shipped_kernels.max_error, abs=1e-4
    )
    written = load_profile(tmp_path / f"device_profiles/{name}.toml")
    assert written == profile_of(name)


@pytest.mark.parametrize(("name", "timings"), KERNELS.items())
def test_a_device_in_the_table_of_kernels_is_fitted_without_its_networks(tmp_path, name, timings):
    answer = call("devices", "fit", name, "--root", tmp_path, "--json")
    assert answer.code == 0, answer.err
    assert answer.data["kernels"] == vars(profile_of(name).kernels)
    assert answer.data["kernels"]["rows"] == timings
    families = {row["family"] for row in answer.data["rows"]}
    assert len(families) == 2


def test_the_table_of_kernels_has_the_work_that_the_networks_take():
    """From the papers: ProxylessNAS and MobileNet at other widths have no count; MobileNet v1 0.25 and 0.5 do."""
    table = TABLE.with_name(fit_microcontroller.KERNELS_FILE)
    rows, _ = fit_microcontroller.kernel_rows(table, "stm32mp135f-dk", profile_of("stm32mp135f-dk"))
    macs = {row.network: row.macs / 1e6 for row in rows}
    # Howard and others, arXiv 1704.04861, table 6: 41 and 149 million.
    assert macs["mobilenet_v1_0.25_224"] == pytest.approx(41, abs=0.5)
    assert macs["mobilenet_v1_0.5_224"] == pytest.approx(149, abs=1)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        (
            "STM32H743,Cortex-M7,480",
            "STM32H743,Cortex-M7,400",
            "measured at 400 MHz, but stm32h743-nucleo runs at 480 MHz",
        ),
        ("proxyless,54,", "proxyless,slow,", r"line \d+ has a missing or mistyped column"),
        ("TFLM 011bf32", "TFLM", "no timing of stm32h743-nucleo"),
    ],
)
def test_a_damaged_table_of_kernels_is_reported(tmp_path, old, new, sentence):
    text = TABLE.with_name(fit_microcontroller.KERNELS_FILE).read_text()
    assert old in text
    (tmp_path / "table.csv").write_text(text.replace(old, new))
    with pytest.raises(InputError, match=sentence):
        fit_microcontroller.kernel_rows(tmp_path / "table.csv", "stm32h743-nucleo", profile_of("stm32h743-nucleo"))


def test_there_are_devices_to_fit():
    assert {"stm32l4r5-nucleo", "nrf5340-dk", "ek-ra6m4"} <= set(FITTED)


@pytest.mark.parametrize("name", FITTED)
def test_the_table_has_four_timings_of_each_device_that_is_published(name):
    latencies, text = fit_microcontroller.timings(TABLE, name, profile_of(name))
    assert set(latencies) == set(MACS)
    assert text.startswith("4 MLPerf Tiny v")


def test_a_device_without_timings_stays_uncalibrated():
    message = "no timing of stm32h7a3-nucleo to fit its cost model; its latencies stay uncalibrated"
    with pytest.raises(InputError, match=message):
        fit_microcontroller.timings(TABLE, "stm32h7a3-nucleo", profile_of("stm32h7a3-nucleo"))


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("CMSIS-NN,kws,10.019", "CMSIS-NN,kws,slow", r"line \d+ has a missing or mistyped column"),
        ("CMSIS-NN,kws,10.019", "CMSIS-NN,kws,0", r"line \d+ has a missing or mistyped column"),
        (
            "NUCLEO-L4R5ZI,Cortex-M4,120,v1.0",
            "NUCLEO-L4R5ZI,Cortex-M4,80,v1.0",
            "measured at 80 MHz, but stm32l4r5-nucleo",
        ),
    ],
)
def test_a_damaged_table_is_reported_with_its_line(tmp_path, old, new, sentence):
    text = TABLE.read_text()
    assert old in text
    (tmp_path / "table.csv").write_text(text.replace(old, new))
    with pytest.raises(InputError, match=sentence):
        fit_microcontroller.timings(tmp_path / "table.csv", "stm32l4r5-nucleo", profile_of("stm32l4r5-nucleo"))
