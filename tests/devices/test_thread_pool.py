"""The functions of a thread pool, as they are read from a library's symbols."""

from __future__ import annotations

import subprocess

import pytest
from _helpers.emulation import needs_compiler

from edgekit.devices.emulation import thread_pool, tools

SOURCE = """
void pthreadpool_parallelize_2d(void) {}
void pthreadpool_parallelize_1d_tile_1d_dynamic(void) {}
void pthreadpool_create(void) {}
"""


@pytest.fixture
def site(tmp_path):
    """A folder of wheels whose library has a thread pool; the symbol table has one layout on all 64-bit machines."""
    library = tmp_path / "ai_edge_litert" / "libpywrap_litert_common.so"
    library.parent.mkdir()
    (tmp_path / "pool.c").write_text(SOURCE)
    subprocess.run([tools.COMPILER.path(), "-shared", "-fPIC", tmp_path / "pool.c", "-o", library], check=True)
    return tmp_path


@needs_compiler
def test_the_functions_that_run_loops_in_parallel_are_found(site):
    pool = thread_pool.find("litert", site)
    assert pool.library == "libpywrap_litert_common.so"
    assert {(loop.name, loop.tiled) for loop in pool.loops} == {
        ("pthreadpool_parallelize_2d", False),
        ("pthreadpool_parallelize_1d_tile_1d_dynamic", True),
    }
    assert all(loop.start < loop.end for loop in pool.loops)
    assert pool.arguments()[0] == f"loop={pool.loops[0].start:x}:{pool.loops[0].end:x}"


@needs_compiler
def test_a_library_without_symbols_cannot_be_observed(site):
    library = site / "ai_edge_litert" / "libpywrap_litert_common.so"
    subprocess.run(["strip", library], check=True)
    assert thread_pool.find("litert", site) is None


@pytest.mark.parametrize("runtime", ["litert", "onnxruntime"])
def test_a_runtime_without_such_a_library_cannot_be_observed(tmp_path, runtime):
    assert thread_pool.find(runtime, tmp_path) is None
