from __future__ import annotations

import numpy as np
import pytest
import torch

from clipsyn.methods.heads.linear import AnchoredProbe
from clipsyn.methods.numerics.samples import stratified_folds
from clipsyn.methods.pool import Pool
from tests.methods.heads.clusters import clusters


def torch_delta(support: Pool, penalty: float) -> torch.Tensor:
    """The docstring's problem by torch's L-BFGS in float64, over all classes at once."""
    features = torch.tensor(support.embeddings["0"].astype(float))
    base = torch.tensor(support.logits[:, 0].astype(float))
    labels = torch.tensor(support.labels).long()
    present = torch.unique(labels)
    sizes = torch.bincount(labels, minlength=support.n_classes)
    weights = len(labels) / len(present) / sizes[labels]
    absent = torch.ones(support.n_classes, dtype=torch.bool)
    absent[present] = False
    delta = torch.zeros(support.n_classes, features.shape[1], dtype=torch.float64)
    delta.requires_grad_()
    optimiser = torch.optim.LBFGS([delta], max_iter=500, tolerance_grad=1e-12, tolerance_change=0)

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        scores = (base + features @ delta.T).masked_fill(absent, -torch.inf)
        losses = torch.nn.functional.cross_entropy(scores, labels, reduction="none")
        value = (weights * losses).sum() + penalty / 2 * (delta**2).sum()
        value.backward()
        return value

    optimiser.step(closure)
    return delta.detach()


@pytest.mark.parametrize("sizes", [(4, 4, 4, 4), (1, 7, 2, 3), (1, 1, 1, 1), (3, 0, 2, 0)])
@pytest.mark.parametrize("penalty", [1.0, 0.1])
def test_it_is_the_solution_of_the_problem(sizes, penalty):
    support = clusters(sizes)
    found = AnchoredProbe(penalty=penalty).fit(support).delta_["0"]
    np.testing.assert_allclose(found, torch_delta(support, penalty), atol=0.01)


@pytest.mark.parametrize("sizes", [(4, 4, 4, 4), (1, 1, 1, 1)])
def test_the_combiner_gets_logits_of_probes_fitted_on_the_other_folds(sizes):
    support = clusters(sizes)
    found = AnchoredProbe(folds=3, random_state=4).fit_transform(support).logits
    for held in stratified_folds(support.labels, 3, random_state=4):
        inside, outside = np.flatnonzero(held), np.flatnonzero(~held)
        part = AnchoredProbe().fit(support.take(outside)).transform(support.take(inside))
        np.testing.assert_array_equal(found[inside], part.logits)
