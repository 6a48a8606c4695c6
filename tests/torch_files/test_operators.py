"""Which of PyTorch's operators a file may call."""

from __future__ import annotations

import pytest
import torch

from edgekit.torch_files.operators import REVIEWED_TEXTS, is_allowed, is_harmless, operators


def test_operators_on_files_and_other_processes_are_refused() -> None:
    names = ["aten::from_file", "aten::save", "aten::dist_backward", "prim::rpc_async", "prim::PythonOp", "c10d::send"]
    names += ["debugprims::load_tensor", "profiler::_record_function_enter_new", "evil::run", "aten::", "relu", ""]
    assert [name for name in names if is_allowed(name)] == []


@pytest.mark.parametrize(
    "name", ["aten::conv2d", "aten::add_", "aten::warn", "prim::RaiseException", "quantized::linear"]
)
def test_operators_that_compute_are_allowed(name: str) -> None:
    assert is_allowed(name)


def test_an_overload_must_exist() -> None:
    assert is_allowed("aten::add", "Tensor")
    assert is_allowed("aten::relu", "")
    assert not is_allowed("aten::add", "Evil")


def test_an_operator_with_an_unreviewed_text_is_refused() -> None:
    assert is_harmless("aten::x", [("self", "Tensor"), ("mode", "str")])
    for kind in ("str", "Optional[str]", "List[str]"):
        assert not is_harmless("aten::x", [("self", "Tensor"), ("path", kind)])


def test_every_operator_that_takes_a_text_was_reviewed() -> None:
    # A new operator of a later PyTorch fails here: look at what it does with the text, and add it to this list if it
    # only computes. Arguments of general names (`self`, `a`, `s`, …) could be anything.
    general = {
        "a",
        "b",
        "dict",
        "el",
        "idx",
        "input",
        "inputs",
        "item",
        "key",
        "l",
        "new",
        "old",
        "s",
        "self",
        "string",
    }
    general |= {"substr", "t", "to_add", "type", "values", "chars", "separator", "fillchar"}
    texts: dict[str, set[str]] = {}
    for schema in torch._C._jit_get_all_schemas():
        for argument in schema.arguments:
            reviewed_by_name = schema.name.startswith("prim::")
            if "str" in str(argument.type) and schema.name in operators().allowed and not reviewed_by_name:
                texts.setdefault(argument.name, set()).add(schema.name)
    assert texts.keys() <= REVIEWED_TEXTS
    found = set().union(*(names for argument, names in texts.items() if argument in general))
    of_text = """Delete Float Int __contains__ __getitem__ _print _set_item _test_ambiguous_defaults add any capitalize
        _test_string_default center clear copy count device dict endswith eq expandtabs find format ge get gt index
        isalnum isalpha isdecimal isdigit isidentifier islower isnumeric isprintable isspace istitle isupper items join
        keys le len list ljust lower lstrip lt ne ord partition percentFormat pop popitem remove replace rfind rindex
        rjust rpartition rsplit rstrip setdefault slice sort sorted split splitlines startswith strip swapcase title
        update upper values zfill""".split()  # noqa: SIM905
    assert found - {f"aten::{name}" for name in of_text} == set()
