"""Stacking against scikit-learn's LogisticRegression on the same inputs."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression

from clipsyn.methods.ensembles import weighted
from clipsyn.methods.ensembles.weighted import Stacking


def problem(n=60, *, backbones=3, classes=5, seed=0, scale=2.0, bias=1.0):
    """Backbones that confuse certain classes, which a linear model can put right."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    confusion = rng.normal(size=(classes, backbones, classes)) * bias
    logits = rng.normal(size=(n, backbones, classes)) + confusion[labels]
    return (scale * logits).astype(np.float32), labels.astype(np.int32)


def standardised(logits):
    inputs = log_softmax(logits.astype(np.float64), axis=-1).reshape(len(logits), -1)
    inputs -= inputs.mean(axis=0)
    return inputs / np.sqrt(np.mean(np.sum(inputs**2, axis=1)))


@pytest.mark.parametrize("inverse_penalty", [0.5, 10.0, 100.0])
@pytest.mark.parametrize(
    ("n", "classes", "scale"),
    # few samples, many, fewer than half of the inputs, huge logits
    [(60, 4, 2.0), (200, 4, 2.0), (16, 8, 1.0), (12, 8, 1.0), (40, 4, 100.0)],
)
def test_probabilities_are_those_of_scikit_learn(n, classes, scale, inverse_penalty):
    logits, labels = problem(n, classes=classes, scale=scale)
    inputs = standardised(logits)
    theirs = LogisticRegression(C=inverse_penalty, tol=1e-7, max_iter=5000).fit(inputs, labels)
    ours = Stacking(inverse_penalty).fit(logits, labels)
    assert ours.predict_proba(logits) == pytest.approx(theirs.predict_proba(inputs), abs=1e-3)


def test_new_samples_are_moved_and_scaled_like_the_support_set():
    logits, labels = problem(90)
    inputs = standardised(logits[:50])
    seen = log_softmax(logits[:50].astype(np.float64), axis=-1).reshape(50, -1)
    new = log_softmax(logits[50:].astype(np.float64), axis=-1).reshape(40, -1)
    ratio = np.std(seen - seen.mean(axis=0)) / np.std(inputs)
    theirs = LogisticRegression(C=10, tol=1e-7, max_iter=5000).fit(inputs, labels[:50])
    expected = theirs.predict_proba((new - seen.mean(axis=0)) / ratio)
    ours = Stacking(10.0).fit(logits[:50], labels[:50])
    assert ours.predict_proba(logits[50:]) == pytest.approx(expected, abs=1e-3)


def test_the_penalty_is_the_one_with_the_best_held_out_likelihood():
    """Chosen as by a loop over folds with scikit-learn; both ends of the grid are chosen by some
    problem."""
    chosen = set()
    for seed, noise in enumerate([0.1, 0.5, 1.5]):
        logits, labels = problem(60, seed=seed, bias=noise)
        inputs = standardised(logits)
        folds = np.arange(60) // 5 % 3  # labels go round: every class has 4 samples in each
        losses = {}
        for penalty in (1.0, 10.0, 100.0):
            total = 0.0
            for fold in range(3):
                kept, held = folds != fold, folds == fold
                model = LogisticRegression(C=penalty, tol=1e-6, max_iter=5000)
                probability = model.fit(inputs[kept], labels[kept]).predict_proba(inputs[held])
                total -= np.log(probability[np.arange(held.sum()), labels[held]]).sum()
            losses[penalty] = total
        fitted = Stacking().fit(logits, labels)
        assert fitted.inverse_penalty_ == min(losses, key=losses.__getitem__)
        chosen.add(fitted.inverse_penalty_)
    assert {1.0, 100.0} <= chosen


def objective(probability, coefficients, labels, inverse_penalty):
    """The mean of the cross-entropy and of the penalty, for coefficients on standardised inputs."""
    loss = -np.log(probability[np.arange(len(labels)), labels]).mean()
    return loss + np.square(coefficients).sum() / (2 * inverse_penalty * len(labels))


@pytest.mark.parametrize("inverse_penalty", [1.0, 10.0, 100.0])
@pytest.mark.parametrize(("n", "classes"), [(200, 4), (60, 20), (18, 12)])
def test_single_precision_is_as_good_as_scikit_learn(monkeypatch, n, classes, inverse_penalty):
    """What large supports get: the objective to a thousandth of a nat."""
    monkeypatch.setattr(weighted, "LARGE", 0)
    logits, labels = problem(n, classes=classes)
    inputs = standardised(logits)
    ratio = np.std(log_softmax(logits, axis=-1) - log_softmax(logits, axis=-1).mean(axis=0))
    ratio /= np.std(inputs)
    theirs = LogisticRegression(C=inverse_penalty, tol=1e-7, max_iter=5000).fit(inputs, labels)
    lowest = objective(theirs.predict_proba(inputs), theirs.coef_, labels, inverse_penalty)
    ours = Stacking(inverse_penalty).fit(logits, labels)
    coefficients = ours.coefficients_ * ratio
    found = objective(ours.predict_proba(logits), coefficients, labels, inverse_penalty)
    assert found == pytest.approx(lowest, abs=1e-3)


def test_a_large_fit_takes_a_few_times_the_memory_of_its_inputs():
    logits, labels = problem(1600, backbones=9, classes=120)
    assert logits.size * 120 > weighted.LARGE
    tracemalloc.start()
    Stacking().fit(logits, labels)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # inputs, the part of a fold, the samples held out; scores; vectors of a coefficient each
    scores, vectors = 4 * 1600 * 120, 4 * 120 * 9 * 120
    assert peak < 2.2 * logits.nbytes + 10 * scores + 20 * vectors


@pytest.mark.parametrize("order", ["in turns", "sorted"])
@pytest.mark.parametrize(("bias", "seed"), [(0.1, 0), (0.5, 1)])
def test_the_penalty_is_chosen_on_folds_that_have_every_class(bias, seed, order):
    """Every third sample, or a third of them in a row, would be a class of its own; what holds
    out a whole class here chooses 100."""
    logits, labels = problem(60, classes=3, seed=seed, bias=bias)
    rows = np.argsort(labels, kind="stable") if order == "sorted" else np.arange(60)
    assert Stacking().fit(logits[rows], labels[rows]).inverse_penalty_ == 1.0


@pytest.mark.parametrize("shots", [1, 2])
def test_the_penalty_is_fixed_unless_half_of_the_classes_have_two_samples(shots):
    logits, labels = problem(5 * shots, bias=0.1)
    assert (Stacking().fit(logits, labels).inverse_penalty_ == 10.0) == (shots == 1)


def test_classes_not_in_the_support_set_come_last_in_the_order_of_the_backbones():
    logits, labels = problem(40, classes=6)
    seen = labels < 4
    fitted = Stacking().fit(logits[seen], labels[seen])
    assert fitted.seen_.tolist() == [0, 1, 2, 3]
    scores = fitted.combine(logits)
    assert (scores[:, 4:].max(axis=1) < scores[:, :4].min(axis=1)).all()
    mean = log_softmax(logits, axis=-1).mean(axis=1)
    assert scores[:, 4] - scores[:, 5] == pytest.approx(mean[:, 4] - mean[:, 5], abs=1e-4)
