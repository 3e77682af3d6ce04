"""The figures of a page, each with its caption and the numbers that it shows."""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import polars as pl

from clipsyn.errors import UsageError
from clipsyn.evaluation.results.view import WHERE
from clipsyn.report import FIGURES
from clipsyn.report.grids import Grid, grid_of
from clipsyn.report.html import Html
from clipsyn.report.means import main_part
from clipsyn.report.vector import StyleSheet, inlined, picture
from clipsyn.show.figure import Figure, svg
from clipsyn.show.titles import title, where
from clipsyn.text import advised

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

_MOST_PARTS = 6  # datasets that a figure of one dataset is drawn for
_LARGEST = 300_000  # characters of an SVG: a larger one becomes a picture of dots
_DOTS = 160  # an inch


@dataclass(frozen=True)
class Drawing:
    name: str
    about: str  # the dataset that it is about; empty for all
    short: str
    caption: str
    image: Html
    numbers: Grid
    is_wide: bool


def drawings(name: str, frame: pl.DataFrame, sheet: StyleSheet) -> list[Drawing]:
    """A figure of a frame; one for each dataset where it cannot show several.

    Empty where the frame has nothing for it to show.
    """
    figure: Figure = FIGURES.load(name)
    for whole in (frame, main_part(frame)):
        data = _data(figure, whole)
        if data is not None:
            return [_drawing(figure, data, "", sheet)]
    parts = list(_parts(main_part(frame)))
    found: list[Drawing] = []
    for about, part in parts if len(parts) > 1 else ():
        data = _data(figure, part) if len(found) < _MOST_PARTS else None
        if data is not None:
            found.append(_drawing(figure, data, about, sheet))
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


def _drawing(figure: Figure, data: pl.DataFrame, about: str, sheet: StyleSheet) -> Drawing:
    drawn = cast("Canvas", figure(data).figure)
    short = f"{figure.short} {about}".strip()
    name = f"{figure.name}-{sheet.next_figure()}"
    text = svg(drawn, name)
    image = inlined(text, short, sheet)
    if len(image) > _LARGEST:
        image = picture("png", _dots(drawn), short)
    rest = f"{advised('plot', figure.name)} writes them all to a CSV file."
    numbers = grid_of(data, f"The numbers of this figure. {short}", rest)
    return Drawing(
        figure.name, about, figure.short, figure.caption, image, numbers, figure.size(data)[0] > 4.5
    )


def _dots(drawn: Canvas) -> str:
    file = io.BytesIO()
    drawn.savefig(file, format="png", dpi=_DOTS, metadata={"Software": None})
    return b64encode(file.getvalue()).decode()
