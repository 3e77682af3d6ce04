"""SVG of matplotlib made fit for a page: small, without inline style, in the colours of the page.

The page allows no inline style, so each distinct one becomes a class of the page's style sheet.
What is drawn in the ink of `clipsyn.show.figure` follows the page into dark mode.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from xml.etree.ElementTree import Element, fromstring, tostring

from clipsyn.report.html import Html, safe
from clipsyn.show.figure import FAINT, INK, MUTED

_VARIABLES = {INK: "--ink", MUTED: "--muted", FAINT: "--line"}
_PAPER = "#ffffff"
_PALE_GREY = re.compile(r"#([ef][0-9a-f])\1\1")  # of bands and stripes behind what is drawn
_FAMILY = re.compile(r"font-family:[^;]*;?\s*")
_SHORTHAND = re.compile(r"font: ((?:\S+ )*?)([\d.]+)px [^;]*")  # of matplotlib before 3.10
_COLOUR = re.compile(r"#[0-9a-f]{6}\b")
_LONG_NUMBER = re.compile(r"-?\d+\.\d{3,}")
_DROPPED = {"metadata", "style"}
_GEOMETRY = ("d", "x", "y", "width", "height", "transform", "points", "cx", "cy", "r")


class StyleSheet:
    """The classes of all figures on a page, by what they say."""

    def __init__(self) -> None:
        self._classes: dict[str, str] = {}
        self._figures = 0

    def next_figure(self) -> int:
        """A number that no other figure of the page has."""
        self._figures += 1
        return self._figures

    def of(self, style: str) -> str:
        """The class for a style; equal ones share it."""
        return self._classes.setdefault(style, f"v{len(self._classes)}")

    def css(self) -> str:
        return "\n".join(f".{name}{{{style}}}" for style, name in self._classes.items())


def inlined(text: str, label: str, sheet: StyleSheet) -> Html:
    """An SVG of `clipsyn.show.figure.svg` for the page; `label` says what it shows."""
    root = fromstring(text)
    width, height = root.get("viewBox", "0 0 1 1").split()[2:]
    _Cleaner(root, sheet).clean(root)
    for key in set(root.keys()) - {"viewBox"}:
        del root.attrib[key]
    root.attrib |= {"width": _pixels(width), "height": _pixels(height)}
    root.attrib |= {"role": "img", "aria-label": str(label)}
    return Html(re.sub(r"\s*\n\s*", " ", tostring(root, encoding="unicode")))


def _pixels(points: str) -> str:
    """CSS pixels of points of paper, a little larger than on paper."""
    return f"{float(points) * 1.6:.0f}"


class _Cleaner:
    """Elements of one figure without what the page does not need."""

    def __init__(self, root: Element, sheet: StyleSheet) -> None:
        self.sheet = sheet
        self.used = {reference for it in root.iter() for reference in _references(it)}

    def clean(self, element: Element) -> None:
        element.tag = _local(element.tag)
        if element.tag not in ("text", "tspan"):
            element.text = None
        element.tail = None
        attributes = dict(element.items())
        element.attrib.clear()
        for key, value in attributes.items():
            self._set(element, _local(key), value)
        children: list[Element] = []
        for child in element:
            if _local(child.tag) not in _DROPPED:
                self.clean(child)
                is_bare = child.tag == "g" and not child.attrib
                children += list(child) if is_bare else [child]
        element[:] = [child for child in children if len(child) or child.attrib or child.text]

    def _set(self, element: Element, name: str, value: str) -> None:
        """Give an attribute back to its element, as the page has it."""
        if name == "style":
            element.set("class", self.sheet.of(_restyled(value, str(element.tag))))
        elif name in _GEOMETRY:
            element.set(name, _LONG_NUMBER.sub(lambda found: f"{float(found[0]):.2f}", value))
        elif name != "id" or value in self.used:
            element.set(name, value)


def _references(element: Element) -> Iterator[str]:
    """The ids that an element uses."""
    for key, value in element.items():
        if key.endswith("href") and value.startswith("#"):
            yield value[1:]
        elif value.startswith("url(#"):
            yield value[5:-1]


def _restyled(style: str, tag: str) -> str:
    """A style in the page's font and colours. White text stands on a coloured cell and stays."""
    style = _SHORTHAND.sub(lambda found: f"{_weight(found[1])}font-size: {found[2]}px", style)
    style = _FAMILY.sub("", style).strip("; ")

    def colour(found: re.Match[str]) -> str:
        if found[0] == _PAPER:
            return found[0] if tag == "text" else "var(--paper)"
        variable = "--raised" if _PALE_GREY.fullmatch(found[0]) else _VARIABLES.get(found[0])
        return f"var({variable})" if variable else found[0]

    return _COLOUR.sub(colour, style)


def _weight(words: str) -> str:
    bold = [word for word in words.split() if word == "bold" or word.isdecimal()]
    return f"font-weight: {bold[0]}; " if bold else ""


def _local(name: object) -> str:
    """The name of a tag or attribute without its namespace."""
    return str(name).rpartition("}")[2]


def picture(kind: str, data: str, label: str) -> Html:
    """An image in the page itself. data: base64."""
    return Html(f'<img src="data:image/{kind};base64,{data}" alt="{safe(label)}">')
