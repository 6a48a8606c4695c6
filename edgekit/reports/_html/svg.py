"""A matplotlib figure as a small SVG element of the page: short paths, one path for lines of one style, no clips.

Colours are CSS variables of the page around it, so that one drawing serves light and dark; text stays text.
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
TIP = "tip:"
"""An artist whose gid begins so gets the rest as the title that a mouse shows."""


def element(figure: Any, title: str, variables: Mapping[str, str]) -> str:
    """The figure as an element for a page: named for screen readers, ids only of markers, by their outline.

    Nothing in it may need clipping. `variables` are the CSS variables that stand in the place of colours.
    """
    stream = StringIO()
    empty = {"Creator": None, "Date": None, "Format": None, "Type": None}
    figure.savefig(stream, format="svg", transparent=True, metadata=empty)
    root = ET.fromstring(stream.getvalue())  # noqa: S314 - our own drawing
    _share_markers(root)
    for item in list(root.iter()):
        _clean(item)
    _flatten(root)
    width, height = (root.attrib.pop(name) for name in ("width", "height"))
    root.attrib = {
        "viewBox": _rounded(root.attrib["viewBox"]),
        "role": "img",
        "aria-label": title,
        "style": f"max-width:{width};aspect-ratio:{width[:-2]}/{height[:-2]}",
    }
    return _written(root, variables)


def shared_markers(page: str) -> tuple[str, str]:
    """The markers of all charts of a page, each once, under short names, and the page without them."""
    outlines: dict[str, str] = {}

    def taken(match: re.Match[str]) -> str:
        outlines.update(re.findall(r'id="(\w+)" d="([^"]*)"', match[1]))
        return ""

    page = _MARKER.sub(taken, page)
    names = {name: f"m{index}" for index, name in enumerate(outlines)}
    page = re.sub(r'<use href="#(\w+)"', lambda found: f'<use href="#{names[found[1]]}"', page)
    return "".join(f'<path id="{names[name]}" d="{outline}"/>' for name, outline in outlines.items()), page


def _written(root: ET.Element, variables: Mapping[str, str]) -> str:
    for item in root.iter():
        item.tag = item.tag.removeprefix(f"{{{_SVG}}}")  # inside HTML the vocabulary goes without saying
        item.tail = None
    text = ET.tostring(root, encoding="unicode").replace(" />", "/>")
    return re.sub("|".join(variables), lambda found: f"var({variables[found[0]]})", text)


def _share_markers(root: ET.Element) -> None:
    """Markers of one outline have one id, in every chart, and take their colours from where they are used."""
    names: dict[str, str] = {}
    known: set[str] = set()
    for parent in list(root.iter(_DEFS)):
        for path in list(parent.iter(_PATH)):
            outline = _short(path.attrib["d"])
            new = f"m{hashlib.sha256(outline.encode()).hexdigest()[:8]}"
            names[f"#{path.attrib['id']}"] = f"#{new}"
            if new in known:
                parent.remove(path)
            known.add(new)
            path.attrib = {"id": new, "d": path.attrib["d"]}
    for use in root.iter(_USE):
        use.attrib = {"href": names[use.attrib.pop(f"{{{_XLINK}}}href")], **use.attrib}


def _clean(item: ET.Element) -> None:
    """Drops what says nothing, makes a `tip:` id the title that a mouse shows, leaves the font to the page."""
    for child in [child for child in item if child.tag in _DROPPED]:
        item.remove(child)
    item.attrib.pop("clip-path", None)
    name = item.get("id", "")
    if name.startswith(TIP):
        title = ET.Element(_TITLE)
        title.text = name.removeprefix(TIP)
        item.insert(0, title)
    if name and item.tag != _PATH:
        del item.attrib["id"]
    if item.get("transform", "").startswith("rotate(-0 "):
        del item.attrib["transform"]
    for key in item.attrib.keys() & _NUMBERS:
        item.set(key, _rounded(item.attrib[key]))
    if item.tag == _PATH:
        item.set("d", _short(item.attrib["d"]))
    style = item.get("style")
    if style:
        item.set("style", re.sub(r"font-family: [^;]*; ?", "", style))
    item.text = (item.text or "").strip() or None


def _rounded(text: str) -> str:
    """Its numbers to a tenth of a point."""
    return re.sub(r"-?\d+\.\d+", lambda found: _number(float(found[0])), text)


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0").replace("-0.", "-.").removeprefix("-0") or "0"


def _short(path: str) -> str:
    """The path in as few characters as tell it to a tenth of a point."""
    made, here = [], ("", "")
    for letter, rest in _COMMAND.findall(path):
        numbers = [_number(float(text)) for text in rest.split()]
        there = (numbers[-2], numbers[-1]) if numbers else here
        if letter == "L" and there[1] == here[1]:
            made.append(f"H{there[0]}")
        elif letter == "L" and there[0] == here[0]:
            made.append(f"V{there[1]}")
        else:
            made.append(letter + " ".join(numbers))
        here = there
    return "".join(made)


def _flatten(item: ET.Element) -> None:
    """Puts the children of groups that say nothing in their groups' place, and drops what draws nothing."""
    kept: list[ET.Element] = []
    for child in list(item):
        _flatten(child)
        parts = _tipped(list(child)) if child.tag == _GROUP and not child.attrib else [child]
        for part in parts:
            if not (_draws_nothing(part) or _joined(kept, part)):
                kept.append(part)
    item[:] = kept


def _draws_nothing(item: ET.Element) -> bool:
    if item.tag == _DEFS:
        return len(item) == 0
    return item.tag == _PATH and "id" not in item.attrib and (
        item.get("style") == "fill: none" or not re.search("[LCQHV]", item.attrib["d"])
    )  # fmt: skip


def _joined(before: list[ET.Element], path: ET.Element) -> bool:
    """Whether the path could be added to one of the same style before it, with nothing but text between them."""
    last = next((item for item in reversed(before) if item.tag != _TEXT), None)
    if path.tag != _PATH or last is None or last.tag != _PATH or last.get("style") != path.get("style"):
        return False
    if "fill: none" not in path.get("style", ""):
        return False
    last.set("d", last.attrib["d"] + path.attrib["d"])
    return True


def _tipped(children: list[ET.Element]) -> list[ET.Element]:
    """What a group held; its title moves into the one marker that it names."""
    markers = [child for child in children if child.tag == _USE]
    if len(markers) != 1 or children[0].tag != _TITLE:
        return children
    markers[0].append(children[0])
    return children[1:]
