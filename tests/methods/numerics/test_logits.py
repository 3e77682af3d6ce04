"""Contenders against sums over all classes, with weights at the corners and at random."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clipsyn.methods.numerics.logits import (
    CHUNK_ROWS,
    NO_PREDICTION,
    contenders,
    cosines,
    cross_entropy,
    log_mixture,
    log_softmax,
    mixture,
    predictions,
    single,
    softmax,
    squares,
    weighted_cross_entropy,
    weighted_sum,
    zero_shot_logits,
)


def unit(rng: np.random.Generator, rows: int, width: int, dtype=np.float32) -> np.ndarray:
    array = rng.normal(size=(rows, width))
    return (array / np.linalg.norm(array, axis=1, keepdims=True)).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("rows", [1, 7, 1024, 10_000])
def test_logits_are_scaled_cosines(dtype, rows):
    rng = np.random.default_rng(0)
    images, classes = unit(rng, 2500, 48, dtype), unit(rng, 11, 48)
    logits = zero_shot_logits(images, classes, 100.0, rows)
    assert logits.dtype == np.float32
    expected = 100.0 * images.astype(np.float64) @ classes.astype(np.float64).T
    np.testing.assert_allclose(logits, expected, atol=5e-5)


def test_cosines_of_half_precision_are_exact_to_the_smallest_number():
    rng = np.random.default_rng(4)
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    every = every[np.abs(every) <= 1].reshape(-1, 2)  # subnormal ones and -0, too
    for images in (every, unit(rng, 3000, 100, np.float16)):
        query = unit(rng, 1, images.shape[1])[0]
        expected = images.astype(np.float64) @ query.astype(np.float64)
        np.testing.assert_allclose(cosines(images, query), expected, rtol=1e-6, atol=1e-7)
    ones = every[:, :1].copy()
    np.testing.assert_array_equal(cosines(ones, np.ones(1, np.float32)), ones[:, 0])


def test_half_precision_becomes_single_as_numpy_does_it():
    for halves in (np.arange(1 << 16, dtype=np.uint16), np.arange(0x7C00, dtype=np.uint16)):
        values = halves.view(np.float16).reshape(-1, 4)
        found, expected = single(values), values.astype(np.float32)
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(np.signbit(found), np.signbit(expected))
    np.testing.assert_allclose(squares(values), (expected**2).sum(axis=1), rtol=1e-6)


def test_cosines_are_not_known_where_an_embedding_is_not():
    images = np.array([[0.6, 0.8], [np.nan, np.nan], [1, 0]], np.float16)
    found = cosines(images, np.array([1, 0], np.float32))
    np.testing.assert_allclose(found, [0.6, np.nan, 1], atol=1e-3)


def test_a_block_on_its_own_gives_the_same_bytes():
    rng = np.random.default_rng(1)
    images, classes = unit(rng, 3 * CHUNK_ROWS + 17, 40, np.float16), unit(rng, 13, 40)
    whole = zero_shot_logits(images, classes, 14.3)
    for start in range(0, len(images), CHUNK_ROWS):
        block = zero_shot_logits(images[start : start + CHUNK_ROWS], classes, 14.3)
        np.testing.assert_array_equal(block, whole[start : start + CHUNK_ROWS])


def test_equal_classes_get_equal_logits_and_the_first_one_wins():
    rng = np.random.default_rng(2)
    classes = unit(rng, 67, 33)
    classes[50], classes[66] = classes[3], classes[3]
    logits = zero_shot_logits(unit(rng, 1500, 33, np.float16), classes, 100.0)
    np.testing.assert_array_equal(logits[:, 50], logits[:, 3])
    np.testing.assert_array_equal(logits[:, 66], logits[:, 3])
    assert not np.isin(predictions(logits), [50, 66]).any()


def test_invalid_rows_stay_nan_and_touch_no_other():
    rng = np.random.default_rng(3)
    images, classes = unit(rng, 100, 16, np.float16), unit(rng, 5, 16)
    whole = zero_shot_logits(images, classes, 10.0)
    images[[0, 41]] = np.nan
    logits = zero_shot_logits(images, classes, 10.0)
    assert np.isnan(logits[[0, 41]]).all()
    np.testing.assert_array_equal(np.delete(logits, [0, 41], 0), np.delete(whole, [0, 41], 0))
    predicted = predictions(logits)
    assert (predicted[[0, 41]] == NO_PREDICTION).all()
    assert (np.delete(predicted, [0, 41]) < 5).all()


@settings(max_examples=60)
@given(
    st.integers(1, 6).flatmap(
        lambda c: st.lists(
            st.lists(st.sampled_from([-1.0, 0.0, 0.5, 2.0, np.nan]), min_size=c, max_size=c),
            max_size=8,
        ).map(lambda rows: np.array(rows, np.float32).reshape(len(rows), c))
    )
)
def test_predictions_match_a_plain_loop(logits):
    expected = [
        NO_PREDICTION if any(math.isnan(x) for x in row) else row.index(max(row))
        for row in logits.tolist()
    ]
    found = predictions(logits)
    assert found.dtype == np.uint16
    assert found.tolist() == expected


@pytest.mark.parametrize("shape", [(3,), (50, 3)])
@pytest.mark.parametrize("block", [10, 7 * 3 * 4, 10_000])
def test_weighted_sums_are_those_of_a_plain_loop(shape, block, monkeypatch):
    monkeypatch.setattr("clipsyn.methods.numerics.blocks._BLOCK_VALUES", block)
    rng = np.random.default_rng(6)
    logits, weights = rng.normal(size=(50, 3, 4)).astype(np.float32), rng.normal(size=shape)
    found = weighted_sum(logits, weights)
    assert found.dtype == np.float32
    for n, row in enumerate(found):
        of_sample = weights if len(shape) == 1 else weights[n]
        expected = sum(w * z for w, z in zip(of_sample, logits[n], strict=True))
        np.testing.assert_allclose(row, expected, atol=1e-5)
    assert weighted_sum(logits[:0], weights[:0] if len(shape) == 2 else weights).shape == (0, 4)


def test_softmax_is_that_of_plain_python_and_its_logarithm_keeps_what_underflows():
    logits = np.array([[[0.0, 1.0, -2.0], [1e4, 1e4, -1e4]]])
    powers = [math.exp(value) for value in logits[0, 0]]
    expected = [[power / sum(powers) for power in powers], [0.5, 0.5, 0]]
    np.testing.assert_allclose(softmax(logits)[0], expected, rtol=1e-12)
    np.testing.assert_allclose(log_softmax(logits)[0, 0], np.log(expected[0]), rtol=1e-12)
    half = math.log(0.5)
    np.testing.assert_allclose(log_softmax(logits)[0, 1], [half, half, -2e4 + half], rtol=1e-12)


def plain_mixture(logits, weights):
    """In double precision, a sample and a backbone at a time."""
    out = np.zeros((len(logits), logits.shape[2]))
    for n, (sample, shares) in enumerate(zip(logits.astype(float), weights, strict=True)):
        for row, share in zip(sample, shares, strict=True):
            powers = np.exp(row - row.max())
            out[n] += share * powers / powers.sum()
    return out


@pytest.mark.parametrize("scale", [0.0, 1.0, 20.0, 300.0])
@pytest.mark.parametrize("offset", [0.0, 25.0, -60.0, 80.0, 500.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_mixture_is_that_of_plain_python(scale, offset, dtype):
    rng = np.random.default_rng(0)
    logits = (scale * rng.normal(size=(20, 3, 7)) + offset).astype(dtype)
    weights = rng.dirichlet(np.ones(3), size=20)
    expected = plain_mixture(logits, weights)
    found = mixture(logits, weights)
    assert found.dtype == dtype
    np.testing.assert_allclose(
        found, expected, rtol=1e-4 if dtype == np.float32 else 1e-9, atol=1e-37
    )
    np.testing.assert_allclose(
        mixture(logits, np.full(3, 1 / 3)), plain_mixture(logits, np.full((20, 3), 1 / 3)),
        rtol=1e-4, atol=1e-37,
    )  # fmt: skip


@pytest.mark.parametrize("scale", [1.0, 40.0, 300.0])
def test_the_logarithm_of_a_mixture_keeps_what_underflows(scale):
    rng = np.random.default_rng(1)
    logits = (scale * rng.normal(size=(50, 3, 6))).astype(np.float32)
    log_weights = np.log(rng.dirichlet(np.ones(3), size=50)).astype(np.float32)
    terms = log_softmax(logits.astype(float)) + log_weights[:, :, None]
    expected = np.logaddexp.reduce(terms, axis=1)
    assert (scale < 2) == (expected.min() > -60)
    np.testing.assert_allclose(log_mixture(logits, log_weights), expected, rtol=1e-5, atol=1e-5)


def sample(n=23, backbones=4, classes=7, scale=3.0, seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, backbones, classes)) * scale
    return logits, rng.integers(0, classes, n).astype(np.int32), rng


def by_autograd(logits, weights, labels):
    """Losses (sample,), and the gradient of their sum to `weights`."""
    w = torch.tensor(weights, requires_grad=True)
    z = torch.einsum("nb,nbc->nc", w.expand(logits.shape[:2]), torch.tensor(logits))
    target = torch.tensor(labels).long()
    losses = torch.nn.functional.cross_entropy(z, target, reduction="none")
    losses.sum().backward()
    return losses.detach().numpy(), w.grad.numpy()


@pytest.mark.parametrize("scale", [0.1, 3.0, 100.0])
def test_cross_entropy_is_that_of_torch(scale):
    logits, labels, _ = sample(scale=scale)
    scores = torch.tensor(logits[:, 0], requires_grad=True)
    expected = torch.nn.functional.cross_entropy(
        scores, torch.tensor(labels).long(), reduction="none"
    )
    expected.sum().backward()
    losses, gradient = cross_entropy(logits[:, 0].copy(), labels)
    np.testing.assert_allclose(losses, expected.detach().numpy(), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(gradient, scores.grad.numpy(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("shape", [(4,), (23, 4)])
def test_gradients_to_weights_are_those_of_autograd(shape):
    logits, labels, rng = sample()
    weights = rng.normal(size=shape)
    losses, gradient = weighted_cross_entropy(logits, weights, labels)
    expected, slopes = by_autograd(logits, weights, labels)
    np.testing.assert_allclose(losses, expected, rtol=1e-9)
    summed = gradient.sum(axis=0) if len(shape) == 1 else gradient
    np.testing.assert_allclose(summed, slopes, rtol=1e-5, atol=1e-12)


def test_huge_logits_have_finite_losses():
    logits = np.array([[[0.0, 1e4, -1e4]], [[0.0, 1e4, -1e4]]], np.float32)
    losses, gradient = weighted_cross_entropy(logits, np.ones(1), np.array([1, 2], np.int32))
    np.testing.assert_allclose(losses, [0, 2e4])
    np.testing.assert_allclose(gradient[:, 0], [0, 2e4], atol=1e-9)


def test_gradients_are_never_subnormal():
    logits = np.array([[0, -95, -200], [0, 300, 0]], np.float32)
    losses, gradient = cross_entropy(logits, np.array([0, 2]))
    np.testing.assert_array_equal(losses, [0, 300])
    assert np.abs(gradient[gradient != 0]).min() > 1e-20
    np.testing.assert_allclose(gradient, [[0, 0, 0], [0, 1, -1]], atol=1e-16)


def logits_of(n=80, backbones=4, classes=40, seed=0, common=2.0):
    """Backbones agree on a part of what they say."""
    rng = np.random.default_rng(seed)
    shared = common * rng.normal(size=(n, 1, classes))
    return (shared + rng.normal(size=(n, backbones, classes))).astype(np.float32)


def first_by_groups(groups, logits, weights):
    out = np.empty(len(logits), int)
    for group in groups:
        best = np.einsum("b,nbc->nc", weights, group.of(logits)).argmax(axis=1)
        out[group.samples] = group.classes[np.arange(len(best)), best]
    return out


def weights_of(backbones, rng):
    yield np.ones(backbones, np.float32)
    yield from np.eye(backbones, dtype=np.float32)
    for _ in range(60):
        drawn = rng.exponential(size=backbones) ** 3 * (rng.random(backbones) < 0.7)
        if drawn.any():
            yield drawn.astype(np.float32)


@pytest.mark.parametrize("common", [0.0, 1.0, 5.0])
@pytest.mark.parametrize(("backbones", "classes"), [(1, 7), (2, 40), (5, 40), (9, 3), (3, 1)])
def test_whatever_the_weights_the_first_class_is_kept(backbones, classes, common):
    logits = logits_of(80, backbones, classes, common=common)
    groups = contenders(logits)
    for weights in weights_of(backbones, np.random.default_rng(1)):
        expected = np.einsum("b,nbc->nc", weights, logits).argmax(axis=1)
        assert np.array_equal(first_by_groups(groups, logits, weights), expected)


@pytest.mark.parametrize("classes", [2, 5, 30])
def test_of_classes_that_tie_the_first_is_kept(classes):
    """Whole numbers, few of them: sums are exact and often equal."""
    rng = np.random.default_rng(0)
    logits = rng.integers(0, 3, (300, 3, classes)).astype(np.float32)
    groups = contenders(logits)
    tied = 0
    for weights in rng.integers(0, 3, (40, 3)).astype(np.float32):
        if weights.any():
            sums = np.einsum("b,nbc->nc", weights, logits)
            tied += np.count_nonzero((sums == sums.max(axis=1, keepdims=True)).sum(axis=1) > 1)
            assert np.array_equal(first_by_groups(groups, logits, weights), sums.argmax(axis=1))
    assert tied > 300


def test_a_difference_that_rounding_can_undo_leaves_nothing_out():
    logits = np.full((1, 2, 3), 1000, np.float32)
    logits[0, :, 1] = np.nextafter(logits[0, :, 1], np.float32(2000))
    logits[0, :, 2] = 900
    (group,) = contenders(logits)
    assert group.classes.tolist() == [[0, 1]]
