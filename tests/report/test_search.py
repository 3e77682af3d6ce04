"""`clipsyn.search` against cosines in double precision, sorted one by one."""

import hashlib
import io
import logging
import re
from base64 import b64decode
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import clipsyn
from clipsyn.errors import InputError, MissingCell, StaleCell, UnknownName, UsageError
from clipsyn.names import FeatureKey
from clipsyn.store.samples import SampleTable

ONE, TWO = "fake/one", "fake/two"
TEST = {"dataset": "toy", "split": "test"}


@pytest.fixture
def encoders(fakes, monkeypatch):
    """Those that made the tiny store, which are loaded by name."""
    known = {
        it.backbone.name: it for it in (fakes.Encoder(), fakes.Encoder(TWO, size=12, embed_dim=16))
    }
    load = lambda backbone, **_: known[backbone.name]  # noqa: E731
    monkeypatch.setattr("clipsyn.extract.encoder.load_encoder", load)
    return known


def cosines(store, queries, split="test"):
    """(backbone, sample) in double precision."""
    cells = [store.cell(FeatureKey("toy", split, "clean", name)) for name in queries]
    return np.array(
        [
            [
                sum(float(a) * float(b) for a, b in zip(row, query, strict=True))
                for row in cell.embeddings()
            ]
            for cell, query in zip(cells, queries.values(), strict=True)
        ]
    )


def check(frame, store, found, scores, without=()):
    """That a frame has the images of the highest scores, with what is known of each."""
    samples = store.samples("toy", "test")
    rows = [row for row in range(20) if row not in without]
    expected = sorted(rows, key=lambda row: -scores[row])[: len(frame)]
    assert frame["id"].to_list() == [samples.ids[row] for row in expected]
    labels = samples.labels[expected]
    assert frame["class"].to_list() == [samples.class_names[label] for label in labels]
    np.testing.assert_allclose(frame["score"], scores[expected], atol=1e-5)
    for name, of in zip((ONE, TWO), found, strict=False):
        np.testing.assert_allclose(frame[f"cosine {name}"], of[expected], atol=1e-5)


@pytest.mark.parametrize("most", [1, 7, 100])
def test_images_like_one_of_the_store(tiny_store, most):
    own = {
        name: tiny_store.cell(FeatureKey("toy", "test", "clean", name)).embeddings()[3]
        for name in (ONE, TWO)
    }
    found = cosines(tiny_store, own)
    frame = clipsyn.search(tiny_store, like="im003.png", most=most, **TEST)
    assert len(frame) == min(most, 19)
    check(frame, tiny_store, found, found.mean(axis=0), without=[3])


def test_images_like_a_text(tiny_store, encoders):
    encoders[ONE].logit_scale = 20.0  # the other counts five times as much
    found = cosines(
        tiny_store, {name: it.encode_text(["a dog"])[0] for name, it in encoders.items()}
    )
    frame = clipsyn.search(tiny_store, text="a dog", **TEST)
    check(frame, tiny_store, found, (20 * found[0] + 100 * found[1]) / 120)


def test_images_like_a_file(tiny_store, encoders, fakes, tmp_path):
    picture = fakes.Source().image(5)
    picture.save(tmp_path / "mine.png")
    pixels = {name: it.preprocess(picture)[None] for name, it in encoders.items()}
    found = cosines(
        tiny_store, {name: encoders[name].encode_images(it)[0] for name, it in pixels.items()}
    )
    frame = clipsyn.search(tiny_store, image=tmp_path / "mine.png", **TEST)
    check(frame, tiny_store, found, found.mean(axis=0))
    assert frame["id"][0] == "im005.png"
    assert frame["score"][0] == pytest.approx(1, abs=1e-3)


def test_some_backbones_of_another_split(tiny_store):
    frame = clipsyn.search(tiny_store, like="im003.png", split="train", backbones="*/two", most=99)
    assert frame.columns == ["id", "class", "score", "cosine fake/two"]
    assert len(frame) == 10


def test_an_image_that_could_not_be_read_is_never_found(fakes, tmp_path):
    store = fakes.fill(tmp_path / "store", sources=[fakes.Source(bad={3: "cut"})], max_bad=1.0)
    found = clipsyn.search(store, like="im004.png", most=99)["id"].to_list()
    assert len(found) == 18
    assert {*found}.isdisjoint({"im003.png", "im004.png"})
    with pytest.raises(InputError):
        clipsyn.search(store, like="im003.png")


@pytest.fixture
def imported(tiny_store):
    """The store, with embeddings and with answers that were made elsewhere."""
    samples, rows = tiny_store.samples("toy", "test"), np.eye(4)[np.arange(20) % 4]
    with tiny_store.writer(samples, "vectors") as cell:
        cell.embeddings(rows)
    with tiny_store.writer(samples, "answers") as cell:
        cell.predictions(np.zeros(20, int))
    return tiny_store


def test_a_backbone_that_cannot_take_part_is_named(imported, encoders, caplog):
    with caplog.at_level(logging.WARNING, "clipsyn"):
        like = clipsyn.search(imported, like="im000.png", **TEST)
        text = clipsyn.search(imported, text="a dog", **TEST)
    assert like.columns[3:] == ["cosine fake/one", "cosine fake/two", "cosine vectors"]
    assert text.columns[3:] == ["cosine fake/one", "cosine fake/two"]
    of_like, of_text = (record.getMessage() for record in caplog.records)
    assert ("answers" in of_like, "vectors" in of_like) == (True, False)
    assert "answers, vectors" in of_text
    with pytest.raises(MissingCell):
        clipsyn.search(imported, text="a dog", backbones="vectors", **TEST)
    with pytest.raises(MissingCell):
        clipsyn.search(imported, like="im000.png", backbones="answers", **TEST)


def test_encoders_without_text_and_programs_take_no_part(tiny_store, encoders, fakes, tmp_path):
    fakes.Source().image(5).save(tmp_path / "mine.png")
    encoders[ONE].reads_texts = False
    with_image = clipsyn.search(tiny_store, image=tmp_path / "mine.png", **TEST)
    with_text = clipsyn.search(tiny_store, text="a dog", **TEST)
    assert [frame.columns[3:] for frame in (with_image, with_text)] == [
        ["cosine fake/one", "cosine fake/two"],
        ["cosine fake/two"],
    ]
    path = tiny_store.at("features", "toy", "test", "clean", TWO)
    fakes.rewrite(path, provenance={"encoder": {"source": "py:module:factory"}})
    with pytest.raises(MissingCell):
        clipsyn.search(tiny_store, text="a dog", **TEST)
    assert len(clipsyn.search(tiny_store, like="im003.png", **TEST).columns) == 5


def test_weights_that_did_not_make_the_embeddings(tiny_store, encoders):
    encoders[TWO].identity["weights"] = "0" * 64
    with pytest.raises(StaleCell) as caught:
        clipsyn.search(tiny_store, text="a dog", **TEST)
    assert caught.value.fields == ("weights",)
    assert len(clipsyn.search(tiny_store, text="a dog", backbones=ONE, **TEST)) == 10


@pytest.mark.parametrize(
    ("error", "asked"),
    [
        (UnknownName, {"like": "im03.png", **TEST}),
        (UsageError, {"like": "im003.png"}),  # of which split?
        (UsageError, {"text": "a", "like": "im003.png", **TEST}),
        (UsageError, TEST),
        (UsageError, {"text": " ", **TEST}),
        (UsageError, {"text": "a", "output": "page.html", **TEST}),  # without images
        (UsageError, {"text": "a", "images": ".", **TEST}),  # without a page
        (UsageError, {"text": "a", "most": 0, **TEST}),
        (UnknownName, {"text": "a", "backbones": "fake/three", **TEST}),
        (InputError, {"image": "nowhere.png", **TEST}),
        (InputError, {"image": __file__, **TEST}),
    ],
)
def test_what_cannot_be(tiny_store, encoders, error, asked):
    with pytest.raises(error) as caught:
        clipsyn.search(tiny_store, **asked)
    assert type(caught.value) is error
    if "like" in asked and error is UnknownName:
        assert "im003.png" in str(caught.value)


def test_a_page_shows_the_images_that_are_there(tmp_path, write_images):
    photos = write_images(classes=["cat", "<dog>"])
    ids = ["cat/0.png", "cat/1.png", "<dog>/0.png"]
    content = [hashlib.sha256((photos / id).read_bytes()).digest() for id in ids]
    content[1] = bytes(range(32))  # of another image
    samples = SampleTable(
        "photos",
        "test",
        tuple(ids),
        np.array([0, 0, 1], np.int32),
        np.frombuffer(b"".join(content), np.uint8).reshape(3, 32),
        ("cat", "<dog>"),
    )
    store = clipsyn.FeatureStore.create(tmp_path / "store")
    with store.writer(samples, "mine") as cell:
        cell.embeddings([[1, 0], [0.8, 0.6], [0.6, 0.8]])
    page = Path(tmp_path / "page.html")
    clipsyn.search(store, like="cat/0.png", images=photos, output=page)
    text = page.read_text("utf-8")
    missing, there = text.split("<li>")[1:]
    assert "cat/1.png" in missing
    assert "0.800" in missing
    assert "<img" not in missing
    assert "&lt;dog&gt;/0.png" in there
    assert "0.600" in there
    (data,) = re.findall('base64,([^"]+)', there)
    shown = np.asarray(Image.open(io.BytesIO(b64decode(data)))).astype(int)
    drawn = np.asarray(Image.open(photos / "<dog>" / "0.png")).astype(int)
    assert np.corrcoef(shown.ravel(), drawn.ravel())[0, 1] > 0.5
    assert "<dog>" not in text
    assert "http" not in text.replace("http-equiv", "")
