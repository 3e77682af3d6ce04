"""`clipsyn.extract.work`: what is asked for against what is there; a changed field is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clipsyn.errors import DatasetError, StaleCell
from clipsyn.extract.work import Wanted, Work, load_work
from clipsyn.images.perturb import resolve
from clipsyn.store.features import FeatureStore


@pytest.fixture
def planned(fakes: Any) -> Callable[..., Work]:
    def planned(store, encoders=None, sources=None, *perturbations, **more):
        wanted = Wanted(
            encoders or [fakes.Encoder()],
            sources or [fakes.Source()],
            [resolve(text) for text in perturbations or ("clean",)],
            **more,
        )
        return load_work(store, wanted, fakes.Quiet())

    return planned


def test_the_table_says_what_is_there_and_what_the_rest_costs(tmp_path, fakes, planned):
    store = fakes.fill(tmp_path, shard=(0, 2))  # blocks 0 and 2 of 3: 7 + 6 images
    encoders = [fakes.Encoder(), fakes.Encoder("fake/two", embed_dim=100)]
    work = planned(store, encoders, None, "clean", "jpeg:1")
    clean, jpeg = work.plan().table().to_dicts()
    assert (clean["perturbation"], clean["cells"], clean["done"]) == ("clean", 2, 0)
    assert clean["passes left"] == 7 + 20
    assert jpeg["passes left"] == 40
    assert jpeg["GFLOPs"] == round(40 * 0.5)
    embeddings = 20 * (2 * 12 + 1) + 20 * (2 * 100 + 1)
    assert jpeg["embeddings MB"] * 1e6 == pytest.approx(embeddings)
    assert clean["embeddings MB"] == jpeg["embeddings MB"]
    assert clean["logits MB"] * 1e6 == pytest.approx(2 * 20 * 4 * 3)
    assert jpeg["logits MB"] == 0
    for row in (clean, jpeg):
        assert row["predictions MB"] * 1e6 == pytest.approx(2 * 20 * 2)
    assert "4 of 4 cells to make: 67 images" in work.summary()
    fakes.fill(tmp_path, encoders, perturbations=["clean", "jpeg:1"])
    work = planned(store, encoders, None, "clean", "jpeg:1")
    assert not work.is_needed
    assert work.plan().table()["done"].to_list() == [2, 2]
    for kind in ("embeddings", "logits", "predictions"):
        assert work.plan().table()[f"{kind} MB"].to_list() == [0, 0]
    assert work.summary() == "all 4 cells are there"


def test_severities_share_a_row_of_the_table(tmp_path: Path, planned: Callable[..., Work]) -> None:
    work = planned(FeatureStore(tmp_path, 8), None, None, "jpeg:3", "jpeg:1", "contrast:2", "clean")
    rows = [(row["perturbation"], row["cells"]) for row in work.plan().table().to_dicts()]
    assert rows == [("jpeg-1,3", 2), ("contrast-2", 1), ("clean", 1)]
    seeded = planned(
        FeatureStore(tmp_path, 8), None, None, "jpeg:1:seed=7", "jpeg:2:seed=7", "jpeg:1"
    )
    assert seeded.plan().table()["perturbation"].to_list() == ["jpeg-1,2-seed7", "jpeg-1"]


def test_corrected_labels_are_needed_and_stale_nothing(tmp_path, fakes, planned):
    store = fakes.fill(tmp_path)
    source = fakes.Source()
    source.labels[0] = 2
    work = planned(store, None, [source])
    assert work.is_needed
    assert "correct" in work.summary()
    fakes.fill(tmp_path, sources=[source])
    assert not planned(store, None, [source]).is_needed


def test_splits_with_other_classes_are_refused(tmp_path, fakes, planned):
    sources = [fakes.Source(), fakes.Source(split="train", class_names=("cat", "dog"))]
    with pytest.raises(DatasetError, match=r"toy: its splits test and train .*\(3 and 2\)"):
        planned(FeatureStore(tmp_path, 8), None, sources)


def test_unlabelled_images_are_noted(tmp_path, fakes, planned):
    work = planned(FeatureStore(tmp_path, 8), None, [fakes.Source(class_names=(), notes=("odd",))])
    assert work.notes == ("odd", "toy has no class names: image embeddings only")
    (cell,) = work.cells
    assert (cell.classes, cell.answers, cell.superseded) == (None, None, None)


# What has changed since: a miss that names the field


def changed_precision(fakes: Any) -> dict[str, Any]:
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

    def wanted(more: dict[str, Any]) -> dict[str, Any]:
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


def test_a_changed_perturbation_is_named(tmp_path, fakes, planned, monkeypatch):
    store = fakes.fill(tmp_path, perturbations=["jpeg:1"])
    new = resolve("jpeg:1")
    object.__setattr__(new, "version", 2)
    wanted = Wanted([fakes.Encoder()], [fakes.Source()], [new])
    with pytest.raises(StaleCell, match=r"perturbation\.version: 1 → 2"):
        load_work(store, wanted, fakes.Quiet())
