"""Confinement of worker processes by the kernel: no writing outside given folders, no network, no other programs.

A worker that opens a model file of unknown origin is confined before it imports a framework. Two mechanisms of Linux
need no privileges and cannot be undone: Landlock (since 5.13) restricts which paths a process may write and execute,
and a seccomp filter refuses system calls. Both are inherited by threads and processes that start afterwards. Reading is
not restricted.

This module imports only the standard library and the errors: it runs before anything else in a child process.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from edgekit.core.errors import InputError

VARIABLE = "EDGEKIT_CONFINEMENT"
"""The environment variable with the mode: `auto` (as far as the kernel allows), `required`, or `off`."""
MODES = ("auto", "required", "off")

# System call numbers of Landlock, equal on all architectures (include/uapi/asm-generic/unistd.h).
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_GET_ABI_VERSION = 1  # LANDLOCK_CREATE_RULESET_VERSION
_PATH_BENEATH = 1  # LANDLOCK_RULE_PATH_BENEATH

# Access rights of include/uapi/linux/landlock.h. READ_FILE (4) and READ_DIR (8) are left out: reading is allowed.
_EXECUTE, _WRITE_FILE, _TRUNCATE = 1 << 0, 1 << 1, 1 << 14
_REMOVE_DIR, _REMOVE_FILE, _MAKE_DIR, _MAKE_REG = 1 << 4, 1 << 5, 1 << 7, 1 << 8
_MAKE_CHAR, _MAKE_SOCK, _MAKE_FIFO, _MAKE_BLOCK, _MAKE_SYM = 1 << 6, 1 << 9, 1 << 10, 1 << 11, 1 << 12
_REFER, _IOCTL_DEV = 1 << 13, 1 << 15
# The rights that each version of Landlock knows; naming an unknown right is an error.
_RIGHTS_SINCE = {
    1: _EXECUTE | _WRITE_FILE | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG
    | _MAKE_CHAR | _MAKE_SOCK | _MAKE_FIFO | _MAKE_BLOCK | _MAKE_SYM,
    2: _REFER,
    3: _TRUNCATE,
    5: _IOCTL_DEV,
}  # fmt: skip
_NETWORK_SINCE, _BIND_CONNECT_TCP = 4, 0b11
_SCOPES_SINCE, _ABSTRACT_SOCKETS_AND_SIGNALS = 6, 0b11
# What a worker may do in its own folders. No device nodes, and no sockets or FIFOs that another process might open.
_FOLDER_RIGHTS = _WRITE_FILE | _TRUNCATE | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG | _MAKE_SYM | _REFER
_FILE_RIGHTS = _EXECUTE | _WRITE_FILE | _TRUNCATE | _IOCTL_DEV

# Files outside its folders that a worker writes: the sink of libraries' messages, and the reset of its own peak memory.
_WRITABLE_FILES = ("/dev/null", "/proc/self/clear_refs")
# The dynamic loader, which the kernel executes in place of a program. A worker that may start one program could start
# any other with it, in the same confinement.
_LOADERS = ("/lib64/ld-*.so*", "/lib/ld-*.so*", "/lib/*-linux-gnu*/ld-*.so*", "/usr/lib64/ld-*.so*")

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2
_PR_GET_SECCOMP = 21
_RET_ALLOW, _RET_ERRNO = 0x7FFF0000, 0x00050000
_SUCCESS = 0  # as the error number of a refused call: it returns without an effect and without an error
# BPF instructions: load a word of the seccomp data, compare, return.
_LOAD, _JUMP_IF_EQUAL, _JUMP_IF_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_NUMBER_OFFSET, _ARCHITECTURE_OFFSET = 0, 4  # of struct seccomp_data
_X32_BIT = 0x40000000  # system calls of the x32 ABI have numbers of their own from here on


@dataclass(frozen=True)
class _Architecture:
    """The audit number of an architecture (linux/audit.h), and the numbers of system calls.

    Attributes:
        audit: The architecture's number.
        refused: The calls that fail with EACCES.
        ignored: The calls that succeed without an effect. Landlock does not cover the mode of a file, and a filter
            sees no paths; libraries set the mode of files of their own, which the parent sets anew anyway.
        execute: The calls that start programs.
    """

    audit: int
    refused: tuple[int, ...]
    ignored: tuple[int, ...]
    execute: tuple[int, ...]


# Calls that are new since Linux 5.1 have equal numbers: io_uring_*, which would go around the filter; the mount
# interface; pidfd_getfd, process_madvise, setxattrat, removexattrat, file_setattr.
_COMMON_REFUSED = (425, 426, 427, 428, 429, 430, 431, 432, 433, 438, 440, 442, 463, 466, 469)
_COMMON_IGNORED = (452,)  # fchmodat2
_ARCHITECTURES = {
    "x86_64": _Architecture(
        0xC000003E,
        (
            *(41, 42, 49),  # socket, connect, bind: pipes and socket pairs are all that a worker needs
            *(92, 93, 94, 260),  # chown, fchown, lchown, fchownat
            *(132, 235, 261, 280),  # utime, utimes, futimesat, utimensat
            *(188, 189, 190, 197, 198, 199),  # setxattr and removexattr with their variants
            *(101, 310, 311, 312),  # ptrace, process_vm_readv, process_vm_writev, kcmp
            *(155, 161, 165, 166, 272, 304, 308),  # pivot_root, chroot, mount, umount2, unshare, open_by_handle, setns
            *(159, 163, 164, 167, 168, 169, 170, 171, 179, 227),  # clocks, accounting, swap, reboot, names, quota
            *(172, 173, 175, 176, 246, 313, 320),  # iopl, ioperm, kernel modules, kexec
            *(248, 249, 250, 298, 321, 323),  # keys, perf_event_open, bpf, userfaultfd
        ),
        (90, 91, 268),  # chmod, fchmod, fchmodat
        (59, 322),  # execve, execveat
    ),
    "aarch64": _Architecture(
        0xC00000B7,
        (
            *(198, 200, 203),
            *(54, 55),
            88,
            *(5, 6, 7, 14, 15, 16),
            *(117, 270, 271, 272),
            *(39, 40, 41, 51, 97, 265, 268),
            *(60, 89, 112, 142, 161, 162, 170, 171, 224, 225),
            *(104, 105, 106, 273, 294),
            *(217, 218, 219, 241, 280, 282),
        ),
        (52, 53),
        (221, 281),
    ),
}


@dataclass(frozen=True)
class Confinement:
    """What a confined process may do.

    Attributes:
        writable: Folders that it may write into, absolute.
        programs: Files that it may execute, absolute. They are confined in the same way.
    """

    writable: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()


# Whether this process is confined, and by what.
_active: list[Confinement] = []


def active() -> Confinement | None:
    """Return the confinement of this process, or None."""
    return _active[-1] if _active else None


class ConfinementError(OSError):
    """The kernel refused the confinement."""


def mode() -> str:
    """Return the mode that the environment variable sets, `auto` where it is not set.

    Raises:
        InputError: The variable has an unknown value.
    """
    value = os.environ.get(VARIABLE) or "auto"
    if value not in MODES:
        raise InputError(f"{VARIABLE}={value}: allowed are {', '.join(MODES)}")
    return value


def landlock_version() -> int:
    """Return the version of Landlock's interface, or 0 where the kernel has none, or does not allow it."""
    if not sys.platform.startswith("linux"):
        return 0
    version: int = _libc().syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _GET_ABI_VERSION)
    return max(0, version)


@cache
def unavailable_reason() -> str | None:
    """Return why this machine cannot confine workers, or None if it can."""
    if not sys.platform.startswith("linux"):
        return f"{platform.system()} has neither Landlock nor seccomp"
    if platform.machine() not in _ARCHITECTURES:
        return f"edgekit has no system call filter for {platform.machine()}"
    if landlock_version() == 0:
        return "this kernel has no Landlock, or does not allow it"
    if _libc().prctl(_PR_GET_SECCOMP, 0, 0, 0, 0) < 0:
        return "this kernel has no seccomp"
    return None


def confine(confinement: Confinement) -> None:
    """Confine this thread, and the threads and processes that it starts from now on.

    Args:
        confinement: What remains allowed.

    Raises:
        ConfinementError: The kernel refused.
    """
    _check(_libc().prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    _restrict_paths(confinement)
    _filter_calls(allow_programs=bool(confinement.programs))
    _active.append(confinement)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise ConfinementError(code, f"{what}: {os.strerror(code)}")
    return result


def _restrict_paths(confinement: Confinement) -> None:
    """Restrict writing and executing to the paths of the confinement, by Landlock."""
    libc, version = _libc(), landlock_version()
    handled = sum(rights for since, rights in _RIGHTS_SINCE.items() if since <= version)
    words = [handled]
    if version >= _NETWORK_SINCE:
        words.append(_BIND_CONNECT_TCP)
    if version >= _SCOPES_SINCE:
        words.append(_ABSTRACT_SOCKETS_AND_SIGNALS)
    attributes = struct.pack(f"={len(words)}Q", *words)
    ruleset = _check(libc.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0), "Landlock")
    try:
        for folder in confinement.writable:
            _allow(libc, ruleset, folder, _FOLDER_RIGHTS & handled)
        for file in _WRITABLE_FILES:
            _allow(libc, ruleset, file, (_WRITE_FILE | _TRUNCATE) & handled)
        for program in (*confinement.programs, *(_loaders() if confinement.programs else ())):
            _allow(libc, ruleset, program, _EXECUTE)
        _check(libc.syscall(_RESTRICT_SELF, ruleset, 0), "Landlock")
    finally:
        os.close(ruleset)


def _loaders() -> Iterable[str]:
    return (str(path) for pattern in _LOADERS for path in Path("/").glob(pattern.removeprefix("/")))


def _allow(libc: ctypes.CDLL, ruleset: int, path: str, rights: int) -> None:
    """Allow rights on a file, or on everything below a folder; a path that does not exist needs no rule."""
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        # struct landlock_path_beneath_attr is packed: 8 bytes of rights, 4 bytes of the descriptor.
        rule = struct.pack("=Qi", rights, fd)
        _check(libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0), f"Landlock: {path}")
    finally:
        os.close(fd)


def _filter_calls(*, allow_programs: bool) -> None:
    """Refuse or ignore the system calls of the table, by a seccomp filter."""
    architecture = _ARCHITECTURES[platform.machine()]
    refused = (*architecture.refused, *_COMMON_REFUSED, *(() if allow_programs else architecture.execute))
    ignored = (*architecture.ignored, *_COMMON_IGNORED)
    errors = {**dict.fromkeys(refused, errno.EACCES), **dict.fromkeys(ignored, _SUCCESS)}
    program = _filter_program(architecture.audit, errors)
    code = b"".join(program)
    buffer = ctypes.create_string_buffer(code, len(code))
    # struct sock_fprog: the number of instructions, padding, and their address.
    sock_fprog = struct.pack("@HP", len(program), ctypes.addressof(buffer))
    _check(_libc().prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, sock_fprog, 0, 0), "seccomp")


def _filter_program(audit: int, errors: Mapping[int, int]) -> list[bytes]:
    """Return the instructions of the filter: system call -> the error number that it returns without being executed."""

    def instruction(code: int, operand: int, if_true: int = 0, if_false: int = 0) -> bytes:
        # struct sock_filter: code, jump if true, jump if false, operand.
        return struct.pack("=HBBI", code, if_true, if_false, operand)

    deny = instruction(_RETURN, _RET_ERRNO | errno.EACCES)
    # Each comparison is followed by its own return: jumps reach 255 instructions at most.
    comparisons = [
        part
        for number, error in sorted(errors.items())
        for part in (instruction(_JUMP_IF_EQUAL, number, 0, 1), instruction(_RETURN, _RET_ERRNO | error))
    ]
    return [
        instruction(_LOAD, _ARCHITECTURE_OFFSET),
        instruction(_JUMP_IF_EQUAL, audit, 1, 0),
        deny,  # another instruction set of this CPU: its numbers mean other calls
        instruction(_LOAD, _NUMBER_OFFSET),
        instruction(_JUMP_IF_AT_LEAST, _X32_BIT, 0, 1),
        deny,
        *comparisons,
        instruction(_RETURN, _RET_ALLOW),
    ]
