"""Captions that are extracted: encoded once, gone on with, replaced, refused."""

import numpy as np
import pytest

from clipsyn.errors import DatasetError, MissingCell, StaleCell
from clipsyn.store.features import FeatureStore
from tests.kills import problems

CAPTIONS = [
    [f"image {row}", "a thing", f"{'very ' * (row % 4)}good"][: row % 4] for row in range(10)
]
TEXTS = [text for texts in CAPTIONS for text in texts]
PLACE = ("toy", "test", "fake/one")


@pytest.fixture
def source(fakes):
    """No class names: the texts that are encoded are captions."""
    return fakes.Source(class_names=(), captions=CAPTIONS, count=10)


def assert_whole(store, encoder):
    assert list(store.captions("toy", "test").texts) == TEXTS
    embeddings, scale = store.text_embeddings(*PLACE)
    np.testing.assert_array_equal(embeddings, encoder.encode_text(TEXTS).astype(np.float16))
    assert scale == encoder.logit_scale
    assert problems(store, deep=True) == []


def test_each_text_is_encoded_once_for_all_perturbations(fakes, source, tmp_path):
    encoder = fakes.Encoder()
    store = fakes.fill(tmp_path / "s", [encoder], [source], ["clean", "jpeg:3"])
    assert sorted(encoder.texts) == sorted({*TEXTS})
    assert_whole(store, encoder)
    again = fakes.Encoder()
    assert not fakes.planned(store, [again], [source], ["clean"]).is_needed
    fakes.fill(tmp_path / "s", [again, fakes.Encoder("fake/two")], [source])
    assert again.texts == []
    assert store.text_embeddings("toy", "test", "fake/two")[0].shape == (len(TEXTS), 12)


def test_classes_and_captions_stand_side_by_side(fakes, tmp_path):
    encoder = fakes.Encoder()
    source = fakes.Source(captions=CAPTIONS, count=10)
    store = fakes.fill(tmp_path / "s", [encoder], [source])
    assert {kind for kind, *_ in store.places()} >= {"samples", "captions", "classes", "texts"}
    assert_whole(store, encoder)
    plain = fakes.fill(tmp_path / "plain", sources=[fakes.Source(count=10)])
    other = fakes.unlike(plain.path, tmp_path / "s")
    assert {name.split("/")[0] for name in other} == {"captions", "texts"}


def test_captions_join_a_split_that_was_extracted_without(fakes, source, tmp_path):
    bare = fakes.Source(class_names=(), count=10)
    fakes.fill(tmp_path / "s", sources=[bare])
    encoder = fakes.Encoder()
    assert_whole(fakes.fill(tmp_path / "s", [encoder], [source]), encoder)
    assert encoder.encoded == []
    assert_whole(fakes.fill(tmp_path / "s", sources=[bare]), encoder)


def test_other_texts_need_replace(fakes, source, tmp_path):
    store = fakes.fill(tmp_path / "s", sources=[source])
    other = fakes.Source(class_names=(), count=10, captions=[*CAPTIONS[:9], ["another"]])
    with pytest.raises(StaleCell) as caught:
        fakes.fill(tmp_path / "s", sources=[other])
    assert "captions" in caught.value.fields
    assert_whole(store, fakes.Encoder())
    fakes.fill(tmp_path / "s", sources=[other], replace=True)
    assert store.captions("toy", "test").texts[-1] == "another"
    expected = fakes.Encoder().encode_text(["another"]).astype(np.float16)
    np.testing.assert_array_equal(store.text_embeddings(*PLACE)[0][-1:], expected)


def test_other_weights_need_replace_and_never_stand_beside_images_of_old_ones(
    fakes, source, tmp_path
):
    fakes.fill(tmp_path / "s", [fakes.Encoder()], [source], ["clean", "jpeg:3"])
    newer = fakes.Encoder(weights="newer")
    with pytest.raises(StaleCell):
        fakes.fill(tmp_path / "s", [newer], [source])
    store = fakes.fill(tmp_path / "s", [newer], [source], replace=True)
    assert store.text_embeddings(*PLACE)[1] == 100
    with pytest.raises(StaleCell):
        store.text_embeddings(*PLACE, "jpeg-3")


def test_a_backbone_without_a_text_tower_has_none_and_is_named(fakes, source, tmp_path):
    bare = fakes.Encoder()
    bare.reads_texts = False
    store = fakes.fill(tmp_path / "s", [bare, fakes.Encoder("fake/two")], [source])
    assert [names[-1] for names, _ in store.groups("texts")] == ["fake/two"]
    assert any("fake/one" in note for note in fakes.planned(store, [bare], [source]).notes)
    with pytest.raises(MissingCell):
        store.text_embeddings(*PLACE)


def test_an_empty_caption_is_refused_before_any_work(fakes, tmp_path):
    with pytest.raises(DatasetError):
        fakes.fill(tmp_path / "s", sources=[fakes.Source(count=2, captions=[["x"], [" "]])])
    assert FeatureStore.open(tmp_path / "s").places() == []
