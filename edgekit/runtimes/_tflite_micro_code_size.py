"""Measures the code of TensorFlow Lite Micro that a model's operators need, in the library of its wheel."""

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

# Mangled C++ names of functions in tflite::micro and its namespace for signal processing.
_MICRO_PREFIX = r"^_ZN6tflite5micro(?:11tflm_signal)?\d+"
_REGISTRATION = re.compile(_MICRO_PREFIX + r"Register_([A-Z0-9_]+)Ev$")
_PARSER = re.compile(_MICRO_PREFIX + r"Parse[A-Z]")
_RESOLVER = re.compile(r"^_ZN6tflite17PythonOpsResolverC[12]")
_INTERPRETER = re.compile(
    r"^_ZN6tflite5micro16MicroInterpreter(C[12]EPKNS_5Model\w+Phm|15AllocateTensorsEv|6InvokeEv|5inputEm|6outputEm)"
    r"|^_ZNK?6tflite5micro22MicroMutableOpResolverILj\d+EE(10AddBuiltin|9AddCustom|6FindOp|15GetOpDataParser)"
)
# The wheel is built with support for compressed weights; microcontroller builds have none by default.
_COMPRESSION = re.compile(r"[dD]ecompress|[cC]ompress(ed|ion)")
# Pooling operators share one parser.
_POOL = re.compile(r"POOL_2D$")


def code_size(operators: Sequence[str]) -> CodeSize:
    """Measure the x86-64 code of operators and of the interpreter.

    Args:
        operators: The names of the operators in TFLite's schema.

    Returns:
        The sizes of the interpreter, of each operator in addition to it, and of all together.

    Raises:
        MissingDependency: tflite-micro or a package that reads its library is not installed.
        InputError: The wheel is not for x86-64, or its library has an unknown structure.
    """
    require(REQUIRES, "the size of TensorFlow Lite Micro's code")
    path = _library()
    library = _read(path)
    without = frozenset(address for name, address in library.addresses.items() if _COMPRESSION.search(name))
    roots = [address for name, address in library.addresses.items() if _INTERPRETER.match(name)]
    registrations = _registrations(library)
    if not roots or not registrations:
        raise InputError(
            f"{path}: cannot find the interpreter or the operators; this version of tflite-micro is not supported"
        )
    base = library.reached(roots, without)
    interpreter = library.measured(base)
    reached = {name: library.reached(registrations[name], without) for name in operators if name in registrations}
    alone = {name: library.measured(base | addresses) - interpreter for name, addresses in reached.items()}
    return CodeSize(
        interpreter,
        tuple(sorted(alone.items(), key=lambda item: -item[1].instructions)),
        library.measured(base.union(*reached.values())),
        tuple(name for name in operators if name not in registrations),
    )


def _library() -> Path:
    """Find the wheel's native library without importing it."""
    spec = importlib.util.find_spec("tflite_micro.python.tflite_micro._runtime")
    if spec is None or spec.origin is None:
        raise InputError("cannot find the native library of tflite-micro; this version is not supported")
    return Path(spec.origin)


@cache
def _read(path: Path) -> Library:
    return Library(path)


def _registrations(library: Library) -> dict[str, list[int]]:
    """The registration and parser of each operator, from the constructor that adds them one by one to the resolver."""
    named = {address: match[1] for name, address in library.addresses.items() if (match := _REGISTRATION.match(name))}
    parsers = {address for name, address in library.addresses.items() if _PARSER.match(name)}
    resolver = next((address for name, address in library.addresses.items() if _RESOLVER.match(name)), None)
    registrations: dict[str, list[int]] = {}
    current = ""
    for address in () if resolver is None else library.references(resolver):
        if address in named:
            current = named[address]
            registrations[current] = [address]
        elif current and address in parsers:
            registrations[current].append(address)
    # The address of the shared parser stays in a register, so that later pooling operators do not reference it again.
    for name, roots in registrations.items():
        if _POOL.search(name) and len(roots) == 1:
            registrations[name] = roots + registrations.get("AVERAGE_POOL_2D", [])[1:]
    return registrations
