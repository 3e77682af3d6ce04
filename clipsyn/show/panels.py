"""Parts of one figure that look alike, and the key above it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from textwrap import fill
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl

from clipsyn.show.figure import BEST, COLUMN, INK, PAGE, WIDE, Mark, heat_map, label
from clipsyn.show.frames import is_nan
from clipsyn.show.text import wrapped
from clipsyn.show.titles import ShortNames, shortened, subject, title

if TYPE_CHECKING:
    from matplotlib.axes import Axes


Look = dict[str, Any]  # as `Axes.plot` takes it
_MOST = ((1, 1), (2, 4), (3, 9), (4, 12))  # columns, and panels up to which there are so many
_AROUND = 0.75  # inches, of labels above and below all
_LETTER = 0.052  # inches, the width of one of 7 points
_LINE = 0.13  # inches, the height of one
_SHARE = 0.775, 0.77  # of width and height that matplotlib gives axes, the rest to their labels
_PLACE, _SCALE = (0.36, 0.19), 0.7  # inches, of a cell of a matrix, and of the scale beside it
_LEFT = 0.6  # inches of a figure that are left of its axes, at most
_LONGEST = 26  # signs of a name in the key, beyond which it is broken


class Grid(NamedTuple):
    """How many panels are beside and below each other."""

    rows: int
    columns: int

    @classmethod
    def of(cls, count: int) -> Grid:
        columns = next((columns for columns, most in _MOST if count <= most), 5)
        return cls(-(-count // columns), columns)

    @property
    def width(self) -> float:
        """Inches of a figure of them."""
        return COLUMN if self.columns < 3 else PAGE

    def size(self, titled: int = 1) -> tuple[float, float]:
        """Inches of a figure, with lines in the titles of panels."""
        panel = 1.65 if self.columns == 1 else 1.0
        return self.width, (panel + _LINE * titled) * self.rows + _AROUND


def panels(
    ax: Axes,
    titles: Sequence[str],
    x: str,
    y: str,
    *,
    same_x: bool = True,
    same_y: bool = True,
) -> list[Axes]:
    """A part of `ax` for each title, with the labels x and y once for all.

    The first line of a title is a name, which is cut where it is long. same_x, same_y: all have one
    scale, else each its own.
    """
    blank(ax)
    grid = Grid.of(len(titles))
    width, height = (share * inches for share, inches in zip(_SHARE, _inches(ax), strict=True))
    across = (0.1 if same_y else 0.36) / width
    lines = max(text.count("\n") for text in titles) + 1
    down = (0.12 + _LINE * (lines if same_x else lines + 1)) / height
    wide = (1 - across * (grid.columns - 1)) / grid.columns
    high = (1 - down * (grid.rows - 1)) / grid.rows
    parts: list[Axes] = []
    for place, text in enumerate(titles):
        row, column = divmod(place, grid.columns)
        bounds = column * (wide + across), 1 - high - row * (high + down), wide, high
        first = parts[0] if parts else None
        shared: Any = {"sharex": first if same_x else None, "sharey": first if same_y else None}
        part = ax.inset_axes(bounds, **shared)
        name, *more = text.split("\n")
        short = "\n".join([label(name, int(wide * width / _LETTER)), *more])
        part.set_title(short, loc="left", size=7, pad=2)
        lowest = place + grid.columns >= len(titles)
        part.tick_params(labelbottom=lowest or not same_x, labelleft=column == 0 or not same_y)
        parts.append(part)
    ax.set_xlabel(x, labelpad=15)
    ax.set_ylabel(y, labelpad=21 if same_y else 24)
    return parts


def _inches(ax: Axes) -> tuple[float, float]:
    """Of the axes with their labels, before a layout has changed their share."""
    box, dots = ax.bbox, ax.figure.dpi
    return box.width / dots / _SHARE[0], box.height / dots / _SHARE[1]


def methods(data: pl.DataFrame) -> tuple[dict[str, str], str]:
    """What each method is called, by its name, and what all names of backbones share.

    data: has the columns `backbone` and `ensemble`, one of which is null.
    """
    names = shortened(data["backbone"].drop_nulls().unique(maintain_order=True).to_list())
    ensembles = data["ensemble"].drop_nulls().unique(maintain_order=True).to_list()
    return names.short | {name: name for name in ensembles}, names.phrase


def matrix_size(rows: Iterable[str], columns: Iterable[str]) -> tuple[float, float]:
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
    if places := [(column, row) for row, column in best]:
        underlined(ax, places)


def underlined(ax: Axes, cells: Iterable[tuple[float, float]]) -> None:
    """Mark cells (column, row) of a heat map as the best, below their numbers."""
    from matplotlib.transforms import ScaledTranslation

    below = ax.transData + ScaledTranslation(0, -5.5 / 72, ax.figure.dpi_scale_trans)
    columns, rows = zip(*cells, strict=True)
    look: Look = {"color": BEST, "markersize": 15, "markeredgewidth": 1.8, "transform": below}
    ax.plot(columns, rows, "_", **look)


def room(labels: Iterable[str]) -> float:
    """Inches that the longest of the labels beside axes takes."""
    return max((sum(map(_inches_of, text)) for text in labels), default=0.0)


def _inches_of(letter: str) -> float:
    """Of 7 points, about: wide ones are as of Chinese."""
    return 0.1 if letter in WIDE or ord(letter) > 0x2E7F else 0.06


def blank(ax: Axes) -> None:
    """Axes of which nothing is seen but what is put on them."""
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    ax.patch.set_visible(False)


def drawn(mark: Mark | Look) -> Look:
    """A mark as `Axes.plot` takes it."""
    if isinstance(mark, dict):
        return mark
    return {"color": mark.colour, "marker": mark.marker, "linestyle": mark.line}


def key(ax: Axes, entries: Mapping[str, Mark | Look]) -> None:
    """What each name looks like, above the axes and the titles of their panels.

    In as few lines as fit the width of the figure, which `Figure` makes higher by them.
    """
    from matplotlib.lines import Line2D
    from matplotlib.transforms import ScaledTranslation

    figure, texts = ax.figure, [_broken(name) for name in entries]
    parts: Sequence[Any] = ax.child_axes
    titled = max((part.get_title(loc="left").count("\n") + 1 for part in parts), default=0)
    above = ScaledTranslation(0, _LINE * titled, figure.dpi_scale_trans)
    for lines in range(1, len(texts) + 1):
        legend = ax.legend(
            [Line2D([], [], **drawn(mark)) for mark in entries.values()],
            [str(place) for place in range(len(texts))],  # a label that begins with _ is left out
            loc="lower left",
            bbox_to_anchor=(0, 1),
            bbox_transform=ax.transAxes + above,
            ncols=-(-len(texts) // lines),
            alignment="left",
            borderaxespad=0.3,
            borderpad=0,
            columnspacing=1.2,
            handlelength=2.4,
            handletextpad=0.5,
            labelspacing=0.3,
        )
        for shown, text in zip(legend.get_texts(), texts, strict=True):
            shown.set(text=text, color=INK, parse_math=False)
        if legend.get_window_extent().width / figure.dpi <= _inches(ax)[0] - _LEFT:
            return


def _broken(name: str) -> str:
    """Where it is long, after a mark that parts words, or else anywhere."""
    lines = wrapped(name, _LONGEST, "-_/ ").split("\n")
    return "\n".join(fill(line, _LONGEST, drop_whitespace=False) for line in lines)


_CELL, _BESIDE, _BELOW = 0.265, 0.5, 0.25  # inches


def pair_map_size(data: pl.DataFrame) -> tuple[float, float]:
    """Inches of the figure: a column of a paper for up to nine backbones."""
    texts = _texts(shortened(_names(data)))
    wide, beside = max(_CELL * (len(texts) - 1), 1.1), room(texts)
    return max(COLUMN, wide + beside + _BESIDE), wide + 0.7 * beside + _BELOW


def pairs_subject(data: pl.DataFrame, columns: Sequence[str]) -> str:
    """What a map of pairs is of."""
    return title(subject(data, columns), shortened(_names(data)).phrase)


def pair_map(data: pl.DataFrame, ax: Axes, measure: str) -> None:
    """Draw a measure between 0 and 1, and below 0 where it is, of each pair once.

    data: a row a pair, with the columns `backbone`, `other` and `value`, and those of
    `clipsyn.evaluation.results.frame.over_datasets`. measure: what stands beside the scale.
    """
    names = _names(data)
    places = {name: place for place, name in enumerate(names)}
    values = {}
    for one, other, value in data.select("backbone", "other", "value").iter_rows():
        column, row = sorted((places[one], places[other]))
        if value is not None and not is_nan(value):
            values[row - 1, column] = value
    texts = _texts(shortened(names))
    limits: Any = {"vmin": min(0.0, *values.values()) if values else 0.0, "vmax": 1}
    heat_map(ax, texts[1:], texts[:-1], values, decimals=2, label=measure, **limits)


def named_pairs(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows about two backbones each, with their names in columns `backbone` and `other`, sorted."""
    both = pl.col("backbones").list.sort()
    return rows.filter(both.list.len() == 2).with_columns(
        backbone=both.list.first(), other=both.list.last()
    )


def _texts(names: ShortNames) -> list[str]:
    return [label(text) for text in names.short.values()]


def _names(data: pl.DataFrame) -> list[str]:
    return sorted({*data["backbone"], *data["other"]})
