from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import entropy

from clipsyn.methods.ensembles.residual import (
    PENALTIES,
    Problem,
    ResidualRouter,
    common_temperature,
    statistics,
)
from clipsyn.methods.ensembles.weighted import SuperLearner
from clipsyn.methods.pool import Pool
from tests.methods.ensembles.test_super_learner import sample


def one_is_broken(n, seed):
    """For each image one of four backbones, at random, is sure of some class for no reason."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, n).astype(np.int32)
    logits = rng.normal(size=(n, 4, 10)) + 2 * np.eye(10)[labels][:, None]
    rows, broken = np.arange(n), rng.integers(0, 4, n)
    logits[rows, broken] = rng.normal(size=(n, 10))
    logits[rows, broken, rng.integers(0, 10, n)] += 8
    return Pool.of(logits, labels)


def problem(n=60, seed=0, **shape):
    """A Problem with a design that is not the router's own: 4 weights and 3 coefficients."""
    logits, labels = sample(n, seed=seed, **shape)
    own = np.broadcast_to(np.eye(4), (n, 4, 4))
    design = np.concatenate([own, np.random.default_rng(seed).normal(size=(n, 4, 3))], axis=2)
    return Problem(logits, labels, design, unit=0.3)


PRECISION = np.array([0.75] * 4 + [10.0] * 3)


def plain_objective(parameters, given, precision=PRECISION):
    """The objective in a second way: sums over everything, in one line each."""
    weights = given.unit * np.einsum("nbj,j->nb", given.design, parameters)
    scores = np.einsum("nb,nbc->nc", weights, given.logits)
    likelihood = np.exp(scores - scores.max(axis=1, keepdims=True))
    likelihood /= likelihood.sum(axis=1, keepdims=True)
    loss = -np.log(likelihood[np.arange(len(scores)), given.labels]).sum()
    return loss + np.sum(precision / 2 * (parameters - [1, 1, 1, 1, 0, 0, 0]) ** 2)


@pytest.mark.parametrize("seed", range(3))
def test_the_minimum_is_that_of_a_generic_solver_from_anywhere(seed):
    given = problem(seed=seed)
    rng = np.random.default_rng(seed)
    found = given.solve(PRECISION, start=rng.normal(size=7))
    other = minimize(plain_objective, rng.normal(size=7), args=(given,), method="BFGS")
    assert plain_objective(found, given) <= other.fun + 1e-6
    np.testing.assert_allclose(found, other.x, atol=1e-3)


def test_leave_one_out_losses_are_close_to_those_of_refitting():
    given = problem(n=40)
    solution = given.solve(PRECISION, start=given.centre)
    guessed = given.leave_one_out(solution, PRECISION)
    refitted = np.empty(40)
    for n in range(40):
        rest = np.delete(np.arange(40), n)
        part = Problem(given.logits[rest], given.labels[rest], given.design[rest], given.unit)
        refitted[n] = given.at(part.solve(PRECISION, start=part.centre))[0][n]
    seen = given.at(solution)[0]
    np.testing.assert_allclose(guessed, refitted, rtol=0.02, atol=0.002)
    # the correction is what is tested: without it the losses are further off
    assert np.abs(guessed - refitted).max() < 0.1 * np.abs(seen - refitted).max()


def test_statistics_are_those_of_the_definitions():
    logits, _ = sample(n=7, backbones=3)
    found = statistics(logits, 0.5)
    for n in range(7):
        for b in range(3):
            z = 0.5 * logits[n]
            log_p = z[b] - np.log(np.exp(z[b]).sum())
            first, second = sorted(log_p)[:-3:-1]
            others = np.exp(np.delete(z, b, axis=0).mean(axis=0))
            wanted = [first - second, np.log(z[b].std()), entropy(others, np.exp(z[b]))]
            np.testing.assert_allclose(found[n, b], wanted, atol=1e-5)


def test_the_temperature_undoes_a_wrong_scale():
    logits, labels = sample(n=2000)
    mean = logits.mean(axis=1)
    right = common_temperature(mean, labels)
    for scale in (0.1, 10):
        assert common_temperature(scale * mean, labels) == pytest.approx(right / scale, rel=0.02)
    assert 1 < common_temperature(np.eye(6)[labels], labels) < 1e3  # all right: finite
    assert 1e-3 < common_temperature(-np.eye(6)[labels], labels) < 1  # all wrong: above 0


def test_without_residual_it_is_a_super_learner_on_calibrated_logits():
    logits, labels = sample(60)
    pool = Pool.of(logits, labels)
    router = ResidualRouter(shrinkage=2.0, penalty=1e12).fit(pool)
    calibrated = pool.with_logits(np.float32(router.temperature_) * pool.logits)
    learner = SuperLearner(penalty=2.0 / 4).fit(calibrated)
    np.testing.assert_allclose(router.combine(pool), learner.combine(calibrated), atol=5e-3)
    np.testing.assert_allclose(
        router.weights(pool)[0], router.temperature_ * learner.weights_, atol=2e-3
    )


def test_the_average_is_over_penalties_by_how_they_predict_left_out_labels():
    pool = one_is_broken(200, seed=0)
    router = ResidualRouter().fit(pool)
    fits = [ResidualRouter(penalty=penalty).fit(pool) for penalty in PENALTIES]
    assert router.posterior_.sum() == pytest.approx(1)
    assert router.posterior_[0] < 0.01  # no residual: refuted
    average = router.posterior_ @ np.array([fit.coefficients_ for fit in fits])
    np.testing.assert_allclose(router.coefficients_, average, atol=1e-3)


@pytest.mark.parametrize("shots", [20, 100, 400])
def test_it_finds_out_which_backbone_is_broken_where_that_changes_from_image_to_image(shots):
    support, unseen = one_is_broken(shots, seed=1), one_is_broken(2000, seed=2)
    learner = SuperLearner().fit(support).score(unseen)
    # all four are worth the same, so no fixed weights can do better than these
    assert learner < 0.6
    assert ResidualRouter().fit(support).score(unseen) > learner + 0.25
