"""Figures: what one is, how it looks, its key and panels, and the files that it becomes."""

from itertools import combinations

import matplotlib as mpl
import numpy as np
import polars as pl
import pytest

from clipsyn.errors import UsageError
from clipsyn.show import figure as module


def draw(data, ax):
    ax.plot(data["value"])
    ax.set_xticks([0, 1], data["dataset"])


FIGURE = module.Figure(
    name="line",
    short="A line.",
    caption="A line.",
    source="zeroshot",
    data=lambda frame: frame,
    draw=draw,
    size=lambda data: (2.0, 1.0 + len(data)),
)
DATA = pl.DataFrame({"dataset": ["birds", "cars"], "value": [0.5, 0.25]})


def labels(ax):
    return [tick.get_text() for tick in ax.get_xticklabels()]


def test_it_makes_axes_of_its_own_as_large_as_its_data_wants():
    ax = FIGURE(DATA)
    assert tuple(ax.figure.get_size_inches()) == (2, 3)
    assert labels(ax) == ["birds", "cars"]
    assert ax.lines[0].get_ydata().tolist() == [0.5, 0.25]


def test_names_cannot_do_anything():
    ax = FIGURE(pl.DataFrame({"dataset": ["$a$", "b\u202ec\n"], "value": [0.5, 0.25]}))
    assert labels(ax) == ["$a$", "b\\u202ec\\u000a"]
    ax.figure.draw_without_rendering()
    assert not any(tick.get_parse_math() for tick in ax.get_xticklabels())


def test_needed_gives_the_frame_or_a_sentence():
    assert module.needed(DATA, "line", "oracle") is DATA
    with pytest.raises(UsageError, match="there is no line to draw: `clipsyn oracle"):
        module.needed(DATA.clear(), "line", "oracle")


# style and files


@pytest.mark.parametrize("name", ["figure", "figure.jpg", "svg", "figure.svg.gz", ".svg"])
def test_another_ending_is_refused(name, tmp_path):
    with module.canvas() as ax, pytest.raises(UsageError, match=r"one of \.svg, \.pdf, \.png"):
        module.save(ax.figure, tmp_path / name)


def test_the_settings_of_the_user_neither_matter_nor_change(tmp_path):
    def drawn():
        with module.canvas() as ax:
            ax.plot([1, 2])
        module.save(ax.figure, tmp_path / "a.svg")
        return (tmp_path / "a.svg").read_bytes()

    expected = drawn()
    with mpl.rc_context({"font.size": 30, "lines.linewidth": 9, "axes.facecolor": "red"}):
        before = dict(mpl.rcParams)
        assert drawn() == expected
        assert dict(mpl.rcParams) == before


# heat maps


def shown(ax):
    return {text.get_text(): text for text in ax.texts}


def test_a_heat_map_has_its_numbers_and_an_empty_cell():
    with module.canvas() as ax:
        module.heat_map(
            ax, ["a", "b"], ["x", "y"], {(0, 0): 1.25, (1, 1): 99.0}, decimals=1, label="%"
        )
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
    with module.canvas() as ax:
        module.heat_map(ax, ["a"], [*map(str, range(21))], values, decimals=0, label="", cmap=cmap)
        mesh = ax.collections[0]
    for value in values.values():
        ink, back = shown(ax)[f"{value:.0f}"].get_color(), mesh.cmap(mesh.norm(value))
        low, high = sorted([luminance(back), luminance(mpl.colors.to_rgb(ink))])
        assert (high + 0.05) / (low + 0.05) >= 4.5


def luminance(colour):
    srgb = np.array(colour[:3])
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


# panels and keys


def laid_out(ax):
    ax.figure.canvas.draw()
    return ax.figure.canvas.get_renderer()


def test_methods_are_backbones_without_what_they_share_and_ensembles():
    rows = [("tiny-b/zoo", None), ("tiny-a/zoo", None), (None, "nlc"), ("tiny-b/zoo", None)]
    data = pl.DataFrame(rows, schema=["backbone", "ensemble"], orient="row")
    texts, shared = module.methods(data)
    assert list(texts.items()) == [("tiny-b/zoo", "b"), ("tiny-a/zoo", "a"), ("nlc", "nlc")]
    assert shared == "backbones tiny-*/zoo"


@pytest.mark.parametrize("count", [1, 2, 5, 15])
def test_panels_keep_apart_and_inside(count):
    titles = [f"panel {number}" for number in range(count)]

    def draw(_, ax):
        for part in module.panels(ax, titles, "across", "up"):
            part.plot([0, 5], [0.1, 99.9])
        module.key(ax, module.marks(["one", "other"]))

    ax = keyed(draw, *module.panels_size(count))
    renderer, figure = laid_out(ax), ax.figure
    _, *parts = figure.axes
    boxes = [part.get_tightbbox(renderer) for part in parts]
    boxes += [it.get_window_extent(renderer) for it in (figure._supxlabel, figure._supylabel)]
    boxes.append(figure.legends[0].get_window_extent(renderer))
    for one, other in combinations(boxes, 2):
        assert not one.shrunk(0.97, 0.97).overlaps(other.shrunk(0.97, 0.97))
    whole = figure.bbox
    for box in boxes:
        assert whole.x0 - 1 <= box.x0 <= box.x1 <= whole.x1 + 1
        assert whole.y0 - 1 <= box.y0 <= box.y1 <= whole.y1 + 1
    assert [part.get_title(loc="left") for part in parts] == titles
    assert all(part.get_ylim() == parts[0].get_ylim() for part in parts)
    for part in parts[-1:]:
        assert any(tick.label1.get_visible() for tick in part.xaxis.get_major_ticks())


def keyed(draw, width, height):
    about = {"name": "keyed", "short": "", "caption": "", "source": "", "data": lambda it: it}
    return module.Figure(**about, draw=draw, size=lambda _: (width, height))(pl.DataFrame())


@pytest.mark.parametrize("count", [1, 8, 40])
@pytest.mark.parametrize("width", [module.COLUMN, module.PAGE])
def test_a_key_is_above_the_axes_and_inside_and_makes_the_figure_higher(count, width):
    names = [f"ViT-L-{number}" for number in range(count)]
    ax = keyed(lambda _, ax: module.key(ax, module.marks(names)), width, 2.4)
    renderer, (legend,) = laid_out(ax), ax.figure.legends
    box, dots = legend.get_window_extent(renderer), ax.figure.dpi
    assert box.y0 >= ax.get_window_extent(renderer).y1
    assert box.x1 <= ax.figure.bbox.x1
    assert box.y1 <= ax.figure.bbox.y1
    assert ax.figure.get_figheight() - box.height / dots == pytest.approx(2.4)
    assert ax.get_window_extent(renderer).height / dots > 1.7


def test_a_key_says_every_name_as_it_is():
    names = ["_hidden", "$x$", "<b>", "a" * 60, ""]
    ax = keyed(lambda _, ax: module.key(ax, module.marks(names)), module.COLUMN, 2)
    laid_out(ax)
    texts = [text.get_text() for text in ax.figure.legends[0].get_texts()]
    assert texts == [*names[:3], "a" * 12 + "…" + "a" * 13, ""]
    assert len({str(look) for look in module.marks([str(n) for n in range(40)]).values()}) == 40


def test_the_best_cells_are_marked_below_their_numbers():
    with module.canvas(3, 2) as ax:
        module.accuracies(ax, ["a", "b"], ["x", "y"], {(0, 1): 0.5, (1, 0): 0.25}, [(1, 0)])
    (line,) = ax.collections[1].get_segments()
    assert line[:, 1].tolist() == [1.38, 1.38]
    assert line[:, 0].tolist() == [-0.3, 0.3]


# maps of pairs


def of_pairs(values):
    about = {"dataset": "birds", "split": "test", "perturbation": "clean", "n": 40, "datasets": 1}
    rows = [
        about | {"backbone": one, "other": other, "value": value}
        for (one, other), value in values.items()
    ]
    return pl.DataFrame(rows, schema_overrides={"value": pl.Float64})


def mapped(values):
    with module.canvas(4, 4) as ax:
        module.pair_map(of_pairs(values), ax, "linear CKA")
    return ax


def numbers(ax):
    return {text.get_position(): text.get_text() for text in ax.texts}


def names(labels):
    return [label.get_text() for label in labels]


def test_each_pair_has_one_cell_below_the_diagonal():
    ax = mapped({("m/a", "m/b"): 0.25, ("m/c", "m/a"): 0.5, ("m/b", "m/c"): 1.0})
    assert names(ax.get_xticklabels()) == ["m/a", "m/b"]
    assert names(ax.get_yticklabels()) == ["m/b", "m/c"]
    assert numbers(ax) == {(0, 0): "0.25", (0, 1): "0.50", (1, 1): "1.00"}  # (column, row)


def test_the_scale_is_that_of_the_measure_and_takes_in_what_is_below():
    assert mapped({("a/m", "b/m"): 0.25}).collections[0].get_clim() == (0, 1)
    assert mapped({("a/m", "b/m"): -0.25}).collections[0].get_clim() == (-0.25, 1)
    assert mapped({("a/m", "b/m"): None}).collections[0].get_clim() == (0, 1)
