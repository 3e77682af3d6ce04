"""Which images count where backbones lack different ones, in every analysis of predictions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

from clipsyn.errors import StaleCell
from clipsyn.evaluate import zeroshot
from clipsyn.evaluate.diversity import diversity
from clipsyn.evaluate.oracle import oracle, sample_table, subset_table
from clipsyn.evaluate.predicted import predicted
from clipsyn.evaluate.robustness import robustness
from clipsyn.schema import NO_PREDICTION
from clipsyn.store.features import FeatureStore

COUNT = 40
MISSING = {"fake/one": {3, 7}, "fake/two": {7, 20}}  # rows without a prediction


@pytest.fixture(scope="module")
def store(fakes: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """Two backbones on the same forty images, of which each could not read two."""
    path = tmp_path_factory.mktemp("predicted") / "store"
    for name, rows in MISSING.items():
        source = fakes.Source(count=COUNT, bad=dict.fromkeys(rows, "cut off"))
        fakes.fill(path, [fakes.Encoder(name)], [source], ("clean", "jpeg:3"), max_bad=0.1)
    return FeatureStore.open(path)


def test_backbones_share_rows_whatever_they_lack(store: FeatureStore) -> None:
    for group in predicted(store):
        assert group.backbones == tuple(MISSING)
        assert group.predictions.shape == (2, COUNT)
        lacking = [set(np.flatnonzero(row == NO_PREDICTION)) for row in group.predictions]
        assert lacking == list(MISSING.values())


@pytest.mark.parametrize("analysis", [oracle, diversity, robustness, subset_table])
def test_images_count_that_all_backbones_predict(
    store: FeatureStore, analysis: Callable[..., pl.DataFrame]
) -> None:
    assert set(analysis(store)["n"]) == {COUNT - 3}


def test_a_backbone_on_its_own_has_all_that_it_predicts(store: FeatureStore) -> None:
    frame = zeroshot(store, perturbations="clean").filter(metric="acc1")
    found = dict(
        frame.with_columns(pl.col("ensemble").fill_null("")).select("backbones", "n").rows()
    )
    assert found == {"fake/one": 38, "fake/two": 38, "fake/one+fake/two": 37, "": COUNT}


def test_what_is_replaced_while_it_is_read_is_not_mixed(
    fakes: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = fakes.fill(tmp_path / "store", [fakes.Encoder(), fakes.Encoder("fake/two")])
    read = FeatureStore.predictions

    def read_and_replace(self: FeatureStore, *which: Any) -> Any:
        found = read(self, *which)
        monkeypatch.undo()
        fakes.fill(self.path, [fakes.Encoder(weights="others")], replace=True)
        return found

    monkeypatch.setattr(FeatureStore, "predictions", read_and_replace)
    with pytest.raises(StaleCell, match="was replaced while it was read: run the same command"):
        zeroshot(store)
    assert zeroshot(store).equals(zeroshot(FeatureStore.open(store.path)))


def test_the_table_of_samples_has_them_all(store: FeatureStore) -> None:
    table = sample_table(store, perturbations="clean")
    assert len(table) == COUNT
    lacking = table.with_row_index("row").filter(pl.col("right").is_null())
    assert set(lacking["row"]) == {3, 7, 20}


def test_other_images_under_the_same_name_are_refused(
    store: FeatureStore, fakes: SimpleNamespace
) -> None:
    """So that the cells of a dataset and split always have the same rows."""
    other: Any = fakes.Source(count=COUNT - 1)
    with pytest.raises(StaleCell, match="toy/test"):
        fakes.fill(store.path, [fakes.Encoder("fake/three")], [other])
