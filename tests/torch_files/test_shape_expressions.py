"""The grammar of shape expressions: it accepts what sympy prints, and evaluates nothing."""

from __future__ import annotations

import pytest
import sympy
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._sympy import functions

from edgekit.torch_files.shape_expressions import NotArithmetic, check_shape_expression

S0, S1 = sympy.Symbol("s0", positive=True, integer=True), sympy.Symbol("u3", integer=True)
NUMBERS = st.integers(-(2**62), 2**62).map(sympy.Integer)


def combined(parts: st.SearchStrategy[sympy.Expr]) -> st.SearchStrategy[sympy.Expr]:
    """Return expressions of two others, as PyTorch computes with sizes."""
    pairs = st.tuples(parts, parts)
    return st.one_of(
        pairs.map(lambda pair: pair[0] + pair[1]),
        pairs.map(lambda pair: pair[0] * pair[1]),
        parts.map(lambda part: part**2),
        pairs.map(lambda pair: sympy.Max(*pair)),
        parts.map(lambda part: functions.FloorDiv(part, sympy.Integer(2))),
        parts.map(lambda part: functions.PythonMod(part, sympy.Integer(7))),
        parts.map(lambda part: functions.CeilToInt(functions.IntTrueDiv(part, sympy.Integer(3)))),
    )


EXPRESSIONS = st.recursive(st.one_of(st.sampled_from([S0, S1]), NUMBERS.filter(abs)), combined, max_leaves=8)
CONDITIONS = st.tuples(EXPRESSIONS, EXPRESSIONS).map(
    lambda pair: sympy.Or(sympy.Eq(*pair), sympy.And(sympy.Lt(*pair), sympy.Not(sympy.Ge(*pair))))
)


def fits(expression: object) -> bool:
    """Return whether all numbers of an expression fit into 64 bits, and no power is above the eighth; larger ones are
    refused on purpose."""
    numbers = expression.atoms(sympy.Integer)  # type: ignore[attr-defined]
    powers = expression.atoms(sympy.Pow)  # type: ignore[attr-defined]
    return all(abs(number) < 2**63 for number in numbers) and all(abs(power.exp) <= 8 for power in powers)


@pytest.mark.slow
@given(st.one_of(EXPRESSIONS, CONDITIONS).filter(fits))
def test_what_sympy_prints_of_sizes_is_accepted(expression: object) -> None:
    check_shape_expression(sympy.srepr(expression))


@given(EXPRESSIONS.filter(fits))
def test_the_infix_notation_is_accepted(expression: object) -> None:
    check_shape_expression(str(expression))


@pytest.mark.parametrize(
    "text",
    [
        "s0",
        "s0 + 1",
        "-s0*s1//2",
        "s0**2 - 1",
        "(s0 + 1)*(s1 - 2) % 4",
        "Symbol('s0')",
        "Float('1.5', precision=53)",
        "Piecewise(ExprCondPair(Integer(1), Equality(Symbol('s0'), Integer(2))), ExprCondPair(Integer(2), true))",
        "Eq(s0, 3) & ~(s1 <= 4)",
        "Pow(Symbol('s0', positive=True, integer=True), Integer(-1))",
        "Max(1, (s0 - 3)//2 + 1)",
    ],
)
def test_arithmetic_is_accepted(text: str) -> None:
    check_shape_expression(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "()",
        "s0 +",
        "9**9**9**9",
        "s0**s1",
        "2**100",
        "Pow(Pow(Pow(Pow(s0, 8), 8), 8), 8)",
        "LShift(1, 1000000)",
        "LShift(1, s0)",
        "1" * 30,
        "1e999999",
        "Float('1e999999')",
        "Float('1.0', precision=100000000)",
        "Float('nan')",
        "s0" + " + s0" * 5000,
        "(" * 100 + "s0" + ")" * 100,
        "-" * 100 + "s0",
        "*".join(["s0"] * 100),
        "exec('x')",
        "Symbol('s0').name",
        "Symbol('s0')('x')",
        "Symbol('a b')",
        "Symbol('__class__')",
        "Symbol('u99999999999')",
        "Symbol(s0)",
        "Symbol('s0', cls=Float)",
        "Symbol('s0', integer=exit)",
        "Function('f')(s0)",
        "Lambda(s0, s0)",
        "lambda: s0",
        "factorial(s0)",
        "s0!",
        "[s0]",
        "{s0}",
        "s0.real",
        "s0 if s1 else 1",
        "s0; s1",
        "s0\ns1",
        "'s0'",
        '"s0"',
        "0x10",
        "1_000",
        "1j",
        "gr\u00f6\u00dfe",
        "\uff11",
    ],
)
def test_everything_else_is_refused(text: str) -> None:
    with pytest.raises(NotArithmetic):
        check_shape_expression(text)


TOKENS = [
    "s0",
    "9",
    "**",
    "(",
    ")",
    "Pow(",
    ",",
    "Integer(",
    "-",
    "Symbol('s0'",
    "'",
    "exec",
    ".",
    "//",
    "=",
    " ",
    "1.5e9",
]


@pytest.mark.slow
@settings(max_examples=300)
@given(st.one_of(st.text(max_size=300), st.lists(st.sampled_from(TOKENS), max_size=4000).map("".join)))
def test_any_text_is_accepted_or_refused_and_never_evaluated(text: str) -> None:
    # Bounded: the parser reads each token once. sympy would need forever for some of the accepted alphabet's texts.
    try:
        check_shape_expression(text)
    except NotArithmetic as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert len(text) <= 20_000


@pytest.mark.parametrize("text", ["s0 + 1", "(s0 + s1 + u2)**8", "Max(1, (s0 - 3)//2 + 1)**2*4", "s0**8*s1**8*u2**8"])
def test_sympy_reads_the_largest_accepted_powers(text: str) -> None:
    check_shape_expression(text)
    assert sympy.sympify(text).free_symbols
