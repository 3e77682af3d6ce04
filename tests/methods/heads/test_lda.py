from __future__ import annotations

import numpy as np
import pytest

from clipsyn.methods.heads.lda import ALPHAS, ShrinkageLDA, gaussian, left_out_scores
from clipsyn.methods.pool import Pool
from tests.methods.heads.clusters import clusters as images_of


def clusters(sizes=(4, 4, 4, 4), seed: int = 0) -> Pool:
    return images_of(sizes, seed=seed, spread=np.linspace(0.3, 1.5, 9))


def scores(support: Pool, new: np.ndarray) -> np.ndarray:
    """The formula of the docstring, class by class; for classes that all have samples."""
    values, labels = support.embeddings["0"].astype(float), support.labels
    width, present = values.shape[1], np.unique(labels)
    means = np.array([values[labels == c].mean(axis=0) for c in range(support.n_classes)])
    scatter = sum(np.outer(v - means[c], v - means[c]) for v, c in zip(values, labels, strict=True))
    ridge = np.trace(scatter) / max(len(labels) - len(present), 1)
    if ridge < 1e-12:
        ridge = np.trace(np.cov(values.T))
    precision = width * np.linalg.inv(scatter + ridge * np.eye(width))
    return np.stack([new @ precision @ m - m @ precision @ m / 2 for m in means], axis=1)


@pytest.mark.parametrize("sizes", [(4, 4, 4, 4), (2, 5, 3, 9), (1, 3, 1, 1), (1, 1, 1, 1)])
def test_scores_are_the_formulas(sizes):
    support, new = clusters(sizes), clusters((3, 3, 3, 3), seed=1)
    found = ShrinkageLDA(alpha=0.5).fit(support).transform(new)
    expected = new.logits[:, 0] + 0.5 * scores(support, new.embeddings["0"].astype(float))
    np.testing.assert_allclose(found.logits[:, 0], expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("sizes", [(4, 4, 4, 4), (2, 5, 3, 9), (2, 2, 2, 2), (3, 1, 1, 1)])
def test_leaving_out_is_fitting_without(sizes):
    """Refitted without each sample in turn; what its class is given back is added by hand."""
    support = clusters(sizes)
    values, labels = support.embeddings["0"].astype(float), support.labels
    model = gaussian(support.embeddings["0"], labels, 4)
    found = left_out_scores(model, support.embeddings["0"], labels)
    for row, label in enumerate(labels):
        if sizes[label] == 1:
            np.testing.assert_array_equal(found[row], 0)
            continue
        rest = support.take(np.delete(np.arange(len(labels)), row))
        expected = scores(rest, values[row : row + 1])[0]
        size = sizes[label]
        expected[label] += expected_cost(rest) / 2 * (1 / (size - 1) - 1 / size)
        np.testing.assert_allclose(found[row], expected, rtol=1e-6, atol=1e-6)


def expected_cost(support: Pool) -> float:
    """trace(P S): what the error of a mean of one image costs on average, twice."""
    values, labels = support.embeddings["0"].astype(float), support.labels
    centred = np.array(
        [v - values[labels == c].mean(axis=0) for v, c in zip(values, labels, strict=True)]
    )
    freedom = len(labels) - len(np.unique(labels))
    scatter, width = centred.T @ centred, values.shape[1]
    precision = width * np.linalg.inv(scatter + np.trace(scatter) / freedom * np.eye(width))
    return float(np.trace(precision @ scatter / freedom))


def test_the_combiner_gets_zero_shot_logits_and_left_out_scores():
    support = clusters((4, 3, 1, 5))
    head = ShrinkageLDA(alpha=0.3)
    found = head.fit_transform(support)
    model = gaussian(support.embeddings["0"], support.labels, 4)
    scores_ = left_out_scores(model, support.embeddings["0"], support.labels)
    np.testing.assert_allclose(found.logits[:, 0], support.logits[:, 0] + 0.3 * scores_, rtol=1e-5)
    alone = support.labels == 2
    np.testing.assert_array_equal(found.logits[alone], support.logits[alone])


def test_alpha_has_the_lowest_leave_one_out_loss():
    support = clusters((5, 4, 6, 5))
    head = ShrinkageLDA().fit(support)
    losses = []
    for alpha in ALPHAS:
        logits = ShrinkageLDA(alpha=alpha).fit_transform(support).logits[:, 0].astype(float)
        true = logits[np.arange(20), support.labels]
        losses.append(np.mean(np.log(np.exp(logits - true[:, None]).sum(axis=1))))
    assert head.alpha_[0] == ALPHAS[int(np.argmin(losses))]
    assert head.alpha_[0] > 0


def test_a_class_without_images_has_the_mean_score():
    support, new = clusters((4, 4, 0, 4)), clusters((3, 3, 3, 3), seed=1)
    quiet = new.with_logits(np.zeros_like(new.logits))
    found = ShrinkageLDA(alpha=1.0).fit(support).transform(quiet).logits[:, 0]
    np.testing.assert_allclose(found[:, 2], found[:, [0, 1, 3]].mean(axis=1), rtol=1e-3, atol=1e-3)
    left = ShrinkageLDA(alpha=1.0).fit_transform(support.with_logits(0 * support.logits))
    np.testing.assert_allclose(
        left.logits[:, 0, 2], left.logits[:, 0, [0, 1, 3]].mean(axis=1), rtol=1e-3, atol=1e-3
    )
