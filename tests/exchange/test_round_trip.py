"""What is exported and imported again has the same bits, in every layout."""

from __future__ import annotations

import numpy as np
import pytest

from clipsyn.exchange import LAYOUTS, ImportSettings
from clipsyn.exchange.export import export
from clipsyn.exchange.importing import import_files
from clipsyn.names import FeatureKey
from clipsyn.store.features import FeatureStore
from clipsyn.store.inventory import damage


def round_trip(fakes, store, folder, layout):
    export(store, folder / "export", store.keys(), layout, fakes.Quiet())
    import_files(folder / "again", [folder / "export"], ImportSettings())
    return FeatureStore.open(folder / "again")


def equal(one, other):
    return one.dtype == other.dtype and one.tobytes() == other.tobytes()


def sets(store, key):
    cell = store.cell(key)
    return list(cell.known_sets) or [None]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_arrays_samples_and_what_follows_from_them_are_the_same(fakes, mixed, tmp_path, layout):
    again = round_trip(fakes, mixed, tmp_path, layout)
    keys = mixed.keys()
    assert again.keys() == keys
    for key in keys:
        ours, theirs = mixed.cell(key), again.cell(key)
        assert sets(mixed, key) == sets(again, key)
        for prompts in sets(mixed, key):
            for array in ("logit", "prediction", "confidence", "valid", "image_embedding"):
                if array in ours.group(prompts)["arrays"]:
                    held = [cell.holding(array, prompts).read(array) for cell in (ours, theirs)]
                    assert equal(*held), (key, array)
        for prompts in ours.prompt_sets() if ours.has_embeddings else ():
            assert equal(ours.logits(prompts), theirs.logits(prompts))
            assert equal(ours.predictions(prompts), theirs.predictions(prompts))
    for names, _ in mixed.groups("classes"):
        ours, theirs = (store.class_embeddings(*names) for store in (mixed, again))
        assert equal(ours[0], theirs[0])
        assert ours[1] == theirs[1]
    for place, _ in mixed.groups("samples"):
        ours, theirs = mixed.samples(*place), again.samples(*place)
        for field in ("ids", "class_names", "metric", "licence"):
            assert getattr(ours, field) == getattr(theirs, field)
        assert equal(ours.labels, theirs.labels)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_round_trip_is_a_whole_store_and_a_second_changes_nothing(fakes, mixed, tmp_path, layout):
    again = round_trip(fakes, mixed, tmp_path, layout)
    for group in again.places():
        assert list(damage(again, group, deep=True)) == []
    rows = import_files(tmp_path / "again", [tmp_path / "export"], ImportSettings())
    assert set(rows["was"]) == {"there"}
    (tmp_path / "second").mkdir()
    third = round_trip(fakes, again, tmp_path / "second", layout)
    assert fakes.unlike(third.path, again.path) == []


@pytest.mark.parametrize("layout", LAYOUTS)
def test_it_goes_into_a_store_that_has_the_samples_in_another_order(fakes, tmp_path, layout):
    ours = fakes.fill(tmp_path / "ours", [fakes.Encoder("theirs")])
    export(ours, tmp_path / "export", ours.keys(), layout, fakes.Quiet())
    source = fakes.Source()
    order = np.random.default_rng(1).permutation(20)
    source.ids = tuple(source.ids[row] for row in order)
    source.labels = source.labels[order]
    store = fakes.fill(tmp_path / "store", sources=[source])
    import_files(store.path, [tmp_path / "export"], ImportSettings())
    key = FeatureKey("toy", "test", "clean", "theirs")
    assert equal(store.cell(key).embeddings(), ours.cell(key).embeddings()[order])
