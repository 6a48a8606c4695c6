"""The bridge computes what Keras computes on TensorFlow, also where Keras's torch backend does not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _helpers.support import WORKER_PATH
from _helpers.worker_side.function_call import FunctionCall, call_function

from edgekit.core.errors import EdgekitError
from edgekit.sources import keras
from edgekit.sources.bridges import keras_to_torch
from edgekit.workers.environment import Environment
from edgekit.workers.pool import WorkerPool


@pytest.fixture(scope="module")
def saved(pool: WorkerPool, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    path = tmp_path_factory.mktemp("bridge") / "net.keras"
    return path, run(pool, keras.VARIABLES, "save_images", path=str(path))


def run(pool: WorkerPool, variables: Mapping[str, str], function: str, **arguments: Any) -> Any:
    return pool.call(
        call_function,
        FunctionCall("keras_models", function, arguments),
        step=function,
        environment=Environment.of({**variables, "PYTHONPATH": WORKER_PATH}, confined=False),
    )


@pytest.mark.slow
def test_the_bridge_computes_what_tensorflow_computes(pool: WorkerPool, saved: tuple[Path, dict[str, Any]]) -> None:
    path, truth = saved
    variables = keras_to_torch.BRIDGE.variables
    actual = run(pool, variables, "bridge_images", path=str(path), inputs=truth["inputs"], mended=True)
    assert actual.keys() == truth["outputs"].keys()
    for name, expected in truth["outputs"].items():
        np.testing.assert_allclose(actual[name], expected, atol=2e-6, err_msg=name)


@pytest.mark.slow
def test_the_torch_backend_of_keras_still_needs_its_workarounds(
    pool: WorkerPool, saved: tuple[Path, dict[str, Any]]
) -> None:
    """When this fails, docs/upstream.md and the workarounds in _keras_backend.py can be shortened."""
    path, truth = saved
    variables = keras_to_torch.BRIDGE.variables
    faults = run(pool, variables, "backend_faults")
    assert min(faults.values()) > 0.01, faults
    with pytest.raises(EdgekitError, match="parameter name can"):
        run(pool, variables, "bridge_images", path=str(path), inputs=truth["inputs"], mended=False)
