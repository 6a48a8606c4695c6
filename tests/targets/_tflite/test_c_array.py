"""Export of a model as C files, which a real compiler accepts."""

import shutil
import subprocess
from pathlib import Path

import pytest

from edgekit.core.escape import c_identifier
from edgekit.core.values.specs import Quantization, Signature, TensorSpec
from edgekit.targets._tflite.c_array import CModel, files

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
def test_a_compiler_accepts_the_files_and_the_program_contains_the_same_bytes(tmp_path: Path, standard):
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
    output = subprocess.run([str(program)], check=True, capture_output=True, text=True).stdout.split()
    assert output == [CONTENT.hex(), "4321", "6", "0.25", "-128", "4", "0"]


LONG_NAME = CModel(
    "keyword_spotting_ds_cnn_keras_int8_tuned",
    CONTENT,
    Signature(
        (
            TensorSpec("spectrogram", (1, 49, 10, 1), "int8", None, Quantization((0.25,), (-128,))),
            TensorSpec("speaker", ("batch", 16), "float32"),
        ),
        (
            TensorSpec("scores", (1, 12), "int8", None, Quantization((0.00390625,), (-128,))),
            TensorSpec("embedding", (1, 2), "int8", None, Quantization((0.5, 0.25), (0, 0), 1)),
        ),
    ),
    20480,
    ("CONV_2D",),
    "keyword_spotting_ds_cnn/keras tflite:int8-tuned, sha256 " + "0123456789abcdef" * 4,
)
HEADER = """\
/* keyword_spotting_ds_cnn/keras tflite:int8-tuned, sha256 \
0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef */
#ifndef KEYWORD_SPOTTING_DS_CNN_KERAS_INT8_TUNED_H_
#define KEYWORD_SPOTTING_DS_CNN_KERAS_INT8_TUNED_H_

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The flatbuffer, aligned to 16 bytes for TensorFlow Lite Micro. */
extern const unsigned char keyword_spotting_ds_cnn_keras_int8_tuned[];
extern const size_t keyword_spotting_ds_cnn_keras_int8_tuned_size;

/* The smallest arena in bytes, found by bisection with the reference kernels on a 64-bit host.
   A 32-bit core needs less, since its pointers are smaller; optimised kernels may need more,
   since they may request scratch memory of their own. */
#define KEYWORD_SPOTTING_DS_CNN_KERAS_INT8_TUNED_ARENA_SIZE 20480

/* spectrogram 1x49x10x1 int8 */
#define KEYWORD_SPOTTING_DS_CNN_KERAS_INT8_TUNED_INPUT_0_ELEMENTS 490
/* real = scale * (stored - zero_point) */
#define KEYWORD_SPOTTING_DS_CNN_KERAS_INT8_TUNED_INPUT_0_SCALE 0.25f
#define KEYWORD_SPOTTING_DS_CNN_KERAS_INT8_TUNED_INPUT_0_ZERO_POINT (-128)

/* speaker batchx16 float32 */
#define KEYWORD_SPOTTING_DS_CNN_KERAS_INT8_TUNED_INPUT_1_ELEMENTS 16

/* scores 1x12 int8 */
#define KEYWORD_SPOTTING_DS_CNN_KERAS_INT8_TUNED_OUTPUT_0_ELEMENTS 12
/* real = scale * (stored - zero_point) */
#define KEYWORD_SPOTTING_DS_CNN_KERAS_INT8_TUNED_OUTPUT_0_SCALE 0.00390625f
#define KEYWORD_SPOTTING_DS_CNN_KERAS_INT8_TUNED_OUTPUT_0_ZERO_POINT (-128)

/* embedding 1x2 int8 */
#define KEYWORD_SPOTTING_DS_CNN_KERAS_INT8_TUNED_OUTPUT_1_ELEMENTS 2

#ifdef __cplusplus
}
#endif

#endif /* KEYWORD_SPOTTING_DS_CNN_KERAS_INT8_TUNED_H_ */
"""


def test_the_header_says_what_each_number_means():
    assert files(LONG_NAME)[f"{LONG_NAME.name}.h"] == HEADER


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
def test_a_compiler_accepts_the_header_on_its_own(tmp_path: Path):
    header = tmp_path / "model.h"
    header.write_text(files(LONG_NAME)[f"{LONG_NAME.name}.h"])
    warnings = ["-Wall", "-Wextra", "-Werror", "-pedantic-errors"]
    subprocess.run(["cc", "-std=c99", *warnings, "-fsyntax-only", "-x", "c", str(header)], check=True)


def test_comment_markers_in_names_are_escaped():
    signature = Signature((TensorSpec("/*x*/", (1,), "int8"),), ())
    texts = files(CModel("net", b"TFL3", signature, 1, (), "a*/b /* c"))
    assert [text.splitlines()[0] for text in texts.values()] == ["/* a*\\/b /\\* c */"] * 3
    assert "/* /\\*x*\\/ 1 int8 */" in texts["net.h"].splitlines()


def test_the_resolver_has_each_operator_once():
    text = files(MODEL)["net_int8_ops.h"]
    assert "MicroMutableOpResolver<3>" in text
    assert [line.strip() for line in text.splitlines() if "resolver.Add" in line] == [
        "resolver.AddBatchMatMul();",
        "resolver.AddConv2D();",
        "resolver.AddSoftmax();",
    ]


@pytest.mark.parametrize(
    ("text", "expected"), [("simple_cnn-keras int8", "simple_cnn_keras_int8"), ("1x1", "model_1x1"), ("é", "model_")]
)
def test_names_are_identifiers(text, expected):
    assert c_identifier(text) == expected
