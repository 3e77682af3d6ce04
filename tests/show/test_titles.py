from __future__ import annotations

import polars as pl

from clipsyn.show.titles import common, fitted_on, mean_over, title, where

ROW = {
    "dataset": "birds",
    "split": "test",
    "perturbation": "clean",
    "prompts": "own",
    "head": "zero-shot",
    "n": 1500,
}
WHERE = ("dataset", "split", "perturbation", "prompts")


def test_a_title_leaves_out_what_is_empty():
    assert title("birds/test", "", "clean", None) == "birds/test · clean"


def test_what_a_row_is_about():
    assert where(ROW, (*WHERE, "n")) == ["birds/test", "clean", "prompts own", "n 1,500"]
    assert where(ROW, ("head", "split", "prompts")) == ["head zero-shot", "test", "prompts own"]
    assert where(ROW | {"prompts": None}, WHERE) == ["birds/test", "clean"]
    assert where(ROW | {"dataset": None}, WHERE) == ["test", "clean", "prompts own"]


def test_what_all_rows_have_in_common():
    frame = pl.DataFrame([ROW, ROW | {"dataset": "cars"}])
    assert common(frame, WHERE) == {"split": "test", "perturbation": "clean", "prompts": "own"}


def test_what_a_mean_is_over():
    cars = ROW | {"dataset": "cars"}
    assert mean_over(pl.DataFrame([ROW, ROW]), WHERE) == ""
    assert mean_over(pl.DataFrame([ROW, cars, cars]), WHERE) == "mean over 2 datasets"
    prompts = pl.DataFrame([ROW, ROW | {"prompts": "vanilla"}])
    assert mean_over(prompts, WHERE) == "mean over 2 prompt sets"
    several = pl.DataFrame([ROW, cars, cars | {"split": "train"}])
    assert mean_over(several, WHERE) == "mean over 3 combinations of dataset, split"


def test_what_ensembles_are_fitted_on():
    shots = {name: pl.DataFrame({"shots": [0, name]}) for name in (16, None)}
    assert fitted_on(shots[16]) == "16 shots"
    assert fitted_on(shots[None]) == "the whole support"
    assert fitted_on(pl.DataFrame({"shots": [0, 0]})) == ""
