"""The genetic algorithm against brute force, scipy, and its own starting point."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from clipsyn.methods.ensembles.base import LogAverage
from clipsyn.methods.ensembles.search import (
    HIGHEST,
    LOWEST,
    Fitness,
    GeneticAlgorithm,
    GreedySelection,
)
from clipsyn.methods.ensembles.weighted import CalibratedLogAverage
from clipsyn.methods.numerics.samples import stratified
from clipsyn.methods.pool import Pool


def problem(n=120, *, backbones=4, classes=6, seed=0, scale=1.0):
    """Backbones of different quality and, as if miscalibrated, of different scale."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    logits = rng.normal(size=(n, backbones, classes)) + rng.normal(size=(n, 1, classes)) / 2
    logits[np.arange(n), :, labels] += np.linspace(0.3, 1.5, backbones)
    logits *= np.geomspace(4, 0.5, backbones)[:, None]
    return (scale * logits).astype(np.float32), labels.astype(np.int32)


def wrong(logits, labels, temperatures):
    z = np.sum(logits.astype(np.float64) / np.asarray(temperatures)[:, None], axis=1)
    return int(np.sum(z.argmax(axis=1) != labels))


def likelihood(logits, labels, temperatures):
    z = np.mean(logits.astype(np.float64) / np.asarray(temperatures)[:, None], axis=1)
    return -log_softmax(z, axis=1)[np.arange(len(labels)), labels].mean()


def fitness_of(logits, labels):
    return Fitness(Pool.of(logits, labels))


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_fitness_is_errors_and_cross_entropy(scale):
    logits, labels = problem(scale=scale)
    genes = np.random.default_rng(1).normal(size=(20, 4))
    errors, loss = fitness_of(logits, labels)(genes)
    for gene, count, mean in zip(genes, errors, loss, strict=True):
        assert count == wrong(logits, labels, np.exp(gene))
        z = np.mean(logits.astype(np.float64) / np.exp(gene)[:, None], axis=1)
        expected = -log_softmax(z, axis=1)[np.arange(120), labels].mean()
        assert mean == pytest.approx(expected, rel=1e-4, abs=2e-6)


def test_fitness_predicts_the_first_of_equal_classes():
    """Whole numbers, temperatures of 1: many weighted sums are exactly equal."""
    rng = np.random.default_rng(0)
    logits = rng.integers(0, 3, (200, 2, 4)).astype(np.float32)
    labels = rng.integers(0, 4, 200).astype(np.int32)
    ties = np.sort(logits.sum(axis=1))[:, -2:]
    assert np.sum(ties[:, 0] == ties[:, 1]) > 50
    errors, _ = fitness_of(logits, labels)(np.zeros((1, 2)))
    assert errors[0] == wrong(logits, labels, [1, 1])


def test_of_many_values_cross_entropy_is_of_a_sample_and_errors_of_all(monkeypatch):
    logits, labels = problem(n=600)
    monkeypatch.setattr("clipsyn.methods.ensembles.search._LOSS_VALUES", 200 * 6)
    genes = np.random.default_rng(1).normal(size=(20, 4))
    errors, loss = fitness_of(logits, labels)(genes)
    assert errors.tolist() == [wrong(logits, labels, np.exp(gene)) for gene in genes]
    rows = stratified(labels, 200, 0)
    exact = [likelihood(logits[rows], labels[rows], np.exp(gene)) for gene in genes]
    assert loss == pytest.approx(exact, rel=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_two_backbones_as_well_as_brute_force(seed):
    """Accuracy depends on the ratio of the two temperatures alone."""
    logits, labels = problem(backbones=2, seed=seed)
    ratios = np.geomspace(LOWEST / HIGHEST, HIGHEST / LOWEST, 4001)
    fewest = min(wrong(logits, labels, [ratio, 1.0]) for ratio in ratios)
    fitted = GeneticAlgorithm().fit(logits, labels)
    assert wrong(logits, labels, fitted.temperatures_) <= fewest


@pytest.mark.parametrize("seed", range(3))
def test_never_below_what_it_starts_from(seed):
    logits, labels = problem(seed=seed)
    score = GeneticAlgorithm(generations=3).fit(logits, labels).score(logits, labels)
    assert score >= LogAverage().fit(logits, labels).score(logits, labels)
    assert score >= CalibratedLogAverage().fit(logits, labels).score(logits, labels)
    for backbone in range(4):
        alone = np.where(np.arange(4) == backbone, LOWEST, HIGHEST)
        assert score >= 1 - wrong(logits, labels, alone) / len(labels)


def test_of_equal_accuracy_the_lower_cross_entropy_wins():
    """Of a backbone twice only the mean of 1/tau matters, and for cross-entropy alone."""
    logits, labels = problem(backbones=1)
    twice = logits.repeat(2, axis=1)
    grid = np.geomspace(LOWEST, HIGHEST, 2001)
    _, loss = fitness_of(logits, labels)(np.log(grid)[:, None])
    fitted = GeneticAlgorithm().fit(twice, labels)
    assert fitted.weights_.sum() == pytest.approx(1 / grid[loss.argmin()], rel=0.01)


@pytest.mark.parametrize("seed", range(3))
def test_no_common_factor_has_a_lower_cross_entropy(seed):
    """Accuracy is blind to it: without the last step it is what the winner happened to have."""
    logits, labels = problem(seed=seed)
    fitted = GeneticAlgorithm(generations=2, random_state=seed).fit(logits, labels)
    ours = likelihood(logits, labels, fitted.temperatures_)
    factors = np.geomspace(0.1, 10, 201)
    lowest = min(likelihood(logits, labels, factor * fitted.temperatures_) for factor in factors)
    assert ours <= lowest + 1e-6


def test_stops_when_nothing_improves():
    """Perfect from the start: `patience` generations of all but the two that survive."""
    logits, labels = problem()
    logits[np.arange(120), :, labels] += 50
    assert GeneticAlgorithm(patience=5).fit(logits, labels).evaluations_ == 64 + 5 * 62
    fitted = GeneticAlgorithm(population=10, generations=7, patience=50).fit(logits, labels)
    assert fitted.evaluations_ == 10 + 7 * 8


def helpful(n=60, backbones=4, classes=5, seed=0, scale=2.0):
    """Backbones of different quality, each helpful on its own samples."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    logits = rng.normal(size=(n, backbones, classes))
    skill = rng.uniform(0, 2, (n, backbones))
    logits[np.arange(n), :, labels] += skill
    return (scale * logits).astype(np.float32), labels.astype(np.int32)


def dumb(logits, labels, rounds):
    """(names chosen) by trying every backbone in every round on float64 probabilities."""
    p = softmax(np.asarray(logits, np.float64), axis=-1)

    def quality(chosen):
        mean = np.mean([p[:, b] for b in chosen], axis=0)
        true = mean[np.arange(len(labels)), labels]
        return np.mean(mean.argmax(1) == labels), round(np.log(true).mean(), 9)

    chosen, path = [], []
    for _ in range(rounds):
        chosen.append(max(range(p.shape[1]), key=lambda b: quality([*chosen, b])))
        path.append(quality(chosen))
    return chosen[: path.index(max(path)) + 1]


@pytest.mark.parametrize("seed", range(6))
def test_chooses_what_a_dumb_version_chooses(seed):
    logits, labels = helpful(seed=seed)
    fitted = GreedySelection(rounds=12).fit(logits, labels)
    expected = dumb(logits, labels, 12)
    assert fitted.chosen_ == tuple(str(b) for b in expected)
    assert fitted.weights_ == pytest.approx(np.bincount(expected, minlength=4) / len(expected))


def test_probabilities_are_the_weighted_mean_of_probabilities():
    logits, labels = helpful()
    fitted = GreedySelection().fit(logits, labels)
    expected = np.einsum("b,nbc->nc", fitted.weights_, softmax(logits.astype(np.float64), -1))
    assert fitted.predict_proba(logits) == pytest.approx(expected, abs=1e-6)
    assert np.exp(fitted.combine(logits)) == pytest.approx(expected, abs=1e-6)


def test_equal_accuracy_is_decided_by_likelihood_then_by_name():
    sure = np.array([[[3.0, 0.0]], [[0.0, 3.0]]], np.float32)
    unsure = sure / 3
    labels = np.array([0, 1])
    assert GreedySelection().fit(np.concatenate([unsure, sure], 1), labels).chosen_ == ("1",)
    assert GreedySelection().fit(np.concatenate([sure, sure], 1), labels).chosen_ == ("0",)


def test_the_best_prefix_is_kept():
    """Every average beyond the first choice is wrong somewhere."""
    right = np.tile(np.array([4.0, 0.0], np.float32), (5, 1))
    wrong = np.tile(np.array([0.0, 9.0], np.float32), (5, 1))
    fitted = GreedySelection().fit(np.stack([wrong, right], 1), np.zeros(5, int))
    assert fitted.chosen_ == ("1",)
    assert fitted.weights_.tolist() == [0, 1]
