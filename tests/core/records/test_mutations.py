"""Every reader on every small change of a real record: the record as it is written in the file, or an InputError."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from _helpers.json_mutations import Mutation, mutations
from _helpers.recorded_project import ARTIFACT, DEVICE, SOURCE_FOLDER, make_project
from _helpers.support import call

from edgekit.core.build.graph import Graph, Step, StepInput, StepKey, StepKind, StepRecord
from edgekit.core.build.step_records import StepRecords
from edgekit.core.errors import InputError
from edgekit.core.records import checksummed_json
from edgekit.core.records.artifact import load_artifact
from edgekit.core.records.emulated_measurement import load_emulation
from edgekit.core.records.layer_errors import load_layers, to_dict
from edgekit.core.records.measurement import load_measurement
from edgekit.core.records.report import load_report
from edgekit.core.records.runtime_versions import load_runtime_versions
from edgekit.core.records.source import load_source
from edgekit.core.records.validation import load_validation
from edgekit.core.values.typed_json import decode
from edgekit.stages.gates.baseline import load_baseline

RECORDS: dict[str, tuple[Path, Callable[[Path], Any]]] = {
    "manifest": (ARTIFACT / "manifest.json", lambda path: load_artifact(path.parent).manifest),
    "validation": (ARTIFACT / "validation.json", load_validation),
    "emulated validation": (ARTIFACT / f"validation-{DEVICE}.json", load_validation),
    "bench": (ARTIFACT / f"bench-{DEVICE}.json", load_measurement),
    "emulation": (ARTIFACT / f"emulated-{DEVICE}.json", load_emulation),
    "runtime versions": (ARTIFACT / f"runtime-versions-{DEVICE}.json", load_runtime_versions),
    "layers": (ARTIFACT / "layers.json", load_layers),
    "source": (SOURCE_FOLDER / "source.json", lambda path: load_source(path.parent)),
}
# The keys without which a record is still one: they came after its first version, or say nothing where they are empty.
OPTIONAL = {
    "manifest": {
        "calibration", "files", "golden", "notes", "not_reproducible_because", "options", "reproducible", "versions",
        "axis", "exact", "layout", "quantization",
    },
    "validation": {
        "arithmetic", "by_default",
        "classes", "device", "dominant", "evidence", "executor", "interval", "lost", "p_value", "passed", "problem",
        "tag", "variance", "won",
    },
    "bench": {
        "browser", "emulated", "executions", "instructions", "kinds", "l1_misses", "l2_misses", "l3_misses", "load_ms",
        "path", "unlike",
        "memory_misses", "notes", "operators", "peak_memory_bytes", "tag", "wall",
    },
    "emulation": {"l1_misses", "l2_misses", "l3_misses", "operators", "path", "peak_memory_bytes", "unlike"},
    "runtime versions": {
        "l1_misses", "l2_misses", "l3_misses", "memory_misses", "operators", "path", "peak_memory_bytes", "unlike",
    },
    "layers": {"only_actual", "only_reference", "tag"},
    "source": {
        "code", "code_sha256", "data", "fixed", "history", "notes", "one_by_one", "preprocessing", "rounding", "sizes",
        "state", "training", "versions", "axis", "layout", "quantization", "exact",
    },
}  # fmt: skip
# Parts of free content, whose keys nobody needs.
FREE = ("source", "options", "calibration", "golden", "versions", "data", "training", "history", "sizes", "kinds",
        "latency_ms", "rounding")  # fmt: skip


def stored(record: Any) -> Any:
    """Return a record as JSON values; infinity and NaN, which only a layer's figures can be, as null."""
    data = to_dict(record) if type(record).__name__ == "LayerErrors" else asdict(record)
    return json.loads(json.dumps(data, allow_nan=False))


def is_contained(part: Any, whole: Any) -> bool:
    """Return whether a value is as in the file, apart from keys with a default and from computed ones."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(
            key in whole and is_contained(value, whole[key]) for key, value in part.items() if key != "passed"
        )
    if isinstance(part, list):
        return (
            isinstance(whole, list)
            and len(part) == len(whole)
            and all(map(is_contained, part, whole))
        )  # fmt: skip
    return bool(part == whole and isinstance(part, bool) == isinstance(whole, bool))


def wrong_outcome(name: str, mutation: Mutation, path: Path, load: Callable[[Path], Any]) -> str:
    """Return what is wrong with what a reader made of a mutation; empty where nothing is."""
    path.write_text(mutation.text)
    try:
        record = load(path)
    except InputError as error:
        message = str(error)
        if not message.startswith(str(path)) or len(message.splitlines()) != 1 or len(message) > 1500:
            return f"refused with {message[:300]!a}"
        return ""
    except Exception as error:  # noqa: BLE001 - that no other leaves a reader is the property
        return f"raised {error!r}"
    if mutation.change == "deleted":
        free = any(part in FREE for part in mutation.place[:-1])
        return "" if free or mutation.place[-1] in OPTIONAL[name] else "read without a key that it needs"
    if mutation.change == "added":
        return "" if any(part in FREE for part in mutation.place[:-1]) else "read with an unknown key"
    return "" if is_contained(json.loads(mutation.text), stored(record)) else "read as something else"


@pytest.mark.parametrize("name", RECORDS)
def test_every_mutation_is_read_as_written_or_refused(tmp_path: Path, name: str) -> None:
    make_project(tmp_path)
    file, load = RECORDS[name]
    text = (tmp_path / file).read_text()
    assert is_contained(json.loads(text), stored(load(tmp_path / file)))
    wrong = [
        f"{mutation}: {outcome}"
        for mutation in mutations(text)
        if (outcome := wrong_outcome(name.removeprefix("emulated "), mutation, tmp_path / file, load))
    ]
    assert not wrong, "\n".join(wrong[:40])


@pytest.mark.exhaustive
@pytest.mark.parametrize("load", [load_report, load_baseline])
def test_every_mutation_of_a_report_is_a_report_or_refused(tmp_path: Path, load: Callable[[Path], Any]) -> None:
    make_project(tmp_path)
    path = tmp_path / "main.json"
    assert call("report", "--format", "json", "--output", path, "--root", tmp_path).code == 0
    wrong = []
    for index, mutation in enumerate(mutations(path.read_text())):
        if index % 7:  # its parts are the records above
            continue
        path.write_text(mutation.text)
        try:
            load(path)
        except InputError as error:
            if not str(error).startswith(str(path)) or len(str(error).splitlines()) != 1:
                wrong.append(f"{mutation}: refused with {error}")
        except Exception as error:  # noqa: BLE001 - that no other leaves a reader is the property
            wrong.append(f"{mutation}: raised {error!r}")
    assert not wrong, "\n".join(wrong[:40])


def test_every_mutation_of_a_step_record_is_a_record_or_none(tmp_path: Path) -> None:
    records = StepRecords(tmp_path)
    key = StepKey({"a": "1"}, {"options": {"x": 1}})
    record = StepRecord("export net", StepKind.EXPORT, key, {"b": "2"}, 1.5, 1, "a", ("c",), {"model": "net"})
    records.save(record)
    assert records.load("export net") == record
    path = records._file("export net")
    for mutation in mutations(path.read_text().splitlines()[1]):
        try:
            checksummed_json.save(path, json.loads(mutation.text))
        except ValueError:  # no JSON
            continue
        found = records.load("export net")
        assert found is None or (math.isfinite(found.seconds) and 0 <= found.code <= 255 and found.kind in StepKind)
        list(records.all())


def test_every_mutation_of_a_graph_is_a_graph_or_refused() -> None:
    step = Step("export net", StepKind.EXPORT, "a", "b", ("c",), (StepInput("d", ("e",), ("f",)),), {"x": 1}, {"y": 2})
    graph = Graph((step,))
    text = json.dumps(graph.to_dict()[0])
    assert decode(Step, json.loads(text), "graph") == step
    for mutation in mutations(text):
        try:
            found = decode(Step, json.loads(mutation.text), "graph")
        except (InputError, ValueError):
            continue
        assert isinstance(found.kind, StepKind)
