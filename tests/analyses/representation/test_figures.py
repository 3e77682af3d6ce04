from __future__ import annotations

import polars as pl
import pytest

from clipsyn.analyses.representation.view import cka
from clipsyn.evaluation.results.frame import RESULT

NAN = float("nan")


def row(value: float, pair: tuple[str, str] = ("a/m", "b/m"), **about) -> dict:
    common = {"dataset": "birds", "split": "test", "perturbation": "clean", "metric": "cka"}
    numbers = {"value": value, "ci_low": value - 0.1, "ci_high": value + 0.1, "n": 40}
    return common | numbers | {"backbones": list(pair)} | about


def data(*rows: dict) -> list[dict]:
    return cka.data(pl.DataFrame(rows, schema=RESULT)).to_dicts()


def test_of_one_dataset_each_pair_with_its_interval():
    (found,) = data(row(0.5), row(0.7, metric="procrustes"), row(0.9, ("a/m",), metric="acc1"))
    about = {"dataset": "birds", "split": "test", "perturbation": "clean"}
    pair = {"backbone": "a/m", "other": "b/m", "n": 40, "datasets": 1}
    assert found == about | pair | {"value": 0.5, "ci_low": 0.4, "ci_high": 0.6}


def test_several_datasets_are_a_mean_over_those_that_know_the_pair():
    rows = [row(0.5), row(0.2, ("b/m", "a/m"), dataset="cars"), row(NAN, dataset="dogs")]
    (found,) = data(*rows)
    assert found["value"] == pytest.approx(0.35)
    assert (found["dataset"], found["datasets"], found["ci_low"]) == (None, 2, None)
