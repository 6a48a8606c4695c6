"""A model as C files, taken by a real compiler."""

import shutil
import subprocess
from pathlib import Path

import pytest

from edgekit.core.values.specs import Quantization, Signature, TensorSpec
from edgekit.targets._tflite.c_array import CModel, files, identifier

SIGNATURE = Signature(
    (TensorSpec("im*/age", (1, 2, 3), "int8", None, Quantization((0.25,), (-128,))),),
    (TensorSpec("scores", ("batch", 4), "float32"),),
)
CONTENT = bytes(range(256)) + b"tail"
MODEL = CModel(
    "net_int8", CONTENT, SIGNATURE, 4321, ("CONV_2D", "BATCH_MATMUL", "SOFTMAX", "CONV_2D"), "net tflite:int8"
)

PROGRAM = """
#include <stdio.h>
#include "net_int8.h"
int main(void) {
    size_t i;
    for (i = 0; i < net_int8_size; ++i) printf("%02x", net_int8[i]);
    printf(" %d %d %g %d %d %d", NET_INT8_ARENA_SIZE, NET_INT8_INPUT_0_ELEMENTS, NET_INT8_INPUT_0_SCALE,
           NET_INT8_INPUT_0_ZERO_POINT, NET_INT8_OUTPUT_0_ELEMENTS, (int)((size_t)net_int8 % 16));
    return 0;
}
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
@pytest.mark.parametrize("standard", ["c99", "c11", "c++11"])
def test_a_compiler_takes_it_and_the_program_holds_the_same_bytes(tmp_path: Path, standard):
    for name, text in files(MODEL).items():
        (tmp_path / name).write_text(text)
    (tmp_path / "main.c").write_text(PROGRAM)
    compiler = ["g++", "-x", "c++"] if standard.startswith("c++") else ["cc"]
    if shutil.which(compiler[0]) is None:
        pytest.skip(f"there is no {compiler[0]}")
    sources = [str(tmp_path / "net_int8.c"), str(tmp_path / "main.c")]
    program = tmp_path / "program"
    warnings = ["-Wall", "-Wextra", "-Werror", "-pedantic-errors"]
    subprocess.run([*compiler, f"-std={standard}", *warnings, *sources, "-o", str(program)], check=True)
    told = subprocess.run([str(program)], check=True, capture_output=True, text=True).stdout.split()
    assert told == [CONTENT.hex(), "4321", "6", "0.25", "-128", "4", "0"]


def test_the_resolver_has_each_operator_once():
    text = files(MODEL)["net_int8_ops.h"]
    assert "MicroMutableOpResolver<3>" in text
    assert [line.strip() for line in text.splitlines() if "resolver.Add" in line] == [
        "resolver.AddBatchMatMul();",
        "resolver.AddConv2D();",
        "resolver.AddSoftmax();",
    ]


@pytest.mark.parametrize(
    ("text", "name"), [("simple_cnn-keras int8", "simple_cnn_keras_int8"), ("1x1", "model_1x1"), ("é", "model_")]
)
def test_names_are_identifiers(text, name):
    assert identifier(text) == name
