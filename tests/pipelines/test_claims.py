"""What docs/rivals.md and docs/router.md say of noise and of NLC, on one of the sets that ship."""

import numpy as np
import pytest

from clipsyn.cli import main
from clipsyn.methods.chosen import choose
from clipsyn.methods.ensembles import ENSEMBLES, USUAL_ENSEMBLES
from clipsyn.methods.heads import USUAL_HEADS
from clipsyn.methods.pool import Pool
from clipsyn.store.features import FeatureStore
from tests.pipelines.scripts import script

nlc = script("nlc_study")


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    """What ships: train, test, and test under noise, of five backbones, one of which is best."""
    path = tmp_path_factory.mktemp("zoo") / "store"
    cells = ["-d", "emoji-food", "-s", "train,test", "-p", "clean,gaussian_noise:3"]
    main(["extract", str(path), "-b", "zoo", *cells], standalone_mode=False)
    store = FeatureStore.open(path)
    noisy = store.pool("emoji-food", "test", perturbation="gaussian_noise-3")
    return store.pool("emoji-food", "train"), store.pool("emoji-food", "test"), noisy


def accuracy(scores, pool):
    return (scores.argmax(axis=1) == pool.labels).mean()


def test_what_is_fitted_on_clean_images_leans_on_the_best_which_noise_breaks(zoo):
    support, clean, noisy = zoo
    names = "best-single", "log-avg", "vote-1"
    methods = {name: ENSEMBLES.load(name)().fit(support) for name in names}
    choice = choose(support, USUAL_HEADS, USUAL_ENSEMBLES, 0)
    best, mean, vote = (methods[name].score(noisy) for name in names)
    chosen = accuracy(choice.ensemble.combine(choice.head.transform(noisy)), noisy)
    assert best < chosen - 0.05 < mean - 0.1 < vote - 0.1
    on_clean = accuracy(choice.ensemble.combine(choice.head.transform(clean)), clean)
    assert on_clean > methods["log-avg"].score(clean) - 0.05


def experts(n, seed):
    """Two sure backbones, each right on one of two kinds of images: embeddings tell which."""
    rng = np.random.default_rng(seed)
    labels, others, kinds = rng.integers(0, (4, 4, 2), (n, 3)).T
    logits = rng.normal(size=(n, 2, 4))
    logits[np.arange(n), kinds, labels] += 3
    logits[np.arange(n), 1 - kinds, others] += 3
    images = np.eye(4)[kinds] + 0.2 * rng.normal(size=(2, n, 4))
    images /= np.linalg.norm(images, axis=2, keepdims=True)
    return Pool.of(logits.astype(np.float32), labels, images.astype(np.float32))


def test_nlc_with_others_embeddings_is_no_more_than_calibrated(zoo):
    """On the zoo it does not need them; where it does, it loses its lead."""
    pairs = zoo[:2], (experts(400, 0), experts(400, 1))
    for (support, test), lead in zip(pairs, (-0.03, 0.2), strict=True):
        found = nlc.scores(support, test, nlc.STEPPED)
        right = {name: accuracy(scores, test) for name, scores in found}
        for without in (nlc.SHUFFLED, nlc.CONSTANT):
            assert right[without] == pytest.approx(right["c-log-avg"], abs=0.03)
        assert right[nlc.NLC] > right["c-log-avg"] + lead
