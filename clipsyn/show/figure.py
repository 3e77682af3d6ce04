"""What a figure is: the numbers that it shows, and how they are drawn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from polars import DataFrame

from clipsyn.errors import UsageError
from clipsyn.show.frames import printable_frame
from clipsyn.show.style import COLUMN, as_text, canvas, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Size = tuple[float, float]  # width and height, inches


@dataclass(frozen=True, eq=False)
class Figure:
    """One figure.

    source: whose frame it shows: the name of an analysis, or "evaluate". data: a frame of results
    to what is drawn, a row a mark, as it is written to CSV; raises UsageError that says what the
    frame lacks. draw: puts that on axes; names in it may be shown. caption: how to read it, in a
    sentence or two; the page has it below the figure and as its text for a screen reader. size: of
    the data. tidy: whether its frame has the columns of `clipsyn.evaluation.results.frame.RESULT`;
    `data` sees for itself what another frame has.
    """

    name: str  # "accuracy-matrix"
    short: str  # what the list of figures says
    caption: str
    source: str
    data: Callable[[DataFrame], DataFrame]
    draw: Callable[[DataFrame, Axes], None]
    size: Callable[[DataFrame], Size] = lambda _data: (COLUMN, 2.4)
    tidy: bool = True

    def __call__(self, data: DataFrame, ax: Axes | None = None) -> Axes:
        """Draw what `data` has made of a frame, on `ax` or on axes of its own."""
        shown = printable_frame(data)
        if ax is not None:
            with styled():
                self.draw(shown, ax)
                as_text(ax)
            return ax
        with canvas(*self.size(shown)) as own:
            self.draw(shown, own)
        return own


def needed(frame: DataFrame, what: str, how: str) -> DataFrame:
    """The frame, if it has any row; else UsageError: there is no `what`, `how` gets some."""
    if frame.is_empty():
        raise UsageError(f"there is no {what} to draw: {how}")
    return frame
