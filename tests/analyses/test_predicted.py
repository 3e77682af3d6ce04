"""Which images count where backbones lack different ones, in every analysis of predictions."""

from typing import ClassVar

import numpy as np
import polars as pl
import pytest

from clipsyn.analyses.accuracy import zeroshot
from clipsyn.analyses.diversity import diversity
from clipsyn.analyses.oracle import oracle
from clipsyn.analyses.predicted import predicted
from clipsyn.analyses.robustness import robustness
from clipsyn.errors import StaleCell, UsageError
from clipsyn.evaluation import Selection
from clipsyn.methods.numerics.logits import NO_PREDICTION
from clipsyn.store.cell import Cell
from clipsyn.store.features import FeatureStore
from tests.results import bring

COUNT = 40
MISSING = {"fake/one": {3, 7}, "fake/two": {7, 20}}  # rows without a prediction


@pytest.fixture(scope="module")
def store(fakes, tmp_path_factory):
    """Two backbones on the same forty images, of which each could not read two."""
    path = tmp_path_factory.mktemp("predicted") / "store"
    for name, rows in MISSING.items():
        source = fakes.Source(count=COUNT, bad=dict.fromkeys(rows, "cut off"))
        fakes.fill(path, [fakes.Encoder(name)], [source], ("clean", "jpeg:3"), max_bad=0.1)
    return FeatureStore.open(path)


def test_backbones_share_rows_whatever_they_lack(store):
    for group in predicted(store, Selection()):
        assert group.backbones == tuple(MISSING)
        assert group.predictions.shape == (2, COUNT)
        lacking = [set(np.flatnonzero(row == NO_PREDICTION)) for row in group.predictions]
        assert lacking == list(MISSING.values())


@pytest.mark.parametrize("analysis", [oracle, diversity, robustness])
def test_images_count_that_all_backbones_predict(store, analysis):
    assert set(analysis(store)["n"]) == {COUNT - 3}


def test_what_is_replaced_while_it_is_read_is_not_mixed(fakes, tmp_path, monkeypatch):
    store = fakes.fill(tmp_path / "store", [fakes.Encoder(), fakes.Encoder("fake/two")])
    read = Cell.predictions

    def read_and_replace(self, *which):
        found = read(self, *which)
        monkeypatch.undo()
        fakes.fill(self.store.path, [fakes.Encoder(weights="others")], replace=True)
        return found

    monkeypatch.setattr(Cell, "predictions", read_and_replace)
    with pytest.raises(StaleCell, match="was replaced while it was read: run the same command"):
        zeroshot(store)
    assert zeroshot(store).equals(zeroshot(FeatureStore.open(store.path)))


def test_other_images_under_the_same_name_are_refused(store, fakes):
    """So that the cells of a dataset and split always have the same rows."""
    other = fakes.Source(count=COUNT - 1)
    with pytest.raises(StaleCell, match="toy/test"):
        fakes.fill(store.path, [fakes.Encoder("fake/three")], [other])


class TestPooled:
    """Ten images, six clean and four under fog; two backbones, one without an answer to one."""

    ANSWERS: ClassVar[dict[str, str]] = {"a": "xxxxxyxyxy", "b": "xyxyxyxyx-"}
    TRUTH = "xxxxxxyyyy"

    @pytest.fixture
    def shown(self, tmp_path):
        rows = [
            {"id": f"{row}", "model": name, "pred": answer.strip("-"), "label": self.TRUTH[row]}
            | {"severity": 0 if row < 6 else 2}
            for name, answers in self.ANSWERS.items()
            for row, answer in enumerate(answers)
        ]
        return bring(tmp_path / "s", rows, perturbation="fog")

    def test_accuracies_are_of_all_conditions_together(self, shown):
        frame = zeroshot(shown, pooled=True).filter(pl.col("metric") == "acc1")
        found = {
            tuple(row["backbones"]): (row["perturbation"], row["severity"], row["value"], row["n"])
            for row in frame.iter_rows(named=True)
            if row["ensemble"] != "chance"
        }
        a, b = (sum(map(str.__eq__, self.ANSWERS[name], self.TRUTH)) for name in "ab")
        answers = zip(self.TRUTH[:9], *self.ANSWERS.values(), strict=False)
        oracle_right = sum(truth in said for truth, *said in answers)
        assert found == {
            ("a",): ("all", None, a / 10, 10),
            ("b",): ("all", None, b / 9, 9),
            ("a", "b"): ("all", None, pytest.approx(oracle_right / 9), 9),
        }

    @pytest.mark.parametrize("analysis", [oracle, diversity])
    def test_every_analysis_is_over_what_all_predict(self, shown, analysis):
        assert set(analysis(shown, pooled=True)["n"]) == {9}

    def test_the_same_images_twice_cannot_be(self, store):
        with pytest.raises(UsageError, match="images under several perturbations"):
            zeroshot(store, pooled=True)

    def test_weights_need_logits(self, shown):
        with pytest.raises(UsageError, match="logits are not pooled"):
            oracle(shown, pooled=True, weights=True)
