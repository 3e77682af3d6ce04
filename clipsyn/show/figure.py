"""How every figure looks: one column of a paper wide, colour-blind safe, readable in grey.

Series differ in colour, marker and line, so that a copy without colour tells them apart. Text is
as large as a paper's caption when the figure is placed at its own size.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any, cast

import polars as pl

from clipsyn.errors import UsageError
from clipsyn.show.files import written_whole
from clipsyn.show.frames import is_nan, printable_frame
from clipsyn.show.titles import shortened
from clipsyn.text import cells, cut

if TYPE_CHECKING:
    from matplotlib import axes
    from matplotlib import figure as drawing
    from matplotlib.gridspec import SubplotSpec

    Axes = axes.Axes
else:
    Axes = Any  # figures have the name from here, and matplotlib is imported when one is drawn

COLUMN, PAGE = 3.35, 6.9  # inches: a column of a paper, and both with the gap between them
FORMATS = ("svg", "pdf", "png")
INK, MUTED, FAINT = "#222222", "#6b6b6b", "#d9d9d9"
WIDE = "MWmw@%"  # letters that are as wide as two
BEST = "#D55E00"  # what is marked as the best
AMOUNT, DIFFERENCE = "Blues", "PuOr"  # colour maps: of amounts, and of what lies around zero
# Okabe and Ito's, in an order in which neighbours differ in lightness
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#5d5d5d", "#56B4E9", "#D55E00", "#b8a800")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
_LINES: tuple[Any, ...] = ("-", "--", "-.", (0, (1, 1.2)), (0, (5, 1, 1, 1, 1, 1)))
_PNG_DOTS, _SCREEN_DOTS = 300, 160  # an inch
_SHADES = 40  # of a heat map: a scale with 50 is an image, no drawing
_LETTER, _LINE = 0.06, 0.13  # inches of a letter of 7 points: wide, and high
_PLACE, _SCALE = (0.36, 0.19), 0.7  # inches, of a cell of a matrix, and of the scale beside it
_MOST = ((1, 1), (2, 4), (3, 9), (4, 12))  # columns, and panels up to which there are so many
_OWN = "clipsyn"  # the label of axes that fill their figure
_AROUND = 0.75  # inches, of labels above and below all panels
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


Look = dict[str, Any]  # as `Axes.plot` takes it


def look(colour: str, marker: str, line: Any) -> Look:
    """How one series is drawn."""
    return {"color": colour, "marker": marker, "linestyle": line}


def marks(names: Sequence[str], *, without: str = "") -> dict[str, Look]:
    """A mark for each series, in order: no two of up to 40 have the same.

    without: markers that the figure has for something else.
    """
    markers = [marker for marker in _MARKERS if marker not in without]
    kinds = zip(cycle(_COLOURS), cycle(markers), cycle(_LINES), strict=False)
    return {name: look(*kind) for name, kind in zip(names, islice(kinds, len(names)), strict=True)}


def letters(text: str) -> int:
    """The width of a text in letters of a usual width: an M, or a Chinese sign, is two."""
    return cells(text) + sum(letter in WIDE for letter in text)


def room(labels: Iterable[str]) -> float:
    """Inches that the longest of the labels beside axes takes."""
    return _LETTER * max(map(letters, labels), default=0)


def label(name: str, most: int = 26) -> str:
    """A name for beside or below axes, its middle left out where it is wide: `most` letters."""
    short, kept = name, most
    while letters(short) > most:
        short, kept = cut(name, kept), kept - 1
    return short


@contextmanager
def styled() -> Iterator[None]:
    """What is drawn and saved meanwhile has clipsyn's style, whatever the settings of the user."""
    from matplotlib import style

    with style.context(["default", _SETTINGS]), warnings.catch_warnings():
        # a name in letters that the font lacks: PNG and PDF show boxes, SVG the name
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        yield


@contextmanager
def canvas(width: float = COLUMN, height: float = 2.4) -> Iterator[Axes]:
    """Empty axes in clipsyn's style, of inches. What is drawn meanwhile has the style too."""
    with styled():
        from matplotlib import figure as drawing
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        figure = drawing.Figure(figsize=(width, height))
        FigureCanvasAgg(figure)
        yield figure.add_subplot(label=_OWN)


def save(figure: drawing.Figure, path: Path) -> None:
    """Write a figure by the ending of the path, complete or not at all, the same bytes each time.

    Raises UsageError for another ending than those of `FORMATS`.
    """
    format = path.suffix.removeprefix(".").lower()
    if format not in FORMATS:
        endings = ", ".join(f".{format}" for format in FORMATS)
        raise UsageError(f"{path} does not say what to draw: end its name in one of {endings}")
    content = image_of(figure, format, _PNG_DOTS)
    with written_whole(path) as file:
        file.write(content)


def image_of(figure: drawing.Figure, format: str, dots: int = _SCREEN_DOTS) -> bytes:
    """A figure in one of `FORMATS`. dots: an inch, of a picture."""
    names = {"svg": ("Date", "Creator"), "pdf": ("CreationDate", "Creator", "Producer")}
    undated: dict[str, Any] = dict.fromkeys(names.get(format, ("Software",)))
    file = io.BytesIO()
    with styled():
        figure.savefig(file, format=format, dpi=dots, metadata=undated)
    return file.getvalue()


Size = tuple[float, float]  # width and height, inches


@dataclass(frozen=True, eq=False)
class Figure:
    """One figure.

    source: whose frame it shows: the name of an analysis, or "evaluate". data: a frame of results
    to what is drawn, a row a mark, as it is written to CSV; raises UsageError that says what the
    frame lacks. draw: puts that on axes; names in it may be shown. caption: how to read it, in a
    sentence or two; the page has it below the figure and as its text for a screen reader. size: of
    the data, without a key. tidy: whether its frame has the columns of
    `clipsyn.evaluation.results.frame.RESULT`; `data` sees for itself what another frame has. about:
    of the data, what it is of; in the text below it, and above it as a heading.
    """

    name: str  # "accuracy-matrix"
    short: str  # what the list of figures says
    caption: str
    source: str
    data: Callable[[pl.DataFrame], pl.DataFrame]
    draw: Callable[[pl.DataFrame, Axes], None]
    size: Callable[[pl.DataFrame], Size] = lambda _data: (COLUMN, 2.4)
    tidy: bool = True
    about: Callable[[pl.DataFrame], str] = lambda _data: ""

    def text(self, data: pl.DataFrame) -> str:
        """What a paper has below the figure."""
        about = self.about(printable_frame(data))
        caption = " ".join(self.caption.split())
        return f"{caption} {about[:1].upper()}{about[1:]}{'.' if about else ''}".strip()

    def __call__(
        self, data: pl.DataFrame, ax: Axes | None = None, *, heading: bool = False
    ) -> Axes:
        """Draw what `data` has made of a frame, on `ax` or on axes of its own.

        heading: say above its own what it is of. Raises UsageError for several panels on one `ax`.
        """
        from matplotlib.text import Text

        shown = printable_frame(data)
        if ax is not None:
            with styled():
                self.draw(shown, ax)
            for text in ax.findobj(Text):  # made in another style; names may have dollar signs
                text.set_parse_math(False)
            return ax
        with canvas(*self.size(shown)) as own:
            self.draw(shown, own)
            figure = cast("drawing.Figure", own.figure)
            if heading:
                above = fill(self.about(shown), int(figure.get_figwidth() / _LETTER))
                top = figure.legends or [figure.legend([], [], loc="outside upper left")]
                top[0].set_title(above)
                top[0].get_title().set(size=7)
                top[0].set_alignment("left")
            for key in figure.legends:  # it takes nothing from the room of the data
                inches = key.get_window_extent().height / figure.dpi
                figure.set_figheight(figure.get_figheight() + inches)
            figure.draw_without_rendering()  # ticks change with their room: saving fits them
        vars(own)["_repr_png_"] = partial(image_of, figure, "png")
        return own


def needed(frame: pl.DataFrame, what: str, source: str) -> pl.DataFrame:
    """The frame, if it has any row; else UsageError. source: the command that measures `what`."""
    if frame.is_empty():
        line = f"`clipsyn {source} STORE -o FILE.parquet`"
        raise UsageError(f"there is no {what} to draw: {line} measures it where a store has it")
    return frame


# keys, and parts that look alike


def key(ax: Axes, entries: Mapping[str, Look]) -> None:
    """What each name looks like, above all, which `Figure` makes higher by it."""
    from matplotlib.lines import Line2D

    figure, texts = cast("drawing.Figure", ax.figure), [*map(label, entries)]
    is_own = ax.get_label() == _OWN
    legend = (figure if is_own else ax).legend(
        [Line2D([], [], **entry) for entry in entries.values()],
        [str(place) for place in range(len(texts))],  # a label that begins with _ is left out
        loc="outside upper left" if is_own else "lower left",
        bbox_to_anchor=None if is_own else (0, 1),
        ncols=max(1, int((figure.get_figwidth() - 0.1) / (room(texts) + 0.4))) if is_own else 1,
        columnspacing=1.2,
        handlelength=2.4,
        handletextpad=0.5,
        labelspacing=0.3,
    )
    for shown, text in zip(legend.get_texts(), texts, strict=True):
        shown.set(text=text, color=INK)


def _grid(count: int) -> tuple[int, int]:
    """How many rows and columns of panels there are."""
    columns = next((columns for columns, most in _MOST if count <= most), 5)
    return -(-count // columns), columns


def panels_size(count: int) -> Size:
    """Inches of a figure of so many panels."""
    rows, columns = _grid(count)
    panel = 1.65 if columns == 1 else 1.0
    return COLUMN if columns < 3 else PAGE, (panel + _LINE) * rows + _AROUND


def panels(ax: Axes, titles: Sequence[str], x: str, y: str) -> list[Axes]:
    """Axes in the place of `ax` for each title, with the labels x and y once for all.

    A title that is long is cut. All have one scale.
    """
    if ax.get_label() != _OWN:
        raise UsageError("this figure has several panels, no place on other axes: leave ax=… away")
    ax.set_axis_off()
    figure, (rows, columns) = cast("drawing.Figure", ax.figure), _grid(len(titles))
    spec = cast("SubplotSpec", ax.get_subplotspec()).subgridspec(rows, columns)
    every = spec.subplots(sharex=True, sharey=True, squeeze=False).ravel().tolist()
    letters = int(((panels_size(len(titles))[0] - 0.6) / columns - 0.25) / _LETTER)
    for place, (part, text) in enumerate(zip(every, titles, strict=False)):
        part.set_title(label(text, letters), loc="left", size=7, pad=2)
        part.tick_params(labelbottom=place + columns >= len(titles))
    for part in every[len(titles) :]:
        part.remove()
    figure.supxlabel(x, size=8)
    figure.supylabel(y, size=8)
    return cast("list[Axes]", every[: len(titles)])


def methods(data: pl.DataFrame) -> tuple[dict[str, str], str]:
    """What each method is called, by its name, and what all names of backbones share.

    data: has the columns `backbone` and `ensemble`, one of which is null.
    """
    names = shortened(data["backbone"].drop_nulls().unique(maintain_order=True).to_list())
    ensembles = data["ensemble"].drop_nulls().unique(maintain_order=True).to_list()
    return names.short | {name: name for name in ensembles}, names.phrase


# matrices


def heat_map(
    ax: Axes,
    rows: Sequence[str],
    columns: Sequence[str],
    values: Mapping[tuple[int, int], float],
    *,
    decimals: int,
    label: str,
    cmap: str = AMOUNT,
    **colours: Any,
) -> None:
    """A matrix with its numbers in it, and a scale of its colours beside it, with a label.

    values: by (row, column), from the top; what is missing stays empty. colours: of `pcolormesh`.
    """
    import numpy as np
    from matplotlib import colormaps

    table = np.full((len(rows), len(columns)), np.nan)
    for cell, value in values.items():
        table[cell] = value
    few = colormaps[cmap].resampled(_SHADES)
    edges = np.arange(len(columns) + 1) - 0.5, np.arange(len(rows) + 1) - 0.5
    mesh = ax.pcolormesh(
        *edges, np.ma.masked_invalid(table), cmap=few, edgecolors="white", lw=0.4, **colours
    )
    for (row, column), value in values.items():
        ink = _ink_on(mesh.to_rgba(np.array(value)))
        text = f"{round(value, decimals) + 0.0:.{decimals}f}"  # no -0.0
        ax.text(column, row, text, ha="center", va="center", color=ink, size=6.5)
    ax.set_xticks(range(len(columns)), columns, rotation=45, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(len(rows)), rows)
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.tick_params(length=0)
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    ax.figure.colorbar(mesh, ax=ax, pad=0.02, label=label).outline.set_visible(False)


def _ink_on(colour: Any) -> str:
    """Black or white, whichever has more contrast: by the relative luminance of WCAG 2."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3]]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "black" if (luminance + 0.05) ** 2 > 1.05 * 0.05 else "white"


def matrix_size(rows: Iterable[str], columns: Iterable[str]) -> Size:
    """Inches of the figure of a heat map with these names."""
    lines, names = [*map(label, rows)], [*map(label, columns)]
    width = _PLACE[0] * len(names) + room(lines) + _SCALE
    return max(COLUMN, width), _PLACE[1] * max(len(lines), 6) + 0.75 * room(names) + 0.2


def accuracies(
    ax: Axes,
    rows: Iterable[str],
    columns: Iterable[str],
    shares: Mapping[tuple[int, int], float],
    best: Iterable[tuple[int, int]],
) -> None:
    """A heat map of shares by (row, column), in percent; the best cells are underlined."""
    values = {place: 100 * share for place, share in shares.items() if not is_nan(share)}
    names = [*map(label, rows)], [*map(label, columns)]
    heat_map(ax, *names, values, decimals=1, label="top-1 accuracy, %", vmin=0)
    for row, column in best:
        ax.hlines(row + 0.38, column - 0.3, column + 0.3, color=BEST, lw=1.8)


def pair_map(data: pl.DataFrame, ax: Axes, measure: str) -> None:
    """Draw a measure between 0 and 1, and below 0 where it is, of each pair once.

    data: a row a pair, with columns `backbone`, `other`, `value`. measure: beside the scale.
    """
    names = sorted({*data["backbone"], *data["other"]})
    values = {}
    for one, other, value in data.select("backbone", "other", "value").iter_rows():
        column, row = sorted((names.index(one), names.index(other)))
        if value is not None and not is_nan(value):
            values[row - 1, column] = value
    texts = [*map(label, shortened(names).short.values())]
    limits: Any = {"vmin": min(0.0, *values.values()) if values else 0.0, "vmax": 1}
    heat_map(ax, texts[1:], texts[:-1], values, decimals=2, label=measure, **limits)
