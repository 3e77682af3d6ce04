"""What every registered ensemble promises (`check_ensemble`): a new one is checked by its line in
the registry alone.
"""

from __future__ import annotations

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.base import clone

from clipsyn.errors import InputError, LeakError, RouterMismatch, UsageError
from clipsyn.methods.ensembles import ENSEMBLES, is_transductive
from clipsyn.methods.ensembles.base import Router
from clipsyn.methods.numerics.logits import NO_PREDICTION
from clipsyn.methods.pool import Pool

NAMES = ("m/middling", "a/noise", "z/good")  # not in the order in which they are worked on
SIGNAL = (1.0, 0.0, 3.0)


def pool_of(n=60, classes=4, seed=0, *, backbones=NAMES, scale=1.0):
    """Labels in turn; one good backbone, one middling, one that knows nothing."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    truth = np.eye(classes)[labels]
    signal = np.resize(SIGNAL, len(backbones))
    logits = rng.normal(size=(n, len(backbones), classes)) + signal[:, None] * truth[:, None]
    embeddings = []
    for width in range(classes + 2, classes + 2 + len(backbones)):
        values = rng.normal(size=(n, width))
        values[:, :classes] += 2 * truth
        embeddings.append(values / np.linalg.norm(values, axis=1, keepdims=True))
    return Pool.of(scale * logits, labels, embeddings, backbones=backbones, split="train")


def frozen(pool):
    """The same pool in arrays that nobody can write to."""
    arrays = [pool.logits, pool.labels, *pool.embeddings.values()]
    for array in arrays:
        array.flags.writeable = False
    return pool


def same(one, other):
    """Whether two ensembles have learned the same, to the bit."""
    left, right = one.learned(), other.learned()
    return left.keys() == right.keys() and all(equal(left[key], right[key]) for key in left)


def equal(one, other):
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other, equal_nan=True)
    return type(one) is type(other) and repr(one) == repr(other)  # NaN too


def through_files(ensemble):
    """A clone with what `ensemble` has learned, by way of JSON and .npy files without pickle."""
    copy = clone(ensemble)
    for name, value in ensemble.learned().items():
        setattr(copy, name, round_trip(value))
    return copy


def round_trip(value):
    if isinstance(value, dict):
        return {json.loads(json.dumps(key)): round_trip(part) for key, part in value.items()}
    if isinstance(value, tuple):
        return tuple(map(round_trip, value))
    if isinstance(value, np.ndarray):
        file = io.BytesIO()
        np.save(file, value, allow_pickle=False)
        file.seek(0)
        return np.load(file, allow_pickle=False)
    return json.loads(json.dumps(value))


PROMISES, OF_IMAGES_ALONE = [], []
INDUCTIVE = [name for name in ENSEMBLES if not is_transductive(name)]


def promise(check):
    PROMISES.append(check)
    return check


def promise_of_images_alone(check):
    """What transductive ensembles promise otherwise: see test_transductive.py."""
    OF_IMAGES_ALONE.append(check)
    return check


@pytest.mark.parametrize("check", PROMISES, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", ENSEMBLES)
def test_check_ensemble(name, check):
    check(ENSEMBLES.load(name))


@pytest.mark.parametrize("check", OF_IMAGES_ALONE, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", INDUCTIVE)
def test_check_ensemble_that_answers_for_each_image(name, check):
    check(ENSEMBLES.load(name))


@promise
def behaves_like_a_scikit_learn_estimator(make):
    ensemble = make()
    before = ensemble.get_params()
    assert ensemble.fit(pool_of()) is ensemble
    assert ensemble.get_params() == before  # fit changes no parameter
    assert set(ensemble.learned()) >= {"backbones_", "n_classes_"}
    copy = clone(ensemble)
    assert copy.get_params() == before
    assert copy.learned() == {}
    assert ensemble.set_params(**before) is ensemble
    kinds = {type(value) for value in before.values()}
    assert kinds <= {bool, int, float, str, type(None)}  # what a line of text can say


@promise
def learns_only_from_what_it_may(make):
    pool = pool_of()
    with pytest.raises(LeakError, match="test split of letters"):
        make().fit(replace(pool, split="test", dataset="letters"))
    if make.learns:
        with pytest.raises(UsageError, match="not fitted yet"):
            make().combine(pool)
        with pytest.raises(InputError, match="no labelled, readable sample"):
            make().fit(replace(pool, labels=np.full(60, -1, np.int32)))
    else:
        np.testing.assert_array_equal(make().combine(pool), make().fit(pool).combine(pool))


@promise_of_images_alone
def works_on_plain_arrays(make):
    pool = pool_of()
    order = np.argsort(NAMES)  # plain arrays have names 0, 1, 2
    try:
        ensemble = make().fit(pool.logits[:, order], pool.labels)
    except InputError as needs:
        assert "Pool.of(…, embeddings=…)" in str(needs)  # noqa: PT017
        return
    np.testing.assert_array_equal(
        ensemble.combine(pool.logits[:, order]), make().fit(pool).combine(pool)
    )
    assert ensemble.score(pool.logits[:, order], pool.labels) > 0.25


@promise
def changes_none_of_its_inputs(make):
    names = sorted(NAMES)  # in this order the base class copies nothing
    pool, other = (frozen(pool_of(seed=seed, backbones=names)) for seed in (0, 1))
    make().fit(pool).combine(other)  # would raise: the arrays are read-only


@promise
def does_the_same_twice(make):
    pool, other = pool_of(), pool_of(seed=1)
    one, two = make().fit(pool), make().fit(pool)
    assert same(one, two)
    np.testing.assert_array_equal(one.combine(other), two.combine(other))
    again = make().fit(pool_of(40, 3, seed=2)).fit(pool)  # nothing is left of an earlier fit
    assert same(one, again)


@promise
def is_what_it_has_learned(make):
    pool, other = pool_of(), pool_of(seed=1)
    ensemble = make().fit(pool)
    copy = through_files(ensemble)
    assert same(ensemble, copy)
    np.testing.assert_array_equal(copy.combine(other), ensemble.combine(other))


@promise
def finds_backbones_by_name(make):
    pool, other = pool_of(), pool_of(seed=1)
    ensemble = make().fit(pool)
    for names in (NAMES[::-1], (NAMES[1], NAMES[2], NAMES[0])):
        permuted = make().fit(pool.of_backbones(names))
        assert same(ensemble, permuted)
        np.testing.assert_array_equal(
            permuted.combine(other.of_backbones(names)), ensemble.combine(other)
        )
        if issubclass(make, Router):
            columns = [NAMES.index(name) for name in names]
            np.testing.assert_array_equal(
                permuted.weights(other.of_backbones(names)), ensemble.weights(other)[:, columns]
            )


@promise_of_images_alone
def looks_at_each_sample_alone(make):
    ensemble, other = make().fit(pool_of()), pool_of(seed=1)
    rows = np.random.default_rng(0).permutation(60)[:37]
    scores = ensemble.combine(other)
    np.testing.assert_allclose(ensemble.combine(other.take(rows)), scores[rows], rtol=1e-4)
    np.testing.assert_allclose(ensemble.combine(other.take(rows[:1])), scores[rows[:1]], rtol=1e-4)
    assert ensemble.combine(other.take(rows[:0])).shape == (0, 4)


@promise
def says_whether_it_learns_the_classes(make):
    """What is learned for each class by its number stands for nothing on other classes."""
    learned = make().fit(pool_of(classes=7)).learned().values()
    assert make.knows_classes or not any(7 in np.shape(it) for it in learned)


@promise
def never_sees_the_labels_of_what_it_predicts(make):
    ensemble, other = make().fit(pool_of()), replace(pool_of(seed=1), split="test")
    learned, scores = through_files(ensemble), ensemble.combine(other)
    shuffled = np.random.default_rng(0).permutation(other.labels)
    for labels in (shuffled, np.full(60, -1, np.int32)):
        np.testing.assert_array_equal(ensemble.combine(replace(other, labels=labels)), scores)
    assert same(ensemble, learned)


@promise
def treats_all_classes_alike(make):
    pool, other = pool_of(), pool_of(seed=1)
    order = [2, 0, 3, 1]
    scores = make().fit(pool).combine(other)
    permuted = make().fit(relabelled(pool, order)).combine(relabelled(other, order))
    np.testing.assert_allclose(permuted, scores[:, order], rtol=0.02, atol=0.02)


def relabelled(pool, order):
    """The same samples with class ``order[i]`` called i."""
    position = np.argsort(order).astype(np.int32)
    return replace(pool, logits=pool.logits[:, :, order].copy(), labels=position[pool.labels])


@promise_of_images_alone
def leaves_one_backbone_as_it_is(make):
    alone = pool_of(backbones=NAMES[:1])
    ensemble = make().fit(alone)
    scores = ensemble.combine(alone)
    np.testing.assert_array_equal(scores, alone.logits[:, 0])
    assert not np.shares_memory(scores, alone.logits)
    if issubclass(make, Router):
        np.testing.assert_array_equal(ensemble.weights(alone), np.ones((60, 1)))
    np.testing.assert_array_equal(through_files(ensemble).combine(alone), scores)


@promise_of_images_alone
def gives_unreadable_samples_no_prediction(make):
    ensemble, other = make().fit(pool_of()), pool_of(seed=1)
    logits = other.logits.copy()
    embeddings = {name: values.copy() for name, values in other.embeddings.items()}
    logits[[0, 41]] = np.nan
    logits[7, 2] = np.nan  # one backbone only
    logits[9, 1, 3] = np.inf
    for values in embeddings.values():
        values[[0, 41]] = np.nan
    holed = replace(other, logits=logits, embeddings=embeddings)
    bad = np.isin(np.arange(60), [0, 7, 9, 41])
    scores = ensemble.combine(holed)
    assert np.isnan(scores[bad]).all()
    assert (ensemble.predict(holed)[bad] == NO_PREDICTION).all()
    np.testing.assert_allclose(scores[~bad], ensemble.combine(other)[~bad], rtol=1e-4)
    if issubclass(make, Router):
        weights = ensemble.weights(holed)
        assert np.isnan(weights[bad]).all()
        np.testing.assert_allclose(weights[~bad], ensemble.weights(other)[~bad], rtol=1e-3)
    nothing = holed.take(np.flatnonzero(bad))
    assert np.isnan(ensemble.combine(nothing)).all()


@promise
def learns_nothing_from_unreadable_or_unlabelled_samples(make):
    more = pool_of(80)
    kept = np.r_[0:10, 15:30, 35:70]
    logits, labels = more.logits.copy(), more.labels.copy()
    logits[10:15] = np.nan
    labels[30:35] = -1
    logits[70:, 1] = np.nan
    full = make().fit(replace(more, logits=logits, labels=labels))
    assert same(full, make().fit(more.take(kept)))


@promise
def refuses_other_backbones_and_class_counts(make):
    ensemble = make().fit(pool_of())
    others = {
        "backbones": [
            pool_of(backbones=(*NAMES[:2], "other")),
            pool_of(backbones=NAMES[:2]),
            pool_of(backbones=(*NAMES, "fourth")),
        ],
        "number of classes": [pool_of(classes=3), pool_of(classes=5)],
    }
    for field, pools in others.items():
        for pool in pools:
            with pytest.raises(RouterMismatch, match=f"^{field} differ: fitted on ") as caught:
                ensemble.combine(pool)
            assert caught.value.field == field


def hard_supports():
    """Support sets on which a formula can fail, by name."""
    pool = pool_of()
    yield "one sample", pool.take(np.array([2]))
    yield "fewer samples than backbones", pool.take(np.array([0, 1]))
    yield "one class", pool.take(np.flatnonzero(pool.labels == 1))
    yield "absent classes", pool.take(np.flatnonzero(pool.labels % 2 == 0))
    yield "one sample a class", pool.take(np.arange(4))
    yield "a class with one sample", pool.take(np.r_[0:4, np.flatnonzero(pool.labels < 3)[4:]])
    yield "constant logits", replace(pool, logits=np.full_like(pool.logits, 3.0))
    yield "two equal classes", replace(pool, logits=pool.logits[:, :, [0, 1, 2, 2]])
    yield "equal backbones", replace(pool, logits=pool.logits[:, [0, 0, 0]])
    yield "one sample many times", pool.take(np.zeros(20, int))
    yield "huge logits", pool_of(scale=30.0)
    yield "tiny logits", pool_of(scale=1e-3)
    right = np.eye(4, dtype=np.float32)[pool.labels] * 10
    yield "all right", replace(pool, logits=right[:, None].repeat(3, axis=1))
    yield "all wrong", replace(pool, labels=pool.logits[:, 2].argmin(axis=1).astype(np.int32))


@promise
def has_finite_scores_whatever_it_is_fitted_on(make):
    others = [pool_of(seed=1), pool_of(seed=1, scale=30.0)]
    for case, support in hard_supports():
        ensemble = make().fit(support)
        for other in others:
            scores = ensemble.combine(other)
            assert scores.shape == (60, 4), case
            assert np.isfinite(scores).all(), case
            assert np.isfinite(ensemble.predict_proba(other)).all(), case
    for classes in (1, 2):
        few = make().fit(pool_of(classes=classes))
        for n in (1, 60):
            assert np.isfinite(few.combine(pool_of(n, classes, seed=1))).all(), classes


@promise
def asks_for_text_and_for_embeddings_if_it_needs_them(make):
    pool = pool_of()
    lacking = {"no text for a/noise": replace(pool, without_text=frozenset({"a/noise"}))}
    if make.needs_embeddings:
        lacking["no embeddings of"] = replace(pool, embeddings={})
    for what, other in lacking.items():
        with pytest.raises(InputError, match=what):
            make().fit(pool).combine(other)
        if make.learns or "text" in what:
            with pytest.raises(InputError, match=what):
                make().fit(other)


@promise_of_images_alone
def is_at_least_sensible(make):
    support, other = pool_of(240), pool_of(400, seed=1)
    accuracies = (other.logits.argmax(axis=2) == other.labels[:, None]).mean(axis=0)
    accuracy = make().fit(support).score(other)
    assert accuracy > accuracies.mean() + 0.05
    if make.learns:
        assert accuracy > accuracies.max() - 0.03


@promise
def is_the_weighted_sum_of_logits_if_it_has_weights(make):
    if not issubclass(make, Router):
        return
    ensemble, other = make().fit(pool_of()), pool_of(seed=1)
    weights = ensemble.weights(other)
    assert weights.shape == (60, 3)
    assert weights.dtype == np.float32
    if make._combine is Router._combine:
        expected = np.einsum("nb,nbc->nc", weights, other.logits)
        np.testing.assert_allclose(ensemble.combine(other), expected, rtol=1e-4, atol=1e-4)


@promise
def does_not_depend_on_blocks(make):
    support, other = pool_of(), pool_of(seed=1)
    whole = make().fit(support).combine(other)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("clipsyn.methods.numerics.blocks._BLOCK_VALUES", 7 * 3 * 4)
        blocks = make().fit(support).combine(other)
    np.testing.assert_allclose(blocks, whole, rtol=1e-3, atol=1e-3)


def test_every_ensemble_is_in_one_group_and_static_ones_learn_nothing():
    grouped = [name for names in ENSEMBLES.groups.values() for name in names]
    assert sorted(grouped) == sorted(ENSEMBLES)
    assert {name for name in INDUCTIVE if not ENSEMBLES.load(name).learns} == set(
        ENSEMBLES.groups["Static"]
    )
    assert {name for name in ENSEMBLES if ENSEMBLES.load(name).sees_together} == set(
        ENSEMBLES.groups["Transductive"]
    )
