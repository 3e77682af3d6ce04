"""`clipsyn.extract.work`: what is asked for against what is there; a changed field is named."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from clipsyn.errors import DatasetError, StaleCell, UsageError
from clipsyn.images.perturb import INFO
from clipsyn.store.features import FeatureStore


def test_what_is_left_is_said_and_then_nothing(tmp_path, fakes):
    store = fakes.fill_some(tmp_path, 2)  # blocks of 7, 7 and 6 images
    encoders = [fakes.Encoder(), fakes.Encoder("fake/two", embed_dim=100)]
    work = fakes.planned(store, encoders, perturbations=["clean", "jpeg:1"])
    assert work.is_needed
    assert "4 of 4 cells to make: 66 images" in work.summary()
    fakes.fill(tmp_path, encoders, perturbations=["clean", "jpeg:1"])
    work = fakes.planned(store, encoders, perturbations=["clean", "jpeg:1"])
    assert not work.is_needed
    assert work.summary() == "all 4 cells are there"


def test_corrected_labels_are_needed_and_stale_nothing(tmp_path, fakes):
    store = fakes.fill(tmp_path)
    source = fakes.Source()
    source.labels[0] = 2
    work = fakes.planned(store, sources=[source])
    assert work.is_needed
    assert "correct" in work.summary()
    fakes.fill(tmp_path, sources=[source])
    assert not fakes.planned(store, sources=[source]).is_needed


def test_splits_with_other_classes_are_refused(tmp_path, fakes):
    sources = [fakes.Source(), fakes.Source(split="train", class_names=("cat", "dog"))]
    with pytest.raises(DatasetError, match="toy/train: other classes than toy/test"):
        fakes.planned(FeatureStore(tmp_path, 8), sources=sources)


def test_two_datasets_of_one_name_are_refused(tmp_path, fakes):
    with pytest.raises(UsageError, match="two datasets are called 'toy'"):
        fakes.planned(FeatureStore(tmp_path, 8), sources=[fakes.Source(), fakes.Source()])


def test_unlabelled_images_are_noted(tmp_path, fakes):
    source = fakes.Source(class_names=(), notes=("odd",))
    work = fakes.planned(FeatureStore(tmp_path, 8), sources=[source])
    assert work.notes == ("odd", "toy has no class names: image embeddings only")
    (cell,) = work.cells
    assert (cell.classes, cell.answers, cell.superseded) == (None, None, None)


# What has changed since: a miss that names the field


def changed_precision(fakes):
    encoder = fakes.Encoder()
    encoder.identity["precision"] = "bf16"
    return {"encoders": [encoder]}


CHANGES: dict[str, Callable[[Any], dict[str, Any]]] = {  # by the field that is named
    "backbone.weights": lambda fakes: {"encoders": [fakes.Encoder(weights="retrained")]},
    "backbone.precision": changed_precision,
    "class_names": lambda fakes: {
        "sources": [fakes.Source(class_names=("dog", "cat", "crème brûlée"))]
    },
    "prompts.templates": lambda fakes: {"sources": [fakes.Source(templates=("a sketch of {c}.",))]},
    "samples": lambda fakes: {"sources": [fakes.Source(changed={11}, count=19)]},
}


@pytest.mark.parametrize("field", CHANGES)
def test_what_has_changed_is_named_and_replaced_on_demand(tmp_path, fakes, field):
    change = CHANGES[field]

    def wanted(more):
        for source in more.get("sources", ()):
            source.templates = source.templates or ("a photo of a {c}.",)
        return {"sources": [fakes.Source(templates=("a photo of a {c}.",))], **more}

    fakes.fill(tmp_path / "store", **wanted({}))
    before = fakes.contents(tmp_path / "store")
    with pytest.raises(StaleCell) as caught:
        fakes.fill(tmp_path / "store", **wanted(change(fakes)))
    assert field in caught.value.fields
    assert fakes.contents(tmp_path / "store") == before
    fakes.fill(tmp_path / "store", **wanted(change(fakes)), replace=True)
    fakes.fill(tmp_path / "fresh", **wanted(change(fakes)))
    assert fakes.unlike(tmp_path / "store", tmp_path / "fresh") == []


def test_a_changed_perturbation_is_named(tmp_path, fakes, monkeypatch):
    store = fakes.fill(tmp_path, perturbations=["jpeg:1"])
    monkeypatch.setitem(INFO, "jpeg", replace(INFO["jpeg"], version=2))
    with pytest.raises(StaleCell, match=r"perturbation\.version: 1 → 2"):
        fakes.planned(store, perturbations=["jpeg:1"])
