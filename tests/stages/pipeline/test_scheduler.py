"""The scheduler, with steps that only wait: which steps run concurrently, and which run after a failure."""

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
from edgekit.core.events import Event, FailEvent, FinishEvent, OverviewEvent
from edgekit.stages.concurrency import PROCESS_MEMORY_BYTES
from edgekit.stages.context import Context
from edgekit.stages.pipeline import scheduler as running
from edgekit.stages.pipeline.scheduler import RunOptions
from edgekit.stages.pipeline.step_handlers import StepOutput
from edgekit.workers.pool import WorkerPool


def step(name, *reads, kind="export"):
    return Step(name, kind, f"out/{name}", reads=tuple(StepInput(path) for path in reads))


class Stage:
    """Stand-in for `execute_step`: runs a test's actions and records which steps ran concurrently."""

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
    def run(*steps, jobs=2, memory=2**40):
        graph = build_graph(steps, lambda name: name)
        records = StepRecords(tmp_path / "build")
        with WorkerPool() as pool, records.locked(lambda _process: None):
            context = Context(Project(tmp_path), pool, events.append)
            state = RunState(records, records.digests(tmp_path))
            ran = running.run_graph(context, graph, state, RunOptions(jobs, memory, False, lambda _name, _report: ""))
        return {outcome.step: outcome for outcome in ran.step_results}, ran

    return run


def states(step_results):
    return {name: outcome.state for name, outcome in step_results.items()}


def meeting(count):
    """Return an action that ends only when `count` steps run at the same time."""
    barrier = threading.Barrier(count)
    return lambda: barrier.wait(20)


def about(name, model):
    return replace(step(name), arguments={"model": model, "kind": "keras"})


def test_steps_of_one_source_run_one_after_another_and_beside_those_of_another_source(stage, go):
    """A worker then loads a source once, and computes once what its variants share."""
    steps = [about(f"{model}{number}", model) for model in "abc" for number in range(4)]
    for each in steps:
        stage.actions[each.name] = lambda: time.sleep(0.02)
    go(*steps)
    first, second = stage.ran[0][0], stage.ran[1][0]
    assert {first, second} == {"a", "b"}
    assert [name for name in stage.ran if name[0] == "c"] == ["c0", "c1", "c2", "c3"]
    for name in ("a0", "a1", "a2", "b0", "b1", "b2"):
        assert {other[0] for other in stage.beside[name]} <= {"a", "b"} - {name[0]}


def test_steps_run_concurrently_up_to_the_number_of_jobs(stage, go):
    stage.actions = dict.fromkeys(("a", "b"), meeting(2))
    outcomes, _ = go(step("a"), step("b"), step("c"), step("d"), jobs=2)
    assert set(states(outcomes).values()) == {DONE}
    assert stage.beside["a"] >= {"b"}
    alone = Stage(stage.root)
    stage.__dict__.update(alone.__dict__)
    go(step("e"), step("f"), step("g"), jobs=1)
    assert all(not others for others in stage.beside.values())


def test_memory_limits_which_steps_run_concurrently(stage, go, tmp_path):
    stage.actions = dict.fromkeys("ab", lambda: time.sleep(0.05))
    go(step("a"), step("b"), memory=PROCESS_MEMORY_BYTES)
    assert stage.beside == {"a": set(), "b": set()}


def test_measuring_steps_run_last_and_only_beside_other_measuring_steps(stage, go):
    """They may run concurrently, since the measurement lock makes them take turns."""
    stage.actions = dict.fromkeys("xyz", lambda: time.sleep(0.02)) | dict.fromkeys(("m1", "m2"), meeting(2))
    measures = [step(name, "out/x", kind="bench") for name in ("m1", "m2")]
    go(*measures, step("x"), step("y"), step("z", "out/y"), jobs=4)
    assert (stage.beside["m1"], stage.beside["m2"]) == ({"m2"}, {"m1"})
    assert set(stage.ran[-2:]) == {"m1", "m2"}


def test_a_failure_blocks_only_the_steps_after_it_and_the_exit_code_is_the_most_severe(stage, go, events):
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
    assert outcomes["far"].reasons == ("after a did not complete",)
    assert ran.exit_code == 4
    assert {event.step for event in events if isinstance(event, FailEvent)} == {"a", "b"}
    stage.actions.clear()
    again, ran = go(*chain, Step("r", "report", "out/r", after=("far", "after c")))
    assert {name for name, outcome in again.items() if outcome.state == DONE} == {"a", "after a", "far", "b", "r"}
    assert again["r"].reasons == ("far failed last time",)
    assert ran.exit_code == 0


def test_a_step_that_reproduces_its_output_does_not_cause_its_dependents_to_run(stage, go, tmp_path):
    (tmp_path / "in").write_text("1")
    steps = step("a", "in"), step("b", "out/a"), step("c", "out/b")
    go(*steps)
    stage.ran.clear()
    (tmp_path / "in").write_text("2")
    outcomes, _ = go(*steps)
    assert stage.ran == ["a"]
    assert states(outcomes) == {"a": DONE, "b": UP_TO_DATE, "c": UP_TO_DATE}


def test_a_dry_run_names_the_steps_that_may_have_to_run(stage, go, tmp_path):
    (tmp_path / "in").write_text("1")
    steps = step("a", "in"), step("b", "out/a"), step("c")
    go(*steps)
    (tmp_path / "in").write_text("2")
    records = StepRecords(tmp_path / "build")
    outcomes = dry_run(build_graph(steps, lambda name: name), RunState(records, records.digests(tmp_path)), False)
    assert {outcome.step: outcome.reasons for outcome in outcomes} == {
        "a": ("in changed",),
        "c": (),
        "b": ("a runs before it and may change its input",),
    }


def test_an_unexpected_error_stops_the_run_and_keeps_completed_steps(stage, go, tmp_path):
    def fail():
        raise ZeroDivisionError("a bug")

    stage.actions = {"b": fail}
    with pytest.raises(ZeroDivisionError):
        go(step("a"), step("b", "out/a"))
    assert StepRecords(tmp_path / "build").load("a") is not None
    assert StepRecords(tmp_path / "build").load("b") is None


def test_events_report_running_and_waiting_steps(go, events):
    go(step("a"), step("b", "out/a"))
    overviews = [event for event in events if isinstance(event, OverviewEvent)]
    first, last = overviews[0], overviews[-1]
    assert (first.done, first.total, first.running, first.waiting) == (0, 2, ("a",), ("b",))
    assert (last.done, last.waiting) == (1, ())
    assert [event.step for event in events if isinstance(event, FinishEvent)] == ["a", "b"]
