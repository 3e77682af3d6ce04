"""Files of results and predictions in which it is known who is right where."""

from typing import Any

import numpy as np
import pytest

from clipsyn.evaluation import predictions_of
from clipsyn.evaluation.results.files import PREDICTIONS, RowsFile, predicted
from clipsyn.evaluation.results.frame import ABOUT
from clipsyn.store.samples import SampleTable
from tests.results import row, tidy


class Answers:
    """Adds to files: each method is right where it is said to be."""

    def __init__(self, path):
        self.path = path

    def add(self, right, dataset="birds", *, images=None, rows=None, label=1, **about):
        """right: by method and seed, (sample,). images: equal numbers above 0 are equal images."""
        n = len(next(iter(right.values()))) if rows is None else max(rows) + 1
        content = np.zeros((n, 32), np.uint8)
        if images is not None:
            content[:, :2] = np.asarray(images, "<u2")[:, None].view(np.uint8)
        ids = tuple(f"{row:05}.png" for row in range(n))
        table = SampleTable(dataset, "test", ids, np.full(n, label, np.int32), content)
        about["dataset"] = dataset
        with (
            RowsFile(self.path) as results,
            RowsFile(predictions_of(self.path), PREDICTIONS) as predictions,
        ):
            for (name, seed), one in right.items():
                places = np.arange(n) if rows is None else np.asarray(rows)
                said, made = np.where(one, label, 1 - label), _about(name, seed, about)
                results.add(tidy(made))
                predictions.add(predicted(made["fingerprint"], table, places, said, None))
        return self.path


def _about(name, seed, about):
    usual: dict[str, Any] = {"backbones": ["a/x", "b/x"], "ensemble": name}
    if "/" in name:
        usual = {"backbones": [name]}
    usual |= {"shots": "0" if seed is None else "16", "seed": seed} | about
    made = dict.fromkeys(ABOUT) | row("acc1", 0.5, off=None, **usual)
    return made | {"fingerprint": " ".join(str(made[column]) for column in ABOUT)}


@pytest.fixture
def answers(tmp_path):
    return Answers(tmp_path / "r.parquet")


@pytest.fixture
def drawn():
    """Function (n): who is right, at random: two that learn from three draws, one that does not,
    two backbones.
    """

    def make(n, seed=0):
        rng = np.random.default_rng(seed)
        hard = rng.random(n)
        accuracies = {"nlc": 0.8, "moe": 0.7, "log-avg": 0.7, "a/x": 0.5, "b/x": 0.55}
        return {
            (name, draw): rng.random(n) < np.clip(accuracy + 0.5 - hard, 0.02, 0.98)
            for name, accuracy in accuracies.items()
            for draw in (range(3) if name in ("nlc", "moe") else [None])
        }

    return make
