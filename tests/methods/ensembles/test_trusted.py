"""Ensembles of other publications against plain loops over the formulas."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from clipsyn.errors import InputError
from clipsyn.methods.ensembles.mixtures import SampleAwareWeights
from clipsyn.methods.ensembles.trusted import (
    EntropyAverage,
    ModelLabels,
    PrecisionSwitch,
    TunedEnsemble,
    Zero,
    ZeroShotEnsemble,
)
from clipsyn.methods.pool import Pool


def pool(seed=0, backbones=4, n=40, classes=5):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    logits = 2 * rng.normal(size=(n, backbones, classes))
    logits += np.linspace(0.2, 2, backbones)[:, None] * np.eye(classes)[labels][:, None]
    return Pool.of(logits, labels)


def shares(row):
    powers = [math.exp(value) for value in row]
    return [power / sum(powers) for power in powers]


def bits(row):
    return -sum(p * math.log2(p) for p in shares(row))


def first(row):
    return max(range(len(row)), key=lambda c: (row[c], -c))


def accuracies(support):
    rows, labels = support.logits.tolist(), support.labels.tolist()
    pairs = [*zip(rows, labels, strict=True)]
    return [sum(first(row[b]) == y for row, y in pairs) for b in range(len(rows[0]))]


def counts(support, b, c):
    """Images that a backbone rightly takes for a class, that it takes for it, that are of it."""
    firsts = [first(row[b]) for row in support.logits.tolist()]
    pairs = [*zip(firsts, support.labels.tolist(), strict=True)]
    return pairs.count((c, c)), firsts.count(c), sum(y == c for _, y in pairs)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_precision_switch_follows_whose_word_was_best(seed):
    support, new = pool(seed), pool(seed + 10)
    weights = PrecisionSwitch().fit(support).weights(new)
    right = accuracies(support)
    for row, found in zip(new.logits.tolist(), weights, strict=True):

        def trust(b, row=row):
            hits, said, _ = counts(support, b, first(row[b]))
            return (hits / said if said else 0, right[b], -b)

        assert found.argmax() == max(range(4), key=trust)
        assert found.sum() == 1


@pytest.mark.parametrize("models", [1, 2, 9])
def test_model_labels_choose_backbones_for_each_class(models):
    support, new = pool(), pool(3)
    right = accuracies(support)

    def f1(b, c):
        hits, said, there = counts(support, b, c)
        return 2 * hits / (said + there) if said + there else 0

    found = ModelLabels(models=models).fit(support).predict_proba(new)
    for row, scores in zip(new.logits.tolist(), found, strict=True):
        expected = []
        for c in range(5):
            best = sorted(range(4), key=lambda b, c=c: (-f1(b, c), -right[b]))[:models]
            expected.append(sum(shares(row[b])[c] / bits(row[b]) for b in best))
        np.testing.assert_allclose(scores, np.array(expected) / sum(expected), rtol=1e-4)
    if models == 9:
        np.testing.assert_allclose(found, EntropyAverage().predict_proba(new), rtol=1e-5)


def viewed(n=300, backbones=2, views=2):
    """Images that come with views, and the same with views as further backbones."""
    rng, texts = np.random.default_rng(3), np.random.default_rng(4).normal(size=(5, 6))
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    looks = rng.normal(size=(1 + views, backbones, n, 6))
    looks /= np.linalg.norm(looks, axis=3, keepdims=True)
    logits = 4 * (looks @ texts.T).transpose(2, 0, 1, 3)
    names = [str(b) for b in range(backbones)]
    of_views = [dict(zip(names, look, strict=True)) for look in looks[1:]]
    plain = Pool.of(logits[:, 0], embeddings=[*looks[0]])
    about = {"class_embeddings": dict.fromkeys(names, texts)}
    about |= {"logit_scales": dict.fromkeys(names, 4.0), "views": tuple(of_views)}
    return replace(plain, **about), logits.reshape(n, -1, 5)


@pytest.mark.parametrize(("share", "voters"), [(0.3, 2), (0.5, 3), (0.7, 5), (1.0, 6)])
@pytest.mark.parametrize("views", [False, True])
def test_zero_is_the_vote_of_the_surest_and_the_next_decide_between_equals(share, voters, views):
    new = pool(backbones=6, n=300)
    new, looks = viewed() if views else (new, new.logits)
    found, ties = Zero(share=share, views=views).predict(new), 0
    for row, said in zip(looks.tolist(), found, strict=True):
        order = sorted(range(6), key=lambda b, row=row: bits(row[b]))
        votes = [first(row[b]) for b in order[:voters]]
        most = max(map(votes.count, votes))
        equal = {c for c in votes if votes.count(c) == most}
        ties += len(equal) > 1
        decides = [first(row[b]) for b in order[voters:] + order[:voters]]
        assert said == next(c for c in decides if c in equal)
    assert ties > 10


def test_views_are_asked_for_and_are_not_those_of_a_head():
    new, looks = viewed(backbones=1, views=5)
    np.testing.assert_array_equal(Zero(views=True).predict(new), Zero().predict(looks))
    np.testing.assert_array_equal(Zero().predict(new), looks[:, 0].argmax(axis=1))
    for without in (replace(new, views=()), new.with_logits(new.logits)):
        with pytest.raises(InputError):
            Zero(views=True).predict(without)


def test_the_zero_shot_ensemble_weighs_the_others_by_confidence():
    support, new = pool(), pool(3)
    right = accuracies(support)
    anchor = right.index(max(right))
    found = ZeroShotEnsemble().fit(support).predict_proba(new)
    for row, scores in zip(new.logits.tolist(), found, strict=True):
        sure = {b: math.exp(max(shares(row[b]))) for b in range(4) if b != anchor}
        weights = {b: it / sum(sure.values()) for b, it in sure.items()} | {anchor: 1}
        expected = [sum(w * shares(row[b])[c] for b, w in weights.items()) / 2 for c in range(5)]
        np.testing.assert_allclose(scores, expected, rtol=1e-4)


def test_the_tuned_ensemble_has_the_best_weights_of_the_grid():
    support = pool(n=25)
    anchor = int(np.argmax(accuracies(support)))
    others = [b for b in range(4) if b != anchor]
    best = -1
    for choice in product(np.arange(1, 10) / 10, repeat=3):
        weights = np.ones(4)
        weights[others] = choice
        mixed = [
            sum(w * np.array(shares(r)) for w, r in zip(weights, row, strict=True))
            for row in support.logits.tolist()
        ]
        best = max(best, int(np.sum(np.argmax(mixed, axis=1) == support.labels)))
    tuned = TunedEnsemble().fit(support)
    assert round(tuned.score(support) * 25) == best
    assert tuned.weights_[anchor] == 1


def test_weights_of_many_backbones_are_tried_one_by_one():
    support = pool(backbones=6, n=200)
    tuned = TunedEnsemble().fit(support)
    reached = tuned.score(support)
    for column, weight in product(range(6), np.arange(1, 10) / 10):
        if tuned.weights_[column] == 1:
            continue
        other = TunedEnsemble().fit(support)
        other.weights_ = tuned.weights_.copy()
        other.weights_[column] = weight
        assert other.score(support) <= reached


def test_swig_minimises_the_loss_of_probabilities_as_logits():
    """The gradient of its loss to the network's outputs, against differences."""
    rng = np.random.default_rng(0)
    support = pool(backbones=3, n=6)
    loss = SampleAwareWeights()._loss(support)
    outputs = rng.normal(size=(6, 3)).astype(np.float32)
    values, slopes = loss(slice(None), outputs)
    for row, outs in enumerate(outputs.tolist()):
        gate = shares(outs)
        mixed = [
            sum(g * shares(z)[c] for g, z in zip(gate, support.logits[row].tolist(), strict=True))
            for c in range(5)
        ]
        expected = -math.log(shares(mixed)[support.labels[row]])
        assert values[row] == pytest.approx(expected, rel=1e-5)
    for column in range(3):
        step = np.zeros(3, np.float32)
        step[column] = 1e-2
        up, down = loss(slice(None), outputs + step)[0], loss(slice(None), outputs - step)[0]
        np.testing.assert_allclose(slopes[:, column], (up - down) / 2e-2, atol=2e-4)
