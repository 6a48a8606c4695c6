"""Converts networks as other people write and save them to every target: `python tests/benchmarks/zoo.py FOLDER`.

Each cell is a source at one variant: exported and validated through edgekit's Python API, in a process with limits of
time and memory, then run on inputs that edgekit never saw. Cells go to FOLDER/cells.jsonl, and a second run resumes
there; `--again fault` repeats those with that verdict. FOLDER/table.md is the table of the documentation.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from _helpers.zoo.catalog import sources
from _helpers.zoo.cells import DRIFT, EQUAL, FAULT, PRECISIONS, REFUSED, TARGETS, Cell, Key, run_cells

# A process is replaced after so many cells: what converters leave in the memory of a worker adds up.
_CELLS_OF_A_PROCESS = 50


def cells_in(file: Path) -> dict[Key, Cell]:
    """Return the cells of a file, the last one of each key."""
    lines = file.read_text().splitlines() if file.is_file() else []
    cells = [Cell(**json.loads(line)) for line in lines]
    return {cell.key: cell for cell in cells}


def wanted(options: argparse.Namespace) -> Iterator[Key]:
    """Yield what is to be run: all sources at float32 before any at int8."""
    chosen = [
        source
        for source in sources().values()
        if (re.search(options.only, source.name) if options.only else options.all or source.default)
    ]
    for precision in options.precision or PRECISIONS:
        for source in chosen:
            for target in options.target or TARGETS:
                yield source.name, target, precision


def _batches(keys: list[Key]) -> Iterator[list[Key]]:
    for start in range(0, len(keys), _CELLS_OF_A_PROCESS):
        yield keys[start : start + _CELLS_OF_A_PROCESS]


def table(cells: Iterable[Cell]) -> Iterator[str]:
    """Yield the lines of the table in Markdown."""
    by_key = {cell.key: cell for cell in cells}
    families = {name: source.family for name, source in sources().items()}
    names = [name for name in families if any(key[0] == name for key in by_key)]
    for precision in PRECISIONS:
        counted = Counter(cell.verdict for cell in by_key.values() if cell.precision == precision)
        figures = ", ".join(f"{counted[verdict]} {verdict}" for verdict in (EQUAL, DRIFT, REFUSED, FAULT))
        if counted:
            yield f"{precision}: {sum(counted.values())} cells, {figures}."
            yield ""
    notes: dict[str, int] = {}
    family = ""
    for name in names:
        if families[name] != family:
            family = families[name]
            yield from ("", f"### {family}", "", f"| source | precision | {' | '.join(TARGETS)} |")
            yield f"| --- | --- |{' --- |' * len(TARGETS)}"
        for precision in PRECISIONS:
            row = [by_key.get((name, target, precision)) for target in TARGETS]
            if any(row):
                yield f"| {name} | {precision} | {' | '.join(_shown(cell, notes) for cell in row)} |"
    yield ""
    for reason, number in notes.items():
        yield f"{number}. {reason}"


def _shown(cell: Cell | None, notes: dict[str, int]) -> str:
    if cell is None:
        return ""
    spent = f"{cell.cpu_s:.0f} s" + (f", {cell.peak_bytes / 1e6:.0f} MB" if cell.peak_bytes else "")
    if cell.verdict in (EQUAL, DRIFT):
        level = f", {cell.sqnr_db:.0f} dB" if cell.precision == "int8" and cell.sqnr_db is not None else ""
        size = f", {cell.size_bytes / 1e3:.0f} kB" if cell.size_bytes else ""
        return f"{cell.verdict}{level} ({spent}{size})"
    number = notes.setdefault(cell.reason.replace("|", "\\|"), len(notes) + 1)
    return f"{cell.verdict} [{number}] ({spent})"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--all", action="store_true", help="also all sizes of keras.applications, and full sizes")
    parser.add_argument("--only", help="sources whose names match this pattern")
    parser.add_argument("--target", action="append", choices=TARGETS)
    parser.add_argument("--precision", action="append", choices=PRECISIONS)
    parser.add_argument("--again", action="append", default=[], help="repeat cells with this verdict")
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds of a step")
    parser.add_argument("--memory", type=float, default=12.0, help="GB of a command")
    parser.add_argument("--table", action="store_true", help="only write the table")
    options = parser.parse_args()
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "cells.jsonl"
    cells = cells_in(file)
    keys = [key for key in wanted(options) if key not in cells or cells[key].verdict in options.again]
    for batch in _batches([] if options.table else keys):
        for cell in run_cells(batch, folder, options.timeout, int(options.memory * 1e9)):
            cells[cell.key] = cell
            with file.open("a") as lines:
                lines.write(cell.line() + "\n")
            print(f"{'  '.join(cell.key):55} {cell.verdict:8} {cell.cpu_s:6.1f} s  {cell.reason}", flush=True)
    (folder / "table.md").write_text("\n".join(table(cells.values())) + "\n")
    return 1 if any(cell.verdict == FAULT for cell in cells.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
