"""How figures look, and the files that they become."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure

from clipsyn.errors import UsageError
from clipsyn.show.figure import (
    FORMATS,
    as_text,
    canvas,
    format_of,
    heat_map,
    label,
    marks,
    save,
)


@pytest.fixture
def figure() -> Figure:
    with canvas() as ax:
        ax.plot([1, 2, 3], [2, 1, 3], "o-", label="one")
        ax.bar([1], [2], hatch="//")  # a tag with two ids: of what cuts it and what fills it
        ax.set_xlabel("x < y & $z$")
        ax.legend()
    return ax.figure


def test_series_differ_without_colour():
    kinds = [(mark.marker, str(mark.line)) for mark in marks([str(n) for n in range(40)]).values()]
    assert len(set(kinds)) == 40


@pytest.mark.parametrize("format", FORMATS)
def test_files_of_a_figure_are_the_same_each_time(figure, tmp_path, format):
    one, two = tmp_path / f"one.{format}", tmp_path / f"two.{format}"
    save(figure, one)
    save(figure, two)
    assert one.read_bytes() == two.read_bytes()
    begins = {"svg": b"<?xml", "pdf": b"%PDF", "png": b"\x89PNG"}
    assert one.read_bytes().startswith(begins[format])


@pytest.mark.parametrize("name", ["figure", "figure.jpg", "svg", "figure.svg.gz", ".svg"])
def test_another_ending_is_refused(name):
    with pytest.raises(UsageError, match=r"end its name in one of \.svg, \.pdf, \.png"):
        format_of(Path(name))


def test_nothing_is_left_where_a_file_cannot_be_written(figure, tmp_path):
    with pytest.raises(UsageError, match="cannot write"):
        save(figure, tmp_path / "no" / "figure.svg")
    assert list(tmp_path.iterdir()) == []


def test_the_settings_of_the_user_neither_matter_nor_change(tmp_path):
    def drawn() -> bytes:
        with canvas() as ax:
            ax.plot([1, 2])
        save(ax.figure, tmp_path / "a.svg")
        return (tmp_path / "a.svg").read_bytes()

    expected = drawn()
    with mpl.rc_context({"font.size": 30, "lines.linewidth": 9, "axes.facecolor": "red"}):
        before = dict(mpl.rcParams)
        assert drawn() == expected
        assert dict(mpl.rcParams) == before


# axes of others


def test_dollars_on_axes_of_others_are_no_formula():
    ax = Figure().add_subplot()
    ax.set_xticks([0, 1], ["$a$", "b"])
    ax.set_title("$x_1$")
    assert ax.title.get_parse_math()
    as_text(ax)
    assert not any(text.get_parse_math() for text in ax.findobj(mpl.text.Text))


def test_long_names_lose_their_middle():
    assert label("short") == "short"
    long = label("a" * 40 + "b" * 40)
    assert len(long) == 26
    assert long[0] == "a"
    assert long[-1] == "b"
    assert "\N{HORIZONTAL ELLIPSIS}" in long


# heat maps


def shown(ax):
    return {text.get_text(): text for text in ax.texts}


def test_a_heat_map_has_its_numbers_and_an_empty_cell():
    with canvas() as ax:
        heat_map(ax, ["a", "b"], ["x", "y"], {(0, 0): 1.25, (1, 1): 99.0}, decimals=1, label="%")
    mesh = ax.collections[0].get_array()
    assert mesh.mask.tolist() == [[False, True], [True, False]]
    assert {text: it.get_position() for text, it in shown(ax).items()} == {
        "1.2": (0, 0),
        "99.0": (1, 1),
    }
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["a", "b"]
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["x", "y"]
    bottom, top = ax.get_ylim()
    assert bottom > top  # the first row is on top
    assert ax.figure.axes[-1].get_ylabel() == "%"


@pytest.mark.parametrize("cmap", ["Blues", "PuOr", "cividis"])
def test_numbers_can_be_read_on_every_colour(cmap):
    """WCAG's contrast of at least 4.5, which black or white always has."""
    values = {(0, at): float(at) for at in range(21)}
    with canvas() as ax:
        heat_map(ax, ["a"], [*map(str, range(21))], values, decimals=0, label="", cmap=cmap)
        mesh = ax.collections[0]
    for value in values.values():
        ink, back = shown(ax)[f"{value:.0f}"].get_color(), mesh.cmap(mesh.norm(value))
        low, high = sorted([luminance(back), luminance(mpl.colors.to_rgb(ink))])
        assert (high + 0.05) / (low + 0.05) >= 4.5


def luminance(colour) -> float:
    srgb = np.array(colour[:3])
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])
