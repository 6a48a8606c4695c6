"""Which code of TensorFlow Lite Micro a model's operators need, by the library that its wheel brings."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from edgekit.core.environment.requirements import Requirement, require
from edgekit.core.errors import InputError
from edgekit.core.records.section_sizes import CodeSize
from edgekit.runtimes._elf_reachability import Library

TFLITE_MICRO = Requirement("tflite_micro", "tflite-micro", "micro")
ELFTOOLS = Requirement("elftools", "pyelftools", "micro")
CAPSTONE = Requirement("capstone", "capstone", "micro")

REQUIRES = (TFLITE_MICRO, ELFTOOLS, CAPSTONE)

_NAMED = r"^_ZN6tflite5micro(?:11tflm_signal)?\d+"
_REGISTERS = re.compile(_NAMED + r"Register_([A-Z0-9_]+)Ev$")
_PARSES = re.compile(_NAMED + r"Parse[A-Z]")
_RESOLVER = re.compile(r"^_ZN6tflite17PythonOpsResolverC[12]")
_INTERPRETER = re.compile(
    r"^_ZN6tflite5micro16MicroInterpreter(C[12]EPKNS_5Model\w+Phm|15AllocateTensorsEv|6InvokeEv|5inputEm|6outputEm)"
    r"|^_ZNK?6tflite5micro22MicroMutableOpResolverILj\d+EE(10AddBuiltin|9AddCustom|6FindOp|15GetOpDataParser)"
)
# The wheel is built with weights that may be compressed, the library of microcontrollers by default without.
_LEFT_OUT = re.compile(r"[dD]ecompress|[cC]ompress(ed|ion)")
_POOL = re.compile(r"POOL_2D$")


def code_size(operators: Sequence[str]) -> CodeSize:
    """What these operators (their names in TFLite's schema) and their interpreter take, on x86-64.

    Raises MissingDependency; InputError where the wheel is not for x86-64 or its library is not as it was.
    """
    require(REQUIRES, "the size of TensorFlow Lite Micro's code")
    path = _library()
    library = _read(path)
    without = frozenset(address for name, address in library.addresses.items() if _LEFT_OUT.search(name))
    roots = [address for name, address in library.addresses.items() if _INTERPRETER.match(name)]
    registered = _registered(library)
    if not roots or not registered:
        raise InputError(f"{path}: its interpreter or its operators are not where they were")
    base = library.reached(roots, without)
    interpreter = library.measured(base)
    known = {name: library.reached(registered[name], without) for name in operators if name in registered}
    alone = {name: library.measured(base | reached) - interpreter for name, reached in known.items()}
    return CodeSize(
        interpreter,
        tuple(sorted(alone.items(), key=lambda item: -item[1].instructions)),
        library.measured(base.union(*known.values())),
        tuple(name for name in operators if name not in registered),
    )


def _library() -> Path:
    """The wheel's library, found without importing it."""
    found = importlib.util.find_spec("tflite_micro.python.tflite_micro._runtime")
    if found is None or found.origin is None:
        raise InputError("the package tflite-micro has no library where it was")
    return Path(found.origin)


@cache
def _read(path: Path) -> Library:
    return Library(path)


def _registered(library: Library) -> dict[str, list[int]]:
    """Each operator's registration and parser, from the code that tells the wheel's resolver of all of them, one after
    another."""
    named = {address: match[1] for name, address in library.addresses.items() if (match := _REGISTERS.match(name))}
    parsers = {address for name, address in library.addresses.items() if _PARSES.match(name)}
    resolver = next((address for name, address in library.addresses.items() if _RESOLVER.match(name)), None)
    found: dict[str, list[int]] = {}
    current = ""
    for item in () if resolver is None else library.references(resolver):
        if item in named:
            current = named[item]
            found[current] = [item]
        elif current and item in parsers:
            found[current].append(item)
    for name, roots in found.items():  # one parser serves all pools, and its address stays in a register
        if _POOL.search(name) and len(roots) == 1:
            found[name] = roots + found.get("AVERAGE_POOL_2D", [])[1:]
    return found
