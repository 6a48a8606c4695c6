"""How the ExecuTorch runtime is imported, in a process that has imported nothing yet."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

SCRIPT = """\
import sys
from edgekit.runtimes.executorch import RUNTIME

RUNTIME.load_library()
assert "executorch.exir" not in sys.modules
import executorch.exir
import executorch.runtime

assert callable(executorch.exir.to_edge_transform_and_lower)
RUNTIME.load_library()
"""


def test_importing_the_runtime_does_not_import_the_exporter_and_leaves_it_importable():
    subprocess.run([sys.executable, "-W", "ignore", "-c", SCRIPT], check=True, capture_output=True)
