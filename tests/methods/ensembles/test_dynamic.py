"""Dynamic selection against loops over samples and neighbours."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax

from clipsyn.methods.ensembles.dynamic import KnoraUnion, OverallLocalAccuracy, _search
from clipsyn.methods.numerics.neighbours import largest
from clipsyn.methods.pool import Pool

BOTH = [OverallLocalAccuracy, KnoraUnion]
NAMES = ("a", "b", "c")


def problem(n=60, *, classes=4, seed=0, scale=1.0, split="", k_regions=3):
    """Embeddings in regions; in region r backbone r is good and the others are not."""
    rng = np.random.default_rng(seed)
    region = np.arange(n) % k_regions
    labels = rng.integers(0, classes, n)
    centres = np.random.default_rng(99).normal(size=(3, k_regions, 5))
    embeddings = centres[:, region] + 0.5 * rng.normal(size=(3, n, 5))
    embeddings /= np.linalg.norm(embeddings, axis=2, keepdims=True)
    logits = rng.normal(size=(n, 3, classes))
    logits[np.arange(n), region, labels] += 4
    return Pool.of(
        scale * logits, labels, embeddings.astype(np.float16), backbones=NAMES, split=split
    )


def neighbours(support, pool, k):
    """(sample, k) row numbers by sorting all cosines in float64."""
    one, other = (p.features().astype(np.float64) for p in (support, pool))
    one, other = (f / np.linalg.norm(f, axis=1, keepdims=True) for f in (one, other))
    return [sorted(range(len(one)), key=lambda i: -(one[i] @ f))[:k] for f in other]


def rights(support, rows, backbone):
    return sum(int(support.logits[i, backbone].argmax() == support.labels[i]) for i in rows)


@pytest.mark.parametrize("k", [1, 4, 7])
def test_ola_follows_the_backbone_that_is_right_nearby(k):
    support, pool = problem(), problem(40, seed=1)
    chosen = []
    for near, logits in zip(neighbours(support, pool, k), pool.logits, strict=True):
        confidence = softmax(logits, axis=1).max(axis=1)
        ranked = [(rights(support, near, b), confidence[b]) for b in range(3)]
        chosen.append(ranked.index(max(ranked)))
    fitted = OverallLocalAccuracy(k).fit(support)
    assert fitted.weights(pool).tolist() == np.eye(3)[chosen].tolist()
    assert np.array_equal(fitted.combine(pool), pool.logits[np.arange(40), chosen])


@pytest.mark.parametrize("k", [1, 4, 7])
def test_knora_union_gives_each_backbone_a_vote_for_each_neighbour_it_gets_right(k):
    support, pool = problem(scale=0.3), problem(40, seed=1)
    expected = []
    for near, logits in zip(neighbours(support, pool, k), pool.logits, strict=True):
        votes = [rights(support, near, b) for b in range(3)]
        if sum(votes) == 0:
            votes = [1, 1, 1]
        total = softmax(logits, axis=1).mean(axis=0)
        for b in range(3):
            total[logits[b].argmax()] += votes[b]
        expected.append(total / (sum(votes) + 1))
    assert KnoraUnion(k).fit(support).predict_proba(pool) == pytest.approx(
        np.array(expected), abs=1e-6
    )


def test_all_vote_once_where_none_is_right_nearby():
    support, pool = problem(), problem(20, seed=1)
    wrong = Pool.of(
        np.eye(4)[(support.labels + 1) % 4][:, None].repeat(3, axis=1),
        support.labels,
        support.embeddings,
        backbones=NAMES,
    )
    votes = np.eye(4)[pool.logits.argmax(axis=2)].sum(axis=1)
    expected = (votes + softmax(pool.logits, axis=2).mean(axis=1)) / 4
    assert KnoraUnion().fit(wrong).predict_proba(pool) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("method", BOTH)
def test_a_k_beyond_the_support_set_uses_all_of_it(method):
    support, pool = problem(12), problem(10, seed=1)
    expected = method(12).fit(support).combine(pool)
    assert np.array_equal(method(500).fit(support).combine(pool), expected)


@pytest.mark.parametrize("count", [8, 64, 65, 300, 1000])
@pytest.mark.parametrize("k", [1, 5, 7])
@pytest.mark.parametrize("kinds", [1, 4, 50, 100_000])  # few: nearly all are equal
def test_the_largest_are_those_of_sorting_everything(count, k, kinds):
    rng = np.random.default_rng(count)
    values = rng.integers(-kinds, kinds, (40, count)).astype(np.float32)
    expected = [sorted(range(count), key=lambda c, row=row: (-row[c], c))[:k] for row in values]
    assert largest(values, k).tolist() == expected


@pytest.mark.parametrize("method", BOTH)
def test_a_sample_without_embedding_has_no_neighbours_and_is_nobodys(method):
    support, pool = problem(), problem(20, seed=1)
    lost, missing = [3, 30, 59], [0, 7]

    def without(given, rows):
        embeddings = {name: values.copy() for name, values in given.embeddings.items()}
        embeddings["b"][rows] = np.nan
        return Pool.of(given.logits, given.labels, embeddings, backbones=NAMES)

    fitted = method(4).fit(without(support, lost))
    smaller = method(4).fit(support.take(np.setdiff1d(np.arange(60), lost)))
    holed = fitted.combine(without(pool, missing))
    rest = np.setdiff1d(np.arange(20), missing)
    assert np.array_equal(holed[rest], smaller.combine(pool)[rest])
    nobody = np.full((60, 3, 4), [0.0, 1, 1, 1])  # no backbone says 0: none is right anywhere
    wrong = Pool.of(nobody, np.zeros(60, int), support.embeddings, backbones=NAMES)
    expected = method(4).fit(wrong).combine(pool)
    assert np.array_equal(holed[missing], expected[missing])


@pytest.fixture
def searches(monkeypatch):
    """How many searches were made, as a list that grows."""
    made = []

    def counted(support, pool, k):
        made.append(k)
        return _search(support, pool, k)

    monkeypatch.setattr("clipsyn.methods.ensembles.dynamic._search", counted)
    monkeypatch.setattr("clipsyn.methods.ensembles.dynamic._kept", {})
    return made


def test_one_search_serves_all_that_ask_for_the_same(searches):
    support, pool = problem(), problem(40, seed=1)
    ola, union = OverallLocalAccuracy().fit(support), KnoraUnion().fit(support)
    weights = ola.weights(pool)
    ola.combine(pool), union.combine(pool)
    other = support.with_logits(np.roll(support.logits, 1, axis=2))  # as of another head
    moved = OverallLocalAccuracy().fit(other).weights(pool.with_logits(pool.logits[::-1]))
    assert len(searches) == 1
    assert not np.array_equal(moved, weights)  # the neighbours are the same, not who is right


def test_other_samples_another_k_or_changed_embeddings_are_searched_anew(searches):
    support, pool = problem(), problem(40, seed=1)
    fitted = OverallLocalAccuracy().fit(support)
    expected = [fitted.weights(pool.take(rows)) for rows in (slice(0, 20), slice(20, 40))]
    assert np.array_equal(np.concatenate(expected), fitted.weights(pool))
    OverallLocalAccuracy(5).fit(support).weights(pool)
    OverallLocalAccuracy().fit(support.take(np.arange(50))).weights(pool)
    assert len(searches) == 5
    embeddings = {name: values.copy() for name, values in pool.embeddings.items()}
    mutable = Pool.of(pool.logits, None, embeddings, backbones=NAMES)
    before = fitted.weights(mutable)
    assert len(searches) == 5
    for values in embeddings.values():
        values[:] = values[::-1].copy()
    after = fitted.weights(mutable)
    assert len(searches) == 6
    assert not np.array_equal(after, before)
