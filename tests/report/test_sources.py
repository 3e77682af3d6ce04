"""Of what a figure is drawn: stores, frames, files, several of them, and parts of these."""

import pytest

import clipsyn
from clipsyn.errors import StoreError, UnknownName, UsageError
from clipsyn.report import FIGURES, Drawn
from clipsyn.report.evidence import frame_of, plot, selected
from clipsyn.show.figure import Figure
from tests.results import row, tidy


def rows(*changes):
    return tidy(*(row(**{"metric": "acc1", "value": 0.5} | change) for change in changes))


FRAME = rows(
    {"dataset": "birds", "backbones": ["tiny/one"], "ensemble": "single"},
    {"dataset": "birds", "backbones": ["tiny/two"], "ensemble": "single", "perturbation": "jpeg-3"},
    {"dataset": "birds", "backbones": ["tiny/one", "tiny/two"], "ensemble": "nlc"},
    {"dataset": "cars", "backbones": ["tiny/one", "tiny/two"], "ensemble": "moe", "head": "lda"},
)


@pytest.fixture
def figure():
    matrix: Figure = FIGURES.load("accuracy-matrix")
    return matrix


# sources


def test_a_store_is_measured_by_the_analysis_of_the_figure(figure, tiny_store):
    expected = clipsyn.zeroshot(tiny_store)
    for source in (tiny_store, tiny_store.path, str(tiny_store.path), [tiny_store]):
        assert frame_of(figure, source).equals(expected)


def test_a_frame_and_a_file_of_it_are_the_same(figure, tmp_path):
    FRAME.write_parquet(tmp_path / "results.parquet")
    assert frame_of(figure, FRAME).equals(FRAME)
    assert frame_of(figure, tmp_path / "results.parquet").equals(FRAME)
    assert frame_of(figure, str(tmp_path / "results.parquet")).equals(FRAME)


def test_of_several_sources_the_rows_of_all(figure, tiny_store):
    more = FRAME.with_columns(extra=1.0)
    frame = frame_of(figure, [more, tiny_store])
    assert frame["value"].to_list() == [*FRAME["value"], *clipsyn.zeroshot(tiny_store)["value"]]
    assert frame["extra"].null_count() == len(frame) - len(FRAME)


def test_ensembles_and_heads_are_of_results_beside_a_store(tiny_store):
    """The oracles of a store stay whichever ensembles of a file are drawn."""
    gains = FIGURES.load("gains")
    about = {"dataset": "toy", "metric": "gain", "backbones": ["fake/one", "fake/two"]}
    results = rows(*(about | {"ensemble": name} for name in ("nlc", "log-avg", "oracle")))
    of_file = frame_of(gains, results, Drawn(ensembles="nlc", heads="zero-shot"))
    assert of_file["ensemble"].to_list() == ["nlc", "oracle"]
    of_store = frame_of(gains, tiny_store, Drawn(ensembles="nlc", heads="zero-shot"))
    assert "oracle" in of_store["ensemble"].to_list()
    with pytest.raises(UnknownName, match="moe"):
        frame_of(gains, results, Drawn(ensembles="moe"))


@pytest.mark.parametrize(
    ("name", "line"),
    [("few-shot", "evaluate STORE -o FILE"), ("router-weights", "predict ROUTER STORE -o")],
)
def test_what_a_store_alone_has_not(tiny_store, name, line):
    with pytest.raises(UsageError, match=f"not drawn of a store: run `clipsyn {line}"):
        frame_of(FIGURES.load(name), tiny_store)


def test_places_that_hold_nothing(figure, tmp_path):
    with pytest.raises(UsageError, match="nowhere does not exist: give a store"):
        frame_of(figure, tmp_path / "nowhere")
    with pytest.raises(StoreError):
        frame_of(figure, tmp_path)


@pytest.mark.parametrize("content", [b"", b"dataset,value\nbirds,1\n", b"PAR1"])
def test_a_file_that_is_no_parquet(figure, tmp_path, content):
    path = tmp_path / "results.csv"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"results\.csv cannot be read as results.*Parquet"):
        frame_of(figure, path)


def test_a_file_of_something_else(figure, tmp_path):
    path = tmp_path / "other.parquet"
    FRAME.drop("metric", "n").write_parquet(path)
    with pytest.raises(UsageError, match=r"want of metric, n: give what a command wrote"):
        frame_of(figure, path)


def test_a_figure_that_needs_no_tidy_frame_says_itself_what_is_missing(tmp_path):
    path = tmp_path / "other.parquet"
    FRAME.drop("metric").write_parquet(path)
    figure = FIGURES.load("router-weights")
    with pytest.raises(UsageError, match="clipsyn predict ROUTER STORE -o"):
        figure.data(frame_of(figure, path))


# parts


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({}, [0, 1, 2, 3]),
        ({"datasets": ("cars",)}, [3]),
        ({"datasets": ("b*", "cars")}, [0, 1, 2, 3]),
        ({"perturbations": ("jpeg:3",)}, [1]),
        ({"backbones": ("*/one",)}, [0]),
        ({"backbones": ("tiny/two", "tiny/one")}, [0, 1, 2, 3]),
        ({"ensembles": ("moe",)}, [0, 1, 3]),
        ({"heads": ("zero-shot",), "perturbations": ("clean",)}, [0, 2]),
    ],
    ids=str,
)
def test_rows_by_name_or_pattern(given, kept):
    assert selected(FRAME, given, "zeroshot").equals(FRAME[kept])


def test_a_name_that_is_not_there():
    with pytest.raises(UnknownName, match=r"unknown dataset 'bird': did you mean birds\?"):
        selected(FRAME, {"datasets": ("bird",)}, "zeroshot")
    with pytest.raises(UsageError, match="no dataset is asked for"):
        selected(FRAME, {"datasets": ()}, "zeroshot")


# Python


def test_it_is_a_function_of_the_package(tiny_store):
    assert clipsyn.plot is plot
    ax = clipsyn.plot("accuracy-matrix", tiny_store, perturbations="clean")
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["fake/one", "fake/two"]


def test_unknown_figures_and_settings(tiny_store):
    with pytest.raises(UnknownName, match=r"unknown figure 'accuracy': did you mean accuracy-matr"):
        plot("accuracy", tiny_store)
    with pytest.raises(UnknownName, match=r"unknown setting 'dataset': did you mean datasets\?"):
        plot("accuracy-matrix", tiny_store, dataset="toy")
