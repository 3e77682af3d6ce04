from __future__ import annotations

import polars as pl

from clipsyn.show.titles import (
    fitted_on,
    mean_over,
    subject,
    typical_interval,
    where,
)

ROW = {
    "dataset": "birds",
    "split": "test",
    "perturbation": "clean",
    "prompts": "own",
    "head": "zero-shot",
    "n": 1500,
}
WHERE = ("dataset", "split", "perturbation", "prompts")


def test_what_a_row_is_about():
    assert where(ROW, (*WHERE, "n")) == ["birds/test", "clean", "prompts own", "n 1,500"]
    assert where(ROW, ("head", "split", "prompts")) == ["head zero-shot", "test", "prompts own"]
    assert where(ROW | {"prompts": None}, WHERE) == ["birds/test", "clean"]
    assert where(ROW | {"dataset": None}, WHERE) == ["test", "clean", "prompts own"]


def test_what_a_mean_is_over():
    cars = ROW | {"dataset": "cars"}
    assert mean_over(pl.DataFrame([ROW, ROW]), WHERE) == ""
    assert mean_over(pl.DataFrame([ROW, cars, cars]), WHERE) == "mean over 2 datasets"
    prompts = pl.DataFrame([ROW, ROW | {"prompts": "vanilla"}])
    assert mean_over(prompts, WHERE) == "mean over 2 prompt sets"
    several = pl.DataFrame([ROW, cars, cars | {"split": "train"}])
    assert mean_over(several, WHERE) == "mean over 3 combinations of dataset, split"


def test_what_ensembles_are_fitted_on():
    shots = {name: pl.DataFrame({"shots": ["0", name]}) for name in ("16", "full")}
    assert fitted_on(shots["16"]) == "16 shots"
    assert fitted_on(shots["full"]) == "the whole support"
    assert fitted_on(pl.DataFrame({"shots": ["0", "0"]})) == ""


def test_the_subject_is_one_dataset_or_their_mean():
    frame = pl.DataFrame([ROW | {"datasets": 1}])
    assert subject(frame, (*WHERE[:3], "n")) == "birds/test · clean · n 1,500"
    mean = pl.DataFrame([ROW | {"dataset": None, "datasets": number} for number in (2, 3)])
    assert subject(mean, WHERE) == "mean over 3 datasets · test · clean · prompts own"


def test_the_typical_interval_is_the_median_one():
    low, nan = [0.5, 0.25, 0.0, None, 0.1], float("nan")
    frame = pl.DataFrame({"ci_low": low, "ci_high": [0.52, 0.35, 1.0, None, nan]})
    assert typical_interval(frame) == "95 % interval about ±5.0"
    unknown = pl.DataFrame(
        {"ci_low": [None], "ci_high": [None]}, schema=dict.fromkeys(frame.columns, pl.Float64)
    )
    assert typical_interval(unknown) == ""
