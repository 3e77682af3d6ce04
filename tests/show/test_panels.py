"""Panels and keys as they come out: where they stand, and what they say."""

from __future__ import annotations

from itertools import combinations

import polars as pl
import pytest

from clipsyn.show.figure import COLUMN, PAGE, Figure, canvas, marks
from clipsyn.show.panels import (
    Grid,
    drawn,
    key,
    methods,
    panels,
    room,
    underlined,
)


def laid_out(ax):
    ax.figure.canvas.draw()
    return ax.figure.canvas.get_renderer()


@pytest.mark.parametrize("same_x", [True, False])
@pytest.mark.parametrize("same_y", [True, False])
@pytest.mark.parametrize("count", [1, 2, 5, 15])
def test_panels_keep_apart_and_inside(count, same_x, same_y):
    titles = [f"panel {number}\nsecond line" for number in range(count)]
    with canvas(*_with_key(*Grid.of(count).size(titled=2))) as ax:
        parts = panels(ax, titles, "across", "up", same_x=same_x, same_y=same_y)
        for part in parts:
            part.plot([0, 5], [0.1, 99.9])
        key(ax, {name: drawn(mark) for name, mark in marks(["one", "other"]).items()})
        renderer = laid_out(ax)
    boxes = [part.get_tightbbox(renderer) for part in parts]
    whole, legend = ax.figure.bbox, ax.get_legend().get_window_extent(renderer)
    for one, other in combinations([*boxes, legend], 2):
        assert not one.shrunk(0.97, 0.97).overlaps(other.shrunk(0.97, 0.97))
    labels = [label.get_window_extent(renderer) for label in (ax.xaxis.label, ax.yaxis.label)]
    for box in [*boxes, legend, *labels]:
        assert whole.x0 - 1 <= box.x0 <= box.x1 <= whole.x1 + 1
        assert whole.y0 - 1 <= box.y0 <= box.y1 <= whole.y1 + 1
    for label in labels:
        assert not any(label.overlaps(tick.get_window_extent(renderer)) for tick in _ticks(parts))
    assert [part.get_title(loc="left") for part in parts] == titles
    assert all(part.get_ylim() == parts[0].get_ylim() for part in parts)


def _with_key(width, height):
    """As `Figure` makes it: with room for one line of a key."""
    return width, height + 0.14


def _ticks(parts):
    """The numbers that are seen: those beyond the limits are not drawn."""
    for part in parts:
        for axis, (low, high) in ((part.xaxis, part.get_xlim()), (part.yaxis, part.get_ylim())):
            for tick in axis.get_major_ticks():
                if low <= tick.get_loc() <= high and tick.label1.get_visible():
                    yield tick.label1


def test_a_long_name_of_a_panel_is_cut_and_no_more():
    with canvas(*Grid.of(5).size(titled=2)) as ax:
        one, *_ = panels(ax, ["x" * 70 + "\nr +0.62 (-0.15 to 0.90)", *"abcd"], "x", "y")
        renderer = laid_out(ax)
    name, more = one.get_title(loc="left").split("\n")
    assert "x…x" in name
    assert more == "r +0.62 (-0.15 to 0.90)"
    assert one._left_title.get_window_extent(renderer).width <= one.bbox.width


def test_the_best_cells_are_marked_below_their_numbers():
    with canvas(3, 2) as ax:
        ax.set(xlim=(-0.5, 1.5), ylim=(1.5, -0.5))
        underlined(ax, [(0, 1), (1, 0)])
        laid_out(ax)
    (line,) = ax.lines
    marked = line.get_transform().transform(line.get_xydata())
    cells = ax.transData.transform([(0, 1), (1, 0)])
    assert marked[:, 0] == pytest.approx(cells[:, 0])
    assert (marked[:, 1] < cells[:, 1] - 4).all()


def test_a_key_says_every_name_as_it_is():
    names = ["_hidden", "$x$", "<b>", "a" * 60, ""]
    with canvas() as ax:
        key(ax, {name: drawn(mark) for name, mark in marks(names).items()})
        laid_out(ax)
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert [text.replace("\n", "") for text in texts] == names
    assert max(len(line) for text in texts for line in text.split("\n")) == 26


@pytest.mark.parametrize("count", [1, 8, 40])
@pytest.mark.parametrize("width", [COLUMN, PAGE])
def test_a_key_is_above_the_axes_and_inside_and_makes_the_figure_higher(count, width):
    names = [f"ViT-L-{number}" for number in range(count)]
    figure = Figure(
        name="keyed",
        short="",
        caption="",
        source="",
        data=lambda frame: frame,
        draw=lambda _, ax: key(ax, {name: drawn(mark) for name, mark in marks(names).items()}),
        size=lambda _: (width, 2.4),
    )
    ax = figure(pl.DataFrame())
    renderer = laid_out(ax)
    box, dots = ax.get_legend().get_window_extent(renderer), ax.figure.dpi
    assert box.y0 >= ax.get_window_extent(renderer).y1
    assert box.x1 <= ax.figure.bbox.x1
    assert box.y1 <= ax.figure.bbox.y1
    assert ax.figure.get_figheight() - box.height / dots == pytest.approx(2.4)
    assert ax.get_window_extent(renderer).height / dots > 1.7


def test_a_key_has_no_fewer_columns_than_it_has_lines_for():
    with canvas(PAGE, 3) as ax:
        key(ax, {name: drawn(mark) for name, mark in marks("abcdefgh").items()})
    assert ax.get_legend()._ncols == 8
    with canvas(PAGE, 3) as ax:
        names = [f"{number} " + "x" * 12 for number in range(8)]
        key(ax, {name: drawn(mark) for name, mark in marks(names).items()})
    assert ax.get_legend()._ncols == 4  # two lines of four, not of six and two


@pytest.mark.parametrize("text", ["WWWWWWWWWWWWWWWWWWWW", "ViT-L-14-336", "illicit", "12345678"])
def test_labels_fit_the_room_that_is_left_for_them(text):
    with canvas(4, 2) as ax:
        ax.set_yticks([0.5], [text])
        renderer = laid_out(ax)
    (shown,) = ax.get_yticklabels()
    taken = shown.get_window_extent(renderer).width / ax.figure.dpi
    assert taken <= room([text, "i"]) + 0.03


def test_methods_are_backbones_without_what_they_share_and_ensembles():
    rows = [("tiny-b/zoo", None), ("tiny-a/zoo", None), (None, "nlc"), ("tiny-b/zoo", None)]
    data = pl.DataFrame(rows, schema=["backbone", "ensemble"], orient="row")
    texts, shared = methods(data)
    assert list(texts.items()) == [("tiny-b/zoo", "b"), ("tiny-a/zoo", "a"), ("nlc", "nlc")]
    assert shared == "backbones tiny-*/zoo"
