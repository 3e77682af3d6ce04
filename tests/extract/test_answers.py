"""Which cells store logits and which predictions alone, and that readers get the same of both."""

import shutil

import pytest

from clipsyn import oracle, robustness, zeroshot
from clipsyn.errors import StaleCell
from clipsyn.names import FeatureKey
from clipsyn.store import arrays
from tests.kills import problems

LABELS = ("clean", "jpeg:3", "fog:2")
CLASSES = tuple(f"bird {number}" for number in range(7))  # enough for a top-5 accuracy


def fill(fakes, path, **options):
    """A store of two backbones and two splits, and the encoders that were used."""
    encoders = [fakes.Encoder(), fakes.Encoder("fake/two", size=6, embed_dim=33)]
    options.setdefault("perturbations", LABELS)
    bad = {5: "torn"}
    sources = [
        fakes.Source(count=45, class_names=CLASSES, bad=bad),
        fakes.Source(split="train", count=40, class_names=CLASSES),
    ]
    return fakes.fill(path, encoders, sources, max_bad=0.1, **options), encoders


def kinds(store):
    """The perturbations whose cells have logits, and those whose cells have predictions alone."""
    return {
        kind: {names[2] for names, _ in store.groups(kind)} for kind in ("logits", "predictions")
    }


@pytest.fixture(scope="module")
def stores(fakes, tmp_path_factory):
    """The same cells by each setting. READ ONLY."""
    root = tmp_path_factory.mktemp("answers")
    return {how: fill(fakes, root / how, logits=how)[0] for how in ("clean", "all", "none")}


def test_each_setting_stores_what_it_says(stores):
    perturbed = {"jpeg-3", "fog-2"}
    assert kinds(stores["clean"]) == {"logits": {"clean"}, "predictions": perturbed}
    assert kinds(stores["all"]) == {"logits": {"clean", *perturbed}, "predictions": set()}
    assert kinds(stores["none"]) == {"logits": set(), "predictions": {"clean", *perturbed}}
    for store in stores.values():
        assert problems(store, deep=True) == []


def test_readers_get_the_same_bits(stores):
    keys = stores["all"].keys()
    assert len(keys) == 12
    for how in ("clean", "none"):
        store = stores[how]
        assert store.keys() == keys
        for key in keys:
            assert store.cell(key).fingerprint() == stores["all"].cell(key).fingerprint()
            assert (
                store.cell(key).prompt_sets() == stores["all"].cell(key).prompt_sets() == ["simple"]
            )
            for read in ("logits", "predictions"):
                one, other = (getattr(s.cell(key), read)("simple") for s in (store, stores["all"]))
                assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize("analysis", [zeroshot, robustness, oracle])
def test_analyses_find_the_same_numbers(stores, analysis):
    one, other = (analysis(stores[how], perturbations="*") for how in ("clean", "all"))
    assert set(one["perturbation"]) >= {"clean", "jpeg-3", "fog-2"}
    assert one.equals(other)


# The same cells, extracted again


@pytest.mark.parametrize(("before", "now"), [("all", "clean"), ("clean", "none")])
def test_logits_that_are_there_stay(fakes, tmp_path, stores, before, now):
    path = shutil.copytree(stores[before].path, tmp_path / "store")
    there = fakes.contents(path)
    _, encoders = fill(fakes, path, logits=now)
    assert fakes.contents(path) == there
    assert not any(encoder.encoded or encoder.texts for encoder in encoders)


def test_logits_are_added_without_images_and_take_the_place_of_predictions(fakes, tmp_path, stores):
    path = shutil.copytree(stores["clean"].path, tmp_path / "store")
    store, encoders = fill(fakes, path, logits="all")
    assert not any(encoder.encoded or encoder.texts for encoder in encoders)
    assert fakes.unlike(path / "logits", stores["all"].path / "logits") == []
    assert kinds(store)["predictions"] == set()
    assert problems(store, deep=True) == []


@pytest.mark.parametrize(("before", "now"), [("all", "clean"), ("clean", "all")])
def test_what_other_weights_made_is_refused_or_replaced(fakes, tmp_path, before, now):
    options = {"perturbations": ["jpeg:3"], "logits": now}
    fakes.fill(tmp_path / "store", perturbations=["jpeg:3"], logits=before)
    others = [fakes.Encoder(weights="others")]
    with pytest.raises(StaleCell, match="weights"):
        fakes.fill(tmp_path / "store", others, **options)
    store = fakes.fill(tmp_path / "store", others, replace=True, **options)
    fakes.fill(tmp_path / "fresh", others, **options)
    assert len(store.places()) == 4  # samples, classes, features, and one of the two kinds
    for place in store.places():
        path = store.at(*place)
        fresh = tmp_path / "fresh" / path.relative_to(store.path)
        assert fakes.unlike(path, fresh) == []
    assert problems(store, deep=True) == []


def test_predictions_of_other_features_are_stale(fakes, tmp_path):
    store = fakes.fill(tmp_path, perturbations=["jpeg:3"])
    key = FeatureKey("toy", "test", "jpeg-3", "fake/one")
    path = store.at("predictions", *key.names, "simple")
    identity = {**arrays.read_attributes(path)["identity"], "features": "0" * 64}
    fakes.rewrite(path, identity=identity)
    with pytest.raises(StaleCell, match=r"the predictions of .* from other features .*--replace"):
        store.cell(key).predictions("simple")
    with pytest.raises(StaleCell):
        fakes.planned(store, perturbations=["jpeg:3"], logits="all")
