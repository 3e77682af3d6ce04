"""Whatever fits leaves out images that are measured on, as if they had no label."""

import json
import logging
from functools import cache, partial

import pytest
from polars.testing import assert_frame_equal

from clipsyn import cascade, representation, selective
from clipsyn.errors import LeakError
from clipsyn.evaluation.loop import evaluate
from clipsyn.router.artefact import load_router, write
from clipsyn.router.fit import fit_router
from clipsyn.router.predict import predict_store

CLASSES = ("ant", "bee", "cat", "dog")
TRAIN, TEST = 30, 40
FITS = {
    "evaluate": partial(evaluate, ensembles=["super-learner"], shots=[2, "full"], seeds=2),
    "base-to-new": partial(evaluate, ensembles=["super-learner"], shots=[2], base_to_new=True),
    "cascade": partial(cascade, ensembles=["super-learner"], shots=3),
    "selective": partial(selective, ensembles=["super-learner"], shots=3),
    "representation": representation,
    "selective alone": partial(selective, ensembles=[], backbones="fake/one"),
}


@pytest.fixture(scope="module")
def make(fakes, tmp_path_factory):
    """Function (shared, known) -> a store where so many images are both in test and train.

    known: whether train has labels for these.
    """

    class Source(fakes.Source):
        shared = 0

        def _pixels(self, index):
            twin = fakes.Source(split="train") if index < self.shared else super()
            return twin._pixels(index)

    @cache
    def make(shared, known=True):
        test = Source(split="test", count=TEST, class_names=CLASSES)
        test.shared = shared
        train = fakes.Source(split="train", count=TRAIN, class_names=CLASSES)
        train.labels[: 0 if known else shared] = -1
        return fakes.fill(tmp_path_factory.mktemp("overlap"), fakes.two(), [test, train])

    return make


@pytest.fixture(scope="module")
def stores(make):
    """Two shared images of forty, and the same images without their labels."""
    return make(2), make(2, known=False)


def numbers(frame):
    measured_again = frame["metric"].str.contains("seconds$|_ms$|memory_mb$")
    return frame.filter(~measured_again).drop("fingerprint", "data")


@pytest.mark.parametrize("name", FITS)
def test_shared_images_are_not_fitted_on(stores, name, caplog):
    with caplog.at_level(logging.INFO, "clipsyn"):
        found, expected = (numbers(FITS[name](store)) for store in stores)
    assert_frame_equal(found, expected)
    assert "toy/train: 2 images are not fitted on" in caplog.text


def test_given_shots_lose_them(stores, tmp_path):
    """Two images of each class are given; the first two of them are in the test split."""
    samples, frames = stores[0].samples("toy", "train"), []
    for first in (0, 2):
        items = [[samples.ids[row], int(samples.labels[row]), ""] for row in range(first, 8)]
        folder = tmp_path / f"from-{first}"
        folder.mkdir()
        (folder / "shot_2-seed_1.json").write_text(json.dumps({"train": items}))
        settings = {"ensembles": ["super-learner"], "shots": [2], "seeds": 1}
        frames.append(evaluate(stores[0], coop=folder, **settings))
    assert_frame_equal(*map(numbers, frames))


def test_a_router_knows_what_it_was_fitted_on(stores, tmp_path):
    routers = [fit_router(store, "toy", "super-learner", shots=4, seed=1) for store in stores]
    found, expected = (predict_store(router, stores[0], "toy").frame for router in routers)
    assert_frame_equal(found, expected)
    assert not found["seen"].any()
    write(tmp_path / "router", routers[0])
    again = predict_store(load_router(tmp_path / "router"), stores[0], "toy", "train").frame
    assert again["seen"].sum() == routers[0].support.samples == 16
    assert again["seen"][:2].to_list() == [False, False]


@pytest.mark.parametrize("name", [*FITS, "fit"])
def test_test_images_in_train_are_refused(make, name):
    """Three of forty, and all of them: a folder that has no splits."""
    fit = FITS.get(name, partial(fit_router, dataset="toy", ensemble="log-avg"))
    store = make(3)
    with pytest.raises(LeakError, match="3 of the 40"):
        fit(store)
    fit(store, allow_overlap=True)
    for allow_overlap in (False, True):
        with pytest.raises(LeakError, match="nothing is left"):
            fit(make(TRAIN), allow_overlap=allow_overlap)


def test_what_learns_nothing_needs_no_support(make):
    frame = evaluate(make(TRAIN), heads=["zero-shot"], ensembles=["log-avg"])
    assert set(frame["shots"]) == {"0"}
