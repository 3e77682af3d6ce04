"""`clipsyn.store.merge`: the union of stores, or a refusal that leaves everything as it was."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipsyn.errors import DamagedStore, StaleCell, StoreError
from clipsyn.names import FeatureKey
from clipsyn.store import arrays
from clipsyn.store import merge as merging
from clipsyn.store.features import FeatureStore
from clipsyn.store.groups import Group
from clipsyn.store.inventory import collect, left_over, remove
from clipsyn.store.merge import Plan, StoreDiff, copy_groups, plan_merge
from clipsyn.store.samples import SampleTable
from tests.kills import problems

BOTH = ("clean", "jpeg:3")
CELL = "features/toy/test/clean/fake--one"
LOGITS = "logits/toy/test/clean/fake--one/simple"


def kinds(offer: StoreDiff) -> Counter[str]:
    return Counter(group.kind for group in offer.take)


@pytest.fixture
def merge(fakes: Any) -> Callable[..., Plan]:
    """Function (into, *others) -> the plan, carried out."""

    def run(into: Path, *others: Path, **how: Any) -> Plan:
        plan = plan_merge(into, others)
        plan.carry_out(fakes.Quiet(), **how)
        return plan

    return run


@pytest.fixture
def alice(tmp_path: Path, fakes: Any) -> Path:
    """One backbone, clean and jpeg-3."""
    return fakes.fill(tmp_path / "alice", perturbations=BOTH).path


@pytest.fixture
def bob(tmp_path: Path, fakes: Any) -> Path:
    """Another backbone on the same images and on another split, and alice's clean cell."""
    sources = [fakes.Source(), fakes.Source(split="train", count=11)]
    encoders = [fakes.Encoder(), fakes.Encoder("fake/two", size=12, embed_dim=16)]
    return fakes.fill(tmp_path / "bob", encoders, sources).path


@pytest.fixture
def other_device(fakes: Any) -> Callable[..., None]:
    """Function (store, place, array): it was made on a device with other rounding."""

    def make(store: Path, place: str, array: str) -> None:
        path = store / place / array
        group = FeatureStore.open(store).group(path.parent)
        values, layout = group.read(array), group.arrays[array]
        values[1] = np.roll(values[1], 1, axis=0)
        for block in range(layout.blocks.count):
            arrays.write_block(path, layout, block, layout.part(values, block))
        listed = arrays.listing(path, layout).json()
        fakes.rewrite(path.parent, arrays={**group["arrays"], array: listed})

    return make


def test_the_union_is_what_one_extraction_makes(merge, alice, bob, tmp_path, fakes):
    one, two = fakes.Encoder(), fakes.Encoder("fake/two", size=12, embed_dim=16)
    test, train = fakes.Source(), fakes.Source(split="train", count=11)
    whole = tmp_path / "whole"
    fakes.fill(whole, [one], [test], BOTH)
    fakes.fill(whole, [one, two], [test, train])
    plan = merge(tmp_path / "lab", alice, bob)
    assert fakes.unlike(whole, tmp_path / "lab") == []
    assert fakes.draft_folders(tmp_path / "lab") == []
    assert problems(tmp_path / "lab", deep=True) == []
    first, second = plan.offers
    assert kinds(first) == {
        "samples": 1,
        "classes": 1,
        "features": 2,
        "logits": 1,
        "predictions": 1,
    }
    assert kinds(second) == {"samples": 1, "classes": 1, "features": 3, "logits": 3}
    assert (first.there, second.there) == (0, 4)  # samples, classes, a cell, its logits
    assert [*first.notes, *second.notes] == []


def test_what_is_not_chosen_is_neither_taken_nor_compared(alice, bob, tmp_path, fakes):
    """bob's clean cell of fake/one is of other weights than carol's."""
    carol = fakes.fill(tmp_path / "carol", [fakes.Encoder(weights="other")]).path
    with pytest.raises(StaleCell):
        plan_merge(carol, [alice, bob])
    plan = plan_merge(carol, [alice, bob], {"backbone": ["fake/two"], "split": ["t*t"]})
    assert [[group.name for group in offer.take] for offer in plan.offers] == [
        [],
        [
            "classes/toy/simple/fake--two",
            "features/toy/test/clean/fake--two",
            "logits/toy/test/clean/fake--two/simple",
        ],
    ]


def test_into_a_store_that_is_there(merge, alice, bob, tmp_path, fakes):
    before = {path: path.stat().st_ino for path in alice.rglob("*") if path.is_file()}
    marker = FeatureStore.open(alice).tree.marker(FeatureStore.open(alice).path)
    merge(alice, bob)
    assert FeatureStore.open(alice).tree.marker(FeatureStore.open(alice).path) == marker
    assert {path: path.stat().st_ino for path in before} == before  # nothing was written again
    assert len(FeatureStore.open(alice).keys()) == 5
    assert problems(alice, deep=True) == []
    again = merge(alice, bob)
    assert [len(offer.take) for offer in again.offers] == [0]


# What cannot be in one store


def refused(into: Path, *others: Path, fakes: Any) -> StaleCell:
    """The error of a merge, which must leave all stores as they were."""
    places = [path for path in (into, *others) if path.exists()]
    before = [fakes.contents(path) for path in places]
    with pytest.raises(StaleCell, match="nothing was merged into") as caught:
        plan_merge(into, others)
    assert [fakes.contents(path) for path in places] == before
    assert all(fakes.draft_folders(path) == [] for path in places)
    assert into.exists() == (into in places)
    return caught.value


def test_other_weights_or_images_under_one_name(alice: Path, tmp_path: Path, fakes: Any) -> None:
    """All else that was made of other images differs too, and is not said."""
    other = fakes.fill(tmp_path / "other", [fakes.Encoder(weights="x")]).path
    assert refused(alice, other, fakes=fakes).fields == ("backbone.weights",)
    assert "3 conflicts" in str(refused(tmp_path / "new", other, alice, fakes=fakes))
    other = fakes.fill(tmp_path / "images", sources=[fakes.Source(changed={3})]).path
    error = refused(alice, other, fakes=fakes)
    assert error.fields == ("samples",)
    assert "1 conflict:" in str(error)


def imported(path: Path, samples: SampleTable, prompts: str | None = None) -> Path:
    store = FeatureStore.create(path)
    with store.writer(samples, "fake/one", prompts=prompts) as cell:
        cell.predictions(np.zeros(len(samples), int))
    return path


def test_a_cell_is_extracted_or_imported(alice: Path, tmp_path: Path, fakes: Any) -> None:
    samples = FeatureStore.open(alice).samples("toy", "test")
    other = imported(tmp_path / "other", samples)
    assert refused(alice, other, fakes=fakes).fields == ("kind",)
    third = imported(tmp_path / "third", samples, "photo")
    assert refused(other, third, fakes=fakes).fields == ("kind",)


# What is kept of two that are the same


def test_of_one_identity_with_other_numbers_the_first_stays(merge, alice, bob, other_device, fakes):
    other_device(bob, CELL, "image_embedding")
    before = fakes.contents(alice)
    (offer,) = merge(alice, bob).offers
    assert offer.there == 3  # samples, classes; logits have equal numbers here
    after = fakes.contents(alice)
    assert {name: after[name] for name in before} == before
    assert CELL in "".join(offer.notes)


@pytest.mark.parametrize(
    "of",
    [(CELL, "image_embedding"), ("classes/toy/simple/fake--one", "class_embedding")],
)
def test_logits_of_other_numbers_do_not_come_without_them(merge, alice, bob, other_device, of):
    """Logits in a store follow from what lies beside them: `verify --deep` computes them again."""
    other_device(bob, *of)
    store = FeatureStore.open(alice)
    remove(store, [("logits", "toy", "test", "clean", "fake/one", "simple")])
    (offer,) = merge(alice, bob).offers
    assert not (alice / LOGITS).exists()
    key = FeatureKey("toy", "test", "clean", "fake/one")
    assert store.cell(key).logits("simple").shape == (20, 3)  # derived
    assert problems(alice, deep=True) == []
    assert LOGITS in "".join(offer.notes)


def corrected(path: Path) -> None:
    """Three labels, the metric and the terms of toy/test."""
    store = FeatureStore.open(path)
    table = store.samples("toy", "test")
    labels = table.labels.copy()
    labels[:3] = (labels[:3] + 1) % 3
    facts = {"metric": "mean_per_class_recall", "licence": "CC BY 4.0"}
    known = {"ids": table.ids, "content": table.content, "class_names": table.class_names}
    store.annotate(SampleTable("toy", "test", labels=labels, **known, **facts))


def test_corrected_labels_are_said_and_the_first_stay(merge, alice, bob, tmp_path):
    corrected(bob)
    new, old = (FeatureStore.open(path).samples("toy", "test") for path in (bob, alice))
    (offer,) = merge(alice, bob).offers
    assert "samples/toy/test" in "".join(offer.notes)
    kept = FeatureStore.open(alice).samples("toy", "test")
    assert np.array_equal(kept.labels, old.labels)
    merge(tmp_path / "lab", bob, alice)
    first = FeatureStore.open(tmp_path / "lab").samples("toy", "test")
    assert np.array_equal(first.labels, new.labels)


# What is no store, or not whole


@pytest.mark.parametrize(
    "lost",
    [
        (f"{CELL}/image_embedding/c.1.0", "verify"),
        (f"{CELL}/valid/zarr.json", "verify"),
        (f"{CELL}/zarr.json", "is missing"),
    ],
)
def test_a_damaged_group_is_refused_and_the_rest_can_follow(merge, alice, tmp_path, fakes, lost):
    file, words = lost
    lab, whole = tmp_path / "lab", tmp_path / "whole"
    shutil.copytree(alice, whole)
    (alice / file).unlink()
    with pytest.raises(DamagedStore, match=words) as caught:
        merge(lab, alice)
    assert str(CELL) in str(caught.value)
    assert not (lab / CELL).exists()
    if lab.exists():
        assert problems(lab, deep=True) == []
    shutil.rmtree(alice)
    shutil.copytree(whole, alice)
    merge(lab, alice)
    assert fakes.unlike(alice, lab) == []
    assert fakes.draft_folders(lab) == []


@pytest.fixture
def into(tmp_path: Path) -> Path:
    return FeatureStore.create(tmp_path / "into", 8).path


@pytest.fixture
def group(tiny_store: FeatureStore) -> Group:
    return tiny_store.group(tiny_store.path / CELL)


def files_of(group: Path) -> dict[str, bytes]:
    every = [path for path in group.rglob("*") if path.is_file()]
    return {path.relative_to(group).as_posix(): path.read_bytes() for path in every}


def test_a_chunk_that_is_not_on_the_list_is_refused(group: Group, into: Path, fakes: Any) -> None:
    """Also one with a checksum of its own that fits, as that of another cell has."""
    arrays.write_block(group.path / "valid", group.arrays["valid"], 0, np.zeros(7, bool))
    with pytest.raises(DamagedStore, match=CELL):
        copy_groups([group], into)
    assert not (into / CELL).exists()
    assert fakes.draft_folders(into) == []


def test_a_group_that_is_replaced_meanwhile(group: Group, into: Path, fakes: Any) -> None:
    fakes.fill(group.store, [fakes.Encoder(weights="x")], [fakes.Source()], replace=True)
    with pytest.raises(DamagedStore):
        copy_groups([group], into)
    shutil.rmtree(group.path)
    with pytest.raises(DamagedStore):
        copy_groups([group], into)
    assert not (into / CELL).exists()
    assert left_over(into) == []


def test_other_content_that_came_meanwhile_stays(group: Group, into: Path, fakes: Any) -> None:
    fakes.fill(into, [fakes.Encoder(weights="x")], [fakes.Source()])
    before = files_of(into / CELL)
    with pytest.raises(StaleCell) as caught:
        copy_groups([group], into)
    assert caught.value.fields == ("backbone.weights",)
    assert files_of(into / CELL) == before


@pytest.mark.parametrize("name", ["files.sync_all", "make_groups"])
def test_a_copy_that_is_taken_away_is_never_half_there(group, into, monkeypatch, name):
    """As `gc` does."""
    name = f"{merging.__name__}.{name}"
    monkeypatch.setattr(name, lambda *_, **__: collect(into, left_over(into)))
    with pytest.raises(StoreError):
        copy_groups([group], into)
    assert not (into / CELL).exists()


def test_a_copy_is_on_the_disk_before_it_is_seen(group, into, monkeypatch):
    """And of two groups the whole one comes, though the other is damaged."""
    other = group.tree.folders(group.path.parent)[1]
    whole = FeatureStore.open(group.store).group(group.path.with_name(other))
    (group.path / "valid" / "c.0").unlink()
    written: list[dict[str, bytes]] = []

    def look(store: Path) -> None:
        assert not (store / whole.name).exists()
        written.append(files_of(store / ".wip"))

    monkeypatch.setattr("clipsyn.store.files.sync_all", look)
    with pytest.raises(DamagedStore, match=CELL):
        copy_groups([group, whole], into)
    assert set(files_of(into / whole.name).values()) <= set(written[0].values())
