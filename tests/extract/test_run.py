"""`clipsyn.extract.run`: rows in their places, work done once, runs that are resumed."""

import time
import tracemalloc
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from clipsyn.errors import BadImages
from clipsyn.extract import images as images_module
from clipsyn.extract import run as run_module
from clipsyn.images.perturb import apply, resolve
from clipsyn.store import arrays
from clipsyn.store.features import FeatureStore
from tests.kills import unfinished


def one_at_a_time(encoder, source, perturbation="clean"):
    """What a cell must hold, by the dumbest loop there is."""
    from PIL import Image

    rows = []
    for row in range(len(source)):
        image = np.asarray(source.image(row))
        pixels = apply(resolve(perturbation), image, source.ids[row])
        pixels = encoder.preprocess(Image.fromarray(pixels))
        rows.append(encoder.encode_images(pixels[None]))
    return np.concatenate(rows)


@pytest.mark.parametrize("perturbation", ["clean", "jpeg:2", "gaussian_noise:3:seed=1"])
def test_every_row_is_that_of_its_image(tmp_path, fakes, perturbation):
    encoders = [fakes.Encoder(), fakes.Encoder("fake/two", size=6, embed_dim=5)]
    sources = [fakes.Source(), fakes.Source(split="train", count=9)]
    store = fakes.fill(tmp_path, encoders, sources, [perturbation], batch_size=3)
    keys = store.keys()
    for key in keys:
        encoder = next(e for e in encoders if e.backbone.name == key.backbone)
        source = next(s for s in sources if s.split == key.split)
        expected = one_at_a_time(encoder, source, perturbation)
        assert np.array_equal(store.cell(key).embeddings(), expected)
        assert store.cell(key).valid().all()
        assert store.samples(key.dataset, key.split).ids == source.ids
    assert len(keys) == 4


def test_an_image_is_decoded_and_perturbed_once_for_all_backbones(tmp_path, fakes, monkeypatch):
    calls: list[str] = []

    def counting(perturbation, image, sample_id):
        calls.append(sample_id)
        return apply(perturbation, image, sample_id)

    monkeypatch.setattr(images_module, "apply", counting)
    encoders = [fakes.Encoder(f"fake/{n}", size=8 if n else 6) for n in range(4)]
    source = fakes.Source()
    fakes.fill(tmp_path, encoders, [source], ["jpeg:1"])
    assert sorted(calls) == list(source.ids)
    assert sorted(source.decoded) == list(range(20))
    assert sum(encoder.preprocessed for encoder in encoders) == 2 * 20  # two kinds of pixels
    assert all(sum(encoder.encoded) == 20 for encoder in encoders)


def test_five_perturbations_share_what_is_decoded(tmp_path, fakes):
    source = fakes.Source(count=20)  # three blocks
    several = ["clean", "jpeg:1", "jpeg:2", "fog:1", "snow:1:canvas=8"]
    fakes.fill(tmp_path, [], [source], several)
    assert sorted(source.decoded) == [*range(20)]
    again = fakes.Source(count=20)
    fakes.fill(tmp_path, [], [again], [*several, *(f"contrast:{n}" for n in range(1, 6)), "hue:1"])
    assert Counter(again.decoded) == dict.fromkeys(range(20), 2)


def test_batch_size_workers_and_shards_leave_the_bytes_alone(tmp_path, fakes):
    def made(name, **settings):
        encoders = [fakes.Encoder(), fakes.Encoder("fake/two", size=6)]
        sources = [fakes.Source(bad={3: "torn"}), fakes.Source(split="train", count=33)]
        perturbations = ["clean", "gaussian_noise:2", "augment:3:seed=1"]
        settings = {"max_bad": 0.1, **settings}
        fakes.fill(tmp_path / name, encoders, sources, perturbations, **settings)
        return tmp_path / name

    plain = made("plain")
    for name, settings in {
        "small-batches": {"batch_size": 1, "workers": 1},
        "odd-batches": {"batch_size": 3, "workers": 5},
    }.items():
        assert fakes.unlike(plain, made(name, **settings)) == []
    for worker in (2, 0, 1):
        made("shards", shard=(worker, 3))
    assert fakes.unlike(plain, tmp_path / "shards") == []
    assert fakes.draft_folders(tmp_path / "shards") == []


def test_a_stopped_run_goes_on_with_the_rest(tmp_path, fakes):
    whole = fakes.fill(tmp_path / "whole", [fakes.Encoder()], [fakes.Source(count=40)])
    store = fakes.fill_some(tmp_path / "store", 3, sources=[fakes.Source(count=40)])
    assert store.keys() == []
    encoder, source, quiet = fakes.Encoder(), fakes.Source(count=40), fakes.Quiet()
    fakes.fill(tmp_path / "store", [encoder], [source], progress=quiet)
    assert encoder.encoded == [8, 8]  # what was encoded before the stop is there
    assert sorted(source.decoded) == list(range(24, 40))
    assert quiet.counts[-1] == 40  # the counter starts where the first run stopped
    assert fakes.unlike(whole.path, tmp_path / "store") == []
    assert fakes.draft_folders(tmp_path / "store") == []


def test_bad_images_keep_their_rows(tmp_path, fakes):
    encoder = fakes.Encoder()
    source = fakes.Source(bad={2: "empty file", 17: "torn"})
    store = fakes.fill(tmp_path, [encoder], [source], max_bad=0.1)
    embeddings = store.cell(fakes.key).embeddings()
    good = np.array([row not in source.bad for row in range(20)])
    assert np.array_equal(store.cell(fakes.key).valid(), good)
    assert np.isnan(embeddings[~good]).all()
    source.bad = {}
    assert np.array_equal(embeddings[good], one_at_a_time(encoder, source)[good])
    logits = store.cell(fakes.key).logits("simple")
    assert np.isnan(logits[~good]).all()
    assert np.isfinite(logits[good]).all()
    assert (store.cell(fakes.key).predictions("simple") == 65535).tolist() == (~good).tolist()
    attributes = fakes.contents(tmp_path)["features/toy/test/clean/fake--one/zarr.json"]
    assert attributes["attributes"]["errors"] == {"im002.png": "empty file", "im017.png": "torn"}


def test_too_many_bad_images_fail_the_run_and_keep_what_is_done(tmp_path, fakes):
    bad = {9: "torn", 10: "empty file", 11: "torn", 12: "not an image"}
    encoder = fakes.Encoder()
    with pytest.raises(BadImages, match=r"4 of 40 images of toy/test.*im009.png: torn") as caught:
        fakes.fill(tmp_path, [encoder], [fakes.Source(count=40, bad=bad)], max_bad=0.05)
    assert "max_bad=0.1 " in str(caught.value)
    store = FeatureStore.open(tmp_path)
    assert store.keys() == []
    encoded = sum(encoder.encoded)
    encoder = fakes.Encoder()
    fakes.fill(tmp_path, [encoder], [fakes.Source(count=40, bad=bad)], max_bad=0.1)
    assert encoded + sum(encoder.encoded) == 40  # nothing twice
    assert (~store.cell(fakes.key).valid()).sum() == 4


def test_an_image_that_one_preprocessing_refuses_is_bad_for_its_backbones_only(tmp_path, fakes):
    from clipsyn.images.source import UndecodableImage

    class Picky(fakes.Encoder):  # type: ignore[name-defined,misc]
        def preprocess(self, image):
            if np.array_equal(np.asarray(image), refused):
                raise UndecodableImage("1 x 9999 pixels cannot be resized")
            return super().preprocess(image)

    refused = np.asarray(fakes.Source().image(4))
    encoders = [fakes.Encoder(), Picky("fake/picky", size=6)]
    store = fakes.fill(tmp_path / "both", encoders, max_bad=0.1)
    assert store.cell(fakes.key).valid().all()
    picky = replace(fakes.key, backbone="fake/picky")
    assert np.flatnonzero(~store.cell(picky).valid()).tolist() == [4]
    fakes.fill(tmp_path / "apart", encoders[:1], max_bad=0.1)
    fakes.fill(tmp_path / "apart", [Picky("fake/picky", size=6)], max_bad=0.1)
    assert fakes.unlike(tmp_path / "both", tmp_path / "apart") == []


def test_while_it_is_replaced_the_old_cell_can_be_read(tmp_path, fakes):
    """Class embeddings too: they are the old ones until the first new cell is complete."""
    store = fakes.fill(tmp_path, chunk_rows=8)
    before = store.cell(fakes.key).logits("simple")
    encoder = fakes.Encoder(weights="others")
    fakes.fill_some(tmp_path, 2, encoder, replace=True, chunk_rows=8, batch_size=8)
    assert [draft.target.split("/")[0] for draft in unfinished(tmp_path)] == ["classes", "features"]
    assert store.cell(fakes.key).logits("simple").tobytes() == before.tobytes()
    fakes.fill(tmp_path, [encoder], replace=True, chunk_rows=8)
    assert unfinished(tmp_path) == []
    whole = tmp_path.with_name(f"{tmp_path.name}-whole")
    made = fakes.fill(whole, [fakes.Encoder(weights="others")], chunk_rows=8)
    expected = made.cell(fakes.key).logits("simple")
    assert store.cell(fakes.key).logits("simple").tobytes() == expected.tobytes()


def test_memory_does_not_grow_with_the_images(tmp_path, fakes):
    encoder = fakes.Encoder(size=32, embed_dim=8)
    source = fakes.Source(count=2_000)
    source.image = lambda row: __import__("PIL.Image").Image.new("RGB", (32, 32))  # type: ignore
    source.digest = lambda row: row.to_bytes(32, "little")
    peak = 0
    started = False

    def watch():
        nonlocal started, peak
        if not started:
            started = True
            tracemalloc.start()
        peak = max(peak, tracemalloc.get_traced_memory()[1])

    encoder.before_batch = watch
    try:
        fakes.fill(tmp_path, [encoder], [source], chunk_rows=256, batch_size=64)
    finally:
        tracemalloc.stop()
    # 4 batches ahead of 64 images of 3 kB, and a stack of each: 2 MB; all images would be 6.
    assert peak < 4e6


@pytest.mark.parametrize(("gflops", "lanes"), [(0.5, 3), (9.0, 1), (None, 1)])
def test_small_backbones_are_encoded_side_by_side(tmp_path, fakes, gflops, lanes, monkeypatch):
    asked, queue = [], run_module._Queue
    monkeypatch.setattr(run_module, "_Queue", lambda *of: asked.append(of[0]) or queue(*of))
    plain, encoders = ([fakes.Encoder(), fakes.Encoder("fake/two", size=6)] for _ in range(2))
    encoders[1].gflops = gflops
    fakes.fill(tmp_path / "lanes", encoders, batch_size=3, lanes=3)
    fakes.fill(tmp_path / "plain", plain)
    assert asked[0] == lanes
    assert fakes.unlike(tmp_path / "lanes", tmp_path / "plain") == []


def test_an_error_in_a_lane_ends_the_run_and_keeps_what_is_encoded(tmp_path, fakes):
    fakes.fill_some(tmp_path, 4, batch_size=4, lanes=2)  # the sixth batch starts after four or five
    assert [draft.done for draft in unfinished(tmp_path) if "features" in draft.target] != [0]
    resumed = fakes.Encoder()
    store = fakes.fill(tmp_path, [resumed], batch_size=4, lanes=2)
    assert sum(resumed.encoded) < len(fakes.Source())
    [key] = store.keys()
    assert np.array_equal(store.cell(key).embeddings(), one_at_a_time(resumed, fakes.Source()))


def test_what_it_took_is_recorded(tmp_path, fakes):
    encoder = fakes.Encoder()
    encoder.seconds = 0.01
    start = time.perf_counter()
    store = fakes.fill(tmp_path, [encoder], [fakes.Source(count=20)], batch_size=4)
    found = arrays.read_attributes(store.at("features", *fakes.key.names))["provenance"]
    assert 0.05 <= found["encode_seconds"] <= time.perf_counter() - start  # five batches


def test_what_clean_images_look_like_is_kept_with_the_samples(tmp_path, fakes):
    """By the run that has the last block; perturbed images say nothing, nor do broken ones."""
    from clipsyn.images.source import look_of

    source, both = fakes.Source(bad={3: "truncated"}), {"perturbations": ["clean", "jpeg:2"]}
    fakes.fill_some(tmp_path, 2, sources=[source], max_bad=0.1, **both)  # the first block of both
    store = fakes.fill(tmp_path, sources=[source], perturbations=["jpeg:2"], max_bad=0.1)
    assert not store.samples("toy", "test").looks.any()
    fakes.fill_some(tmp_path, 1, sources=[source], batch_size=8, max_bad=0.1)
    assert not store.samples("toy", "test").looks.any()
    fakes.fill(tmp_path, sources=[source], max_bad=0.1)
    expected = [0 if row in source.bad else look_of(source.image(row)) for row in range(20)]
    assert store.samples("toy", "test").looks.tolist() == expected
    source.labels = source.labels[::-1].copy()
    fakes.fill(tmp_path, sources=[source], max_bad=0.1)  # corrects labels alone
    corrected = store.samples("toy", "test")
    assert corrected.looks.tolist() == expected
    assert (corrected.labels == source.labels).all()
