"""The paired comparison of docs/router.md: what it counts as won, lost and level."""

import re
from itertools import product

import numpy as np
import pytest

from clipsyn.methods.pool import Pool
from tests.pipelines.scripts import FOLDER, script

study = script("router_study")


@pytest.fixture
def results():
    """Made up: the router is right on the first 60 of 100 samples, its rivals on the first 40, but
    on two sets all are right on the first 50. Its loss is 0.1 lower everywhere."""
    found = {}
    places = [*product(study.DATASETS, study.PERTURBATIONS, study.PERTURBATIONS)]
    places += [(study.UNION, judged, judged) for judged in ("clean", "mixed")]
    for place, shots, seed, method in product(places, study.SHOTS, study.SEEDS, study.METHODS):
        router = method == study.ROUTER
        level = place[0] in (*study.DISTINCT[:2], study.UNION)
        right = np.arange(100) < (50 if level else 60 if router else 40)
        values = np.stack([right, np.full(100, 1.4 if router else 1.5)])
        setting = study.METHODS[method][0 if shots else -1]
        found[study.Case(*place, shots, seed, method)] = study.Outcome(values, setting)
    return found


def a_pool(n, classes, seed):
    rng = np.random.default_rng(seed)
    images = {"a": rng.normal(size=(n, 3)), "b": rng.normal(size=(n, 5))}
    images = {b: rows / np.linalg.norm(rows, axis=1, keepdims=True) for b, rows in images.items()}
    texts = {"a": rng.normal(size=(classes, 3)), "b": rng.normal(size=(classes, 5))}
    texts = {backbone: values.astype(np.float32) for backbone, values in texts.items()}
    logits = np.stack([10 * images[b] @ texts[b].T for b in "ab"], axis=1).astype(np.float32)
    labels = rng.integers(0, classes, n).astype(np.int32)
    scales = {"a": 10.0, "b": 10.0}
    return Pool(logits, labels, ("a", "b"), images, (), texts, scales, split="train")


def test_in_a_union_every_class_keeps_its_logits_and_samples():
    one, two = a_pool(6, 3, seed=0), a_pool(5, 4, seed=1)
    both = study.union([one, two])
    assert both.logits.shape == (11, 2, 7)
    assert both.split == "train"
    np.testing.assert_allclose(both.logits[:6, :, :3], one.logits, atol=1e-4)
    np.testing.assert_allclose(both.logits[6:, :, 3:], two.logits, atol=1e-4)
    np.testing.assert_array_equal(both.labels, [*one.labels, *(two.labels + 3)])
    np.testing.assert_array_equal(both.embeddings["b"][6:], two.embeddings["b"])


def test_a_mixture_takes_whole_samples():
    pools = [a_pool(40, 3, seed) for seed in range(3)]
    mixture = study.mixed(pools)
    which = [
        int(np.argmax([(p.logits[n] == mixture.logits[n]).all() for p in pools])) for n in range(40)
    ]
    assert set(which) == {0, 1, 2}
    for n, source in enumerate(which):
        np.testing.assert_array_equal(mixture.logits[n], pools[source].logits[n])
        np.testing.assert_array_equal(mixture.embeddings["a"][n], pools[source].embeddings["a"][n])


def column(shots=None):
    return study.Column("", "clean", "jpeg-4", shots)


def test_differences_are_router_minus_rival_for_each_sample(results):
    pair = (study.ROUTER, "nlc")
    right, loss = study.difference(results, pair, "fashion-mnist", column())
    np.testing.assert_array_equal(np.flatnonzero(right), np.arange(40, 60))
    np.testing.assert_allclose(loss, -0.1)


def test_wins_losses_and_ties_are_counted_by_interval(results):
    line = next(text for text in study.counted(results) if "over nlc |" in text)
    # six sets x five settings, two of the sets level in accuracy; a lower loss is a win
    assert line == "| residual-router over nlc | 20 / 0 / 10 | 30 / 0 / 0 |"


def test_means_over_sets_have_an_interval_over_the_sets_with_images_of_their_own(results):
    line = next(text for text in study.over_sets(results, 0) if "minus nlc |" in text)
    # four sets at +20, two at 0: mean 13.3, sd 10.3, t(5) 2.571
    assert line.endswith("| +13.3 ± 10.8 |")


def test_the_setting_is_the_one_with_the_lowest_loss_of_held_out_samples():
    """With all backbones alike log-avg is the truth and weights of their own are noise."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 60).astype(np.int32)
    logits = 2 * np.eye(4)[labels][:, None] + rng.normal(size=(60, 8, 4)) * 2
    pool = Pool.of(logits.astype(np.float32), labels)
    settings = ["super-learner:penalty=0.001", "super-learner:penalty=30"]
    assert study.chosen(settings, pool.take(np.arange(20))) == settings[1]
    sharp = Pool.of(logits.astype(np.float32) / 20, labels)  # log-avg is far too flat here
    assert study.chosen(settings, sharp) == settings[0]
    assert study.chosen(["log-avg"], pool) == "log-avg"


def test_numbers_in_the_sentences_of_the_page_are_in_its_tables():
    page = (FOLDER.parent / "docs" / "router.md").read_text(encoding="utf-8")
    tables = "\n".join(line for line in page.splitlines() if line.startswith("|"))
    said = re.findall(r"\d+\.\d+", page[: page.index("## How it works")])
    assert len(said) >= 8
    assert [number for number in said if number not in tables] == []
