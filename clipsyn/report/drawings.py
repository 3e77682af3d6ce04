"""The figures of a page, each with its caption and the numbers that it shows.

What is drawn in the ink of `clipsyn.show.figure` follows the page into dark mode.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import polars as pl

from clipsyn.errors import UsageError
from clipsyn.evaluation.results.view import WHERE
from clipsyn.report import FIGURES
from clipsyn.report.html import Html, safe
from clipsyn.report.standings import main_part
from clipsyn.report.tables import numbers_of
from clipsyn.show.figure import FAINT, INK, MUTED, Figure, png, svg
from clipsyn.show.table import Table
from clipsyn.show.titles import title, where
from clipsyn.text import advised

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

_MOST_PARTS = 6  # datasets that a figure of one dataset is drawn for
_LARGEST = 300_000  # characters of an SVG: a larger one becomes a picture of dots
_WIDE = 4.5  # inches, from which on a figure has the page's width
_PAPER, _VARIABLES = "#ffffff", {INK: "--ink", MUTED: "--muted", FAINT: "--line"}
_PALE_GREY = re.compile(r"#([ef][0-9a-f])\1\1")  # of bands and stripes behind what is drawn
_FONT = re.compile(r"font: ((?:\S+ )*?)([\d.]+)px [^;]*")  # of matplotlib before 3.10
_FAMILY, _COLOUR = re.compile(r"font-family:[^;]*;?\s*"), re.compile(r"#[0-9a-f]{6}\b")
_GEOMETRY = re.compile(r' (d|x|y|width|height|transform|points|cx|cy|r)="[^"]*"')
_LONG_NUMBER = re.compile(r"-?\d+\.\d{3,}")


@dataclass(frozen=True)
class Drawing:
    name: str
    about: str  # the dataset that it is about; empty for all
    short: str
    caption: str
    image: Html
    numbers: Table
    is_wide: bool


def drawings(name: str, frame: pl.DataFrame) -> list[Drawing]:
    """A figure of a frame; one for each dataset where it cannot show several.

    Empty where the frame has nothing for it to show.
    """
    figure: Figure = FIGURES.load(name)
    for whole in (frame, main_part(frame)):
        data = _data(figure, whole)
        if data is not None:
            return [_drawing(figure, data, figure.name)]
    parts = list(_parts(main_part(frame)))
    found: list[Drawing] = []
    for about, part in parts if len(parts) > 1 else ():
        data = _data(figure, part) if len(found) < _MOST_PARTS else None
        if data is not None:
            found.append(_drawing(figure, data, f"{figure.name}-{len(found)}", about))
    return found


def _data(figure: Figure, frame: pl.DataFrame) -> pl.DataFrame | None:
    """What the figure draws; None where the frame lacks it, or has too much for one figure."""
    try:
        return figure.data(frame)
    except UsageError:
        return None


def _parts(frame: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame]]:
    known = frame.filter(pl.col("dataset").is_not_null())
    for _, part in known.group_by(WHERE, maintain_order=True):
        yield title(*where(part.row(0, named=True), WHERE)), part


def _drawing(figure: Figure, data: pl.DataFrame, name: str, about: str = "") -> Drawing:
    drawn = cast("Canvas", figure(data).figure)
    short = f"{figure.short} {about}".strip()
    image = inlined(svg(drawn, name), short)
    if len(image) > _LARGEST:
        image = picture("png", b64encode(png(drawn)).decode(), short)
    rest = f"{advised('plot', figure.name)} writes them all to a CSV file."
    numbers = numbers_of(data, f"The numbers of this figure. {short}", rest)
    return Drawing(
        figure.name,
        about,
        figure.short,
        figure.text(data),
        image,
        numbers,
        figure.size(data)[0] > _WIDE,
    )


def inlined(text: str, label: str) -> Html:
    """An SVG of `clipsyn.show.figure.svg` for the page; `label` says what it shows."""
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', text))
    size = re.search(r'viewBox="(\S+ \S+ (\S+) (\S+))"', text)
    assert size
    width, height = (f"{float(points) * 1.6:.0f}" for points in size.groups()[1:])  # a little large
    body = text[text.index(">") + 1 :]
    head = (
        f'<svg viewBox="{size[1]}" width="{width}" height="{height}" role="img" '
        f'aria-label="{safe(label)}">'
    )
    tags = re.sub(r"<[^>]+>", lambda tag: _of_page(tag[0], used), body)
    return Html(head + re.sub(r"\s*\n\s*", " ", tags))


def _of_page(tag: str, used: set[str]) -> str:
    """A tag of an SVG with short numbers, in the page's font and colours."""
    if tag.startswith("<!--"):
        return ""
    is_text = tag.startswith(("<text", "<tspan"))
    tag = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", tag)
    tag = re.sub(r' xlink:href="', ' href="', tag)
    tag = re.sub(r'(?<= style=")[^"]*', lambda style: _restyled(style[0], is_text), tag)
    return _GEOMETRY.sub(
        lambda found: _LONG_NUMBER.sub(lambda it: f"{float(it[0]):.2f}", found[0]), tag
    )


def _restyled(style: str, is_text: bool) -> str:
    """White text stands on a coloured cell and stays."""
    style = _FONT.sub(lambda found: f"{_weight(found[1])}font-size: {found[2]}px", style)

    def colour(found: re.Match[str]) -> str:
        if found[0] == _PAPER:
            return found[0] if is_text else "var(--paper)"
        variable = "--raised" if _PALE_GREY.fullmatch(found[0]) else _VARIABLES.get(found[0])
        return f"var({variable})" if variable else found[0]

    return _COLOUR.sub(colour, _FAMILY.sub("", style).strip("; "))


def _weight(words: str) -> str:
    bold = [word for word in words.split() if word == "bold" or word.isdecimal()]
    return f"font-weight: {bold[0]}; " if bold else ""


def picture(kind: str, data: str, label: str) -> Html:
    """An image in the page itself. data: base64."""
    return Html(f'<img src="data:image/{kind};base64,{data}" alt="{safe(label)}">')
