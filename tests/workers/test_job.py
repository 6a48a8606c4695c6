"""Jobs: functions that a worker runs by name, and nothing else."""

from __future__ import annotations

import pickle

import pytest
from _helpers.support import WORKER_PATH
from _helpers.worker_side import worker_jobs

from edgekit.core.errors import StepFailed
from edgekit.core.events import ProgressEvent
from edgekit.stages.conversion.convert_job import convert
from edgekit.workers.environment import Environment
from edgekit.workers.job import find_job
from edgekit.workers.pool import WorkerPool

HERE = Environment.of({"PYTHONPATH": WORKER_PATH})


def test_a_job_is_a_function_with_a_name_that_a_worker_finds() -> None:
    assert convert.name == "edgekit.stages.conversion.convert_job:convert"
    assert find_job(convert.name) is convert
    assert worker_jobs.double.__doc__ == "Return twice the number."
    assert repr(worker_jobs.double) == "WorkerJob(_helpers.worker_side.worker_jobs:double)"


def test_a_job_can_be_called_in_this_process_too() -> None:
    events: list[object] = []
    assert worker_jobs.double(21) == 42
    assert worker_jobs.double(4, events.append) == 8
    assert events == [ProgressEvent("double", 1, 1)]


def test_a_worker_runs_the_job_and_passes_its_events_on() -> None:
    events: list[object] = []
    with WorkerPool(timeout_s=60) as pool:
        answer = pool.call(worker_jobs.double, 21, step="double", environment=HERE, listener=events.append)
    assert answer == 42
    assert events == [ProgressEvent("double", 1, 1)]


@pytest.mark.parametrize("name", ["os:getpid", "_helpers.worker_side.worker_jobs:pid", "os:nothing"])
def test_a_worker_runs_nothing_that_is_no_job(name: str) -> None:
    with pytest.raises(StepFailed, match="is not a worker job"):
        find_job(name)


def test_requests_are_plain_data() -> None:
    from edgekit.stages.validation.model_run_job import ModelCall, ModelRef

    call = ModelCall(ModelRef("x"), {})
    assert pickle.loads(pickle.dumps(call)) == call
