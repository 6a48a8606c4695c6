"""The scheduler, with steps that only wait: what runs beside what, and what becomes of the others when one fails."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import pytest

from edgekit.core.build.graph import Step, StepInput, build_graph
from edgekit.core.build.run_state import BLOCKED, DONE, FAILED, UP_TO_DATE, RunState, dry_run
from edgekit.core.build.step_records import StepRecords
from edgekit.core.environment.project import Project
from edgekit.core.errors import InputError, StepCrashed
from edgekit.core.events import Event, Failed, Finished, Overview
from edgekit.stages.concurrency import PROCESS_MEMORY_BYTES
from edgekit.stages.context import Context
from edgekit.stages.pipeline import scheduler as running
from edgekit.stages.pipeline.scheduler import RunOptions
from edgekit.stages.pipeline.step_handlers import StepOutput
from edgekit.workers.pool import WorkerPool


def step(name, *reads, kind="export"):
    return Step(name, kind, f"out/{name}", reads=tuple(StepInput(path) for path in reads))


class Stage:
    """Carries out steps as a test says, and keeps what ran beside what."""

    def __init__(self, root):
        self.root = root
        self.actions = {}
        self.now: set[str] = set()
        self.beside: dict[str, set[str]] = {}
        self.ran: list[str] = []
        self.lock = threading.Lock()

    def __call__(self, job):
        name = job.step.name
        with self.lock:
            self.ran.append(name)
            self.now.add(name)
            for other in self.now:
                self.beside.setdefault(other, set()).update(self.now - {other})
                self.beside.setdefault(name, set()).update({other} - {name})
        try:
            self.actions.get(name, lambda: None)()
            path = self.root / job.step.output
            path.parent.mkdir(exist_ok=True)
            path.write_text("result")
            return StepOutput("well", (path,))
        finally:
            with self.lock:
                self.now.discard(name)


@pytest.fixture
def stage(tmp_path, monkeypatch):
    stage = Stage(tmp_path)
    monkeypatch.setattr(running, "execute_step", stage)
    return stage


@pytest.fixture
def go(tmp_path, stage, events: list[Event]):
    def carry(*steps, jobs=2, memory=2**40):
        graph = build_graph(steps, lambda name: name)
        records = StepRecords(tmp_path / "build")
        with WorkerPool() as pool, records.locked(lambda _process: None):
            context = Context(Project(tmp_path), pool, events.append)
            book = RunState(records, records.digests(tmp_path))
            ran = running.run_graph(context, graph, book, RunOptions(jobs, memory, False, lambda _name, _report: ""))
        return {item.step: item for item in ran.outcomes}, ran

    return carry


def states(outcomes):
    return {name: item.state for name, item in outcomes.items()}


def meeting(count):
    """An action that ends only when so many steps run at a time."""
    barrier = threading.Barrier(count)
    return lambda: barrier.wait(20)


def about(name, model):
    return replace(step(name), arguments={"model": model, "kind": "keras"})


def test_steps_about_one_source_follow_one_another_beside_those_of_another(stage, go):
    """So that a worker loads a source once, and does once what its variants share."""
    steps = [about(f"{model}{number}", model) for model in "abc" for number in range(4)]
    for item in steps:
        stage.actions[item.name] = lambda: time.sleep(0.02)
    go(*steps)
    first, second = stage.ran[0][0], stage.ran[1][0]
    assert {first, second} == {"a", "b"}
    assert [name for name in stage.ran if name[0] == "c"] == ["c0", "c1", "c2", "c3"]
    for name in ("a0", "a1", "a2", "b0", "b1", "b2"):
        assert {other[0] for other in stage.beside[name]} <= {"a", "b"} - {name[0]}


def test_steps_run_beside_one_another_up_to_the_number_of_jobs(stage, go):
    stage.actions = dict.fromkeys(("a", "b"), meeting(2))
    outcomes, _ = go(step("a"), step("b"), step("c"), step("d"), jobs=2)
    assert set(states(outcomes).values()) == {DONE}
    assert stage.beside["a"] >= {"b"}
    alone = Stage(stage.root)
    stage.__dict__.update(alone.__dict__)
    go(step("e"), step("f"), step("g"), jobs=1)
    assert all(not others for others in stage.beside.values())


def test_memory_bounds_what_runs_beside_one_another(stage, go, tmp_path):
    stage.actions = dict.fromkeys("ab", lambda: time.sleep(0.05))
    go(step("a"), step("b"), memory=PROCESS_MEMORY_BYTES)
    assert stage.beside == {"a": set(), "b": set()}


def test_what_measures_runs_after_what_else_can_run_and_beside_nothing_else(stage, go):
    """Beside one another they may: they take turns."""
    stage.actions = dict.fromkeys("xyz", lambda: time.sleep(0.02)) | dict.fromkeys(("m1", "m2"), meeting(2))
    measures = [step(name, "out/x", kind="bench") for name in ("m1", "m2")]
    go(*measures, step("x"), step("y"), step("z", "out/y"), jobs=4)
    assert (stage.beside["m1"], stage.beside["m2"]) == ({"m2"}, {"m1"})
    assert set(stage.ran[-2:]) == {"m1", "m2"}


def test_a_failure_stops_only_what_follows_and_the_code_is_the_gravest(stage, go, events):
    def crash():
        raise StepCrashed("a: it crashed", step="a")

    def refuse():
        raise InputError("b: no")

    stage.actions = {"a": crash, "b": refuse}
    chain = (
        step("a"),
        step("after a", "out/a"),
        step("far", "out/after a"),
        step("b"),
        step("c"),
        step("after c", "out/c"),
    )
    outcomes, ran = go(*chain, Step("r", "report", "out/r", after=("far", "after c")))
    assert states(outcomes) == {
        "a": FAILED,
        "after a": BLOCKED,
        "far": BLOCKED,
        "b": FAILED,
        "c": DONE,
        "after c": DONE,
        "r": DONE,
    }
    assert outcomes["far"].reasons == ("after a did not get done",)
    assert ran.exit_code == 4
    assert {event.step for event in events if isinstance(event, Failed)} == {"a", "b"}
    stage.actions.clear()
    again, ran = go(*chain, Step("r", "report", "out/r", after=("far", "after c")))
    assert {name for name, item in again.items() if item.state == DONE} == {"a", "after a", "far", "b", "r"}
    assert again["r"].reasons == ("far had failed",)
    assert ran.exit_code == 0


def test_a_step_that_writes_the_same_again_stops_the_wave(stage, go, tmp_path):
    (tmp_path / "in").write_text("1")
    steps = step("a", "in"), step("b", "out/a"), step("c", "out/b")
    go(*steps)
    stage.ran.clear()
    (tmp_path / "in").write_text("2")
    outcomes, _ = go(*steps)
    assert stage.ran == ["a"]
    assert states(outcomes) == {"a": DONE, "b": UP_TO_DATE, "c": UP_TO_DATE}


def test_a_dry_run_names_what_may_follow(stage, go, tmp_path):
    (tmp_path / "in").write_text("1")
    steps = step("a", "in"), step("b", "out/a"), step("c")
    go(*steps)
    (tmp_path / "in").write_text("2")
    records = StepRecords(tmp_path / "build")
    found = dry_run(build_graph(steps, lambda name: name), RunState(records, records.digests(tmp_path)), False)
    assert {item.step: item.reasons for item in found} == {
        "a": ("in changed",),
        "c": (),
        "b": ("a runs before it, and may write something else",),
    }


def test_an_error_that_nobody_foresaw_stops_the_run_and_keeps_what_was_done(stage, go, tmp_path):
    def stumble():
        raise ZeroDivisionError("a bug")

    stage.actions = {"b": stumble}
    with pytest.raises(ZeroDivisionError):
        go(step("a"), step("b", "out/a"))
    assert StepRecords(tmp_path / "build").load("a") is not None
    assert StepRecords(tmp_path / "build").load("b") is None


def test_events_tell_what_runs_and_what_waits(go, events):
    go(step("a"), step("b", "out/a"))
    seen = [event for event in events if isinstance(event, Overview)]
    assert (seen[0].done, seen[0].total, seen[0].running, seen[0].waiting) == (0, 2, ("a",), ("b",))
    assert (seen[-1].done, seen[-1].waiting) == (1, ())
    assert [event.step for event in events if isinstance(event, Finished)] == ["a", "b"]
