"""The genetic algorithm against brute force, scipy, and its own starting point."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import differential_evolution
from scipy.special import log_softmax

from clipsyn.errors import InputError, LeakError
from clipsyn.methods import stream
from clipsyn.methods.ensembles.calibrated import CalibratedLogAverage, fit_temperatures
from clipsyn.methods.ensembles.genetic import HIGHEST, LOWEST, GeneticAlgorithm, _Fitness
from clipsyn.methods.ensembles.static import LogAverage
from clipsyn.methods.pool import Pool
from tests.methods.test_stream import stream_of


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


def fitness_of(logits, labels, temperatures):
    return _Fitness(Pool.of(logits, labels), temperatures)


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_fitness_is_errors_and_cross_entropy(scale):
    logits, labels = problem(scale=scale)
    genes = np.random.default_rng(1).normal(size=(20, 4))
    errors, loss = fitness_of(logits, labels, np.ones(4))(genes)
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
    errors, _ = fitness_of(logits, labels, np.ones(2))(np.zeros((1, 2)))
    assert errors[0] == wrong(logits, labels, [1, 1])


def test_fitness_in_blocks_is_the_same(monkeypatch):
    logits, labels = problem(50)
    genes = np.random.default_rng(1).normal(size=(7, 4))
    whole = fitness_of(logits, labels, np.ones(4))(genes)
    monkeypatch.setattr("clipsyn.methods.numerics.blocks._BLOCK_VALUES", 7 * 64 * 11)
    parts = fitness_of(logits, labels, np.ones(4))
    assert parts(genes) == pytest.approx(whole, abs=2e-6)


def test_samples_that_no_weights_can_change_count_too():
    """Of a third all backbones are wrong in the same way, of a third none is."""
    logits, labels = problem(90)
    rows = np.arange(30)
    logits[rows, :, (labels[:30] + 1) % 6] = 40
    logits[rows + 30, :, labels[30:60]] = 40
    fitness = fitness_of(logits, labels, np.ones(4))
    assert fitness.lost >= 30
    genes = np.random.default_rng(0).uniform(np.log(LOWEST), np.log(HIGHEST), (30, 4))
    assert fitness(genes)[0].tolist() == [wrong(logits, labels, np.exp(gene)) for gene in genes]
    only = slice(30, 60)
    sure = fitness_of(logits[only], labels[only], np.ones(4))
    assert sure(genes)[0].tolist() == [0] * 30


@pytest.fixture
def in_groups(monkeypatch):
    monkeypatch.setattr("clipsyn.methods.ensembles.genetic._EXACT", 0)


def many_classes(seed=0, backbones=4, classes=150):
    """Logits like those of CLIP: a normal bulk of improbable classes, scales nearly calibrated."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, 300).astype(np.int32)
    logits = rng.normal(size=(300, backbones, classes)) + rng.normal(size=(300, 1, classes))
    logits[np.arange(300), :, labels] += 5
    logits *= np.linspace(1.5, 0.8, backbones)[:, None]
    return logits.astype(np.float32), labels


@pytest.mark.parametrize("seed", range(3))
def test_improbable_classes_in_groups_change_cross_entropy_little_and_errors_never(in_groups, seed):
    logits, labels = many_classes(seed)
    calibrated = fit_temperatures(logits, labels)
    rng = np.random.default_rng(seed)
    genes = np.log(calibrated) + rng.normal(0, 0.3, (40, 4)) + rng.normal(0, 0.3, (40, 1))
    errors, loss = fitness_of(logits, labels, calibrated)(genes)
    exact = [likelihood(logits, labels, np.exp(gene)) for gene in genes]
    assert errors.tolist() == [wrong(logits, labels, np.exp(gene)) for gene in genes]
    assert (loss <= np.array(exact) + 2e-6).all()  # a mean of exponentials is above that of a mean
    assert loss == pytest.approx(exact, rel=0.02)
    pairs = [(i, j) for i in range(40) for j in range(i) if abs(exact[i] - exact[j]) > 0.01]
    assert len(pairs) > 300
    assert all((loss[i] < loss[j]) == (exact[i] < exact[j]) for i, j in pairs)


def test_of_as_many_classes_as_are_held_alone_cross_entropy_is_exact(in_groups):
    logits, labels = many_classes(classes=32)
    genes = np.random.default_rng(0).normal(size=(20, 4))
    _, loss = fitness_of(logits, labels, np.ones(4))(genes)
    exact = [likelihood(logits, labels, np.exp(gene)) for gene in genes]
    assert loss == pytest.approx(exact, rel=1e-5)


def test_groups_in_blocks_of_rows_are_the_same(in_groups, monkeypatch):
    logits, labels = many_classes()
    whole = fitness_of(logits, labels, np.ones(4))
    monkeypatch.setattr("clipsyn.methods.numerics.blocks._BLOCK_VALUES", 7 * 4 * 150)
    parts = fitness_of(logits, labels, np.ones(4))
    assert np.array_equal(parts.leads[0], whole.leads[0])


@pytest.mark.parametrize("seed", range(2))
def test_a_search_with_groups_is_as_good(in_groups, seed, monkeypatch):
    logits, labels = many_classes(seed)
    grouped = GeneticAlgorithm(random_state=seed).fit(logits, labels)
    monkeypatch.setattr("clipsyn.methods.ensembles.genetic._EXACT", 10**9)
    exact = GeneticAlgorithm(random_state=seed).fit(logits, labels)
    found, best = (wrong(logits, labels, one.temperatures_) for one in (grouped, exact))
    assert abs(found - best) <= 1
    found, best = (likelihood(logits, labels, one.temperatures_) for one in (grouped, exact))
    assert found == pytest.approx(best, rel=0.02)


@pytest.mark.parametrize("seed", range(4))
def test_two_backbones_as_well_as_brute_force(seed):
    """Accuracy depends on the ratio of the two temperatures alone."""
    logits, labels = problem(backbones=2, seed=seed)
    ratios = np.geomspace(LOWEST / HIGHEST, HIGHEST / LOWEST, 4001)
    fewest = min(wrong(logits, labels, [ratio, 1.0]) for ratio in ratios)
    fitted = GeneticAlgorithm().fit(logits, labels)
    assert wrong(logits, labels, fitted.temperatures_) <= fewest


@pytest.mark.parametrize("seed", range(3))
def test_as_good_as_differential_evolution(seed):
    logits, labels = problem(200, backbones=5, classes=10, seed=seed)
    fitness = fitness_of(logits, labels, np.ones(5))

    def objective(columns):
        errors, loss = fitness(columns.T)
        return errors + 1e-3 * loss

    found = differential_evolution(
        objective,
        [(np.log(LOWEST), np.log(HIGHEST))] * 5,
        maxiter=60,
        vectorized=True,
        updating="deferred",
        polish=False,
        rng=seed,
    )
    fitted = GeneticAlgorithm(random_state=seed).fit(logits, labels)
    ours = wrong(logits, labels, fitted.temperatures_)
    assert ours <= wrong(logits, labels, np.exp(found.x)) + 2
    assert ours < wrong(logits, labels, np.ones(5))


@pytest.mark.parametrize("seed", range(3))
def test_never_below_what_it_starts_from(seed):
    logits, labels = problem(seed=seed)
    score = GeneticAlgorithm(generations=3).fit(logits, labels).score(logits, labels)
    assert score >= LogAverage().fit(logits, labels).score(logits, labels)
    assert score >= CalibratedLogAverage().fit(logits, labels).score(logits, labels)
    for backbone in range(4):
        alone = np.where(np.arange(4) == backbone, LOWEST, HIGHEST)
        assert score >= 1 - wrong(logits, labels, alone) / len(labels)


def test_starts_from_each_backbone_nearly_alone():
    """One is always right, the other sure of what is wrong; no vector is random."""
    logits = np.tile(np.array([[9.0, 0.0], [0.0, 1.0]], np.float32), (6, 1, 1))
    logits[0, 0] = [0.0, 9.0]  # not always wrong: its temperature is finite
    fitted = GeneticAlgorithm(population=4, generations=0).fit(logits, np.ones(6, int))
    assert fitted.temperatures_ == pytest.approx([HIGHEST, LOWEST])


def test_of_equal_accuracy_the_lower_cross_entropy_wins():
    """Of a backbone twice only the mean of 1/tau matters, and for cross-entropy alone."""
    logits, labels = problem(backbones=1)
    twice = logits.repeat(2, axis=1)
    grid = np.geomspace(LOWEST, HIGHEST, 2001)
    _, loss = fitness_of(logits, labels, np.ones(1))(np.log(grid)[:, None])
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


@pytest.mark.parametrize("seed", range(3))
def test_where_all_are_right_the_sharpest_temperature_stays_in_bounds(seed):
    logits, labels = problem()
    logits[np.arange(120), :, labels] = logits.max(axis=2) + 0.01
    fitted = GeneticAlgorithm(random_state=seed).fit(logits, labels)
    assert fitted.temperatures_.min() == pytest.approx(LOWEST)


def same_answers(n=400, *, backbones=8, seed=0):
    """Two classes: all backbones are right on the same images, and differ in how sure they are."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n).astype(np.int32)
    right = np.where(rng.random(n) < 0.7, 1, -1)
    sure = rng.gamma(1, size=(n, backbones)) * np.geomspace(4, 0.1, backbones)
    sure[right < 0, ::2] /= 10  # every other backbone knows when it is wrong
    margins = right[:, None] * sure
    logits = margins[:, :, None] * (labels[:, None, None] == np.arange(2))
    return logits.astype(np.float32), labels


@pytest.mark.parametrize("seed", range(3))
def test_patience_counts_cross_entropy_where_accuracy_is_the_same(seed):
    """No temperatures are more accurate than others, and the search goes on all the same."""
    logits, labels = same_answers()
    fitted = GeneticAlgorithm(patience=3, random_state=seed).fit(logits, labels)
    assert fitted.evaluations_ > 64 + 3 * 62
    assert fitted.score(logits, labels) == LogAverage().fit(logits, labels).score(logits, labels)


def test_combines_by_the_mean_of_logits_over_temperatures():
    logits, labels = problem()
    fitted = GeneticAlgorithm().fit(logits, labels)
    expected = np.mean(logits / fitted.temperatures_[:, None], axis=1)
    assert fitted.combine(logits) == pytest.approx(expected, rel=1e-4, abs=1e-4)
    assert fitted.weights(logits)[0] == pytest.approx(1 / (4 * fitted.temperatures_))


def test_stops_when_nothing_improves():
    """Perfect from the start: `patience` generations of all but the two that survive."""
    logits, labels = problem()
    logits[np.arange(120), :, labels] += 50
    assert GeneticAlgorithm(patience=5).fit(logits, labels).evaluations_ == 64 + 5 * 62
    fitted = GeneticAlgorithm(population=10, generations=7, patience=50).fit(logits, labels)
    assert fitted.evaluations_ == 10 + 7 * 8


def test_the_seed_decides_everything():
    logits, labels = problem()
    one, two, other = (
        GeneticAlgorithm(random_state=seed).fit(logits, labels).temperatures_ for seed in (0, 0, 1)
    )
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)


def test_the_order_of_backbones_does_not_matter():
    logits, labels = problem()
    names = ("a", "b", "c", "d")
    fitted = GeneticAlgorithm().fit(Pool.of(logits, labels, backbones=names))
    order = [2, 0, 3, 1]
    moved = Pool.of(logits[:, order], labels, backbones=[names[b] for b in order])
    other = GeneticAlgorithm().fit(moved)
    assert np.array_equal(other.temperatures_, fitted.temperatures_)
    expected = fitted.weights(Pool.of(logits, backbones=names))[:, order]
    assert np.array_equal(other.weights(moved), expected)


def test_permuting_samples_and_classes_finds_as_good_a_solution():
    logits, labels = problem()
    rng = np.random.default_rng(1)
    rows, classes = rng.permutation(120), rng.permutation(6)
    fitted = GeneticAlgorithm().fit(logits, labels)
    other = GeneticAlgorithm().fit(logits[rows][:, :, classes], np.argsort(classes)[labels[rows]])
    assert wrong(logits, labels, other.temperatures_) == pytest.approx(
        wrong(logits, labels, fitted.temperatures_), abs=2
    )


@pytest.mark.parametrize(
    ("logits", "labels"),
    [
        (np.array([[[1, 2, 3], [3, 2, 1]]]), [2]),  # one sample
        (np.zeros((4, 2, 3)), [0, 1, 2, 0]),  # constant
        (np.ones((6, 2, 3)) * [1, 1, 0], [0, 0, 1, 1, 0, 1]),  # two classes alike, one absent
        (np.random.default_rng(0).normal(size=(2, 5, 2)), [0, 1]),  # fewer samples than backbones
        (np.random.default_rng(0).normal(size=(9, 3, 4)) * 300, [1] * 9),  # huge, one class
    ],
)
def test_degenerate_support_gives_finite_scores(logits, labels):
    fitted = GeneticAlgorithm(generations=5).fit(logits, labels)
    assert np.isfinite(fitted.temperatures_).all()
    assert np.isfinite(fitted.combine(logits)).all()


def test_a_population_smaller_than_what_it_starts_from():
    logits, labels = problem()
    assert GeneticAlgorithm(population=3).fit(logits, labels).evaluations_ > 3


def test_refuses_bad_input():
    logits, labels = problem(10)
    with pytest.raises(InputError, match="no labelled, readable sample"):
        GeneticAlgorithm().fit(logits)
    with pytest.raises(LeakError):
        GeneticAlgorithm().fit(Pool.of(logits, labels, split="test"))


@pytest.fixture
def small_memory(monkeypatch):
    monkeypatch.setattr(stream, "IN_MEMORY", 60 * 4 * 150 * 4)  # of `many_classes`: 60 of 300


@pytest.mark.parametrize("grouped", [False, True])
def test_a_stream_is_counted_as_a_pool_is(small_memory, grouped, monkeypatch):
    monkeypatch.setattr("clipsyn.methods.ensembles.genetic._EXACT", 0 if grouped else 10**9)
    pool = Pool.of(*many_classes())
    genes = np.random.default_rng(0).normal(size=(20, 4))
    whole, parts = (_Fitness(one, np.ones(4)) for one in (pool, stream_of(pool, 70)))
    assert len(parts.leads) == 5
    np.testing.assert_array_equal(parts(genes)[0], whole(genes)[0])
    np.testing.assert_allclose(parts(genes)[1], whole(genes)[1], atol=2e-6)


def test_a_stream_is_read_once_beside_a_sample(small_memory):
    pool, read = Pool.of(*many_classes()), []

    def counted(rows, embeddings):
        read.append(len(rows))
        return pool.take(rows)

    whole = replace(stream_of(pool, 100), read=counted)
    fitted = GeneticAlgorithm().fit(whole)
    assert sorted(read) == [100, 100, 100, 150]  # the sample has one of each class at least
    in_memory = GeneticAlgorithm().fit(pool)
    assert abs(fitted.score(pool) - in_memory.score(pool)) < 0.02
    logits, labels = many_classes()
    ours, theirs = (likelihood(logits, labels, one.temperatures_) for one in (fitted, in_memory))
    assert ours == pytest.approx(theirs, rel=0.1)
