"""Tables of the keys of TOML and JSON files, from the dataclasses that read and write them."""

from __future__ import annotations

import inspect
import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from undocumented import Undocumented

Schema = Mapping[str, Any]
_KEYS = Path(__file__).with_name("keys.toml")


def _files() -> dict[str, type]:
    from edgekit.config.device_profile import DeviceProfile
    from edgekit.config.model import ModelSpec
    from edgekit.config.project import ProjectConfig
    from edgekit.core.values.quantization_recipe import Recipe

    return {
        "edgekit.toml": ProjectConfig,
        "model.toml": ModelSpec,
        "device profile": DeviceProfile,
        "recipe.json": Recipe,
    }


@cache
def _descriptions() -> Mapping[str, Mapping[str, str]]:
    """Of keys that the code describes only in the prose of a docstring: file -> path of the key -> text."""
    with _KEYS.open("rb") as stream:
        return tomllib.load(stream)


def keys(file: str) -> str:
    """The keys of a file that people write, a table for each of its tables. Raises Undocumented."""
    schema = TypeAdapter(_files()[file]).json_schema()
    used: set[str] = set()
    text = "\n".join(_tables(schema, file, used))
    unknown = sorted(set(_descriptions().get(file, {})) - used)
    if unknown:
        raise Undocumented(f"docs/_hooks/keys.toml describes keys that {file} does not have: {', '.join(unknown)}")
    return text


def all_keys(file: str) -> list[str]:
    """The path of every key of a file, such as `models.training.epochs`."""
    schema = TypeAdapter(_files()[file]).json_schema()
    return [path for _, _, rows in _walk(schema) for path, *_ in rows]


Row = tuple[str, str, Schema, bool]
"""Path of a key, its name, its schema, and whether it has to be there."""


def _walk(schema: Schema) -> Iterator[tuple[str, Schema, list[Row]]]:
    """Each table of a file: its path, its schema, its keys; a table comes before those that it holds."""
    definitions = schema.get("$defs", {})
    waiting: list[tuple[str, Schema]] = [("", schema)]
    while waiting:
        path, table = waiting.pop(0)
        required = table.get("required", ())
        rows: list[Row] = []
        inner: list[tuple[str, Schema]] = []
        for name, key in table["properties"].items():
            full = f"{path}.{name}" if path else name
            rows.append((full, name, key, name in required))
            table_of_key = _table_in(key, definitions)
            if table_of_key is not None:
                inner.append((full, table_of_key))
        yield path, table, rows
        waiting = inner + waiting


def _table_in(key: Schema, definitions: Schema) -> Schema | None:
    """The table that a key holds, one or many of them; None for a plain value."""
    for part in (key, *key.get("anyOf", ()), *key.get("allOf", ())):
        for candidate in (part, part.get("items", {}), part.get("additionalProperties", {})):
            if isinstance(candidate, Mapping) and "$ref" in candidate:
                return definitions[candidate["$ref"].rpartition("/")[2]]
    return None


def _tables(schema: Schema, file: str, used: set[str]) -> Iterator[str]:
    definitions = schema.get("$defs", {})
    for path, _, rows in _walk(schema):
        if path:
            yield f"\n## {_heading(path, schema)}\n"
        yield "| key | value | default | meaning |\n| --- | --- | --- | --- |"
        for full, name, key, required in rows:
            meaning = _describe(full, key, file, used)
            yield f"| `{name}` | {_type(key, definitions)} | {_default(key, required)} | {meaning} |"
        yield ""


def _heading(path: str, schema: Schema) -> str:
    """`[bench]`, or `[[models]]` where there may be many."""
    definitions = schema.get("$defs", {})
    table, many, keyed = schema, False, ""
    for part in path.split("."):
        key = table["properties"][part]
        many = any("items" in item for item in (key, *key.get("anyOf", ())))
        keyed = ".NAME" if any(isinstance(item.get("additionalProperties"), Mapping) for item in (key,)) else ""
        table = _table_in(key, definitions) or {}
    name = f"{path}{keyed}"
    return f"`[[{name}]]`" if many else f"`[{name}]`"


def _describe(path: str, key: Schema, file: str, used: set[str]) -> str:
    own = _descriptions().get(file, {})
    shared = _descriptions()["shared"]
    suffix = ".".join(path.split(".")[-2:])
    if path in own:
        used.add(path)
        return _cell(own[path])
    text = shared.get(suffix) or key.get("description")
    if not text:
        raise Undocumented(
            f"{file}: the key {path} is not described: give it a Field(description=...), or a line in"
            " docs/_hooks/keys.toml"
        )
    return _cell(text)


def _cell(text: str) -> str:
    """Text in a cell of a Markdown table: between backticks as it is, elsewhere without Markdown's own characters."""
    parts = re.split(r"(`[^`]*`)", " ".join(text.split()))
    return "".join(part if part.startswith("`") else re.sub(r"([*_|])", r"\\\1", part) for part in parts)


def _type(key: Schema, definitions: Schema) -> str:
    if "anyOf" in key:
        kinds = [_type(part, definitions) for part in key["anyOf"] if part.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    if "$ref" in key or "allOf" in key:
        return "table"
    if "enum" in key:
        return ", ".join(f"`{json.dumps(value)}`" for value in key["enum"])
    if "const" in key:
        return f"`{json.dumps(key['const'])}`"
    if key.get("type") == "array":
        return _array(key, definitions)
    if key.get("type") == "object":
        values = key.get("additionalProperties")
        return f"table of {_plural(_type(values, definitions))}" if isinstance(values, Mapping) and values else "table"
    return _scalar(key)


def _array(key: Schema, definitions: Schema) -> str:
    if "prefixItems" in key:
        return f"list of {len(key['prefixItems'])} {_plural(_scalar(key['prefixItems'][0]))}"
    inner = _type(key.get("items", {}), definitions)
    return "tables" if inner == "table" else f"list of {_plural(inner)}"


def _plural(kind: str) -> str:
    return kind if kind.startswith("`") or kind.endswith("s") else re.sub(r"^(\w+)", r"\1s", kind, count=1)


def _scalar(key: Schema) -> str:
    name = {"string": "string", "integer": "integer", "number": "number", "boolean": "boolean"}.get(
        str(key.get("type")), "value"
    )
    if "pattern" in key:
        return f"size such as `{json.dumps(key['examples'][0])}`" if key.get("examples") else "string"
    bounds = [
        f"{sign} {key[bound]:g}"
        for bound, sign in (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<"))
        if bound in key
    ]
    return " ".join([name, ", ".join(bounds)]).strip()


def _default(key: Schema, required: bool) -> str:
    if required:
        return "*required*"
    value = key.get("default")
    if value is None or value == [] or value == {} or value == "" or isinstance(value, Mapping):
        return "-"
    return f"`{json.dumps(value)}`"


def records() -> str:
    """The files that edgekit writes: what each is, its version, and its keys."""
    from edgekit.core.records import (
        artifact,
        emulated_measurement,
        layer_errors,
        measurement,
        source,
        tuning,
        validation,
    )

    described = (
        ("manifest.json", artifact.Manifest, "beside every artifact: what it is and how it was made"),
        ("source.json", source.SourceModel, "in `build/MODEL/KIND/source/`: the imported or trained model"),
        ("validation.json", validation.Validation, "also `validation-DEVICE.json`: the comparison with the source"),
        ("bench-DEVICE.json", measurement.Measurement, "a benchmark under one device profile"),
        ("layers.json", layer_errors.LayerErrors, "the error layer by layer, as `edgekit diff` found it"),
        ("tuning", tuning.Tuning, "what `edgekit tune --json` prints"),
        ("emulation", emulated_measurement.EmulatedLatency, "the emulated tier inside a benchmark"),
    )
    return "\n".join(_record(*item) for item in described)


def _record(file: str, cls: type, purpose: str) -> str:
    schema = TypeAdapter(cls).json_schema()
    version = schema["properties"].get("schema_version", {}).get("default")
    lines = [f"## {file}", "", f"{purpose[:1].upper()}{purpose[1:]}.", ""]
    if version is not None:
        lines += [f"Schema version {version}.", ""]
    lines += _record_table(schema, schema.get("$defs", {}), cls.__doc__)
    for name, definition in schema.get("$defs", {}).items():
        if "properties" in definition:
            lines += [f"### {name} {{ #{file.lower().replace('.', '-')}-{name.lower()} }}", ""]
            lines += _record_table(definition, schema["$defs"], definition.get("description"))
    return "\n".join(lines)


def _record_table(schema: Schema, definitions: Schema, doc: str | None) -> list[str]:
    prose = inspect.cleandoc(doc or "").partition("\nAttributes:")[0].strip()
    attributes = _attributes(doc or "")
    lines = ["\n\n".join(" ".join(part.split()) for part in prose.split("\n\n")), ""] if prose else []
    head = "| key | type | meaning |\n| --- | --- | --- |" if attributes else "| key | type |\n| --- | --- |"
    lines.append(head)
    for name, key in schema["properties"].items():
        kind = _record_type(key, definitions)
        lines.append(f"| `{name}` | {kind} |" + (f" {_cell(attributes.get(name, ''))} |" if attributes else ""))
    return [*lines, ""]


def _record_type(key: Schema, definitions: Schema) -> str:
    """A type as `_type` tells it, with the names of nested objects and `null` where a value may be absent."""
    if "anyOf" in key:
        kinds = [_record_type(part, definitions) for part in key["anyOf"]]
        return " or ".join(dict.fromkeys(kinds))
    if key.get("type") == "null":
        return "null"
    if "$ref" in key:
        return key["$ref"].rpartition("/")[2]
    if key.get("type") == "array" and "$ref" in key.get("items", {}):
        return f"list of {_record_type(key['items'], definitions)}"
    values = key.get("additionalProperties")
    if key.get("type") == "object" and isinstance(values, Mapping) and "$ref" in values:
        return f"object of {_record_type(values, definitions)}"
    return _type(key, definitions).replace("table", "object")


def _attributes(doc: str) -> dict[str, str]:
    """The `Attributes:` section of a docstring in Google style."""
    from griffe import Docstring, DocstringSectionKind

    sections = Docstring(inspect.cleandoc(doc)).parse("google", warnings=False)
    return {
        item.name: " ".join(item.description.split())
        for section in sections
        if section.kind is DocstringSectionKind.attributes
        for item in section.value
    }
