"""The contract of every figure."""

from collections.abc import Callable
from itertools import product
from xml.etree import ElementTree

import polars as pl
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure as Canvas
from matplotlib.text import Text

from clipsyn.analyses import ANALYSES
from clipsyn.errors import UsageError
from clipsyn.evaluation.loop import evaluate
from clipsyn.report import FIGURES
from clipsyn.router.fit import fit_router
from clipsyn.router.predict import predict_store
from clipsyn.show.figure import FORMATS, image_of, save
from clipsyn.store.features import FeatureStore

pytestmark = pytest.mark.usefixtures("few_steps")
EVIL = "$x_1$<script>alert(1)</script>\u202e]]>&amp;" + "m" * 40


# what figures are drawn of: a store with two backbones, two datasets, and jpeg-3


@pytest.fixture(scope="session")
def store(fakes, tmp_path_factory):
    names = "tiny-one/zoo", "tiny-two/zoo", "tiny-three/zoo"
    encoders = [fakes.Encoder(name, size=8 + 4 * at) for at, name in enumerate(names)]
    sources = [
        fakes.Source(name, split=split, count=count)
        for name in ("birds", "owls")  # no sets of CLIP_benchmark, which may be installed
        for split, count in (("test", 30), ("train", 24))
    ]
    path = tmp_path_factory.mktemp("figures") / "store"
    return fakes.caption(fakes.fill(path, encoders, sources, ("clean", "jpeg:3", "jpeg:5")))


def of_evaluate(store):
    ensembles = ["best-single", "log-avg", "nlc", "chosen"]
    return evaluate(store, ensembles=ensembles, shots=[1, 4], seeds=2)


def of_predict(store):
    return predict_store(fit_router(store, "birds", "nlc", shots=4), store, "birds").frame


# By the source of a figure: a frame that it can be drawn of.
FRAMES: dict[str, Callable[[FeatureStore], pl.DataFrame]] = {
    "evaluate": of_evaluate,
    "predict": of_predict,
}


@pytest.fixture(scope="session")
def frames(store):
    """Function (name of a figure): a frame that it is drawn of, of one kind where it shows one."""
    made: dict[str, pl.DataFrame] = {}

    def frame(name):
        figure = FIGURES.load(name)
        source = figure.source
        if source not in made:
            if source in FRAMES:
                made[source] = FRAMES[source](store)
            else:
                analysis = ANALYSES.load(source)
                made[source] = analysis.measure(store, analysis.settings())
        return _one_kind_if_needed(figure, made[source])

    return frame


def _one_kind_if_needed(figure, frame):
    try:
        figure.data(frame)
    except UsageError as error:
        if "perturbations=…" in str(error):
            return frame.filter(perturbation="clean")
        if "datasets=…" not in str(error):
            raise
        return frame.filter(dataset="birds")
    return frame


@pytest.fixture(params=FIGURES, scope="module")
def name(request):
    return str(request.param)


@pytest.fixture(scope="module")
def figure(name):
    return FIGURES.load(name)


@pytest.fixture(scope="module")
def frame(name, frames):
    return frames(name)


@pytest.fixture(scope="module")
def data(figure, frame):
    return figure.data(frame)


@pytest.fixture(scope="module")
def drawn(figure, data):
    """The axes, for all tests that only look at them."""
    return figure(data)


@pytest.fixture(scope="module")
def svg(drawn):
    return svg_of(drawn)


def svg_of(ax):
    return image_of(ax.figure, "svg").decode()


def parts(ax):
    """All axes of the figure, and the parts on them."""
    for part in ax.figure.axes:
        yield from (part, *part.child_axes)


# the contract


def test_it_draws_on_axes_of_its_own_of_the_width_of_a_page_at_most(drawn):
    canvas = drawn.figure
    width, height = canvas.get_size_inches()
    assert 3 <= width <= 7
    assert 1 <= height <= 9
    assert any(part.has_data() for part in parts(canvas.axes[0]))


def test_it_has_the_same_bytes_each_time(name, figure, frame, drawn, tmp_path):
    formats = FORMATS if name == next(iter(FIGURES)) else ["svg"]
    for (number, ax), format in product(enumerate([drawn, figure(figure.data(frame))]), formats):
        save(ax.figure, tmp_path / f"{number}.{format}")
    for format in formats:
        assert (tmp_path / f"0.{format}").read_bytes() == (tmp_path / f"1.{format}").read_bytes()


def test_it_is_drawn_with_lines_and_bounded(svg):
    assert "<image" not in svg
    assert len(svg) < 200_000


def test_other_numbers_are_another_figure(figure, data, svg):
    """What is in the CSV is what is drawn: no number comes from anywhere else."""
    numbers = data.select(pl.selectors.float()).columns or ["images"]
    changed = data.with_columns(pl.col(numbers) * 0.5)
    assert svg != svg_of(figure(changed))


def test_series_can_be_told_apart_without_colour(drawn):
    for legend in drawn.figure.legends:
        kinds = [
            (line.get_marker(), str(line.get_linestyle()), line._unscaled_dash_pattern)
            for line in legend.get_lines()
        ]
        lightness = [round(_grey(line.get_color()), 1) for line in legend.get_lines()]
        assert len({*zip(kinds, lightness, strict=True)}) == len(kinds)


def _grey(colour):
    red, green, blue = to_rgb(colour)
    return 0.299 * red + 0.587 * green + 0.114 * blue


def test_no_legend_lies_over_data(drawn):
    drawn.figure.draw_without_rendering()
    for legend in drawn.figure.legends:
        box = legend.get_window_extent()
        for other in parts(drawn):
            if other.has_data():
                assert not _overlap(box, other.get_window_extent())


def _overlap(one, other):
    wide = min(one.x1, other.x1) - max(one.x0, other.x0)
    high = min(one.y1, other.y1) - max(one.y0, other.y0)
    return bool(wide > 1 and high > 1)  # pixels


def test_no_text_is_cut_off(drawn):
    assert _beyond(drawn.figure) == []


def test_no_wide_name_is_cut_off(figure, frame):
    assert _beyond(figure(figure.data(_renamed(frame, 26 * "W"))).figure) == []


def _beyond(canvas):
    """Inches of what is drawn beyond each edge."""
    canvas.draw_without_rendering()
    box, (width, height) = canvas.get_tightbbox(), canvas.get_size_inches()
    over = [-box.x0, -box.y0, box.x1 - width, box.y1 - height]
    return [inches for inches in over if inches > 0.02]


def test_a_heading_stands_above_only_where_it_is_asked_for(figure, data, drawn):
    ax, about = figure(data, heading=True), " ".join(figure.about(data).split())
    texts = [" ".join(text.get_text().split()) for text in ax.figure.findobj(Text)]
    assert not about or about in texts
    assert _beyond(ax.figure) == []
    if about:
        assert about not in " ".join(it.get_text() for it in drawn.figure.findobj(Text))


def test_it_is_drawn_on_axes_that_are_given_or_refused(name, figure, data):
    canvas = Canvas()
    left, right = canvas.subplots(1, 2)
    if name in ("severity", "reliability"):  # of several panels
        with pytest.raises(UsageError, match="ax="):
            figure(data, right)
        return
    assert figure(data, right) is right
    assert right.has_data() or right.child_axes
    assert not left.has_data()
    assert not canvas.legends


def test_an_empty_frame_has_a_sentence(figure, frame):
    with pytest.raises(UsageError, match=r"^there (is|are) no .*: .*clipsyn"):
        figure.data(frame.clear())


def test_names_of_strangers_are_text(figure, frame):
    evil = _renamed(frame, EVIL)
    ax = figure(figure.data(evil))
    text = svg_of(ax)
    ElementTree.fromstring(text)
    assert "<script" not in text
    assert "\u202e" not in text
    assert not any(it.get_parse_math() for it in ax.figure.findobj(Text) if "$" in it.get_text())


def _renamed(frame, ending):
    """The frame with names that end so for datasets, prompts and backbones."""
    changes = {
        column: pl.col(column) + ending
        for column in ("dataset", "prompts")
        if column in frame.columns
    }
    if "backbones" in frame.columns:
        changes["backbones"] = pl.col("backbones").list.eval(pl.element() + ending)
    renamed = frame.with_columns(**changes)
    weights = [name for name in frame.columns if name.startswith("weight ")]
    return renamed.rename({name: name + ending for name in weights})
