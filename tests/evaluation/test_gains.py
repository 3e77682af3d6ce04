"""Gains against disagreement."""

from __future__ import annotations

import polars as pl
import pytest

from clipsyn.evaluation.report import gain_frame, gain_tables, significance
from clipsyn.evaluation.results.frame import IF_ALIKE, RESULT
from clipsyn.show.text import text_of


def row(dataset, ensemble, metric, value, *, shots=0, seed=None):
    return {
        "dataset": dataset,
        "split": "test",
        "perturbation": "clean",
        "head": "zero-shot",
        "ensemble": ensemble,
        "backbones": ["a", "b"],
        "prompts": "own",
        "classes": "all",
        "shots": str(shots),
        "seed": seed,
        "metric": metric,
        "value": value,
        "ci_low": value - 0.02,
        "ci_high": value + 0.02,
        "n": 50,
    }


@pytest.fixture
def tidy() -> pl.DataFrame:
    rows = []
    for dataset, differ, gain in (("x", 0.5, 0.02), ("y", 0.7, 0.05), ("z", 0.9, 0.04)):
        rows.append(row(dataset, "oracle", "error_inconsistency", differ))
        rows.append(row(dataset, "single", "acc1", 0.4))
        rows.append(row(dataset, "single", "acc1", 0.3) | {"backbones": ["b"]})
        rows.append(row(dataset, "best-single", "acc1", 0.4, shots=1, seed=0))
        rows.append(row(dataset, "best-single", "acc1", 0.3, shots="full"))
        rows.append(
            row(dataset, "log-avg", "gain_over_best_on_test", gain - 0.5)
        )  # over the best on test
        rows.append(row(dataset, "oracle", "gain", 0.2, shots=1, seed=0))
        rows.append(row(dataset, "oracle", "gain", 0.3, shots="full"))
        rows.append(row(dataset, "log-avg", "gain", gain, shots="full"))
        rows.append(row(dataset, "nlc", "gain", 0.9, shots=1, seed=0))
        rows.append(row(dataset, "nlc", "gain", gain + 0.01, shots="full", seed=0))
        rows.append(row(dataset, "nlc", "gain", gain - 0.01, shots="full", seed=1))
    return pl.DataFrame(rows, schema=RESULT)


def test_gains_are_means_over_seeds_at_the_most_shots(tidy):
    frame = gain_frame(tidy, "zero-shot", ["log-avg", "nlc"])
    first = frame.row(0, named=True)
    assert first["dataset"] == "x"
    assert first["nlc"] == pytest.approx(0.02)
    assert first["nlc low"] == pytest.approx(0.0)
    assert first["log-avg"] == pytest.approx(0.02)
    assert first["inconsistency"] == 0.5
    assert first["oracle"] == pytest.approx(0.3)
    assert first["best on test"] == pytest.approx(0.1)  # over the one chosen on the support


def test_the_table_says_gain_interval_and_correlation(tidy, read_table):
    text = text_of(gain_tables(tidy, "zero-shot", ["nlc"], ["x", "z"]), terminal=False)
    gains, correlations, significant = (read_table(text, number) for number in range(3))
    assert gains.row("y")["nlc"] == "+5.0 [3.0, 7.0]"
    assert correlations.row("clean", "3")["oracle"] == "\N{EN DASH}"  # it gains the same everywhere
    assert float(correlations.row("clean", "3")["nlc"]) == pytest.approx(0.5)
    assert significant.row("clean")["datasets"] == "2"  # y shares images with x


def test_the_correlation_to_expect_of_equal_datasets_stands_below(tidy, read_table):
    rows = [row(name, "nlc", IF_ALIKE, at, shots="full") for name, at in (("x", 0.2), ("y", 0.6))]
    more = pl.concat([tidy, pl.DataFrame(rows, schema=RESULT)])
    text = text_of(gain_tables(more, "zero-shot", ["nlc"], ["x", "z"]), terminal=False)
    assert float(read_table(text, 1).row("clean, if alike", "3")["nlc"]) == pytest.approx(0.4)


def test_a_method_that_a_dataset_lacks_has_no_gain_there(tidy, read_table):
    some = tidy.filter((pl.col("dataset") != "y") | (pl.col("ensemble") != "nlc"))
    text = text_of(gain_tables(some, "zero-shot", ["nlc"], ["x", "y", "z"]), terminal=False)
    assert read_table(text).row("y")["nlc"] == "\N{EN DASH}"
    assert read_table(text).row("z")["nlc"] == "+4.0 [2.0, 6.0]"


def test_without_everything_fitted_the_most_shots_count(tidy):
    few = tidy.filter(pl.col("shots") != "full")
    assert gain_frame(few, "zero-shot", ["nlc"])["nlc"].to_list() == [0.9] * 3


def test_gains_over_datasets_are_tested_together(tidy, read_table):
    """Three gains above 0: 2 of 8 signs are as far out, for each of two methods."""
    frame = gain_frame(tidy, "zero-shot", ["log-avg", "nlc"])
    text = text_of([significance(frame, ["log-avg", "nlc"])], terminal=False)
    assert "Wilcoxon" in text
    expected = {"perturbation": "clean", "datasets": "3", "log-avg": "0.5", "nlc": "0.5"}
    assert read_table(text).row("clean") == expected
