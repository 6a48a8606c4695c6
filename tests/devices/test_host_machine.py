"""The cores, threads and memory limit that a bench gets on this host."""

import os

import pytest

from edgekit.config.device_profile import Core, DeviceProfile, MemorySpec, RunSpec
from edgekit.devices import host_machine


def profile(threads=2, kind="board"):
    return DeviceProfile("Tiny", kind, "T1", "isa", (Core("big", 8, 1000),), MemorySpec(2**30), RunSpec(threads, 2**29))


@pytest.fixture
def cpus(monkeypatch):
    """Return a function that sets the cores of this host."""

    def install(*available):
        monkeypatch.setattr(host_machine, "available_cpus", lambda: available)

    return install


def test_threads_and_memory_limit_come_from_the_profile(cpus):
    cpus(0, 1, 2, 3)
    plan = host_machine.plan(profile(), None)
    assert (plan.threads, plan.memory_limit_bytes, plan.note) == (2, 2**29, "")


def test_requested_threads_take_precedence_over_the_profile(cpus):
    cpus(0, 1, 2, 3)
    assert host_machine.plan(profile(threads=2), 3).threads == 3


def test_cores_are_taken_from_the_end_one_for_each_thread(cpus):
    cpus(0, 2, 5, 7)
    assert host_machine.plan(profile(threads=2), None).cpus == (5, 7)
    assert host_machine.plan(profile(threads=4), None).cpus == (0, 2, 5, 7)


def test_without_a_profile_one_thread_runs_without_a_memory_limit(cpus):
    cpus(0, 1)
    plan = host_machine.plan(None, None)
    assert (plan.cpus, plan.threads, plan.memory_limit_bytes, plan.note) == ((1,), 1, None, "")


def test_there_are_never_more_threads_than_cores_and_the_plan_notes_it(cpus):
    cpus(0, 1)
    plan = host_machine.plan(profile(threads=4), None)
    assert (plan.cpus, plan.threads) == ((0, 1), 2)
    assert plan.note == "4 threads were requested, but this host has 2 cores"


def test_a_microcontroller_s_memory_does_not_limit_this_host_s_runtime(cpus):
    cpus(0, 1)
    assert host_machine.plan(profile(kind="microcontroller"), None).memory_limit_bytes is None


def test_a_host_that_cannot_pin_gives_threads_without_cores(cpus, monkeypatch):
    cpus(0, 1)
    monkeypatch.delattr(os, "sched_setaffinity")
    plan = host_machine.plan(profile(), None)
    assert (plan.cpus, plan.threads) == (None, 2)


def test_the_available_cores_are_those_that_the_process_may_use(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {6, 1, 4})
    assert host_machine.available_cpus() == (1, 4, 6)


def test_a_host_without_affinity_has_all_its_cores(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert host_machine.available_cpus() == (0, 1, 2)


def cpuinfo(monkeypatch, text):
    def read_text(self):
        if text is None:
            raise OSError
        return text

    monkeypatch.setattr(host_machine.Path, "read_text", read_text)


def test_the_description_names_the_cpu_and_its_cores(cpus, monkeypatch):
    cpus(0, 1)
    cpuinfo(monkeypatch, "processor : 0\nmodel name\t: Imaginary CPU: 9000\nflags : x\n")
    assert host_machine.description() == "Imaginary CPU: 9000, 2 cores"


@pytest.mark.parametrize("text", [None, "", "processor : 0\n"])
def test_a_host_whose_cpu_has_no_name_is_described_by_its_machine(cpus, monkeypatch, text):
    cpus(0, 1)
    cpuinfo(monkeypatch, text)
    monkeypatch.setattr(host_machine.platform, "processor", lambda: "")
    monkeypatch.setattr(host_machine.platform, "machine", lambda: "riscv64")
    assert host_machine.description() == "riscv64, 2 cores"
