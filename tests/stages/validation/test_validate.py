"""Validation of artifacts on this host and elsewhere."""

import pytest

from edgekit.core.environment.project import Project
from edgekit.core.errors import InputError
from edgekit.core.events import ignore
from edgekit.stages.context import Context
from edgekit.stages.validation.validate_on_devices import validate_at
from edgekit.workers.pool import WorkerPool


@pytest.mark.parametrize(("devices", "executors"), [(("raspberry-pi-4b",), ()), (("raspberry-pi-4b",), ("emulated",))])
def test_stress_inputs_are_refused_on_other_devices(tmp_path, devices, executors):
    with WorkerPool() as pool, pytest.raises(InputError, match="stress inputs run on this host only, not on raspberry"):
        validate_at(Context(Project(tmp_path), pool, ignore), (), devices, executors, stress=True)
