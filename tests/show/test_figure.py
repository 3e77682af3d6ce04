"""What a figure is."""

from __future__ import annotations

import polars as pl
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from clipsyn.errors import UsageError
from clipsyn.show.figure import Figure, needed


def draw(data: pl.DataFrame, ax: Axes) -> None:
    ax.plot(data["value"])
    ax.set_xticks([0, 1], data["dataset"])


FIGURE = Figure(
    name="line",
    short="A line.",
    caption="A line.",
    source="zeroshot",
    data=lambda frame: frame,
    draw=draw,
    size=lambda data: (2.0, 1.0 + len(data)),
)
DATA = pl.DataFrame({"dataset": ["birds", "cars"], "value": [0.5, 0.25]})


def labels(ax: Axes) -> list[str]:
    return [tick.get_text() for tick in ax.get_xticklabels()]


def test_it_makes_axes_of_its_own_as_large_as_its_data_wants():
    ax = FIGURE(DATA)
    assert tuple(ax.figure.get_size_inches()) == (2, 3)
    assert labels(ax) == ["birds", "cars"]
    assert ax.lines[0].get_ydata().tolist() == [0.5, 0.25]


def test_it_draws_on_given_axes_and_returns_them():
    canvas = Canvas(figsize=(4, 4))
    ax, other = canvas.subplots(1, 2)
    assert FIGURE(DATA, ax) is ax
    assert len(ax.lines) == 1
    assert not other.lines
    assert tuple(canvas.get_size_inches()) == (4, 4)


@pytest.mark.parametrize("own", [True, False])
def test_names_cannot_do_anything(own):
    evil = pl.DataFrame({"dataset": ["$a$", "b\u202ec\n"], "value": [0.5, 0.25]})
    ax = FIGURE(evil, None if own else Canvas().add_subplot())
    assert labels(ax) == ["$a$", "b\\u202ec\\u000a"]
    assert not any(tick.get_parse_math() for tick in ax.get_xticklabels())
    ax.figure.draw_without_rendering()


def test_it_does_not_touch_pyplot():
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    FIGURE(DATA)
    assert plt.get_fignums() == before


def test_needed_gives_the_frame_or_a_sentence():
    assert needed(DATA, "line", "get one") is DATA
    with pytest.raises(UsageError, match="there is no line to draw: get one"):
        needed(DATA.clear(), "line", "get one")
