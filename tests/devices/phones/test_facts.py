"""What is read from a phone, as several phones show it."""

from __future__ import annotations

import pytest

from edgekit.core.errors import StepFailed
from edgekit.devices.boards.machine import state_notes
from edgekit.devices.phones.adb import sections
from edgekit.devices.phones.facts import parse_facts

BIG_LITTLE = """\
@edgekit uname
aarch64
5.10.198-android13
@edgekit properties
ro.product.manufacturer=Google
ro.product.model=Pixel 7
ro.soc.manufacturer=Google
ro.soc.model=GS201
ro.build.version.release=14
ro.build.version.sdk=34
ro.product.cpu.abilist=arm64-v8a
@edgekit cpuinfo
processor\t: 0
BogoMIPS\t: 49.15
CPU implementer\t: 0x41
CPU part\t: 0xd05

processor\t: 1
CPU implementer\t: 0x41
CPU part\t: 0xd44
@edgekit meminfo
MemTotal:        7654321 kB
MemAvailable:    1234567 kB
@edgekit load
3.10 2.00 1.00 1/900 1234
@edgekit cpus
cpu0/cpu_capacity:250
cpu0/cpufreq/scaling_cur_freq:300000
cpu0/cpufreq/scaling_max_freq:1803000
cpu0/cpufreq/cpuinfo_max_freq:1803000
cpu0/cpufreq/scaling_governor:sched_pixel
cpu1/cpu_capacity:1024
cpu1/cpufreq/scaling_cur_freq:500000
cpu1/cpufreq/scaling_max_freq:2850000
cpu1/cpufreq/cpuinfo_max_freq:2850000
cpu7/cpufreq/scaling_max_freq:9999999
@edgekit thermal_zones
thermal_zone0/type:BIG
thermal_zone0/temp:55000
thermal_zone1/type:off
thermal_zone1/temp:-274000
@edgekit thermalservice
Thermal Status: 2
Current temperatures from HAL:
\tTemperature{mValue=38.25, mType=3, mName=VIRTUAL-SKIN, mStatus=2}
@edgekit battery
Current Battery Service state:
  status: 3
  level: 12
@edgekit saver
1
@edgekit disk
1000 4096
@edgekit end
"""


def test_cores_temperatures_battery_and_status_are_read():
    facts = parse_facts(sections(BIG_LITTLE), 2.0)
    machine = facts.machine
    assert machine.description == "Google Pixel 7, 1x Cortex-A55 1803 MHz + 1x Cortex-X1 2850 MHz"
    assert (facts.android, facts.api_level, facts.abis, facts.soc) == ("14", 34, ("arm64-v8a",), "Google GS201")
    assert [core.cpu for core in machine.cores] == [0, 1]
    assert machine.state.temperatures == {"BIG": 55.0, "VIRTUAL-SKIN": 38.25}
    assert (machine.memory_bytes, machine.disk_free_bytes) == (7654321 * 1024, 4096000)
    assert facts.notes() == ("the battery saver is on, which slows the phone", "the battery is at 12 %")
    notes = state_notes(machine.state, machine.state, (1,))
    assert "THROTTLED: Android's thermal status is moderate" in notes
    assert "3.1 cores were busy in the minute before it" in notes


def test_what_a_phone_does_not_show_is_missing():
    kept = ("uname", "cpuinfo", "disk", "end")
    lines = [
        line
        for name, content in sections(BIG_LITTLE).items()
        for line in (f"@edgekit {name}", *(content if name in kept else ()))
    ]
    facts = parse_facts(sections("\n".join(lines)))
    assert (facts.android, facts.abis, facts.battery_percent, facts.charging) == ("", (), None, None)
    assert facts.machine.state.hottest is None
    assert facts.machine.description == "1x Cortex-A55 + 1x Cortex-X1"
    assert state_notes(facts.machine.state, facts.machine.state, (0,)) == ("throttling cannot be seen",)


@pytest.mark.parametrize("cut", ["@edgekit end", "@edgekit disk", "aarch64\n5.10"])
def test_a_description_that_was_cut_off_is_an_error(cut):
    with pytest.raises(StepFailed):
        parse_facts(sections(BIG_LITTLE.partition(cut)[0]))
