"""Resolve the dependencies of edgekit[dev] with uv and write the lock files; run by `make lock`.

`requirements.lock` holds every package but CUDA's, `requirements-cuda.lock` those that PyPI's torch needs on Linux in
addition, `requirements-cpu.lock` PyTorch's CPU build where pip's configuration offers it. Versions that the present
files pin are kept unless `--upgrade` is given. Hashes are those of all files of a release: every Python version and
platform is covered, and no index is named.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCK, CUDA_LOCK, CPU_LOCK = (ROOT / f"requirements{name}.lock" for name in ("", "-cuda", "-cpu"))
# The wheels of the emulated arm64 system, whose pins are in the module beside it.
GUEST_LOCK = ROOT / "edgekit" / "devices" / "emulation" / "guest_wheels.lock"
# A range would bring a newer torch, whose wheels differ in their dependencies: see docs/start.md.
TORCH = "torch==2.13.0"
CPU_TORCH = f"{TORCH}+cpu"
_CUDA = re.compile(r"(nvidia|cuda)-|triton\b")
_ENTRY = re.compile(r"^(?=[A-Za-z0-9])", re.MULTILINE)
# What uv writes for packages that every environment of pyproject.toml needs.
_SHARED_MARKER = " ; python_full_version < '3.14' and sys_platform == 'linux' \\\n"
_LOCK_HEADER = "# Exact pins and hashes of everything that edgekit[dev] needs. Made by: make lock\n"
_CPU_HEADER = "# PyTorch's CPU build for CPython 3.11 on x86-64, which make env prefers. Made by: make lock\n"
_GUEST_HEADER = "# The pins of pins.py with the hashes of their files. Made by: make lock\n"
_CUDA_HEADER = f"# What PyPI's {TORCH} needs on Linux beside requirements.lock. Made by: make lock\n"


def resolve(arguments: list[str]) -> list[str]:
    """Return the entries of the resolution, each with its hashes, starting from the pins of the present lock files."""
    folder = ROOT / "build" / "lock"
    folder.mkdir(parents=True, exist_ok=True)
    resolved = folder / "resolved.txt"  # uv keeps the versions that its output file pins
    resolved.write_text("".join(file.read_text() for file in (LOCK, CUDA_LOCK) if file.is_file()))
    command = ["uv", "pip", "compile", "pyproject.toml", "-", "--extra", "dev", "--universal", "--generate-hashes"]
    # The oldest Python whose packages are all supported; the environments are in pyproject.toml.
    command += ["--python-version", "3.11.5", "--no-header", "--no-annotate", "--quiet", "--output-file", str(resolved)]
    subprocess.run([sys.executable, "-m", *command, *arguments], cwd=ROOT, input=TORCH, text=True, check=True)  # noqa: S603
    text = resolved.read_text().replace(_SHARED_MARKER, " \\\n")
    return [entry for entry in _ENTRY.split(text) if entry.strip() and not entry.startswith("#")]


def guest_entries() -> str:
    """Return the pins of the emulated system with their hashes."""
    tree = ast.parse(GUEST_LOCK.with_name("pins.py").read_text())
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    pins = "\n".join(text for text in texts if re.fullmatch(r"[\w.-]+==[\w.]+", text))
    command = ["uv", "pip", "compile", "-", "--no-deps", "--universal", "--python-version", "3.11", "--generate-hashes"]
    command = [sys.executable, "-m", *command, "--no-header", "--no-annotate", "--quiet"]
    text = subprocess.run(command, input=pins, capture_output=True, text=True, check=True).stdout  # noqa: S603
    return text.replace(_SHARED_MARKER, " \\\n")


def cpu_build() -> str:
    """Return the entry of the CPU build that pip's configuration offers on this machine; empty if it offers none."""
    command = ["pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--no-deps", "--report", "-", CPU_TORCH]
    run = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, check=False)  # noqa: S603
    if run.returncode != 0:
        return ""
    sha256 = json.loads(run.stdout)["install"][0]["download_info"]["archive_info"]["hashes"]["sha256"]
    return f"{CPU_TORCH} \\\n    --hash=sha256:{sha256}\n"


def main() -> None:
    """Write the lock files. Arguments are passed on to `uv pip compile`, such as --upgrade."""
    entries = resolve(sys.argv[1:])
    LOCK.write_text(_LOCK_HEADER + "".join(entry for entry in entries if not _CUDA.match(entry)))
    CUDA_LOCK.write_text(_CUDA_HEADER + "".join(entry for entry in entries if _CUDA.match(entry)))
    GUEST_LOCK.write_text(_GUEST_HEADER + guest_entries())
    if cpu_entry := cpu_build():
        CPU_LOCK.write_text(_CPU_HEADER + cpu_entry)


if __name__ == "__main__":
    main()
