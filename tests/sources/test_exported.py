"""`.pt2` files are read without executing what they hold."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Work = Callable[..., Any]
Refusal = Callable[..., str]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory, work: Work) -> Path:
    """Return an unmodified exported program."""
    path = tmp_path_factory.mktemp("program") / "net.pt2"
    work("torch", "program", path=path)
    return path


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """Return the path of the file that an attack creates if it is executed."""
    return tmp_path / "executed"


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    """Return the path for the manipulated program."""
    return tmp_path / "planted.pt2"


def test_a_real_program_loads_and_takes_another_batch_than_it_was_traced_with(work: Work, program: Path) -> None:
    rows = work("torch", "load_program", path=program)
    assert (len(rows), len(rows[0])) == (3, 3)


def test_a_program_that_was_only_packed_again_still_loads(work: Work, program: Path, planted: Path) -> None:
    work("torch", "plant_record", source=program, path=planted, record="extra/note.txt", content=b"hello")
    assert work("torch", "load_program", path=planted) == work("torch", "load_program", path=program)


@pytest.mark.parametrize("plain", [False, True], ids=["zip", "plain"])
@pytest.mark.parametrize(
    "record", ["data/sample_inputs/model.pt", "data/weights/other.pt", "data/constants/tensor_0.pt", "extra/a.pkl"]
)
def test_a_pickle_that_calls_the_shell_is_refused_and_not_executed(
    work: Work, refusal: Refusal, program: Path, planted: Path, marker: Path, record: str, plain: bool
) -> None:
    work("torch", "plant_pickle", source=program, path=planted, record=record, marker=marker, plain=plain)
    sentence = refusal("torch", "load_program", path=planted)
    refused = f"{planted}: {record} in this file is a pickle of more than plain tensors"
    assert sentence.startswith((refused, f"{planted}: '{record}' in this file is neither weights nor a graph"))
    assert not marker.exists()


@pytest.mark.parametrize(
    "file",
    [
        "tensor_0",
        "custom_obj_0",
        "opaque_obj_0",
    ],
)
def test_a_pickle_that_is_called_a_constant_is_refused_and_not_executed(
    work: Work, refusal: Refusal, program: Path, planted: Path, marker: Path, file: str
) -> None:
    work("torch", "plant_constant", source=program, path=planted, file=file, marker=marker)
    try:
        assert refusal("torch", "load_program", path=planted).startswith(f"{planted}: ")
    finally:
        executed = marker.exists()
    assert not executed


@pytest.mark.parametrize(
    "target",
    [
        "torch.serialization.os.system",
        "torch.os.system",
        "torch.hub.load",
        "torch.ops.load_library",
        "_operator.attrgetter.x",
        "math.os.system",
        "os.system",
        "torch.ops.aten.relu.default; import os",
        "",
    ],
)
def test_a_graph_that_calls_what_is_no_operator_is_refused(
    work: Work, refusal: Refusal, program: Path, planted: Path, target: str
) -> None:
    work("torch", "plant_text", source=program, path=planted, key="target", text=target)
    expected = f"{planted}: the graph calls '{target}', which is not a PyTorch operator"
    assert refusal("torch", "load_program", path=planted) == expected


@pytest.mark.parametrize("target", ["_operator.call", "_operator.methodcaller", "math.nothing"])
def test_a_graph_that_calls_a_function_that_pytorch_does_not_know_is_refused(
    work: Work, refusal: Refusal, program: Path, planted: Path, target: str
) -> None:
    work("torch", "plant_text", source=program, path=planted, key="target", text=target)
    assert refusal("torch", "load_program", path=planted).startswith(f"{planted}: ")


def test_a_graph_that_hands_a_function_to_an_operator_is_refused(
    work: Work, refusal: Refusal, program: Path, planted: Path
) -> None:
    work("torch", "plant_argument", source=program, path=planted, text="torch.serialization.os.system")
    assert "torch.serialization.os.system" in refusal("torch", "load_program", path=planted)


def test_a_graph_whose_argument_has_code_for_a_name_is_refused_and_not_executed(
    work: Work, refusal: Refusal, program: Path, planted: Path, marker: Path
) -> None:
    work("torch", "plant_call", source=program, path=planted, marker=marker)
    assert refusal("torch", "load_program", path=planted).startswith(f"{planted}: ")
    assert not marker.exists()


@pytest.mark.parametrize(
    "expression",
    [
        "__import__('os').system('touch MARKER')",
        "exec('import os')",
        "Symbol('x').__class__",
        "(lambda: 3)()",
        "Max(eval('1'), 2)",
        "[s0 for s0 in s1]",
        'Symbol("s0")',
        "getattr(s0, 'x')",
    ],
)
def test_a_shape_expression_that_is_code_is_refused_and_not_executed(
    work: Work, refusal: Refusal, program: Path, planted: Path, marker: Path, expression: str
) -> None:
    text = expression.replace("MARKER", str(marker))
    work("torch", "plant_text", source=program, path=planted, key="expr_str", text=text)
    expected = f"{planted}: the graph has a shape expression that is more than arithmetic: '{text[:80]}'"
    assert refusal("torch", "load_program", path=planted) == expected
    assert not marker.exists()


def test_a_file_with_compiled_code_in_it_is_refused(work: Work, refusal: Refusal, program: Path, planted: Path) -> None:
    record = "data/aotinductor/model/model.so"
    work("torch", "plant_record", source=program, path=planted, record=record, content=b"\x7fELF")
    assert refusal("torch", "load_program", path=planted).startswith(f"{planted}: ")


@pytest.mark.parametrize("record", ["models/model.json", "data/weights/model_weights_config.json"])
@pytest.mark.parametrize("content", [b"", b'{"graph_module": ', b"[]", b"\xff\xfe"])
def test_a_damaged_record_is_one_sentence(
    work: Work, refusal: Refusal, program: Path, planted: Path, record: str, content: bytes
) -> None:
    work("torch", "plant_record", source=program, path=planted, record=record, content=content)
    sentence = refusal("torch", "load_program", path=planted)
    assert sentence.startswith(f"{planted}: ")
    assert "damaged" in sentence


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused_wherever_it_was_cut(
    refusal: Refusal, program: Path, planted: Path, keep: float
) -> None:
    content = program.read_bytes()
    planted.write_bytes(content[: int(len(content) * keep)])
    expected = f"{planted}: this is not an exported program of PyTorch, or it is damaged"
    assert refusal("torch", "load_program", path=planted).startswith(expected)


def test_an_empty_or_missing_file_is_one_sentence(refusal: Refusal, planted: Path) -> None:
    assert refusal("torch", "load_program", path=planted) == f"{planted}: no such model file"
    planted.touch()
    assert refusal("torch", "load_program", path=planted) == f"{planted}: this model file is empty"


def test_another_kind_of_file_is_one_sentence(refusal: Refusal, planted: Path) -> None:
    planted.write_bytes(b"Dear model, how are you?\n" * 40)
    expected = f"{planted}: this is not an exported program of PyTorch, or it is damaged"
    assert refusal("torch", "load_program", path=planted) == expected
