"""A Gaussian classifier with a shared, shrunk covariance beside the zero-shot classifier.

Wang et al., "A Hard-to-Beat Baseline for Training-free CLIP-based Adaptation", ICLR 2024.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from clipsyn.methods.estimator import learned, parameter
from clipsyn.methods.heads.base import Head, backbone_logits, image_embeddings, mean_loss, repeated
from clipsyn.methods.numerics import Doubles, Floats, Labels, Rows
from clipsyn.methods.pool import Pool
from clipsyn.settings import NUMBER

ALPHAS = (0.0, *(10 ** (exponent / 2) for exponent in range(-6, 5)))  # 0, 0.001 to 100
DEFAULT_ALPHA = 0.01  # cosines then weigh 0.01 embed / trace(S), of the order of a logit scale


@dataclass(eq=False, repr=False)
class ShrinkageLDA(Head):
    """``z = z_0 + alpha (f W^T + b)`` for the zero-shot logits z_0 and the embedding f.

        W_c = P m_c      b_c = - m_c^T P m_c / 2      P = d (A + trace(A) / (n - C) I)^-1

    m_c: mean embedding of class c; A: scatter of the embeddings about their class's mean, the sum
    of (f - m)(f - m)^T; d: width of the embeddings; n: samples; C: classes that are there.
    f W^T + b are the log-densities of Gaussians with precision P and equal class shares, up to a
    term that all classes have in common. P is the publication's estimator (Kubokawa & Srivastava,
    2008), with n - C in place of its n - 1 (why: docs/methods.md).

    With one image a class A is zero; the ridge is then the trace of the covariance about the mean
    of all images, so that P is a multiple of the identity. If that trace is zero too, P is the
    identity.

    A class without images gets the mean score of the others, and so is neither preferred nor put
    back.

    alpha: None chooses it for each backbone by the mean cross-entropy of leave-one-out logits,
    over 0 and 0.001 to 100 in steps of half a decade; where most classes have one image it is
    0.01. The publication chooses it on a validation set.

    For the combiner `fit_transform` returns leave-one-out logits in closed form. The class of the
    sample that is left out has one image less, and so a mean with a larger error e, which costs it
    ``e^T P e / 2``; what this exceeds the cost for k images by, in expectation, is given back. An
    image alone in its class keeps its zero-shot logits.

    Learned: `coef_` W (class, embed) and `intercept_` b (class,) of each backbone; `alpha_`
    (backbone,).

    >>> from clipsyn import Pool, ShrinkageLDA
    >>> images = [[1, 0], [0.8, 0.6], [0.6, -0.8], [0, 1], [-0.6, 0.8], [-1, 0]]  # embeddings
    >>> support = Pool.of([[[0, 0]]] * 6, [0, 0, 0, 1, 1, 1], [images])  # zero-shot knows nothing
    >>> new = Pool.of([[[0, 0]]] * 2, embeddings=[[[0.96, 0.28], [-0.28, 0.96]]])
    >>> head = ShrinkageLDA(alpha=1).fit(support)
    >>> head.transform(new).logits[:, 0].round(1)  # (sample, class)
    array([[ 0.8, -1.9],
           [-1.8,  0.7]], dtype=float32)
    """

    needs_text: ClassVar[bool] = False

    alpha: float | None = parameter(None, NUMBER, least=0)

    coef_: dict[str, Floats] = learned()
    intercept_: dict[str, Floats] = learned()
    alpha_: Doubles = learned()

    def _fit(self, pool: Pool) -> None:
        self.coef_, self.intercept_ = {}, {}
        alphas = []
        for name in pool.backbones:
            model = gaussian(image_embeddings(pool, name), pool.labels, pool.n_classes)
            coef, intercept = _classifier(model)
            self.coef_[name] = coef.astype(np.float32)
            self.intercept_[name] = intercept.astype(np.float32)
            alphas.append(self._choose(pool, name, model))
        self.alpha_ = np.array(alphas)

    def _logits(self, pool: Pool, backbone: str) -> Floats:
        scores = image_embeddings(pool, backbone) @ self.coef_[backbone].T
        scores += self.intercept_[backbone]
        scores *= np.float32(self.alpha_[self.backbones_.index(backbone)])
        return scores + backbone_logits(pool, backbone)

    def _combiner_pool(self, support: Pool) -> Pool:
        logits = support.logits.copy()
        for column, name in enumerate(support.backbones):
            features = image_embeddings(support, name)
            model = gaussian(features, support.labels, support.n_classes)
            scores = left_out_scores(model, features, support.labels)
            logits[:, column] += self.alpha_[self.backbones_.index(name)] * scores
        return support.with_logits(logits)

    def _choose(self, pool: Pool, backbone: str, model: Gaussian) -> float:
        if self.alpha is not None:
            return self.alpha
        if not repeated(pool.labels):
            return DEFAULT_ALPHA
        zero_shot = backbone_logits(pool, backbone)
        scores = left_out_scores(model, image_embeddings(pool, backbone), pool.labels)
        losses = [mean_loss(zero_shot + alpha * scores, pool.labels) for alpha in ALPHAS]
        return ALPHAS[int(np.argmin(losses))]


class Gaussian(NamedTuple):
    """Class means and within-class scatter of a support set, in the scatter's eigenbasis."""

    basis: Doubles  # (embed, embed), columns are eigenvectors
    scatter: Doubles  # (embed,) eigenvalues of A
    means: Doubles  # (class, embed) in that basis; NaN for a class without samples
    sizes: Rows  # (class,)
    spread: float  # trace of the covariance about the common mean; embed if that is zero

    @property
    def freedom(self) -> int:
        """Samples minus classes that are there."""
        return int(self.sizes.sum() - np.count_nonzero(self.sizes))


def gaussian(features: Floats, labels: Labels, classes: int) -> Gaussian:
    """features: (n, embed); labels: (n,)."""
    values = features.astype(np.float64)
    sizes = np.bincount(labels, minlength=classes)
    sums = np.zeros((classes, values.shape[1]))
    np.add.at(sums, labels, values)
    with np.errstate(invalid="ignore"):
        means = sums / sizes[:, None]
    centred = values - means[labels]
    scatter, basis = np.linalg.eigh(centred.T @ centred)
    spread = values.var(axis=0).sum() * len(values) / max(len(values) - 1, 1)
    # where no two images differ, P = d (d I)^-1 shall be the identity
    spread = float(spread) or float(values.shape[1])
    return Gaussian(basis, np.maximum(scatter, 0), means @ basis, sizes, spread)


def left_out_scores(model: Gaussian, features: Floats, labels: Labels) -> Doubles:
    """(n, class) scores of each sample from the classifier that is fitted without it.

    Zero for a sample that is alone in its class. The class of each other sample gets back what
    being one sample short costs it (see `ShrinkageLDA`).

    Leaving out x of a class of k samples with mean m moves the mean to ``m - v / (k - 1)``, v = x -
    m, and takes ``k / (k - 1) v v^T`` from the scatter, which changes the inverse by a matrix of
    rank one (Sherman-Morrison), beside another ridge r for each sample:

        (A + r I - g v v^T)^-1 = R + s R v (R v)^T,   R = (A + r I)^-1,   s = g / (1 - g v^T R v)

    R is diagonal in the eigenbasis of A, so that everything is a few matrix products.
    """
    rows = np.arange(len(labels))
    sizes = model.sizes[labels].astype(np.float64)
    alone = sizes == 1
    fewer = np.maximum(sizes - 1, 1)
    values = features.astype(np.float64) @ model.basis
    means = np.where(model.sizes[:, None] > 0, model.means, 0)
    v = values - means[labels]
    g = np.where(alone, 0, sizes / fewer)
    left = model.scatter.sum() - g * np.square(v).sum(axis=1)  # trace of the scatter without x
    ridge = _ridge(left, model.freedom - ~alone, model.spread)
    inverse = 1 / (model.scatter + ridge[:, None])  # (n, embed): R of each sample
    rv = inverse * v
    s = g / (1 - g * (v * rv).sum(axis=1))
    x_rv = (values * rv).sum(axis=1)

    along = rv @ means.T  # (n, class)
    scores = (values * inverse) @ means.T - 0.5 * inverse @ np.square(means).T
    scores += (s * x_rv)[:, None] * along - 0.5 * s[:, None] * np.square(along)

    moved = means[labels] - v / fewer[:, None]
    along_own = (moved * rv).sum(axis=1)
    own = ((values - 0.5 * moved) * inverse * moved).sum(axis=1)
    own += s * along_own * (x_rv - 0.5 * along_own)
    trace = inverse.sum(axis=1) + s * np.square(rv).sum(axis=1)  # of the changed inverse
    error = (features.shape[1] - ridge * trace) / np.maximum(model.freedom - 1, 1)
    scores[rows, labels] = own + 0.5 * error * (1 / fewer - 1 / sizes)

    known = model.sizes > 0
    scores[:, ~known] = scores[:, known].mean(axis=1, keepdims=True)
    scores[alone] = 0
    scores *= features.shape[1]
    return scores


def _classifier(model: Gaussian) -> tuple[Doubles, Doubles]:
    """W (class, embed) and b (class,); those of a class without samples are the mean."""
    known = model.sizes > 0
    means = model.means[known]
    ridge = _ridge(model.scatter.sum(), model.freedom, model.spread)
    weights = means * (len(model.scatter) / (model.scatter + ridge))
    coef = np.empty_like(model.means)
    coef[known] = weights @ model.basis.T
    intercept = np.empty(len(coef))
    intercept[known] = -0.5 * (weights * means).sum(axis=1)
    coef[~known], intercept[~known] = coef[known].mean(axis=0), intercept[known].mean()
    return coef, intercept


def _ridge(trace: Doubles | float, freedom: Doubles | int, spread: float) -> Doubles:
    """trace(A) / (n - C), or what stands for it where that is zero.

    Less than a millionth of the spread of all images is what rounding leaves of zero.
    """
    values = np.asarray(trace, np.float64) / np.maximum(freedom, 1)
    return np.where(values > 1e-6 * spread, values, spread)
