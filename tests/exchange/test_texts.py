"""`clipsyn.exchange.parts`: class embeddings that come with image embeddings."""

from __future__ import annotations

import numpy as np
import pytest

from clipsyn.errors import DatasetError, InputError, StaleCell
from clipsyn.names import FeatureKey
from clipsyn.store.features import FeatureStore

KEY = FeatureKey("toy", "test", "clean", "mine")
GENERATOR = np.random.default_rng(0)
IDS = np.array(["a", "b", "c", "d", "e"])
LABELS = np.array([0, 1, 2, 0, 1])
IMAGES = GENERATOR.normal(size=(5, 4))  # of any norm
TEXTS = GENERATOR.normal(size=(3, 4))


def cosines(images, texts):
    """The plain way; image embeddings are rounded to float16 between."""
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (images, texts)]
    return unit[0].astype(np.float16).astype(np.float64) @ unit[1].T


@pytest.fixture
def npz(tmp_path):
    """Function (name, changes) -> an npz of embeddings with class embeddings and scale."""

    def make(name="mine.npz", **changes):
        there = {
            "embeddings": IMAGES,
            "class_embeddings": TEXTS,
            "logit_scale": 50.0,
            "ids": IDS,
            "labels": LABELS,
        }
        kept = {name: value for name, value in (there | changes).items() if value is not None}
        np.savez(tmp_path / name, **kept)
        return tmp_path / name

    return make


@pytest.fixture
def opened(tmp_path):
    return lambda: FeatureStore.open(tmp_path / "store")


def test_one_file_gives_zero_shot_logits(bring, npz, opened):
    frame = bring(npz())
    expected = 50 * cosines(IMAGES, TEXTS)
    right = np.mean(expected.argmax(axis=1) == LABELS)
    assert frame.select("kind", "prompts", "acc1", "was").rows() == [
        ("embeddings", "imported", pytest.approx(right), "new")
    ]
    store = opened()
    np.testing.assert_allclose(store.cell(KEY).logits("imported"), expected, atol=1e-5)
    assert store.samples("toy", "test").class_names == ("0", "1", "2")
    pool = store.pool("toy", "test")
    assert pool.logit_scales == {"mine": 50}
    np.testing.assert_allclose(np.linalg.norm(pool.class_embeddings["mine"], axis=1), 1)


def test_one_file_a_second_prompt_set(bring, npz, opened):
    bring(npz(), prompts="one")
    frame = bring(npz(class_embeddings=-TEXTS), prompts="two")
    assert frame["was"].to_list() == ["there"]  # the image embeddings are
    assert opened().cell(KEY).prompt_sets() == ["one", "two"]
    np.testing.assert_allclose(
        opened().cell(KEY).logits("two"), -50 * cosines(IMAGES, TEXTS), atol=1e-5
    )


def test_one_file_splits_of_a_dataset_share_them(bring, npz, opened):
    bring(npz())
    bring(npz("train.npz"), split="train", backbone="mine")
    assert len(opened().pool("toy", "train").labels) == 5
    other = npz("val.npz", class_embeddings=-TEXTS)
    with pytest.raises(StaleCell):
        bring(other, split="val", backbone="mine")


@pytest.mark.parametrize(
    "changes",
    [
        {"logit_scale": [1, 2]},
        {"logit_scale": -5.0},
        {"class_embeddings": TEXTS[0]},
        {"class_embeddings": TEXTS[:2]},
        {"class_embeddings": TEXTS[:, :3]},
        {"class_embeddings": 0 * TEXTS},
    ],
)
def test_what_cannot_be_is_one_sentence(bring, npz, changes, tmp_path):
    with pytest.raises(InputError):
        bring(npz(**changes))
    assert not (tmp_path / "store" / "features").exists()


def test_what_cannot_be_class_embeddings_without_their_scale(bring, npz):
    with pytest.raises(DatasetError, match="logit_scale"):
        bring(npz(logit_scale=None))
