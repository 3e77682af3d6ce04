"""Tables that compare ensembles."""

from __future__ import annotations

import re

import polars as pl
import pytest

from clipsyn.protocol.report import tables
from clipsyn.protocol.settings import ProtocolSettings
from clipsyn.protocol.tables import BEST, method_frame, named_tables
from clipsyn.results.frame import RESULT

BASE = {
    "split": "test",
    "perturbation": "clean",
    "severity": 0,
    "head": "zero-shot",
    "prompts": "own",
    "classes": "all",
    "n": 100,
    "ci_low": 0.1,
    "ci_high": 0.9,
}


def rows(dataset, ensemble, values, metric="acc1", backbones=("a", "b"), **more):
    """values: {(shots, seed): value}."""
    return [
        BASE
        | {"dataset": dataset, "ensemble": ensemble, "backbones": [*backbones], "metric": metric}
        | {"shots": shots, "seed": seed, "value": value}
        | more
        for (shots, seed), value in values.items()
    ]


@pytest.fixture
def tidy() -> pl.DataFrame:
    drawn = {(1, 0): 0.50, (1, 1): 0.60, (4, 0): 0.70, (4, 1): 0.72, (None, None): 0.80}
    content = []
    for dataset, plus in (("birds", 0.0), ("cars", 0.1)):
        content += rows(dataset, None, {(0, None): 0.40 + plus}, backbones=("a",))
        content += rows(dataset, None, {(0, None): 0.45}, backbones=("b",))
        content += rows(dataset, "log-avg", {(0, None): 0.55 + plus})
        content += rows(dataset, "oracle", {(0, None): 0.95})
        content += rows(dataset, "oracle", {(0, None): 0.97}, metric="acc1_independent")
        chosen = {(1, 0): 0.40, (1, 1): 0.30, (4, 0): 0.35, (4, 1): 0.35, (None, None): 0.42}
        content += rows(dataset, "best-single", chosen)
        content += rows(dataset, "nlc", {key: value + plus for key, value in drawn.items()})
    return pl.DataFrame(content, schema=RESULT)


def method_tables(tidy: pl.DataFrame, *, terminal: bool | None = None) -> str:
    return "\n\n".join(tables(tidy, ProtocolSettings(), [], terminal=terminal).values())


def cells(text: str, method: str) -> list[list[str]]:
    """The numbers of a method's lines, one list a table."""
    lines = re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()
    return [line.split()[-line.count(".") :] for line in lines if line.startswith(method + " ")]


def test_means_and_spread_over_seeds(tidy):
    frame = method_frame(tidy)
    nlc = frame.filter(method="nlc", dataset="birds", shots="1").row(0, named=True)
    assert nlc["value"] == pytest.approx(0.55)
    assert nlc["sd"] == pytest.approx(0.0707, abs=1e-4)
    assert nlc["seeds"] == 2


def test_the_best_single_backbone_is_chosen_for_each_dataset(tidy):
    best = method_frame(tidy).filter(method=BEST)
    assert dict(best.select("dataset", "value").iter_rows()) == {"birds": 0.45, "cars": 0.5}


def test_by_dataset_shows_the_most_shots_and_gains(tidy):
    text = method_tables(tidy, terminal=False)
    assert "head zero-shot · test · clean · prompts own · the whole support" in text
    # birds, cars, mean; gain over 42 and its least; over the best on test, 45 and 50
    assert cells(text, "best-single")[0] == ["42.0", "42.0", "42.0", "0.0", "0.0", "-5.5"]
    assert cells(text, "nlc")[0] == ["80.0", "90.0", "85.0", "43.0", "38.0", "37.5"]
    assert cells(text, "log-avg")[0] == ["55.0", "65.0", "60.0", "18.0", "13.0", "12.5"]
    assert cells(text, BEST)[0] == ["45.0", "50.0", "47.5", "5.5", "3.0", "0.0"]
    assert cells(text, "oracle")[0] == ["95.0", "95.0", "95.0", "53.0", "53.0", "47.5"]
    assert cells(text, "independent")[0][:3] == ["97.0", "97.0", "97.0"]


def test_by_shots_shows_the_mean_over_datasets(tidy):
    text = method_tables(tidy, terminal=False)
    assert "by shots · mean over 2 datasets" in text
    assert cells(text, "nlc")[1] == ["60.0", "76.0", "85.0"]
    assert cells(text, "log-avg")[1] == ["60.0", "60.0", "60.0"]


def test_datasets_stand_with_those_of_the_same_shots(tidy):
    """Cars have no more than one image a class, so that four are all there are."""
    some = tidy.filter(
        (pl.col("dataset") != "cars") | (pl.col("shots") != 4) | pl.col("shots").is_null()
    )
    by_name = named_tables(some, terminal=False)
    birds, cars = by_name["by shots, zero-shot, test, own, all"].split("\n\n")
    assert "birds" in birds.split("\n")[1]
    assert cells(birds, "nlc") == [["55.0", "71.0", "80.0"]]
    assert "cars" in cars.split("\n")[1]
    assert cells(cars, "nlc") == [["65.0", "90.0"]]
    assert cells(cars, "log-avg") == [["65.0", "65.0"]]
    by_dataset = by_name["by dataset, zero-shot, test, own, all"]
    assert cells(by_dataset, "nlc")[0][:3] == ["80.0", "90.0", "85.0"]


def test_without_the_whole_support_each_dataset_has_its_most_shots(tidy):
    few = tidy.filter(pl.col("shots").is_not_null())
    few = few.filter((pl.col("dataset") != "cars") | (pl.col("shots") != 4))
    by_dataset = named_tables(few, terminal=False)["by dataset, zero-shot, test, own, all"]
    assert cells(by_dataset, "nlc")[0][:2] == ["71.0", "65.0"]


def test_without_a_support_gains_are_over_the_best_on_test_alone(tidy):
    static = tidy.filter(pl.col("shots") == 0)
    text = method_tables(static, terminal=False)
    assert cells(text, "log-avg") == [["55.0", "65.0", "60.0", "12.5"]]
    assert "best-single" not in text.split("\n\n")[0]


def test_the_best_of_each_column_is_bold_but_never_the_oracle(tidy):
    text = method_tables(tidy, terminal=True)
    bold = re.findall(r"\x1b\[1m *([\d.]+)", text)
    assert "95.0" not in bold
    assert {"80.0", "90.0", "85.0", "76.0"} <= set(bold)


def test_tables_for_each_head(tidy):
    other = tidy.with_columns(perturbation=pl.lit("jpeg-3"), head=pl.lit("lda"))
    text = method_tables(pl.concat([tidy, other]), terminal=False)
    assert text.count("the whole support") == 2
    assert "head lda · test · jpeg-3" in text


def test_one_dataset_has_no_mean(tidy):
    text = method_tables(tidy.filter(dataset="birds"), terminal=False)
    assert cells(text, "nlc")[0] == ["80.0", "38.0", "35.0"]
    assert "mean over" not in text
    assert "least" not in text.split("\n\n")[0]


def test_methods_stand_in_the_order_of_the_registry(tidy):
    more = tidy.filter(ensemble="nlc").with_columns(ensemble=pl.lit("nlc:hidden=8"))
    text = method_tables(pl.concat([tidy, more]), terminal=False)
    first = [line.split("  ")[0] for line in text.split("\n\n")[0].splitlines()[4:]]
    order = ["best-single", "log-avg", "nlc", "nlc:hidden=8", BEST, "oracle", "independent"]
    assert first == order


def test_nothing_to_show():
    assert method_tables(pl.DataFrame(schema=RESULT)) == "no ensemble to show"


def test_perturbations_share_a_table(tidy):
    other = tidy.with_columns(perturbation=pl.lit("jpeg-3"), value=pl.col("value") - 0.1)
    tables = named_tables(pl.concat([tidy, other]), terminal=False)
    assert list(tables) == [
        "by dataset, zero-shot, test, own, all",
        "by shots, zero-shot, test, own, all",
        "by perturbation, zero-shot, test, own, all",
    ]
    assert cells(tables["by perturbation, zero-shot, test, own, all"], "nlc") == [["85.0", "75.0"]]
    assert cells(tables["by dataset, zero-shot, test, own, all"], "nlc")[0][0] == "80.0"
