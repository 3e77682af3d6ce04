"""Kernel regression onto what the zero-shot classifier lacks to the labels.

Bendou et al., "ProKeR: A Kernel Perspective on Few-Shot Adaptation of Large Vision-Language
Models", CVPR 2025, arXiv 2501.11175.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from clipsyn.errors import InputError
from clipsyn.methods.estimator import learned, parameter
from clipsyn.methods.heads.base import Head, backbone_logits, image_embeddings
from clipsyn.methods.numerics import Array, Doubles, Floats, Labels
from clipsyn.methods.pool import Pool, let_go, on_disk
from clipsyn.settings import NUMBER

# beta and ridge by images a class: those that the authors chose on ImageNet, for all other sets
PUBLISHED = {1: (3.0, 0.05), 2: (2.6, 0.05), 4: (1.5, 0.05), 8: (1.66, 0.07), 16: (1.7, 0.1)}
_SCALE = 100.0  # of logits that come without their scale: that of OpenAI's models
_CHANGES = "_changes"  # by backbone, of leave-one-out logits: while `fit_transform` runs
_MOST = 20_000  # images of a support, whose kernel then has 3.2 GB
_ROWS = 1024  # of it that are made at once
_MANY = 4000  # images, beyond which what waits for the combiner lies in files
_BLOCK_VALUES = 4_000_000  # kernel values of other images at once: 16 MB


@dataclass(eq=False, repr=False)
class ProKeR(Head):
    """``z = z_0 + s k(f, F) A`` for the zero-shot logits z_0 and the unit-norm embedding f.

        k(f, g) = exp(-beta (1 - f g))        A = (K / ridge + I)^-1 (Y - Z_0 / s)

    F (support, embed): the support's embeddings, K their kernel, Y their labels, one-hot, s the
    logit scale (100 where the pool does not say). That is the regression onto the labels that stays
    closest to the zero-shot cosines. As in the authors' code, A lacks a factor of 1 / ridge,
    for which beta and ridge were chosen.

    beta, ridge (the publication's lambda): None takes the authors' settings without validation, by
    the mean number of images of a class (`PUBLISHED`: 1, 2, 4, 8 or 16, the next lower). The
    labels Y of a class without images are zero, which lowers its logits.

    For the combiner `fit_transform` returns leave-one-out logits in closed form, where the other
    images of its class make up for the one that is left out. An image alone in its class keeps its
    zero-shot logits.

    Learned: `support_` F and `coef_` s A (support, class) of each backbone; `beta_`.

    >>> from clipsyn import Pool, ProKeR
    >>> images = [[1, 0], [0.8, 0.6], [0.6, -0.8], [0, 1], [-0.6, 0.8], [-1, 0]]  # embeddings
    >>> support = Pool.of([[[0, 0]]] * 6, [0, 0, 0, 1, 1, 1], [images])  # zero-shot knows nothing
    >>> new = Pool.of([[[0, 0]]] * 2, embeddings=[[[0.96, 0.28], [-0.28, 0.96]]])
    >>> ProKeR().fit(support).transform(new).logits[:, 0].round(1)  # (sample, class)
    array([[ 5.2, -0.3],
           [-0.3,  5.2]], dtype=float32)
    """

    needs_text: ClassVar[bool] = False

    beta: float | None = parameter(None, NUMBER, least=0)
    ridge: float | None = parameter(None, NUMBER, above=0)

    support_: dict[str, Array] = learned()
    coef_: dict[str, Floats] = learned()
    beta_: float = learned()

    def _fit(self, pool: Pool) -> None:
        if len(pool) > _MOST:
            raise InputError(
                f"the kernel of {len(pool):,} images has {8e-9 * len(pool) ** 2:,.0f} GB: give "
                "ProKeR fewer, with shots=…"
            )
        self.beta_, ridge = self._settings(pool)
        self.support_, self.coef_ = {}, {}
        for name in pool.backbones:
            self._fit_one(pool, name, ridge)

    def _fit_one(self, pool: Pool, name: str, ridge: float) -> None:
        """Of one backbone: its kernel is gone before the next one's comes."""
        from scipy.linalg import cho_factor, cho_solve  # 0.1 s

        features, scale = image_embeddings(pool, name), pool.logit_scales.get(name, _SCALE)
        system = np.empty((len(features), len(features)))
        for start in range(0, len(features), _ROWS):  # no more of it in single precision
            system[start : start + _ROWS] = features[start : start + _ROWS] @ features.T
        _kernel(system, self.beta_)
        system /= ridge
        system.flat[:: len(features) + 1] += 1
        quick = {"check_finite": False}  # which would take an eighth of the kernel's memory
        factor, _ = cho_factor(system.T, lower=True, overwrite_a=True, **quick)
        found = cho_solve((factor, True), _missing(pool, name), **quick)
        self.support_[name] = pool.embeddings[name]
        self.coef_[name] = np.asarray(scale * found, np.float32)
        if (changes := vars(self).get(_CHANGES)) is not None:
            room = on_disk if len(pool) > _MANY else np.empty
            changes[name] = room(found.shape, np.float32)
            left_out(factor, found, partial(_missing, pool, name), pool.labels)
            changes[name][...] = scale * ridge * found
            let_go(changes[name])

    def fit_transform(self, support: Pool | ArrayLike, labels: ArrayLike | None = None) -> Pool:
        """As every head does; one inverse serves the fit and the leave-one-out logits."""
        vars(self)[_CHANGES] = {}
        try:
            return super().fit_transform(support, labels)
        finally:
            del vars(self)[_CHANGES]

    def _logits(self, pool: Pool, backbone: str) -> Floats:
        features = image_embeddings(pool, backbone)
        support = self.support_[backbone].astype(np.float32)
        logits = backbone_logits(pool, backbone).copy()
        rows = max(1, _BLOCK_VALUES // len(support))
        for start in range(0, len(features), rows):
            block = slice(start, start + rows)
            logits[block] += _kernel(features[block] @ support.T, self.beta_) @ self.coef_[backbone]
        return logits

    def _combiner_pool(self, support: Pool) -> Pool:
        changes = vars(self)[_CHANGES]
        logits = support.logits.copy()
        for column, name in enumerate(support.backbones):
            logits[:, column] += changes[name]
        return support.with_logits(logits)

    def _settings(self, pool: Pool) -> tuple[float, float]:
        """beta, ridge"""
        shots = len(pool) / len(np.unique(pool.labels))
        beta, ridge = PUBLISHED[max(known for known in PUBLISHED if known <= shots)]
        beta = beta if self.beta is None else self.beta
        return beta, ridge if self.ridge is None else self.ridge


def left_out(
    factor: Doubles, found: Doubles, targets: Callable[[], Doubles], labels: Labels
) -> None:
    """Make `found` ``k_i (K + ridge I)^-1 targets`` (n, class) without sample i, in closed form.

    factor: lower, Cholesky's of K + ridge I, or of a multiple of it; it is lost. found: M targets
    for the inverse M of the same. With these it is ``- sum over j != i of M_ij t_j / M_ii``. For
    the own class of i, the labels of the k - 1 others count k / (k - 1). Zero for a sample that is
    alone in its class.

    M is never formed: it is R R^T for R, the transpose of the factor's inverse, and what is asked
    of it are its diagonal and its sums over the samples of a class.
    """
    from scipy.linalg import lapack
    from scipy.sparse import csr_array

    count, sizes = len(labels), np.bincount(labels)[labels]
    root = lapack.dtrtri(factor, lower=1, overwrite_c=1)[0].T
    for row in range(count):
        root[row, :row] = 0  # what was there before the factor
    sums = csr_array((np.ones(count), (labels, np.arange(count)))) @ root  # (class, sample)
    own = np.einsum("ij,ij->i", root, root)
    mates = np.array([root[i] @ sums[labels[i]] for i in range(count)])
    del sums
    labelled = targets()
    labelled *= own[:, None]
    found -= labelled
    found[np.arange(count), labels] += (mates - own) / np.maximum(sizes - 1, 1)
    found /= -own[:, None]
    found[sizes == 1] = 0


def _kernel(cosines: Array, beta: float) -> Array:
    """Of embeddings with these cosines, in their memory."""
    cosines -= 1
    cosines *= beta
    return np.exp(cosines, out=cosines)


def _missing(pool: Pool, backbone: str) -> Doubles:
    """(sample, class) what the zero-shot cosines lack to the labels, one-hot."""
    scale = pool.logit_scales.get(backbone, _SCALE)
    missing: Doubles = backbone_logits(pool, backbone) / -np.float64(scale)
    missing[np.arange(len(pool)), pool.labels] += 1
    return missing
