"""Stores of answers that tests choose, and frames of results made by hand."""

import numpy as np
import pytest

from clipsyn.report.page import placed
from clipsyn.store.features import FeatureStore
from clipsyn.store.samples import SampleTable
from tests.results import row, tidy

CLASSES = ("cat", "dog", "owl")


@pytest.fixture
def answered(tmp_path):
    """Function (answers by backbone, labels, …) -> the store, with these imported answers.

    Answers are class indices, or logits (image, class). Called again it adds to the same store.
    """
    return _adding_to(tmp_path / "answers")


@pytest.fixture(scope="module")
def answered_once(tmp_path_factory):
    """`answered`, of a store for all tests of a file."""
    return _adding_to(tmp_path_factory.mktemp("answers") / "store")


def _adding_to(path):
    def add(
        answers,
        labels,
        *,
        dataset="pets",
        split="test",
        perturbation="clean",
        classes=CLASSES,
        ids=None,
        content=None,
        valid=None,
    ):
        store = FeatureStore.create(path)
        names = ids or [f"{dataset}-{row}.png" for row in range(len(labels))]
        samples = SampleTable.of(dataset, split, names, labels, classes)
        if content is not None:
            samples = SampleTable(
                dataset, split, samples.ids, samples.labels, content, samples.class_names
            )
        for name, said in answers.items():
            given, known = np.asarray(said), (valid or {}).get(name)
            with store.writer(samples, name, perturbation) as cell:
                (cell.predictions if given.ndim == 1 else cell.logits)(given, valid=known)
        return store

    return add


@pytest.fixture
def rows():
    """Function (dicts) -> a tidy frame: of each row what it is about, value, low, high, n."""

    def make(*every):
        return tidy(*(_row(dict(about)) for about in every))

    return make


def _row(about):
    ends = {"ci_low": about.pop("low", None), "ci_high": about.pop("high", None)}
    usual = {"metric": "acc1", "backbones": ["a"], "dataset": "pets", "n": 100}
    return row(**usual | ends | about)


@pytest.fixture(scope="session")
def lines():
    """Function (table) -> its lines on the page: texts by head, smaller ones behind a bar."""

    def of(table):
        return [
            {
                column.line: column.cells[row].text
                + (f" | {behind.cells[row].text}" if behind else "")
                for column, behind in placed(table)
            }
            for row in range(len(table))
        ]

    return of
