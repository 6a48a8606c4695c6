"""Converts a matplotlib figure to a small SVG element: short paths, one path per style, no clip paths.

Colors become CSS variables of the surrounding page, so that one drawing serves light and dark; text stays text.
"""

from __future__ import annotations

import hashlib
import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from io import StringIO
from typing import Any

_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_PATH, _TEXT, _GROUP, _USE, _DEFS, _TITLE, _CLIP = (
    f"{{{_SVG}}}{name}" for name in ("path", "text", "g", "use", "defs", "title", "clipPath")
)
_DROPPED = (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style", _CLIP)
_NUMBERS = ("x", "y", "transform")
_COMMAND = re.compile(r"([MLCQz])([^MLCQz]*)")
_MARKER = re.compile(r'<defs>((?:<path id="m[0-9a-f]{8}" d="[^"]*"/>)+)</defs>')
# The rest of an artist's gid after this prefix becomes the tooltip of its element.
TIP = "tip:"


def element(figure: Any, title: str, variables: Mapping[str, str]) -> str:
    """Return the figure as an `<svg>` element for an HTML page.

    Args:
        figure: The matplotlib figure; clip paths are removed, so it must draw nothing outside its axes.
        title: The name for screen readers.
        variables: The CSS variable that replaces each color, as in `{"#1b1f24": "--ink"}`.
    """
    stream = StringIO()
    empty = {"Creator": None, "Date": None, "Format": None, "Type": None}
    figure.savefig(stream, format="svg", transparent=True, metadata=empty)
    root = ET.fromstring(stream.getvalue())  # noqa: S314 - our own drawing
    _share_markers(root)
    for node in list(root.iter()):
        _clean(node)
    _flatten(root)
    width, height = (root.attrib.pop(name) for name in ("width", "height"))
    root.attrib = {
        "viewBox": _rounded(root.attrib["viewBox"]),
        "role": "img",
        "aria-label": title,
        "style": f"max-width:{width};aspect-ratio:{width[:-2]}/{height[:-2]}",
    }
    return _serialize(root, variables)


def shared_markers(page: str) -> tuple[str, str]:
    """Return the definitions of the markers of all charts, each once with a short id, and the page without them."""
    outlines: dict[str, str] = {}

    def collect(match: re.Match[str]) -> str:
        outlines.update(re.findall(r'id="(\w+)" d="([^"]*)"', match[1]))
        return ""

    page = _MARKER.sub(collect, page)
    names = {name: f"m{index}" for index, name in enumerate(outlines)}
    page = re.sub(r'<use href="#(\w+)"', lambda match: f'<use href="#{names[match[1]]}"', page)
    return "".join(f'<path id="{names[name]}" d="{outline}"/>' for name, outline in outlines.items()), page


def _serialize(root: ET.Element, variables: Mapping[str, str]) -> str:
    for node in root.iter():
        node.tag = node.tag.removeprefix(f"{{{_SVG}}}")  # inside HTML an <svg> needs no namespace
        node.tail = None
    text = ET.tostring(root, encoding="unicode").replace(" />", "/>")
    return re.sub("|".join(variables), lambda match: f"var({variables[match[0]]})", text)


def _share_markers(root: ET.Element) -> None:
    """Give markers of the same outline the same id in every chart; their colors come from where they are used."""
    names: dict[str, str] = {}
    defined: set[str] = set()
    for parent in list(root.iter(_DEFS)):
        for path in list(parent.iter(_PATH)):
            outline = _short(path.attrib["d"])
            new = f"m{hashlib.sha256(outline.encode()).hexdigest()[:8]}"
            names[f"#{path.attrib['id']}"] = f"#{new}"
            if new in defined:
                parent.remove(path)
            defined.add(new)
            path.attrib = {"id": new, "d": path.attrib["d"]}
    for use in root.iter(_USE):
        use.attrib = {"href": names[use.attrib.pop(f"{{{_XLINK}}}href")], **use.attrib}


def _clean(node: ET.Element) -> None:
    """Remove metadata, ids, clip paths and fonts from an element, and turn a `tip:` id into its tooltip."""
    for child in [child for child in node if child.tag in _DROPPED]:
        node.remove(child)
    node.attrib.pop("clip-path", None)
    name = node.get("id", "")
    if name.startswith(TIP):
        title = ET.Element(_TITLE)
        title.text = name.removeprefix(TIP)
        node.insert(0, title)
    if name and node.tag != _PATH:
        del node.attrib["id"]
    if node.get("transform", "").startswith("rotate(-0 "):
        del node.attrib["transform"]
    for key in node.attrib.keys() & _NUMBERS:
        node.set(key, _rounded(node.attrib[key]))
    if node.tag == _PATH:
        node.set("d", _short(node.attrib["d"]))
    style = node.get("style")
    if style:
        node.set("style", re.sub(r"font-family: [^;]*; ?", "", style))
    node.text = (node.text or "").strip() or None


def _rounded(text: str) -> str:
    """Return the text with its numbers rounded to a tenth of a point."""
    return re.sub(r"-?\d+\.\d+", lambda match: _number(float(match[0])), text)


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0").replace("-0.", "-.").removeprefix("-0") or "0"


def _short(path: str) -> str:
    """Return the path rounded to a tenth of a point, with H and V in place of L where that is shorter."""
    commands, here = [], ("", "")
    for letter, rest in _COMMAND.findall(path):
        numbers = [_number(float(text)) for text in rest.split()]
        there = (numbers[-2], numbers[-1]) if numbers else here
        if letter == "L" and there[1] == here[1]:
            commands.append(f"H{there[0]}")
        elif letter == "L" and there[0] == here[0]:
            commands.append(f"V{there[1]}")
        else:
            commands.append(letter + " ".join(numbers))
        here = there
    return "".join(commands)


def _flatten(node: ET.Element) -> None:
    """Replace groups without attributes by their children, remove invisible paths and join paths of one style."""
    children: list[ET.Element] = []
    for child in list(node):
        _flatten(child)
        parts = _with_tooltip(list(child)) if child.tag == _GROUP and not child.attrib else [child]
        for part in parts:
            if not (_draws_nothing(part) or _joined(children, part)):
                children.append(part)
    node[:] = children


def _draws_nothing(node: ET.Element) -> bool:
    if node.tag == _DEFS:
        return len(node) == 0
    return node.tag == _PATH and "id" not in node.attrib and (
        node.get("style") == "fill: none" or not re.search("[LCQHV]", node.attrib["d"])
    )  # fmt: skip


def _joined(before: list[ET.Element], path: ET.Element) -> bool:
    """Append the path to an earlier one of the same style if only text is between them, and return whether it was."""
    last = next((node for node in reversed(before) if node.tag != _TEXT), None)
    if path.tag != _PATH or last is None or last.tag != _PATH or last.get("style") != path.get("style"):
        return False
    if "fill: none" not in path.get("style", ""):
        return False
    last.set("d", last.attrib["d"] + path.attrib["d"])
    return True


def _with_tooltip(children: list[ET.Element]) -> list[ET.Element]:
    """Return the children of a group; a tooltip moves into the marker that it names."""
    markers = [child for child in children if child.tag == _USE]
    if len(markers) != 1 or children[0].tag != _TITLE:
        return children
    markers[0].append(children[0])
    return children[1:]
