"""How every figure looks: one column of a paper wide, colour-blind safe, readable in grey.

Series differ in colour, marker and line, so that a copy without colour tells them apart. Text is
as large as a paper's caption when the figure is placed at its own size.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from clipsyn.errors import UsageError
from clipsyn.frames import written_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMN, PAGE = 3.35, 6.9  # inches: a column of a paper, and both with the gap between them
FORMATS = ("svg", "pdf", "png")
INK, MUTED, FAINT = "#222222", "#6b6b6b", "#d9d9d9"
BEST = "#D55E00"  # what is marked as the best
AMOUNT, DIFFERENCE = "cividis", "PuOr"  # colour maps: of amounts, and of what lies around zero
# Okabe and Ito's, in an order in which neighbours differ in lightness
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#5d5d5d", "#b8a800")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
_LINES: tuple[Any, ...] = ("-", "--", "-.", (0, (1, 1.2)), (0, (5, 1, 1, 1, 1, 1)))
_PNG_DOTS = 300  # an inch
_SETTINGS = {
    "axes.axisbelow": True,
    "axes.edgecolor": MUTED,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.labelsize": 8,
    "axes.linewidth": 0.6,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 8,
    "figure.constrained_layout.use": True,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8,
    "grid.color": FAINT,
    "grid.linewidth": 0.5,
    "image.cmap": AMOUNT,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "lines.linewidth": 1.2,
    "lines.markersize": 4,
    "pdf.fonttype": 42,  # letters that an editor can select
    "savefig.facecolor": "white",
    "svg.fonttype": "none",  # text stays text: for search, screen readers and small files
    "svg.hashsalt": "clipsyn",  # the same figure has the same bytes
    "text.color": INK,
    "text.parse_math": False,  # names of others may have dollar signs
    "xtick.color": MUTED,
    "xtick.labelcolor": INK,
    "xtick.labelsize": 7,
    "ytick.color": MUTED,
    "ytick.labelcolor": INK,
    "ytick.labelsize": 7,
}


class Mark(NamedTuple):
    """How one series is drawn."""

    colour: str
    marker: str
    line: Any


def marks(names: Sequence[str]) -> dict[str, Mark]:
    """A mark for each series, in order: no two of up to 360 have the same."""
    kinds = zip(cycle(_COLOURS), cycle(_MARKERS), cycle(_LINES), strict=False)
    return {name: Mark(*kind) for name, kind in zip(names, islice(kinds, len(names)), strict=True)}


@contextmanager
def canvas(width: float = COLUMN, height: float = 2.4) -> Iterator[Axes]:
    """Empty axes in clipsyn's style, of inches. What is drawn meanwhile has the style too."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with mpl.rc_context(_SETTINGS):
        figure = Figure(figsize=(width, height))
        FigureCanvasAgg(figure)
        yield figure.add_subplot()


@contextmanager
def styled() -> Iterator[None]:
    """What is drawn and saved meanwhile has clipsyn's style: for axes that others made."""
    import matplotlib as mpl

    with mpl.rc_context(_SETTINGS):
        yield


def heat_map(
    ax: Axes,
    rows: Sequence[str],
    columns: Sequence[str],
    values: Mapping[tuple[int, int], float],
    decimals: int,
    **colours: Any,
) -> None:
    """A matrix with its numbers in it, and a scale of its colours beside it, the last axes.

    values: by (row, column); what is missing stays empty. colours: as `imshow` takes them.
    """
    import numpy as np

    table = np.full((len(rows), len(columns)), np.nan)
    for cell, value in values.items():
        table[cell] = value
    image = ax.imshow(np.ma.masked_invalid(table), aspect="auto", **colours)
    for (row, column), value in values.items():
        red, green, blue, _ = image.cmap(image.norm(value))
        ink = "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"
        ax.text(column, row, f"{value:.{decimals}f}", ha="center", va="center", color=ink, size=6.5)
    ax.set_xticks(range(len(columns)), columns, rotation=45, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(len(rows)), rows)
    ax.tick_params(length=0)
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    scale = ax.figure.colorbar(image, ax=ax, pad=0.02)
    scale.outline.set_visible(False)  # type: ignore[operator]


def save(figure: Figure, path: Path) -> None:
    """Write a figure by the ending of the path, complete or not at all, the same bytes each time.

    Raises UsageError for another ending than those of `FORMATS`.
    """
    format = format_of(path)
    with styled(), written_whole(path) as file:
        figure.savefig(file, format=format, dpi=_PNG_DOTS, metadata=_undated(format))


def format_of(path: Path) -> str:
    """The format that a path's ending names; raises UsageError for one that is not known."""
    format = path.suffix.removeprefix(".").lower()
    if format not in FORMATS:
        endings = ", ".join(f".{format}" for format in FORMATS)
        raise UsageError(f"{path} does not say what to draw: end its name in one of {endings}")
    return format


def svg(figure: Figure) -> str:
    """A figure as the text of an SVG element, for a page."""
    file = io.StringIO()
    with styled():
        figure.savefig(file, format="svg", metadata=_undated("svg"))
    text = file.getvalue()
    return text[text.index("<svg") :]


def _undated(format: str) -> dict[str, Any]:
    names = {"svg": ("Date", "Creator"), "pdf": ("CreationDate", "Creator", "Producer")}
    return dict.fromkeys(names.get(format, ("Software",)))
