"""A linear probe that starts from, and is held to, the zero-shot classifier."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clipsyn.methods.estimator import cross_fitted, learned, parameter, seed
from clipsyn.methods.heads.base import Head, backbone_logits, image_embeddings
from clipsyn.methods.numerics.logistic import fit_logistic
from clipsyn.methods.pool import Pool
from clipsyn.settings import NUMBER, WHOLE


@dataclass(eq=False, repr=False)
class AnchoredProbe(Head):
    """``z = z_0 + f D^T``: the zero-shot logits z_0, corrected by a linear classifier D.

    D minimises ``sum_n s_n cross-entropy(z_n, y_n) + penalty / 2 |D|^2`` over the unit-norm
    embeddings f, by L-BFGS. With ``z_0 = t f W_0^T`` (t the logit scale, W_0 the class
    embeddings) this is a linear probe with weights ``t W_0 + D``, anchored at the zero-shot
    classifier. s_n gives every class the same total weight, so that no class is preferred for
    having more images; with k images of each class all s_n are 1.

    After ZS-LP and CLAP (Silva-Rodriguez et al., CVPR 2024) and LP++ (Huang et al., CVPR 2024);
    docs/methods.md says what it has of each. The problem is convex, has one solution, and needs no
    validation set.

    Only classes with images take part in the fit. Their rows of D sum to zero, and a class without
    images keeps its zero-shot logit. The combiner's logits are cross-fitted: each of `folds`
    stratified parts, drawn with `random_state`, gets logits from a probe fitted on the others. One
    image a class is enough for both.

    Learned: `delta_`, D (class, embed) of each backbone.

    >>> from clipsyn import AnchoredProbe, Pool
    >>> images = [[1, 0], [0.8, 0.6], [0.6, -0.8], [0, 1], [-0.6, 0.8], [-1, 0]]  # embeddings
    >>> support = Pool.of([[[0, 0]]] * 6, [0, 0, 0, 1, 1, 1], [images])  # zero-shot knows nothing
    >>> new = Pool.of([[[0, 0]]] * 2, embeddings=[[[0.96, 0.28], [-0.28, 0.96]]])
    >>> head = AnchoredProbe().fit(support)
    >>> head.transform(new).logits[:, 0].round(1)  # (sample, class)
    array([[ 0.7, -0.7],
           [-0.6,  0.6]], dtype=float32)
    >>> len(head.fit_transform(support))  # for an ensemble on top: logits of all, cross-fitted
    6
    """

    penalty: float = parameter(1.0, NUMBER, above=0)
    folds: int = parameter(5, WHOLE, least=2)
    random_state: int = seed()

    delta_: dict[str, NDArray[np.float32]] = learned()

    def _fit(self, pool: Pool) -> None:
        sizes = np.bincount(pool.labels, minlength=pool.n_classes)
        present = np.flatnonzero(sizes)
        labels = np.searchsorted(present, pool.labels)
        weights = len(labels) / len(present) / sizes[pool.labels]
        self.delta_ = {}
        for name in pool.backbones:
            features = image_embeddings(pool, name)
            base = backbone_logits(pool, name)[:, present]
            found = fit_logistic(features, labels, base, self.penalty, sample_weights=weights)
            self.delta_[name] = np.zeros((pool.n_classes, features.shape[1]), np.float32)
            self.delta_[name][present] = found

    def _logits(self, pool: Pool, backbone: str) -> NDArray[np.float32]:
        correction = image_embeddings(pool, backbone) @ self.delta_[backbone].T
        return backbone_logits(pool, backbone) + correction

    def _combiner_pool(self, support: Pool) -> Pool:
        if len(support) < 2:
            return support  # nothing is left to fit a head on
        logits = cross_fitted(self, support, _logits_of, self.folds, self.random_state)
        return support.with_logits(logits)


def _logits_of(head: Head, pool: Pool) -> NDArray[np.float32]:
    return head.transform(pool).logits
