"""What integer kernels of a processor may do."""

from __future__ import annotations

import pytest

from edgekit.core.environment.instruction_set import instruction_set, saturates


@pytest.mark.parametrize(
    ("machine", "flags", "name", "saturating"),
    [
        ("x86_64", {"sse2", "avx", "avx2"}, "x86_64 AVX2", True),
        ("x86_64", {"avx2", "avx512bw"}, "x86_64 AVX-512", True),
        ("x86_64", {"avx2", "avx512bw", "avx512_vnni"}, "x86_64 AVX-512 VNNI", False),
        ("x86_64", {"avx2", "avx_vnni"}, "x86_64 AVX-VNNI", False),
        ("aarch64", {"asimd", "asimddp"}, "aarch64 dot product", False),
        ("AMD64", set(), "AMD64", True),
        ("arm64", set(), "arm64", False),
    ],
)
def test_only_x86_without_vnni_saturates(machine, flags, name, saturating):
    assert instruction_set(machine, frozenset(flags)) == name
    assert saturates(machine, frozenset(flags)) is saturating
