"""Results are taken for what they were measured on, and for nothing else."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import clipsyn
from clipsyn.analyses import ANALYSES
from clipsyn.errors import UnknownName, UsageError
from clipsyn.evaluation.results.data import agreeing, check_data
from clipsyn.store.features import FeatureStore


@pytest.fixture(scope="module")
def measured(fakes, tmp_path_factory):
    """A folder with a store, and results, predictions and numbers that were measured on it."""
    folder = tmp_path_factory.mktemp("measured")
    sources = [fakes.Source(), fakes.Source(split="train", count=11)]
    store = fakes.fill(folder / "store", fakes.two(), sources, ("clean", "jpeg:3"))
    about: dict[str, Any] = {"ensembles": ["log-avg", "super-learner"], "shots": [2], "seeds": 1}
    about["perturbations"] = ["clean", "jpeg-3"]
    clipsyn.evaluate(store, output=folder / "results.parquet", **about)
    for name in ("zeroshot", "robustness"):
        ANALYSES.load(name)(store).write_parquet(folder / f"{name}.parquet")
    return folder


@pytest.fixture(scope="module")
def other(fakes, tmp_path_factory):
    """A store of the same images, of other weights."""
    encoders = [
        fakes.Encoder(weights="others"),
        fakes.Encoder("fake/two", size=12, embed_dim=16, weights="others"),
    ]
    sources = [fakes.Source(), fakes.Source(split="train", count=11)]
    return fakes.fill(tmp_path_factory.mktemp("other"), encoders, sources, ("clean", "jpeg:3"))


@pytest.fixture
def folder(measured, tmp_path):
    return Path(shutil.copytree(measured, tmp_path / "copy", copy_function=shutil.copyfile))


def corrected(store, split):
    """With other labels than results were measured with."""
    table = store.samples("toy", split)
    store.annotate(replace(table, labels=table.labels[::-1].copy()))
    return FeatureStore.open(store.path)


def report(store, folder, **files):
    return clipsyn.write_report(store, output=folder / "page.html", **files)


TAKEN: dict[str, Callable[[FeatureStore, Path], object]] = {
    "results": lambda store, at: report(store, at, results=at / "results.parquet"),
    "zeroshot": lambda store, at: report(
        store, at, measured={"zeroshot": str(at / "zeroshot.parquet")}
    ),
    "robustness": lambda store, at: report(
        store, at, measured={"robustness": str(at / "robustness.parquet")}
    ),
    "diversity": lambda store, at: clipsyn.diversity(store, results=at / "results.parquet"),
    "severity": lambda store, at: clipsyn.robustness(store, results=at / "results.parquet"),
    "plot": lambda store, at: clipsyn.plot(
        "accuracy-matrix", [at / "zeroshot.parquet", store], perturbations="clean"
    ),
}
each = pytest.mark.parametrize("take", TAKEN.values(), ids=TAKEN)


@each
def test_what_was_measured_here_is_taken(folder, take):
    take(FeatureStore.open(folder / "store"), folder)


@each
def test_labels_that_were_corrected_since_are_named(folder, take):
    store = corrected(FeatureStore.open(folder / "store"), "test")
    with pytest.raises(UsageError, match="labels"):
        take(store, folder)


@each
def test_another_store_is_not_taken_for_this_one(folder, other, take):
    with pytest.raises(UsageError, match="features"):
        take(other, folder)


def test_labels_of_the_support_count_where_something_was_fitted(folder):
    store = corrected(FeatureStore.open(folder / "store"), "train")
    with pytest.raises(UsageError, match="support labels"):
        TAKEN["results"](store, folder)
    TAKEN["zeroshot"](store, folder)


def test_a_dataset_that_the_store_lacks_is_refused(folder, fakes):
    store = fakes.fill(folder / "other", [fakes.Encoder()], [fakes.Source("maps")])
    with pytest.raises(UsageError, match="toy"):
        TAKEN["results"](store, folder)
    check_data(store, pl.read_parquet(folder / "results.parquet"), "results", held=True)


def test_sources_that_contradict_each_other_are_both_named(folder):
    first = pl.read_parquet(folder / "zeroshot.parquet")
    assert agreeing([("a", first), ("b", first)]).equals(first)
    later = first.with_columns(fingerprint=pl.lit("of a later version"))
    assert agreeing([("a", first), ("b", later)]).equals(first)
    is_one = pl.col("metric") == "acc1"
    other_data = pl.col("data").struct.with_fields(labels=pl.lit("others"))
    for changed in (
        first.with_columns(pl.when(is_one).then(pl.col("value") / 2).otherwise("value")),
        first.with_columns(pl.when(is_one).then(other_data).otherwise("data").alias("data")),
    ):
        with pytest.raises(UsageError, match=r"first\.parquet and second\.parquet.*acc1"):
            agreeing([("first.parquet", first), ("second.parquet", changed)])


def test_a_prompt_set_that_is_not_there_is_refused_beside_one_that_is(folder):
    store = FeatureStore.open(folder / "store")
    for measure in (clipsyn.zeroshot, clipsyn.evaluate):
        with pytest.raises(UnknownName, match="'simpel': did you mean simple"):
            measure(store, prompts=("simple", "simpel"))
