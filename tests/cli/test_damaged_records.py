"""Gates on damaged records: what a reader refuses is exit 2, or exit 1 with a sentence; never a pass, never a crash."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from _helpers.json_mutations import mutations
from _helpers.recorded_project import ARTIFACT, DEVICE, SOURCE_FOLDER, make_project
from _helpers.support import call

from edgekit.core.errors import InputError
from edgekit.core.records.artifact import load_artifact
from edgekit.core.records.emulated_measurement import load_emulation
from edgekit.core.records.layer_errors import load_layers
from edgekit.core.records.measurement import load_measurement
from edgekit.core.records.source import load_source
from edgekit.core.records.validation import load_validation

pytestmark = pytest.mark.slow

# The file, its reader, and the commands that read it.
FILES = {
    "manifest.json": (lambda path: load_artifact(path.parent), ("check", "verify", "report", "inspect")),
    "validation.json": (load_validation, ("check", "verify", "report")),
    f"validation-{DEVICE}.json": (load_validation, ("check", "verify", "report")),
    f"bench-{DEVICE}.json": (load_measurement, ("check", "verify", "report")),
    f"emulated-{DEVICE}.json": (load_emulation, ("verify",)),
    "layers.json": (load_layers, ("verify", "report")),
    "source.json": (lambda path: load_source(path.parent), ("verify", "report")),
}
# So many of a file's mutations are tried, spread evenly; the readers are tested with all of them.
SAMPLE = 100


@pytest.mark.parametrize("name", FILES)
def test_a_gate_refuses_what_its_reader_refuses(tmp_path: Path, name: str) -> None:
    make_project(tmp_path)
    load, commands = FILES[name]
    path = tmp_path / (SOURCE_FOLDER if name == "source.json" else ARTIFACT) / name
    every = list(mutations(path.read_text()))
    for mutation in itertools.islice(every, 3, None, max(1, len(every) // SAMPLE)):
        path.write_text(mutation.text)
        try:
            load(path)
            refused = False
        except InputError:
            refused = True
        for command in commands:
            if command == "inspect" and not refused:
                continue  # it would read the model file, in a worker
            arguments = (path.parent,) if command == "inspect" else ("--root", tmp_path)
            answer = call(command, *arguments)  # which fails for a traceback
            assert answer.code in (0, 1, 2), f"{command} {mutation}"
            if refused:
                assert answer.code == (1 if command == "verify" else 2), f"{command} {mutation}"
                assert name in answer.out + answer.err, f"{command} {mutation}"
            elif answer.code:
                assert answer.out + answer.err, f"{command} {mutation}"
