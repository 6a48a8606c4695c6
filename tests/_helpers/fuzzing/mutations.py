"""Mutations that know a format: what comes out still parses far enough to reach the code behind the parser."""

from __future__ import annotations

import io
import json
import random
import struct
import warnings
import zipfile
from collections.abc import Callable

from _helpers.json_mutations import at, places

Mutation = Callable[[bytes, random.Random], bytes]

INTEGERS = (0, 1, -1, 2**7, 2**15, 2**31 - 1, 2**31, -(2**31), 2**32 - 1, 2**63 - 1, -(2**63))


def texts(canary: str) -> tuple[str, ...]:
    """Return texts in place of a name: code, paths, control sequences and monsters. `canary` is a path to create."""
    return (
        "",
        f"__import__('os').system('touch {canary}')",
        f"x'; import os; os.system('touch {canary}'); '",
        f"$(touch {canary})",
        f"../../../../../../../../..{canary}",
        canary,
        "/etc/passwd",
        "\x1b]0;title\x07\x1b[2J\n::error::x",
        "a\0b",
        "9**9**9**9",
        "n" * 70_000,
        "\ud800",
        "[" * 2_000,
    )


class Mutator:
    """Mutations with a seed.

    Attributes:
        canary: The path that planted code and paths would create.
    """

    def __init__(self, seed: int, canary: str) -> None:
        self.random = random.Random(seed)
        self.texts = texts(canary)

    def data(self, content: bytes) -> bytes:
        """Damage bytes: flip, cut, repeat, overwrite an aligned integer."""
        data = bytearray(content)
        for _ in range(self.random.choice((1, 1, 1, 2, 8))):
            if not data:
                break
            position = self.random.randrange(len(data))
            kind = self.random.randrange(6)
            if kind == 0:
                data[position] ^= 1 << self.random.randrange(8)
            elif kind == 1:
                del data[position:]
            elif kind == 2:
                data[position:position] = data[position : position + self.random.randrange(1, 64)]
            elif kind == 3:
                del data[position : position + self.random.randrange(1, 64)]
            else:  # as flatbuffers, npy and zip store lengths and offsets
                code = self.random.choice(("<i", "<q", "<h"))
                size = struct.calcsize(code)
                aligned = position // size * size
                value = self.random.choice(INTEGERS) & (2 ** (8 * size) - 1)
                data[aligned : aligned + size] = value.to_bytes(size, "little")
        return bytes(data)

    def text(self, content: bytes) -> bytes:
        """Replace a piece of a text, such as TOML, by another piece, a monster, or nothing."""
        lines = content.decode("utf-8", "surrogateescape").splitlines(keepends=True) or [""]
        index = self.random.randrange(len(lines))
        line = lines[index]
        cut = self.random.randrange(len(line) + 1)
        monsters = (*self.texts, "nan", "-inf", "1e400", "9" * 400, '"', "[[x]]", "{", "0x", "1979-05-27", "\ufeff")
        piece = self.random.choice(monsters)
        name, equals, _ = line.partition("=")
        lines[index] = self.random.choice(
            (
                line[:cut] + piece + line[cut:],
                f"{name}{equals} {piece}\n",
                f"{name}{equals} {json.dumps(piece)}\n",
                line * 2,
                "",
            )
        )
        return "".join(lines).encode("utf-8", "surrogatepass")

    def tree(self, content: bytes) -> bytes:
        """Replace, remove or add a value of a JSON document."""
        document = json.loads(content)
        for _ in range(self.random.choice((1, 1, 2))):
            found = list(places(document))
            if not found:
                break
            *outer, key = self.random.choice(found)
            container = at(document, tuple(outer))
            kind = self.random.randrange(8)
            if kind == 0:
                del container[key]
            elif kind == 1 and isinstance(container, dict):
                container[self.random.choice(self.texts)] = container[key]
            elif kind == 2 and isinstance(container, list):
                container.extend([container[key]] * self.random.choice((1, 1000)))
            else:
                container[key] = self.random.choice(
                    (
                        *(None, True, False, [], {}, [[[]]], 1.5, -0.0, float("nan"), float("inf"), 10**400),
                        *INTEGERS,
                        *self.texts,
                    )
                )
        return json.dumps(document).encode("utf-8", "surrogatepass")

    def archive(self, content: bytes) -> bytes:
        """Change one member of a zip archive: its content by its own format, its name, its size; or the archive."""
        if self.random.random() < 0.1:
            return self.data(content)
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = [(member.filename, archive.read(member)) for member in archive.infolist()]
        index = self.random.randrange(len(members))
        name, data = members[index]
        kind = self.random.randrange(10)
        if kind == 0:
            members[index] = self.random.choice(self.texts).replace("\0", "") or "x", data
        elif kind == 1:
            members.append((self.random.choice(("../x", "/x", name, f"{name}/x", "code/x.py")), data))
        elif kind == 2:
            del members[index]
        elif kind == 3:
            members[index] = name, bytes(5_000_000)
        else:
            members[index] = name, self.member(name, data)
        buffer = io.BytesIO()
        with (
            warnings.catch_warnings(action="ignore"),
            zipfile.ZipFile(  # a name may occur twice
                buffer, "w", self.random.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
            ) as archive,
        ):
            for member, value in members:
                # The name of a member is bytes in the file; a surrogate has none.
                archive.writestr(member.encode("utf-8", "replace").decode(), value)
        return buffer.getvalue()

    def member(self, name: str, data: bytes) -> bytes:
        """Change a member of an archive by its own format."""
        if name.endswith(".json") and data[:1] in b"{[" and data:
            return self.tree(data)
        if name.endswith((".py", ".toml")):
            return self.text(data)
        return self.data(data)

    def wire(self, content: bytes) -> bytes:
        """Change a field of a protobuf message, at any depth, and keep the lengths of the messages around it right."""
        return self._wire(content, 0) if content else self.data(content)

    def _wire(self, content: bytes, depth: int) -> bytes:
        fields = _fields(content)
        if fields is None or not fields:
            return self.data(content)
        index = self.random.randrange(len(fields))
        number, kind, value = fields[index]
        if kind == 2 and isinstance(value, bytes):
            inner = _fields(value)
            if inner and depth < 12 and self.random.random() < 0.85:
                fields[index] = number, kind, self._wire(value, depth + 1)
            else:
                text = self.random.choice(self.texts).encode("utf-8", "replace")
                fields[index] = number, kind, self.random.choice((text, self.data(value), b""))
        elif kind == 0:
            fields[index] = number, kind, self.random.choice(INTEGERS) & (2**64 - 1)
        action = self.random.randrange(12)
        if action == 0:
            del fields[index]
        elif action == 1:
            fields[index:index] = [fields[index]] * self.random.choice((1, 50))
        return b"".join(_encoded(*field) for field in fields)


Field = tuple[int, int, "bytes | int"]


def _varint(content: bytes, position: int) -> tuple[int, int] | None:
    value = shift = 0
    while position < len(content) and shift < 64:
        byte = content[position]
        value |= (byte & 127) << shift
        position, shift = position + 1, shift + 7
        if byte < 128:
            return value, position
    return None


def _fields(content: bytes) -> list[Field] | None:
    """Return the fields of a protobuf message by the wire format, or None if the bytes are none."""
    fields: list[Field] = []
    position = 0
    while position < len(content):
        tag = _varint(content, position)
        if tag is None or tag[0] >> 3 == 0:
            return None
        number, kind, position = tag[0] >> 3, tag[0] & 7, tag[1]
        if kind == 0:
            value = _varint(content, position)
            if value is None:
                return None
            fields.append((number, kind, value[0]))
            position = value[1]
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
            fields.append((number, kind, content[position : position + size]))
            position += size
        elif kind == 2:
            length = _varint(content, position)
            if length is None or length[1] + length[0] > len(content):
                return None
            fields.append((number, kind, content[length[1] : length[1] + length[0]]))
            position = length[1] + length[0]
        else:
            return None
    return fields


def _encoded(number: int, kind: int, value: bytes | int) -> bytes:
    tag = _encoded_varint(number << 3 | kind)
    if isinstance(value, int):
        return tag + _encoded_varint(value)
    return tag + (_encoded_varint(len(value)) if kind == 2 else b"") + value


def _encoded_varint(value: int) -> bytes:
    data = bytearray()
    while value > 127:
        data.append(value & 127 | 128)
        value >>= 7
    data.append(value)
    return bytes(data)
