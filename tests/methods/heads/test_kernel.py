from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.kernel_ridge import KernelRidge

from clipsyn.errors import InputError
from clipsyn.methods.heads import kernel
from clipsyn.methods.heads.kernel import PUBLISHED, ProKeR
from tests.methods.heads.clusters import clusters

SCALE = 20.0


def support_and_new(sizes=(4, 3, 5)):
    support, new = clusters(sizes), clusters(sizes, seed=1)
    return [replace(pool, logit_scales={"0": SCALE}) for pool in (support, new)]


def onto_labels(support, new, beta, ridge, targets=None):
    """scikit-learn's kernel ridge regression onto what cosines lack to the labels, times lambda."""
    gamma = beta / 2  # of unit vectors, |f - g|^2 is 2 - 2 f g
    missing = np.eye(support.n_classes)[support.labels] if targets is None else targets
    model = KernelRidge(kernel="rbf", gamma=gamma, alpha=ridge)
    model.fit(support.embeddings["0"], missing - support.logits[:, 0] / SCALE)
    return new.logits[:, 0] + SCALE * ridge * model.predict(new.embeddings["0"])


@pytest.mark.parametrize(("beta", "ridge"), [(1.5, 0.05), (6.0, 1.0)])
def test_it_is_kernel_ridge_regression(beta, ridge):
    support, new = support_and_new()
    found = ProKeR(beta=beta, ridge=ridge).fit(support).transform(new).logits[:, 0]
    np.testing.assert_allclose(found, onto_labels(support, new, beta, ridge), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("shots", "known"), [(1, 1), (3, 2), (4, 4), (12, 8), (40, 16)])
def test_settings_are_those_published_for_so_many_shots(shots, known):
    support, new = support_and_new((shots, shots, shots))
    found = ProKeR().fit(support).transform(new).logits[:, 0]
    expected = onto_labels(support, new, *PUBLISHED[known])
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_the_combiner_gets_logits_of_fits_without_each_sample():
    """The labels of its class that are left count k / (k - 1); alone, it keeps its logits."""
    support, _ = support_and_new((4, 3, 1))
    found = ProKeR(beta=1.5, ridge=0.05).fit_transform(support).logits[:, 0]
    for row in range(len(support)):
        others = np.delete(np.arange(len(support)), row)
        rest, alone, label = (
            support.take(others),
            support.take(np.array([row])),
            support.labels[row],
        )
        targets = np.eye(3)[rest.labels]
        targets[:, label] *= 1 + 1 / max(np.count_nonzero(rest.labels == label), 1)
        expected = onto_labels(rest, alone, 1.5, 0.05, targets)[0]
        if label == 2:
            expected = support.logits[row, 0]
        np.testing.assert_allclose(found[row], expected, rtol=1e-4, atol=1e-4)


def test_a_support_whose_kernel_has_no_room_is_refused(monkeypatch):
    monkeypatch.setattr(kernel, "_MOST", 11)
    with pytest.raises(InputError):
        ProKeR().fit(clusters((4, 4, 4)))
