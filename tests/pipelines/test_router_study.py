"""The paired comparison of docs/router.md: what it counts as won, lost and level."""

import importlib.util
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from clipsyn.pool import Pool

PATH = Path(__file__).parents[2] / "pipelines" / "router_study.py"
SPEC = importlib.util.spec_from_file_location("router_study", PATH)
study = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(study)


@pytest.fixture
def results():
    """Made up: the router is right on the first 60 of 100 samples, its rivals on the first 40, but
    on two sets all are right on the first 50. Its loss is 0.1 lower everywhere."""
    found = {}
    for name, support, judged, shots, seed, method in product(
        study.DATASETS,
        study.PERTURBATIONS,
        study.PERTURBATIONS,
        study.SHOTS,
        study.SEEDS,
        (study.ROUTER, *study.RIVALS),
    ):
        router = method == study.ROUTER
        level = name in study.DATASETS[:2]
        right = np.arange(100) < (50 if level else 60 if router else 40)
        loss = np.full(100, 1.4 if router else 1.5)
        case = study.Case(name, support, judged, shots, seed, method)
        found[case] = np.stack([right, loss])
    for judged, shots, seed, method in product(
        ("clean", "mixed"), study.SHOTS, study.SEEDS, (study.ROUTER, *study.RIVALS)
    ):
        found[study.Case(study.UNION, judged, judged, shots, seed, method)] = np.zeros((2, 100))
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


def test_differences_are_router_minus_rival_for_each_sample(results):
    right, loss = study.differences(
        results, "nlc", "fashion-mnist", "clean", "jpeg-4", shots=(1, None)
    )
    np.testing.assert_array_equal(np.flatnonzero(right), np.arange(40, 60))
    np.testing.assert_allclose(loss, -0.1)


def test_wins_losses_and_ties_are_counted_by_interval(results):
    lines = list(study.by_set(results, "clean", "nlc"))
    # 7 sets x 3 perturbations, two of the sets level in accuracy; a lower loss is a win
    assert lines[-2:] == [
        "<!-- accuracy: 15 wins, 0 losses, 6 ties -->",
        "<!-- nats: 21 wins, 0 losses, 0 ties -->",
    ]
    assert lines[-3].startswith("| fashion-mnist | +20.0 (")


def test_means_over_sets_have_an_interval_over_sets(results):
    line = next(text for text in study.over_sets(results, "same", 0) if "| nlc | clean" in text)
    # five sets at +20, two at 0: mean 14.3, sd 9.76, t(6) 2.447
    assert line.endswith("| +14.3 ± 9.0 |")


def test_every_table_of_the_report_is_rectangular(results):
    tables = "\n".join(study.report(results)).split("\n\n")
    lines = [[x for x in table.splitlines() if x.startswith("|")] for table in tables]
    for table in filter(None, lines):
        assert len({line.count("|") for line in table}) == 1
        assert len(table) > 3
