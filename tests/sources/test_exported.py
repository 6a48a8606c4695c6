"""Loading of `.pt2` files without executing code that they contain."""

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
def attack(tmp_path: Path) -> Path:
    """Return the path for the manipulated program."""
    return tmp_path / "attack.pt2"


def test_a_real_program_loads_and_accepts_another_batch_than_it_was_traced_with(work: Work, program: Path) -> None:
    rows = work("torch", "load_program", path=program)
    assert (len(rows), len(rows[0])) == (3, 3)


def test_a_program_that_was_only_repacked_still_loads(work: Work, program: Path, attack: Path) -> None:
    work("torch", "plant_record", source=program, path=attack, record="extra/note.txt", content=b"hello")
    assert work("torch", "load_program", path=attack) == work("torch", "load_program", path=program)


@pytest.mark.parametrize("plain", [False, True], ids=["zip", "plain"])
@pytest.mark.parametrize(
    "record", ["data/sample_inputs/model.pt", "data/weights/other.pt", "data/constants/tensor_0.pt", "extra/a.pkl"]
)
def test_a_pickle_that_calls_the_shell_is_refused_and_not_executed(
    work: Work, refusal: Refusal, program: Path, attack: Path, marker: Path, record: str, plain: bool
) -> None:
    work("torch", "plant_pickle", source=program, path=attack, record=record, marker=marker, plain=plain)
    sentence = refusal("torch", "load_program", path=attack)
    refused = f"{attack}: {record} in this file is a pickle of more than plain tensors"
    assert sentence.startswith((refused, f"{attack}: '{record}' in this file is neither weights nor a graph"))
    assert not marker.exists()


@pytest.mark.parametrize(
    "file",
    [
        "tensor_0",
        "custom_obj_0",
        "opaque_obj_0",
    ],
)
def test_a_pickle_declared_as_a_constant_is_refused_and_not_executed(
    work: Work, refusal: Refusal, program: Path, attack: Path, marker: Path, file: str
) -> None:
    work("torch", "plant_constant", source=program, path=attack, file=file, marker=marker)
    try:
        assert refusal("torch", "load_program", path=attack).startswith(f"{attack}: ")
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
def test_a_graph_that_calls_a_function_that_is_not_an_operator_is_refused(
    work: Work, refusal: Refusal, program: Path, attack: Path, target: str
) -> None:
    work("torch", "plant_text", source=program, path=attack, key="target", text=target)
    expected = f"{attack}: the graph calls '{target}', which is not a PyTorch operator"
    assert refusal("torch", "load_program", path=attack) == expected


@pytest.mark.parametrize("target", ["_operator.call", "_operator.methodcaller", "math.nothing"])
def test_a_graph_that_calls_a_function_unknown_to_pytorch_is_refused(
    work: Work, refusal: Refusal, program: Path, attack: Path, target: str
) -> None:
    work("torch", "plant_text", source=program, path=attack, key="target", text=target)
    assert refusal("torch", "load_program", path=attack).startswith(f"{attack}: ")


def test_a_graph_that_passes_a_function_to_an_operator_is_refused(
    work: Work, refusal: Refusal, program: Path, attack: Path
) -> None:
    work("torch", "plant_argument", source=program, path=attack, text="torch.serialization.os.system")
    assert "torch.serialization.os.system" in refusal("torch", "load_program", path=attack)


def test_a_graph_with_code_as_an_arguments_name_is_refused_and_not_executed(
    work: Work, refusal: Refusal, program: Path, attack: Path, marker: Path
) -> None:
    work("torch", "plant_call", source=program, path=attack, marker=marker)
    assert refusal("torch", "load_program", path=attack).startswith(f"{attack}: ")
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
    work: Work, refusal: Refusal, program: Path, attack: Path, marker: Path, expression: str
) -> None:
    text = expression.replace("MARKER", str(marker))
    work("torch", "plant_text", source=program, path=attack, key="expr_str", text=text)
    expected = f"{attack}: the graph has a shape expression that is more than arithmetic: '{text[:80]}'"
    assert refusal("torch", "load_program", path=attack) == expected
    assert not marker.exists()


def test_a_file_that_contains_compiled_code_is_refused(
    work: Work, refusal: Refusal, program: Path, attack: Path
) -> None:
    record = "data/aotinductor/model/model.so"
    work("torch", "plant_record", source=program, path=attack, record=record, content=b"\x7fELF")
    assert refusal("torch", "load_program", path=attack).startswith(f"{attack}: ")


@pytest.mark.parametrize("record", ["models/model.json", "data/weights/model_weights_config.json"])
@pytest.mark.parametrize("content", [b"", b'{"graph_module": ', b"[]", b"\xff\xfe"])
def test_a_damaged_record_is_refused_in_one_sentence(
    work: Work, refusal: Refusal, program: Path, attack: Path, record: str, content: bytes
) -> None:
    work("torch", "plant_record", source=program, path=attack, record=record, content=content)
    sentence = refusal("torch", "load_program", path=attack)
    assert sentence.startswith(f"{attack}: ")
    assert "damaged" in sentence


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused_wherever_it_was_cut(
    refusal: Refusal, program: Path, attack: Path, keep: float
) -> None:
    content = program.read_bytes()
    attack.write_bytes(content[: int(len(content) * keep)])
    expected = f"{attack}: this is not an exported program of PyTorch, or it is damaged"
    assert refusal("torch", "load_program", path=attack).startswith(expected)


def test_an_empty_or_missing_file_is_refused_in_one_sentence(refusal: Refusal, attack: Path) -> None:
    assert refusal("torch", "load_program", path=attack) == f"{attack}: no such model file"
    attack.touch()
    assert refusal("torch", "load_program", path=attack) == f"{attack}: this model file is empty"


def test_another_file_format_is_refused_in_one_sentence(refusal: Refusal, attack: Path) -> None:
    attack.write_bytes(b"Dear model, how are you?\n" * 40)
    expected = f"{attack}: this is not an exported program of PyTorch, or it is damaged"
    assert refusal("torch", "load_program", path=attack) == expected
