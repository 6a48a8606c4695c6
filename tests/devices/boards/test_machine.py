"""What a board is, which cores are measured on, and when it counts as throttled."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgekit.core.errors import StepFailed
from edgekit.devices.boards.machine import (
    BoardCache,
    BoardCore,
    BoardState,
    fastest_cpus,
    parse_machine,
    parse_state,
    state_notes,
    throttling,
)

LITTLE = [BoardCore(cpu, "Cortex-A55", 446, 1_800_000) for cpu in range(4)]
BIG = [BoardCore(cpu, "Cortex-A76", 1024, 2_400_000) for cpu in range(4, 8)]
COOL = BoardState({4: 2_400_000}, {4: 2_400_000}, ("performance",), {"soc": 48.2}, 0, 0.1)


@pytest.mark.parametrize(
    ("cores", "threads", "expected"),
    [
        ([*LITTLE, *BIG], 1, ((7,), "")),
        ([*LITTLE, *BIG], 2, ((6, 7), "")),
        ([*BIG, *LITTLE], 4, ((4, 5, 6, 7), "")),
        ([*LITTLE, *BIG], 6, ((2, 3, 4, 5, 6, 7), "6 threads run on cores of different speed")),
        (LITTLE[:1], 2, ((0,), "2 threads were requested, but the board has 1 core")),
        ([replace(core, capacity=None) for core in (*LITTLE, *BIG)], 1, ((7,), "")),
    ],
)
def test_the_fastest_cores_are_measured(cores, threads, expected):
    assert fastest_cpus(cores, threads) == expected


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (COOL, ""),
        (replace(COOL, khz={4: 2_340_000}), ""),
        (replace(COOL, khz={4: 1_200_000}), "its frequency fell from 2400 to 1200 MHz"),
        (replace(COOL, limit_khz={4: 1_500_000}), "its highest allowed frequency fell from 2400 to 1500 MHz"),
        (replace(COOL, flags=0b0101), "its voltage is too low and it is throttled"),
        (replace(COOL, flags=0b1_0000_0000_0000_0000), ""),  # since the boot, but not now
    ],
)
def test_a_slowdown_is_seen(after, expected):
    assert throttling(COOL, after, (4,)) == expected


def test_a_frequency_that_follows_the_load_is_no_throttling():
    before, after = (replace(COOL, governors=("ondemand",), khz={4: khz}) for khz in (2_400_000, 600_000))
    assert throttling(before, after, (4,)) == ""


def test_notes_hold_temperature_frequency_and_the_verdict():
    hot = replace(COOL, temperatures={"soc": 81.6, "gpu": 70.0}, limit_khz={4: 1_500_000}, khz={4: 1_500_000})
    notes = state_notes(replace(COOL, load=1.7), hot, (4,))
    assert notes == (
        "48 to 82 degrees Celsius",
        "at 1500 MHz after the measurement",
        "THROTTLED: its highest allowed frequency fell from 2400 to 1500 MHz",
        "1.7 cores were busy in the minute before it",
    )
    blind = BoardState({}, {}, (), {}, 0, None)
    assert state_notes(blind, blind, (0,)) == ("throttling cannot be seen",)


STATE = {
    "cpus": {"0": {"khz": 1500000, "limit_khz": 1800000, "governor": "ondemand"}},
    "temperatures": {"cpu-thermal": 50.5},
    "throttled": "50005",
    "load": 0.25,
}
HELLO = {"machine": "aarch64", "python": [3, 11, 2], "libc": ["glibc", "2.36"], "clock_skew_s": -3.5}
PROBE = {
    "model": "Raspberry Pi 4 Model B Rev 1.4",
    "kernel": "6.1.21-v8+",
    "cores": [
        {"cpu": n, "capacity": None, "max_khz": 1800000, "implementer": "0x41", "part": "0xd08", "name": ""}
        for n in range(4)
    ],
    "memory": {"MemTotal": 4 << 30, "MemAvailable": 3 << 30},
    "disk_free_bytes": 1,
    "state": STATE,
}


def test_a_board_is_described_by_its_firmware_and_its_cores():
    machine = parse_machine(HELLO, PROBE)
    assert machine.description == "Raspberry Pi 4 Model B Rev 1.4, 4x Cortex-A72 1800 MHz"
    assert machine.state == parse_state(STATE)
    assert machine.state.flags == 0x50005


@pytest.mark.parametrize("key", sorted(PROBE))
@pytest.mark.parametrize("value", [None, "text", [], {"x": 1}])
def test_a_description_of_another_form_is_one_sentence(key, value):
    data = {**PROBE, key: value}
    if key in ("model", "kernel") or (key == "cores" and value == []) or (key == "memory" and value == {"x": 1}):
        parse_machine(HELLO, data)  # a text, or nothing known
        return
    with pytest.raises(StepFailed, match="missing or mistyped value"):
        parse_machine(HELLO, data)


def test_caches_and_the_identity_of_a_core_are_decoded():
    caches = [
        {"level": 1, "type": "Data", "size": "32K", "ways": 2, "shared_by": "0"},
        {"level": 2, "type": "Unified", "size": "1M", "ways": 0, "shared_by": "0-3"},
        {"level": 3, "type": "Unified", "size": "", "ways": None, "shared_by": ""},  # not described by the firmware
    ]
    identity = {"variant": "0x0", "revision": "3", "features": "fp asimd crc32", "caches": caches}
    core = parse_machine(HELLO, {**PROBE, "cores": [{**PROBE["cores"][0], **identity}]}).cores[0]
    assert (core.implementer, core.part, core.variant, core.revision) == (0x41, 0xD08, 0, 3)
    assert core.features == ("fp", "asimd", "crc32")
    assert core.caches == (BoardCache(1, "Data", 32, 2, False), BoardCache(2, "Unified", 1024, None, True))


@pytest.mark.parametrize("caches", [[{}], [{"level": "one", "type": "", "size": "1K", "ways": 1, "shared_by": ""}], 3])
def test_caches_of_another_form_are_one_sentence(caches):
    with pytest.raises(StepFailed, match="missing or mistyped value"):
        parse_machine(HELLO, {**PROBE, "cores": [{**PROBE["cores"][0], "caches": caches}]})
