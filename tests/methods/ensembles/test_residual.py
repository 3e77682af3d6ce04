from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.stats import entropy

from clipsyn.methods.ensembles.residual import (
    PENALTIES,
    Problem,
    ResidualRouter,
    common_temperature,
    statistics,
)
from clipsyn.methods.ensembles.super_learner import SuperLearner
from clipsyn.methods.numerics.blocks import in_blocks
from clipsyn.methods.pool import Pool


def sample(n=60, backbones=4, classes=6, seed=0):
    """Backbones of different worth: signal plus noise that grows with the index."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n).astype(np.int32)
    noise = rng.normal(size=(n, backbones, classes)) * np.linspace(1, 3, backbones)[:, None]
    return 1.5 * np.eye(classes)[labels][:, None] + noise, labels


def one_is_broken(n, seed):
    """For each image one of four backbones, at random, is sure of some class for no reason."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, n).astype(np.int32)
    logits = rng.normal(size=(n, 4, 10)) + 2 * np.eye(10)[labels][:, None]
    rows, broken = np.arange(n), rng.integers(0, 4, n)
    logits[rows, broken] = rng.normal(size=(n, 10))
    logits[rows, broken, rng.integers(0, 10, n)] += 8
    return Pool.of(logits, labels)


def alike_on_all_images(n, seed):
    """What a backbone is worth does not depend on the image."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, n).astype(np.int32)
    worth = np.array([2.0, 1.0, 1.0, 0.5])[:, None]
    return Pool.of(rng.normal(size=(n, 4, 10)) + worth * np.eye(10)[labels][:, None], labels)


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


def test_derivatives_are_those_of_autograd():
    given = problem()
    parameters = np.random.default_rng(1).normal(size=7)
    losses, gradient, hessian = given.at(parameters)
    Z, y = torch.tensor(given.logits), torch.tensor(given.labels).long()

    def loss(activity, rows):
        scores = (given.unit * activity[:, :, None] * Z[rows]).sum(dim=1)
        return torch.nn.functional.cross_entropy(scores, y[rows], reduction="sum")

    activity = torch.tensor(given.design @ parameters, requires_grad=True)
    total = loss(activity, slice(None))
    total.backward()
    assert losses.sum() == pytest.approx(total.item(), abs=1e-9)
    np.testing.assert_allclose(gradient, activity.grad, atol=1e-9)
    for n in (0, 17, 59):
        one = torch.autograd.functional.hessian(
            lambda a, n=n: loss(a[None], [n]), activity[n].detach()
        )
        np.testing.assert_allclose(hessian[n], one, atol=1e-9)


def test_the_gradient_in_the_parameters_is_that_of_autograd():
    given = problem()
    parameters = torch.tensor(np.random.default_rng(1).normal(size=7), requires_grad=True)
    design, Z = torch.tensor(given.design), torch.tensor(given.logits)
    scores = (given.unit * (design @ parameters)[:, :, None] * Z).sum(dim=1)
    y = torch.tensor(given.labels).long()
    value = torch.nn.functional.cross_entropy(scores, y, reduction="sum")
    offset = parameters - torch.tensor([1.0, 1, 1, 1, 0, 0, 0])
    value = value + (torch.tensor(PRECISION) / 2 * offset**2).sum()
    value.backward()
    found, slope, _ = given._penalised(parameters.detach().numpy(), PRECISION)
    assert found == pytest.approx(value.item(), abs=1e-9)
    np.testing.assert_allclose(slope, parameters.grad, atol=1e-9)


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


@pytest.mark.parametrize("offset", [0.0, 30.0, -200.0])
@pytest.mark.parametrize("spread", [0.1, 3.0, 20.0])
def test_statistics_in_single_precision_are_those_in_double(offset, spread):
    """Many classes, backbones that disagree by as much as 20 deviations, logits far from 0."""
    rng = np.random.default_rng(0)
    logits = (offset + spread * rng.normal(size=(30, 5, 400))).astype(np.float32)
    exact = statistics(logits.astype(np.float64), 0.7)
    np.testing.assert_allclose(statistics(logits, 0.7), exact, rtol=2e-4, atol=2e-5 * (1 + spread))
    z = 0.7 * logits[3].astype(float)
    for b in range(5):
        others = np.delete(z, b, axis=0).mean(axis=0)
        q, p = np.exp(others - others.max()), np.exp(z[b] - z[b].max())
        wanted = [np.diff(np.sort(z[b])[-2:])[0], np.log(z[b].std()), entropy(q, p)]
        np.testing.assert_allclose(exact[3, b], wanted, rtol=1e-4)


def test_in_single_precision_only_the_curvature_is_rounded():
    double = problem()
    single = replace(double, logits=double.logits.astype(np.float32))
    exact = replace(double, logits=single.logits.astype(np.float64))
    parameters = np.random.default_rng(1).normal(size=7)
    for one, other, tolerance in zip(
        single.at(parameters), exact.at(parameters), (1e-12, 1e-12, 1e-5), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)
    found, wanted = (it.solve(PRECISION, start=it.centre) for it in (single, exact))
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_parameters_that_were_just_asked_for_are_not_worked_out_again(monkeypatch):
    given, passes = problem(), []

    def counted(work, shape):
        passes.append(shape)
        return in_blocks(work, shape)

    monkeypatch.setattr("clipsyn.methods.ensembles.residual.in_blocks", counted)
    solution = given.solve(PRECISION, start=given.centre)
    before = len(passes)
    expected = problem().at(solution)
    assert len(passes) == before + 1
    given.leave_one_out(solution, PRECISION)
    for one, other in zip(given.at(solution), expected, strict=True):
        assert np.array_equal(one, other)
    assert len(passes) == before + 1
    assert not np.array_equal(given.at(solution + 1)[0], expected[0])


def test_statistics_in_blocks_are_those_of_the_whole(monkeypatch):
    logits, _ = sample(n=50)
    whole = statistics(logits, 1.0)
    monkeypatch.setattr("clipsyn.methods.numerics.blocks._BLOCK_VALUES", 7 * logits[0].size)
    np.testing.assert_allclose(statistics(logits, 1.0), whole, atol=1e-12)


def test_the_temperature_undoes_a_wrong_scale():
    logits, labels = sample(n=2000)
    mean = logits.mean(axis=1)
    right = common_temperature(mean, labels)
    for scale in (0.1, 10):
        assert common_temperature(scale * mean, labels) == pytest.approx(right / scale, rel=0.02)
    assert 1 < common_temperature(np.eye(6)[labels], labels) < 1e3  # all right: finite
    assert 1e-3 < common_temperature(-np.eye(6)[labels], labels) < 1  # all wrong: above 0


def test_without_residual_it_is_a_super_learner_on_calibrated_logits():
    logits, labels = sample()
    pool = Pool.of(logits, labels)
    router = ResidualRouter(shrinkage=2.0, penalty=1e12).fit(pool)
    calibrated = pool.with_logits(np.float32(router.temperature_) * pool.logits)
    learner = SuperLearner(penalty=2.0 / 4).fit(calibrated)
    np.testing.assert_allclose(router.combine(pool), learner.combine(calibrated), atol=5e-3)
    np.testing.assert_allclose(
        router.weights(pool)[0], router.temperature_ * learner.weights_, atol=2e-3
    )


def test_firm_shrinkage_gives_log_avg_with_a_temperature():
    pool = Pool.of(*sample())
    router = ResidualRouter(shrinkage=1e9, penalty=1e12).fit(pool)
    np.testing.assert_allclose(router.weights(pool), router.temperature_ / 4, rtol=1e-5)


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


@pytest.mark.parametrize("shots", [20, 100, 400])
def test_it_does_no_harm_where_the_image_says_nothing(shots):
    support, unseen = alike_on_all_images(shots, seed=3), alike_on_all_images(4000, seed=4)
    router = ResidualRouter().fit(support)
    plain = ResidualRouter(penalty=1e12).fit(support)
    assert router.score(unseen) > plain.score(unseen) - 0.015
    assert mean_loss(router, unseen) < mean_loss(plain, unseen) + 0.03


def mean_loss(router, pool):
    probabilities = router.predict_proba(pool)
    return -np.log(probabilities[np.arange(len(pool)), pool.labels]).mean()


def test_other_orders_of_backbones_and_classes_change_nothing_but_the_order():
    logits, labels = sample()
    names = ("a", "b", "c", "d")
    pool = Pool.of(logits, labels, backbones=names)
    router = ResidualRouter().fit(pool)
    order = np.array([2, 0, 3, 1])
    renamed = Pool.of(logits[:, order], labels, backbones=names)
    np.testing.assert_allclose(
        ResidualRouter().fit(renamed).weights(renamed), router.weights(pool)[:, order], atol=1e-5
    )
    classes = np.random.default_rng(0).permutation(6)
    relabelled = Pool.of(logits[:, :, np.argsort(classes)], classes[labels], backbones=names)
    np.testing.assert_allclose(
        ResidualRouter().fit(relabelled).weights(relabelled), router.weights(pool), atol=1e-5
    )


def test_the_same_fit_twice_is_the_same_to_the_bit():
    pool = Pool.of(*sample(n=300, classes=400))  # several blocks, in threads
    one, two = (ResidualRouter().fit(pool) for _ in range(2))
    np.testing.assert_array_equal(one.combine(pool), two.combine(pool))
    assert one.posterior_.tobytes() == two.posterior_.tobytes()


def degenerate():
    logits, labels = sample(n=30)
    twins = logits.copy()
    twins[:, :, 1] = twins[:, :, 0]
    return {
        "one sample": (logits[:1], labels[:1]),
        "fewer samples than backbones": (logits[:3], labels[:3]),
        "one class present": (logits, np.zeros_like(labels)),
        "two classes with equal logits": (twins, labels),
        "constant logits": (np.ones_like(logits), labels),
        "one backbone constant": (logits * [[[0], [1], [1], [1]]], labels),
        "same backbone four times": (np.repeat(logits[:, :1], 4, axis=1), labels),
        "two classes": (logits[:, :, :2], labels % 2),
        "huge logits": (100 * logits, labels),
        "tiny logits": (1e-4 * logits, labels),
        "all right": (200 * np.eye(6)[labels][:, None] + 0 * logits, labels),
        "all wrong": (-200 * np.eye(6)[labels][:, None] + 0 * logits, labels),
    }


@pytest.mark.parametrize("case", degenerate())
def test_finite_weights_and_scores_whatever_the_support(case):
    logits, labels = degenerate()[case]
    pool = Pool.of(logits, labels)
    other, _ = sample(seed=9)
    with warnings.catch_warnings(), np.errstate(all="raise", under="ignore"):
        warnings.simplefilter("error")
        router = ResidualRouter().fit(pool)
        unlike = pool.with_logits(3 * other[: len(pool), :, : pool.n_classes].astype(np.float32))
        for shown in (pool, unlike):
            assert np.isfinite(router.combine(shown)).all()
            assert np.isfinite(router.weights(shown)).all()


def test_unreadable_images_have_no_weights():
    pool = Pool.of(*sample())
    logits = pool.logits.copy()
    logits[3, 1] = np.nan
    weights = ResidualRouter().fit(pool).weights(replace(pool, logits=logits))
    assert np.isnan(weights[3]).all()
    assert np.isfinite(np.delete(weights, 3, axis=0)).all()
