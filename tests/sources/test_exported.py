"""Loading of `.pt2` files without executing code that they contain."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Work = Callable[..., Any]
Refusal = Callable[..., str]


def refused(path: Path) -> str:
    """Return how the sentence begins with which a program is refused."""
    return f"{path}: edgekit does not load models/model.json in this file:"


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


@pytest.mark.slow
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
        "torch.ops.aten.from_file.default",
        "torch.ops.aten.from_file.out",
        "torch.ops.aten.save.default",
        "torch.ops.aten.relu",
        "torch.ops.aten.relu.nothing",
        "torch.ops.c10d.broadcast_.default",
        "torch.ops.higher_order.run_and_save_rng_state",
        "torch.ops.debugprims.load_tensor.default",
        "_operator.call",
        "_operator.methodcaller",
        "math.nothing",
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
    expected = f"{refused(attack)} the graph calls '{target}', which is not one of PyTorch's operators on tensors"
    assert refusal("torch", "load_program", path=attack) == expected


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
        "9**9**9**9",
        "Pow(Integer(9), Pow(Integer(9), Pow(Integer(9), Integer(9))))",
    ],
)
def test_a_shape_expression_that_is_code_is_refused_and_not_executed(
    work: Work, refusal: Refusal, program: Path, attack: Path, marker: Path, expression: str
) -> None:
    text = expression.replace("MARKER", str(marker))
    work("torch", "plant_text", source=program, path=attack, key="expr_str", text=text)
    expected = f"{refused(attack)} the graph has a shape expression that is more than arithmetic: '{text[:80]}' ("
    assert refusal("torch", "load_program", path=attack).startswith(expected)
    assert not marker.exists()


# Names, which torch.fx writes into source code that it compiles. Paths of the marker contain no dots, at which PyTorch
# would split them.

RUN = "exec(\"import os; os\\x2esystem('touch MARKER')\")"


@pytest.mark.parametrize("guarded", [False, True])
@pytest.mark.parametrize("old", ["linear.weight", "scale"])
def test_code_as_the_name_of_a_parameter_or_buffer_is_not_executed(
    work: Work, refusal: Refusal, program: Path, attack: Path, marker: Path, old: str, guarded: bool
) -> None:
    new = f'{old}") if {RUN} else str("'.replace("MARKER", str(marker))
    work("torch", "rename", source=program, path=attack, old=old, new=new)
    if guarded:
        assert "a parameter, buffer or constant is named" in refusal("torch", "load_program", path=attack)
    else:
        work("torch", "load_unguarded", path=attack)  # the attack is real
    assert marker.exists() != guarded


SPEC = ["graph_module", "module_call_graph", 0, "signature"]
NODE = ["graph_module", "graph", "nodes", 0]


def structure(keys: str) -> str:
    """Return a description of inputs: one positional and one keyword argument, the keys being this JSON text."""
    leaf = {"type": None, "context": None, "children_spec": []}
    positional = {"type": "builtins.tuple", "context": "null", "children_spec": [leaf]}
    keywords = {"type": "builtins.dict", "context": keys, "children_spec": [leaf]}
    both = {"type": "builtins.tuple", "context": "null", "children_spec": [positional, keywords]}
    return json.dumps([1, both])


META: dict[str, Any] = {
    "dtype": 7,
    "sizes": [{"as_int": 2}],
    "requires_grad": False,
    "device": {"type": "cpu", "index": None},
    "strides": [{"as_int": 1}],
    "storage_offset": {"as_int": 0},
    "layout": 7,
}

PLANTED: dict[str, tuple[list[str | int], Any]] = {
    "argument of forward": ([*SPEC, "forward_arg_names"], ["x=exit()"]),
    "keyword argument": ([*SPEC, "in_spec"], structure('["x=exit()"]')),
    "keyword argument with a quote": ([*SPEC, "in_spec"], structure("[\"x':exit(), 'y\"]")),
    "enumeration of a module to import": (
        [*SPEC, "out_spec"],
        structure('[{"__enum__": true, "fqn": "antigravity:x", "name": "y"}]'),
    ),
    "type of the inputs": ([*SPEC, "in_spec"], structure("[]").replace("builtins.dict", "collections.deque")),
    "key of the outputs": ([*SPEC, "out_spec"], structure('["a\\nb"]')),
    "nested description": ([*SPEC, "in_spec"], "[" * 100_000),
    "output": ([*NODE, "outputs", 0], {"as_tensor": {"name": "y; exit()"}}),
    "node": ([*NODE, "name"], "y; exit()"),
    "keyword as a name": ([*NODE, "name"], "import"),
    "attribute of Python": ([*NODE, "name"], "__class__"),
    "letter that is not ASCII": ([*NODE, "name"], "gr\u00f6\u00dfe"),
    "long name": ([*NODE, "name"], "x" * 2000),
    "argument of an operator": ([*NODE, "inputs", 0, "name"], "x=exit()"),
    "module": (["graph_module", "module_call_graph", 0, "fqn"], "a'); exit(); ('"),
    "class to verify with": (["verifiers"], ["os.system"]),
    "device": (
        ["graph_module", "graph", "tensor_values", "y"],
        {**META, "device": {"type": "privateuseone", "index": None}},
    ),
    "dtype": (["graph_module", "graph", "tensor_values", "y"], {**META, "dtype": 99}),
    "size": (["graph_module", "graph", "tensor_values", "y"], {**META, "sizes": [{"as_int": 10**40}]}),
    "symbol that PyTorch counts up to": (["range_constraints"], {"u99999999999": {"min_val": 0, "max_val": 9}}),
    "bound": (["range_constraints"], {"s0": {"min_val": 0, "max_val": 10**40}}),
    "key": (["code"], "exit()"),
    "key of a node": ([*NODE, "code"], "exit()"),
    "two values of a union": ([*NODE, "inputs", 0, "arg"], {"as_int": 1, "as_bool": True}),
    "kind of argument": ([*NODE, "inputs", 0, "arg"], {"as_code": "exit()"}),
    "C++ object": ([*NODE, "inputs", 0, "arg"], {"as_custom_obj": {"name": "x", "class_fqn": "torch.classes.a.B"}}),
    "type": (["graph_module", "graph", "nodes"], {"a": 1}),
}


@pytest.mark.parametrize("name", PLANTED)
def test_what_does_not_fit_the_schema_is_refused(
    work: Work, refusal: Refusal, program: Path, attack: Path, name: str
) -> None:
    keys, value = PLANTED[name]
    work("torch", "plant_value", source=program, path=attack, keys=keys, value=value)
    assert refusal("torch", "load_program", path=attack).startswith(refused(attack))


NOTES: dict[str, tuple[list[str | int], Any]] = {
    "guards": (["guards_code"], ["exit()"]),
    "stack trace": ([*NODE, "metadata"], {"stack_trace": "'''; exit()\n", "custom": "{}", "from_node": "[]"}),
    "function of the source": ([*NODE, "metadata"], {"source_fn_stack": "x,torch.__init__.__globals__"}),
    "module stack": ([*NODE, "metadata"], {"nn_module_stack": "a\nb"}),
    "notes on the program": (["graph_module", "metadata"], {"custom": "[" * 100_000}),
}


@pytest.mark.parametrize("name", NOTES)
def test_notes_on_the_origin_of_a_program_are_dropped(work: Work, program: Path, attack: Path, name: str) -> None:
    keys, value = NOTES[name]
    work("torch", "plant_value", source=program, path=attack, keys=keys, value=value)
    assert work("torch", "load_program", path=attack) == work("torch", "load_program", path=program)


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
