"""Shape expressions in exported programs: checking that a text is arithmetic of bounded size.

PyTorch evaluates these texts as Python (sympy.sympify), and sympy computes while it reads: `9**9**9**9` never ends. The
grammar here is the one that sympy prints for sizes, `Add(Symbol('s0', integer=True), Integer(1))` or `s0 + 1`. A text
is only parsed, never evaluated.
"""

from __future__ import annotations

import keyword
import string
from typing import NamedTuple

_MAX_LENGTH = 20_000
_MAX_DEPTH = 48
_MAX_PARTS = 2_000
_MAX_DIGITS = 19  # of a 64-bit integer
_MAX_NAME = 64
# The degree of the polynomial, with constants counted like symbols: it bounds what expanding can produce.
_MAX_DEGREE = 64
_MAX_EXPONENT = 8
_MAX_SHIFT = 63
_MAX_PRECISION = 128  # bits of a Float

_NAME_START = frozenset(string.ascii_letters + "_")
_NAME_PART = frozenset(string.ascii_letters + string.digits + "_")
_DIGITS = frozenset(string.digits)
_OPERATORS = ("**", "//", "<=", ">=", "==", "!=", "+", "-", "*", "/", "%", "<", ">", "&", "|", "~", "(", ")", ",", "=")

# How tightly an infix operator binds; `**` and the prefixes are handled apart.
_BINDING = {
    "|": 1,
    "&": 2,
    **dict.fromkeys(("<", ">", "<=", ">=", "==", "!="), 3),
    **dict.fromkeys("+-", 4),
    **dict.fromkeys(("*", "/", "//", "%"), 5),
}

# Functions and classes that sympy and torch.utils._sympy.functions print in the sizes of exported programs.
_FUNCTIONS = frozenset(
    """Abs Add And CeilDiv CeilToInt CleanDiv Eq Equality ExprCondPair FloatTrueDiv FloorDiv FloorToInt Ge GreaterThan
    Gt Identity IntTrueDiv Le LessThan Lt Max Min Mod ModularIndexing Mul Ne Not Or Piecewise PythonMod RShift Rational
    RoundDecimal RoundToInt StrictGreaterThan StrictLessThan ToFloat TruncToFloat TruncToInt Unequality Where ceiling
    floor""".split()  # noqa: SIM905
)
_PRODUCTS = frozenset({"Mul", "CleanDiv", "IntTrueDiv", "FloatTrueDiv", "*", "/"})
_POWERS = frozenset({"Pow", "PowByNatural", "FloatPow"})
_CONSTANTS = frozenset({"true", "false", "True", "False"})
# Assumptions about a symbol that sympy prints.
_ASSUMPTIONS = frozenset(
    """commutative complex even extended_real finite hermitian imaginary infinite integer negative nonnegative
    nonpositive nonzero odd positive rational real zero""".split()  # noqa: SIM905
)


class NotArithmetic(ValueError):
    """Error for a text that is no shape expression of bounded size."""


class _Token(NamedTuple):
    kind: str  # name, number, text, operator or end
    text: str


class _Part(NamedTuple):
    """What is known about a part of an expression: its degree, and its value if it is a whole number."""

    degree: int
    value: int | None = None


def check_shape_expression(text: str) -> None:
    """Raise NotArithmetic unless a text is arithmetic on sizes that sympy can read in bounded time.

    Args:
        text: A shape expression from an exported program.

    Raises:
        NotArithmetic: It is longer or deeper, or computes with higher powers, than sizes do, or it is not arithmetic.
    """
    if len(text) > _MAX_LENGTH:
        raise NotArithmetic("it is too long")
    _Parser(_tokens(text)).parse()


def check_symbol(name: str) -> None:
    """Raise NotArithmetic unless a text is the name of a symbol.

    Args:
        name: The text.

    Raises:
        NotArithmetic: It is no identifier of bounded length.
    """
    if (
        not name
        or len(name) > _MAX_NAME
        or name[0] not in _NAME_START
        or not _NAME_PART.issuperset(name)
        or "__" in name
        or keyword.iskeyword(name)
    ):
        raise NotArithmetic(f"'{name[:_MAX_NAME]}' is not the name of a symbol")
    # PyTorch counts up to the number of a symbol for sizes that depend on data, such as u3.
    if len(name.lstrip(string.ascii_letters + "_")) > 6:
        raise NotArithmetic(f"the number of the symbol '{name}' is too large")


def _tokens(text: str) -> list[_Token]:
    tokens = []
    position = 0
    while position < len(text):
        character = text[position]
        if character == " ":
            position += 1
            continue
        if character in _NAME_START:
            token = _Token("name", _run(text, position, _NAME_PART))
        elif character in _DIGITS:
            token = _Token("number", _number(text, position))
        elif character == "'":
            end = text.find("'", position + 1)
            if end < 0:
                raise NotArithmetic("a text does not end")
            token = _Token("text", text[position : end + 1])
        else:
            operator = next((known for known in _OPERATORS if text.startswith(known, position)), None)
            if operator is None:
                raise NotArithmetic(f"it contains {character!r}")
            token = _Token("operator", operator)
        tokens.append(token)
        position += len(token.text)
        if len(tokens) > _MAX_PARTS * 4:
            raise NotArithmetic("it has too many parts")
    return [*tokens, _Token("end", "")]


def _run(text: str, start: int, characters: frozenset[str]) -> str:
    end = start
    while end < len(text) and text[end] in characters:
        end += 1
    return text[start:end]


def _number(text: str, start: int) -> str:
    """Return the number at the position: digits, and a fraction and an exponent if it is a float."""
    found = _run(text, start, _DIGITS)
    digits = len(found)
    if text.startswith(".", start + len(found)):
        fraction = _run(text, start + len(found) + 1, _DIGITS)
        found += "." + fraction
        digits = max(digits, len(fraction))
    exponent = text[start + len(found) : start + len(found) + 1]
    if exponent in ("e", "E"):
        sign = text[start + len(found) + 1 : start + len(found) + 2]
        sign = sign if sign in ("+", "-") else ""
        power = _run(text, start + len(found) + 1 + len(sign), _DIGITS)
        found += exponent + sign + power
        if not 1 <= len(power) <= 3:
            raise NotArithmetic("it contains a number that is too large")
    if digits > (_MAX_DIGITS if found.isdigit() else 40):
        raise NotArithmetic("it contains a number that is too large")
    following = text[start + len(found) : start + len(found) + 1]
    if following == "." or following in _NAME_PART:
        raise NotArithmetic(f"it contains '{found}{following}'")
    return found


class _Parser:
    """Recursive descent over the tokens of an expression."""

    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens = tokens
        self._position = 0
        self._depth = 0
        self._parts = 0

    def parse(self) -> None:
        self._expression(1)
        if self._next.kind != "end":
            raise NotArithmetic(f"'{self._next.text[:_MAX_NAME]}' is not expected there")

    @property
    def _next(self) -> _Token:
        return self._tokens[self._position]

    def _take(self) -> _Token:
        token = self._next
        self._position += 1
        return token

    def _accept(self, operator: str) -> bool:
        if self._next != _Token("operator", operator):
            return False
        self._position += 1
        return True

    def _expect(self, operator: str) -> None:
        if not self._accept(operator):
            raise NotArithmetic(f"'{operator}' is missing before '{self._next.text[:_MAX_NAME]}'")

    def _expression(self, binding: int) -> _Part:
        """Parse an expression of operators that bind at least as tightly."""
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise NotArithmetic("it is nested too deeply")
        part = self._operand()
        while self._next.kind == "operator" and _BINDING.get(self._next.text, 0) >= binding:
            operator = self._take().text
            part = self._combined(operator, [part, self._expression(_BINDING[operator] + 1)])
        self._depth -= 1
        return part

    def _operand(self) -> _Part:
        """Parse prefixes, an atom and the power that it is raised to."""
        if self._next.kind == "operator" and self._next.text in ("+", "-", "~"):
            negative = self._take().text == "-"
            part = self._expression(6)
            return _Part(part.degree, -part.value if negative and part.value is not None else None)
        part = self._atom()
        if self._accept("**"):
            return self._combined("Pow", [part, self._expression(6)])
        return part

    def _atom(self) -> _Part:
        self._parts += 1
        if self._parts > _MAX_PARTS:
            raise NotArithmetic("it has too many parts")
        token = self._take()
        if token == _Token("operator", "("):
            parts = [self._expression(1)]
            while self._accept(",") and self._next != _Token("operator", ")"):
                parts.append(self._expression(1))
            self._expect(")")
            return parts[0] if len(parts) == 1 else _Part(max(part.degree for part in parts))
        if token.kind == "number":
            return _Part(1, int(token.text) if token.text.isdigit() else None)
        if token.kind != "name":
            raise NotArithmetic(f"'{token.text[:_MAX_NAME]}' is not expected there")
        if self._accept("("):
            return self._call(token.text)
        if token.text not in _CONSTANTS:
            check_symbol(token.text)
        return _Part(1)

    def _call(self, name: str) -> _Part:
        if name == "Symbol":
            self._symbol()
            return _Part(1)
        if name == "Float":
            self._float()
            return _Part(1)
        if name == "Integer":
            negative = self._accept("-")
            number = self._take()
            if not number.text.isdigit():
                raise NotArithmetic("an Integer is not a number")
            self._expect(")")
            return _Part(1, -int(number.text) if negative else int(number.text))
        if name not in _FUNCTIONS and name not in _POWERS and name != "LShift":
            raise NotArithmetic(f"it calls '{name[:_MAX_NAME]}'")
        parts = [self._expression(1)]
        while self._accept(","):
            parts.append(self._expression(1))
        self._expect(")")
        return self._combined(name, parts)

    def _combined(self, function: str, parts: list[_Part]) -> _Part:
        degrees = [part.degree for part in parts]
        degree = sum(degrees) if function in _PRODUCTS else max(degrees)
        if function in _POWERS:
            exponent = parts[1].value if len(parts) == 2 else None
            if exponent is None or abs(exponent) > _MAX_EXPONENT:
                raise NotArithmetic(f"a power must be a number up to {_MAX_EXPONENT}")
            degree = degrees[0] * max(1, abs(exponent))
        if function == "LShift":
            shift = parts[1].value if len(parts) == 2 else None
            if shift is None or not 0 <= shift <= _MAX_SHIFT:
                raise NotArithmetic(f"a shift must be a number up to {_MAX_SHIFT}")
            degree = degrees[0] + 1
        if degree > _MAX_DEGREE:
            raise NotArithmetic("it multiplies too many sizes")
        return _Part(degree)

    def _symbol(self) -> None:
        """Parse the arguments of Symbol: a name and assumptions."""
        token = self._take()
        if token.kind != "text":
            raise NotArithmetic("a Symbol has no name")
        check_symbol(token.text[1:-1])
        while self._accept(","):
            assumption = self._take().text
            self._expect("=")
            if assumption not in _ASSUMPTIONS or self._take().text not in ("True", "False"):
                raise NotArithmetic(f"'{assumption[:_MAX_NAME]}' is no assumption about a symbol")
        self._expect(")")

    def _float(self) -> None:
        """Parse the arguments of Float: a number as text, and its precision."""
        token = self._take()
        digits = token.text.strip("'").removeprefix("-")
        if token.kind not in ("text", "number") or not digits[:1].isdigit() or _number(digits, 0) != digits:
            raise NotArithmetic("a Float is not a number")
        if self._accept(","):
            if self._take() != _Token("name", "precision"):
                raise NotArithmetic("a Float has an unknown argument")
            self._expect("=")
            precision = self._take().text
            if not precision.isdigit() or int(precision) > _MAX_PRECISION:
                raise NotArithmetic("the precision of a Float is too large")
        self._expect(")")
