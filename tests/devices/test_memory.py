"""Whether a network has room on a device."""

from dataclasses import replace
from pathlib import Path

import pytest

from edgekit.config.device_profile import load_profile
from edgekit.core.records.memory_plan import TensorLifetime
from edgekit.core.records.section_sizes import CodeSize, Piece
from edgekit.devices.cost_models import flash
from edgekit.devices.memory import memory_shortage

PROFILES = Path(__file__).parents[2] / "device_profiles"
LIVES = (
    TensorLifetime("image", 40_000, 0, 1),
    TensorLifetime("wide", 90_000, 1, 2),
    TensorLifetime("late", 50_000, 3, 3),
)


def board(ram, flash=None, name="raspberry-pi-4b"):
    profile = load_profile(PROFILES / f"{name}.toml")
    return replace(profile, memory=replace(profile.memory, ram=ram, flash=flash))


@pytest.mark.parametrize(("ram", "fits"), [(230_000, True), (229_999, False)])
def test_a_board_has_weights_and_live_tensors_in_its_ram(ram, fits):
    found = memory_shortage(board(ram), 100_000, LIVES)
    assert (found is None) == fits
    if found:
        assert "230 KB" in found
        assert "wide with 90 KB" in found


def test_what_the_system_keeps_is_not_there_for_tensors():
    chip = board(131_000)
    kept = replace(chip, memory=replace(chip.memory, system=60_000))
    assert memory_shortage(chip, 1_000, LIVES) is None
    assert "of 71 KB RAM" in str(memory_shortage(kept, 1_000, LIVES))


def test_a_microcontroller_has_the_weights_in_its_flash():
    chip = board(130_000, 100_000, "stm32l4r5-nucleo")
    assert memory_shortage(chip, 100_000, LIVES) is None
    assert "100 KB of flash" in str(memory_shortage(chip, 100_001, LIVES))
    assert "130 KB of" in str(memory_shortage(replace(chip, memory=replace(chip.memory, ram=129_999)), 1, LIVES))


def test_a_microcontroller_has_the_code_in_its_flash_too():
    code = flash.estimate_flash(CodeSize(Piece(0, 0, 0), (), Piece(10_000, 1_000, 250), ()))
    least = code.low_bytes
    assert 5_000 < least < code.code_bytes
    chip = board(130_000, 90_000 + least, "stm32l4r5-nucleo")
    assert memory_shortage(chip, 90_000, LIVES, code) is None
    assert f"and its code, at least {least / 1000:g} KB by estimate" in str(memory_shortage(chip, 90_001, LIVES, code))
    assert memory_shortage(board(231_000, 1), 100_000, LIVES, code) is None  # a board has its code on a disk


def test_where_the_format_tells_nothing_only_the_file_counts():
    assert memory_shortage(board(1), 100, ()) is None
