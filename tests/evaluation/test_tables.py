"""Tables that compare ensembles."""

import re

import polars as pl
import pytest

from clipsyn.evaluation.tables import BEST, method_frame, tables
from clipsyn.show.table import NOTHING
from tests.results import row
from tests.results import texts as texts_of
from tests.results import tidy as frame_of


def rows(dataset, ensemble, values, metric="acc1", backbones=("a", "b")):
    """values: {(shots, seed): value}."""
    about = {"dataset": dataset, "n": 100, "ci_low": 0.1, "ci_high": 0.9}
    return [
        row(metric, value, backbones, ensemble, shots=str(shots), seed=seed, **about)
        for (shots, seed), value in values.items()
    ]


@pytest.fixture
def tidy():
    drawn = {(1, 0): 0.50, (1, 1): 0.60, (4, 0): 0.70, (4, 1): 0.72, ("full", None): 0.80}
    content = []
    for dataset, plus in (("birds", 0.0), ("cars", 0.1)):
        content += rows(dataset, "single", {(0, None): 0.40 + plus}, backbones=("a",))
        content += rows(dataset, "single", {(0, None): 0.45}, backbones=("b",))
        content += rows(dataset, "log-avg", {(0, None): 0.55 + plus})
        content += rows(dataset, "oracle", {(0, None): 0.95})
        content += rows(dataset, "oracle", {(0, None): 0.97}, metric="acc1_independent")
        chosen = {(1, 0): 0.40, (1, 1): 0.30, (4, 0): 0.35, (4, 1): 0.35, ("full", None): 0.42}
        content += rows(dataset, "best-single", chosen)
        content += rows(dataset, "nlc", {key: value + plus for key, value in drawn.items()})
    return frame_of(*content)


BY_DATASET, BY_SHOTS, BY_PERTURBATION = (
    f"by {what}, zero-shot, test, own, all" for what in ("dataset", "shots", "perturbation")
)
OVER_BEST = "over best on test"


def texts(tidy, *, terminal=False):
    return texts_of(tables(tidy), terminal=terminal)


def test_means_and_spread_over_seeds(tidy):
    frame = method_frame(tidy)
    nlc = frame.filter(method="nlc", dataset="birds", shots="1").row(0, named=True)
    assert nlc["value"] == pytest.approx(0.55)
    assert nlc["sd"] == pytest.approx(0.0707, abs=1e-4)
    assert nlc["seeds"] == 2


def test_the_best_single_backbone_is_chosen_for_each_dataset(tidy):
    best = method_frame(tidy).filter(method=BEST)
    assert dict(best.select("dataset", "value").iter_rows()) == {"birds": 0.45, "cars": 0.5}


def measured(tidy, metric, reference):
    """Gains of what is not single, with an interval of 2 points to each side."""
    gains = tidy.filter(pl.col("ensemble") != "single", metric="acc1")
    value = pl.col("value") - reference
    return gains.with_columns(
        metric=pl.lit(metric), value=value, ci_low=value - 0.02, ci_high=value + 0.02
    )


@pytest.fixture
def gaining(tidy):
    over = [("gain", 0.42), ("gain_over_best_on_test", 0.45)]
    return pl.concat([tidy, *(measured(tidy, *it) for it in over)])


def test_by_dataset_shows_the_most_shots_and_gains(gaining, read_table):
    text = texts(gaining)[BY_DATASET]
    assert "head zero-shot · test · clean · prompts own · the whole support" in text
    table = read_table(text)
    expected = {
        "best-single": ("42.0", "42.0", "42.0", "0.0", "-3.0"),
        "nlc": ("80.0", "90.0", "85.0", "43.0", "40.0"),
        "log-avg": ("55.0", "65.0", "60.0", "18.0", "15.0"),
        BEST: ("45.0", "50.0", "47.5", NOTHING, NOTHING),
        "oracle": ("95.0", "95.0", "95.0", "53.0", "50.0"),
    }
    for method, numbers in expected.items():
        row = table.row(method)
        columns = ("birds", "cars", "mean", "gain", OVER_BEST)
        assert tuple(row[name] for name in columns) == numbers
    assert table.row("independent")["mean"] == "97.0"
    # (38 + 48) / 2; 2 * sqrt(2) / 2 on both sides
    assert re.search("43.0 +41.6\N{EN DASH}44.4", text)


def test_by_shots_shows_the_mean_over_datasets(tidy, read_table):
    text = texts(tidy)[BY_SHOTS]
    assert "by shots · mean over 2 datasets" in text
    nlc = {"method": "nlc", "1": "60.0", "4": "76.0", "full": "85.0"}
    assert read_table(text).row("nlc") == nlc
    average = {"method": "log-avg", "1": "60.0", "4": "60.0", "full": "60.0"}
    assert read_table(text).row("log-avg") == average


def test_datasets_stand_with_those_of_the_same_shots(tidy, read_table):
    """Cars have no more than one image a class, so that four are all there are."""
    some = tidy.filter((pl.col("dataset") != "cars") | (pl.col("shots") != "4"))
    birds, cars = (text.split("\n", 2) for text in texts(some)[BY_SHOTS].split("\n\n"))
    assert (birds[1], cars[1]) == ("birds", "cars")
    nlc = {"method": "nlc", "1": "55.0", "4": "71.0", "full": "80.0"}
    assert read_table(birds[2]).row("nlc") == nlc
    table = read_table(cars[2])
    assert table.row("nlc") == {"method": "nlc", "1": "65.0", "full": "90.0"}
    assert table.row("log-avg") == {"method": "log-avg", "1": "65.0", "full": "65.0"}
    nlc = read_table(texts(some)[BY_DATASET]).row("nlc")
    assert (nlc["birds"], nlc["cars"], nlc["mean"]) == ("80.0", "90.0", "85.0")


def test_without_a_support_gains_are_over_the_best_on_test_alone(tidy, read_table):
    there = tidy.filter(pl.col("shots") == "0")
    over = measured(there, "gain_over_best_on_test", 0.45)
    static = texts(pl.concat([there, over]))
    assert BY_SHOTS not in static
    table = read_table(static[BY_DATASET])
    assert table.columns == ["method", "birds", "cars", "mean", OVER_BEST]
    assert table.row("log-avg")[OVER_BEST] == "15.0"
    assert "best-single" not in table.column("method")


def test_the_best_of_each_column_is_bold_but_never_the_oracle(tidy):
    text = "".join(texts(tidy, terminal=True).values())
    bold = re.findall(r"\x1b\[1m *([\d.]+)", text)
    assert "95.0" not in bold
    assert {"80.0", "90.0", "85.0", "76.0"} <= set(bold)


def test_accuracies_by_dataset_know_their_intervals(tidy):
    (table,) = tables(tidy)[BY_DATASET]
    by_name = {column.name: column for column in table.columns}
    (nlc,) = (n for n, cell in enumerate(by_name["method"].cells) if cell.text == "nlc")
    assert by_name["birds"].cells[nlc] == ("80.0", pytest.approx(80), 10, 90)
    assert by_name["mean"].cells[nlc][2:] == (None, None)


def test_one_dataset_has_no_mean(gaining, read_table):
    by_name = texts(gaining.filter(dataset="birds"))
    nlc = read_table(by_name[BY_DATASET]).row("nlc")
    assert "mean" not in nlc
    assert (nlc["birds"], nlc["gain"], nlc[OVER_BEST]) == ("80.0", "38.0", "35.0")
    assert "mean over" not in by_name[BY_SHOTS]


def test_methods_stand_in_the_order_of_the_registry(tidy, read_table):
    more = tidy.filter(ensemble="nlc").with_columns(ensemble=pl.lit("nlc:hidden=8"))
    table = read_table(texts(pl.concat([tidy, more]))[BY_DATASET])
    order = ["best-single", "log-avg", "nlc", "nlc:hidden=8", BEST, "oracle", "independent"]
    assert table.column("method") == order


def test_perturbations_share_a_table(tidy, read_table):
    other = tidy.with_columns(perturbation=pl.lit("jpeg-3"), value=pl.col("value") - 0.1)
    by_name = texts(pl.concat([tidy, other]))
    assert list(by_name) == [BY_DATASET, BY_SHOTS, BY_PERTURBATION, "what they mean"]
    nlc = {"method": "nlc", "clean": "85.0", "jpeg-3": "75.0"}
    assert read_table(by_name[BY_PERTURBATION]).row("nlc") == nlc
    assert read_table(by_name[BY_DATASET]).row("nlc")["birds"] == "80.0"
