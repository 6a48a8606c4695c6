"""Checking of TorchScript source code without compiling it.

Code in an archive reaches operators in three ways: `torch.NAME` and `ops.NAMESPACE.NAME` in full, and `VALUE.NAME`,
where NAME may be an operator of the namespace `aten`. A name can be given another name, or be looked up by `getattr`,
so the check is one over tokens: wherever a name that leads to a refused operator stands, the code is refused. It does
not depend on a grammar that TorchScript's own parser might read differently.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from edgekit.torch_files.operators import is_allowed, operators
from edgekit.torch_files.pickles import RefusedPickle, check_class

# What PyTorch's printer of code (torch/csrc/jit/serialization/python_print.cpp) writes: ASCII, no comments, no
# prefixes of texts, no line continuations. Everything that two tokenizers might read differently is no token here.
_TOKEN = re.compile(
    r"""(?P<space>[ \n]+)
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<number>(?:0x[0-9a-fA-F]+|[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?j?)(?![A-Za-z0-9_.]))
    |(?P<text>"(?:[^"\\\n]|\\[!-~])*"|'(?:[^'\\\n]|\\[!-~])*')
    |(?P<mark>[()\[\]{}.,:;=+\-*/%<>!&|~^@])""",
    re.VERBOSE,
)
_PRINTABLE = re.compile(r"[ -~\n]*")
# Modules whose functions BuiltinModule also resolves to operators of the namespace `aten`.
_TORCH_MODULES = frozenset({"autograd"})
# Prefixes of names of classes: incomplete, they could be stored and continued where the check does not see it.
_PREFIXES = frozenset({("__torch__",), ("__torch__", "torch"), ("__torch__", "torch", "classes")})


class RefusedCode(ValueError):
    """Error for code that calls what a file may not call, or that PyTorch did not write."""


class _Token(NamedTuple):
    kind: str
    text: str


def check_code(source: str) -> None:
    """Raise RefusedCode unless the code calls allowed operators only.

    Args:
        source: TorchScript source code from an archive.

    Raises:
        RefusedCode: The code calls an operator that is not allowed, or contains what PyTorch does not write.
    """
    tokens = list(_tokens(source))
    for index, token in enumerate(tokens):
        previous = tokens[index - 1] if index else _Token("", "")
        if token.kind == "text" and previous.kind == "text":
            raise RefusedCode("joins two texts")  # the compiler would read them as one, this check would not
        if token.text == "." and tokens[index + 1 : index + 2] and tokens[index + 1].kind != "name":
            raise RefusedCode("has a dot that no name follows")
        if token.kind != "name":
            continue
        if token.text == "getattr":
            _check_getattr(tokens, index)
        if previous.text == ".":
            _check_attribute(token.text)
        else:
            _check_path(tuple(_path(tokens, index)))


def operator_calls(source: str) -> Iterator[str]:
    """Yield the name of every operator that the code calls in full, such as `aten::conv2d`, in the order of the text.

    Args:
        source: TorchScript source code that `check_code` accepts.
    """
    tokens = list(_tokens(source))
    for index, token in enumerate(tokens):
        if token.text in ("torch", "ops") and (index == 0 or tokens[index - 1].text != "."):
            path = list(_path(tokens, index))
            if tokens[index + 2 * len(path) - 1 : index + 2 * len(path)] == [_Token("mark", "(")]:
                yield f"aten::{path[1]}" if token.text == "torch" else f"{path[1]}::{path[2]}"


def _tokens(source: str) -> Iterator[_Token]:
    if not _PRINTABLE.fullmatch(source):
        raise RefusedCode("contains a character that is not printable ASCII")
    position = 0
    while position < len(source):
        match = _TOKEN.match(source, position)
        if match is None:
            raise RefusedCode(
                f"contains '{source[position : position + 20].splitlines()[0]}', which PyTorch writes nowhere"
            )
        position = match.end()
        assert match.lastgroup is not None  # every alternative is a named group
        if match.lastgroup != "space":
            yield _Token(match.lastgroup, match[0])


def _path(tokens: list[_Token], index: int) -> Iterator[str]:
    """Yield the names of a dotted name that begins at the index."""
    yield tokens[index].text
    while index + 2 < len(tokens) and tokens[index + 1].text == "." and tokens[index + 2].kind == "name":
        index += 2
        yield tokens[index].text


def _check_path(path: tuple[str, ...]) -> None:
    """Raise RefusedCode if a dotted name is, or leads to, an operator or a class that is not allowed."""
    name = ".".join(path)[:80]
    if path[0] == "ops":
        if len(path) < 3 or not is_allowed("::".join(path[1:3])):
            raise RefusedCode(f"calls '{name}'")
    elif path[0] == "torch":
        rest = path[2:] if path[1:2] and path[1] in _TORCH_MODULES else path[1:]
        if not rest or not is_allowed(f"aten::{rest[0]}"):
            raise RefusedCode(f"calls '{name}'")
    elif path[0] == "__torch__":
        if path in _PREFIXES or (path[:3] == ("__torch__", "torch", "classes") and len(path) < 5):
            raise RefusedCode(f"names '{name}'")
        try:
            check_class(".".join(path))
        except RefusedPickle as error:
            raise RefusedCode(f"names '{name}'") from error


def _check_attribute(name: str) -> None:
    """Raise RefusedCode if an attribute could be an operator that is not allowed."""
    if f"aten::{name}" in operators().refused:
        raise RefusedCode(f"calls '{name}'")


def _check_getattr(tokens: list[_Token], index: int) -> None:
    """Raise RefusedCode unless getattr is called with a plain text that is not the name of a refused operator."""
    depth, texts = 0, 0
    for token in tokens[index + 1 :]:
        depth += (token.text in "([{") - (token.text in ")]}") if token.kind == "mark" else 0
        if depth == 0:
            break
        if token.kind == "text":
            texts += 1
            if "\\" in token.text:
                raise RefusedCode("looks up a name that contains a backslash")
            _check_attribute(token.text[1:-1])
    if not texts:
        raise RefusedCode("looks up a name that is not written out")
