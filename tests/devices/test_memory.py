"""Whether a model fits into the memory of a device."""

from dataclasses import replace
from pathlib import Path

import pytest

from edgekit.config.device_profile import load_profile
from edgekit.core.records.memory_plan import TensorLifetime
from edgekit.core.records.section_sizes import CodeSize, Piece
from edgekit.devices.cost_models import flash
from edgekit.devices.memory import memory_shortage

PROFILES = Path(__file__).parents[2] / "device_profiles"
LIFETIMES = (
    TensorLifetime("image", 40_000, 0, 1),
    TensorLifetime("wide", 90_000, 1, 2),
    TensorLifetime("late", 50_000, 3, 3),
)


def board(ram, flash=None, name="raspberry-pi-4b"):
    profile = load_profile(PROFILES / f"{name}.toml")
    return replace(profile, memory=replace(profile.memory, ram=ram, flash=flash))


@pytest.mark.parametrize(("ram", "fits"), [(230_000, True), (229_999, False)])
def test_a_board_has_weights_and_live_tensors_in_its_ram(ram, fits):
    shortage = memory_shortage(board(ram), 100_000, LIFETIMES)
    assert (shortage is None) == fits
    if shortage:
        assert "230 KB" in shortage
        assert "wide with 90 KB" in shortage


def test_memory_that_the_system_reserves_is_subtracted():
    chip = board(131_000)
    reserved = replace(chip, memory=replace(chip.memory, system=60_000))
    assert memory_shortage(chip, 1_000, LIFETIMES) is None
    assert "of 71 KB RAM" in str(memory_shortage(reserved, 1_000, LIFETIMES))


def test_a_microcontroller_has_the_weights_in_its_flash():
    chip = board(130_000, 100_000, "stm32l4r5-nucleo")
    assert memory_shortage(chip, 100_000, LIFETIMES) is None
    assert "100 KB of flash" in str(memory_shortage(chip, 100_001, LIFETIMES))
    assert "130 KB of" in str(memory_shortage(replace(chip, memory=replace(chip.memory, ram=129_999)), 1, LIFETIMES))


def test_a_microcontroller_has_the_code_in_its_flash_too():
    code = flash.estimate_flash(CodeSize(Piece(0, 0, 0), (), Piece(10_000, 1_000, 250), ()))
    least = code.low_bytes
    assert 5_000 < least < code.code_bytes
    chip = board(130_000, 90_000 + least, "stm32l4r5-nucleo")
    assert memory_shortage(chip, 90_000, LIFETIMES, code) is None
    assert f"and its code, at least {least / 1000:g} KB by estimate" in str(
        memory_shortage(chip, 90_001, LIFETIMES, code)
    )
    assert memory_shortage(board(231_000, 1), 100_000, LIFETIMES, code) is None  # a board has its code on a disk


def test_without_tensor_lifetimes_only_the_file_size_is_checked():
    assert memory_shortage(board(1), 100, ()) is None
