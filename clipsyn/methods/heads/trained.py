"""Heads that are trained by gradient descent for a fixed number of epochs, from text.

    clap    Silva-Rodriguez et al., "A Closer Look at the Few-Shot Adaptation of Large
            Vision-Language Models", CVPR 2024, arXiv 2312.12730
    lp++    Huang et al., "LP++: A Surprisingly Strong Linear Probe for Few-Shot CLIP", CVPR 2024,
            arXiv 2404.02285
    rla     Fahes et al., "Fine-Tuning CLIP's Last Visual Projector: A Few-Shot Cornucopia", 2024,
            arXiv 2410.05270: the residual linear adapter on projected features

What they have in common here, and not in the sources: a class weighs as much as any other however
many images it has; classes without images take no part in the training; there is no validation set,
so the last epoch counts; features are those of the store, where CLAP has 20 augmentations of each
image. For the combiner logits are cross-fitted over `folds` stratified parts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from clipsyn.errors import InputError
from clipsyn.methods.estimator import learned, parameter, seed
from clipsyn.methods.heads.base import CrossFitted, image_embeddings, normalised
from clipsyn.methods.numerics import Array, Floats, Labels, Rows
from clipsyn.methods.numerics.logits import cross_entropy, softmax
from clipsyn.methods.numerics.optimise import Adam
from clipsyn.methods.pool import Pool
from clipsyn.settings import NUMBER, WHOLE

_EPOCHS = 300
_MOMENTUM = 0.9
_CLAP_RATE, _CLAP_WARM_UP, _CLAP_BATCH = 0.1, 1e-5, 256
_ALPHA_EVERY = 10  # epochs between steps of LP++'s alpha
_ALPHA_SCALE = 250.0  # of LP++: alpha starts at this times the mean cosine of image and class
_RLA_EPSILON = 1e-4
_RLA_LARGE = 1e7  # images * embed * classes: from it on in single precision


@dataclass(eq=False, repr=False)
class TrainedHead(CrossFitted):
    folds: int = parameter(3, WHOLE, least=2, keyword=True)
    random_state: int = seed(keyword=True)


class Lesson(NamedTuple):
    """What a head is trained on, of one backbone: classes that have images, from 0."""

    features: Floats  # (n, embed)
    labels: Labels  # (n,) among the present classes
    present: Labels  # (class,) which of all these are
    shares: Floats  # (n,) in sum 1, equal over the classes
    cosines: Floats  # (n, class) zero-shot, of the present classes
    text: Floats  # (class, embed) unit norm
    scale: float

    @classmethod
    def of(cls, pool: Pool, backbone: str) -> Lesson:
        """Raises InputError where the pool has no class embeddings of the backbone."""
        text, scale = text_of(pool, backbone)
        present, labels = np.unique(pool.labels, return_inverse=True)
        shares = (1 / np.bincount(labels)[labels] / len(present)).astype(np.float32)
        features, text = image_embeddings(pool, backbone), text[present]
        cosines = features @ text.T
        return cls(features, labels.astype(np.int32), present, shares, cosines, text, scale)

    def of_all(self, values: Floats, classes: int) -> Floats:
        """(class, …) of all classes: those without images have the mean of the others."""
        every = np.repeat(values.mean(axis=0, keepdims=True), classes, axis=0)
        every[self.present] = values
        return every

    def slope(self, logits: Array, rows: slice | Rows = slice(None)) -> Array:
        """(n, class) gradient of the mean loss to the logits, which it overwrites."""
        gradient = cross_entropy(logits, self.labels[rows])[1]
        gradient *= self.shares[rows, None]
        return gradient


def text_of(pool: Pool, backbone: str) -> tuple[Floats, float]:
    """(class, embed) class embeddings, and the logit scale; InputError where there are none."""
    if backbone not in pool.class_embeddings:
        raise InputError(
            f"there are no class embeddings of {backbone}: read the pool from a store that has "
            "them, or use the head anchored-probe, which needs logits alone"
        )
    return pool.class_embeddings[backbone].astype(np.float32), pool.logit_scales[backbone]


@dataclass(eq=False, repr=False)
class CLAP(TrainedHead):
    """``z_c = s f w_c / |w_c|``, s the logit scale, trained from the class embeddings w_c^0.

    Minimises the cross-entropy plus ``mean_c lambda_c |w_c - w_c^0|^2``. lambda_c is the mean
    zero-shot probability of a class over its images: what text predicts well stays near its text.
    SGD as published: rate 0.1 on a cosine schedule after an epoch at 1e-5, momentum 0.9, batches of
    256, 300 epochs. A class without images moves as the others do on average.

    Learned: `coef_` (class, embed) of each backbone, unit norm.

    >>> from dataclasses import replace
    >>> import numpy as np
    >>> from clipsyn import CLAP, Pool
    >>> images = [[1, 0], [0.8, 0.6], [0.6, -0.8], [0, 1], [-0.6, 0.8], [-1, 0]]  # embeddings
    >>> text = dict(class_embeddings={"0": np.array([[0.8, -0.6], [0, 1]])}, logit_scales={"0": 10})
    >>> support = replace(Pool.of([[[0, 0]]] * 6, [0, 0, 0, 1, 1, 1], [images]), **text)
    >>> CLAP().fit(support).transform(support).logits.argmax(axis=2).ravel()
    array([0, 0, 0, 1, 1, 1])
    """

    coef_: dict[str, Floats] = learned()

    def _fit(self, pool: Pool) -> None:
        self.coef_ = {}
        for name in pool.backbones:
            lesson, (text, _) = Lesson.of(pool, name), text_of(pool, name)
            moved = lesson.of_all(self._trained(lesson) - lesson.text, len(text))
            self.coef_[name] = normalised(text + moved)

    def _trained(self, lesson: Lesson) -> Floats:
        own = softmax(lesson.scale * lesson.cosines)[np.arange(len(lesson.labels)), lesson.labels]
        means = np.bincount(lesson.labels, own) / np.bincount(lesson.labels)
        hold = (means / len(means)).astype(np.float32)[:, None]
        rng = np.random.default_rng(self.random_state)
        weights, moved = lesson.text.copy(), np.zeros_like(lesson.text)
        for epoch in range(_EPOCHS):
            rate = _cosine(epoch - 1, _EPOCHS - 1, _CLAP_RATE) if epoch else _CLAP_WARM_UP
            order = rng.permutation(len(lesson.labels))
            for rows in np.array_split(order, math.ceil(len(order) / _CLAP_BATCH)):
                x, part = lesson.features[rows], len(order) / len(rows)
                unit = normalised(weights)
                slope = part * lesson.slope(lesson.scale * x @ unit.T, rows)
                pull = 2 * hold * (weights - lesson.text)
                moved *= _MOMENTUM
                moved += _through_norm(lesson.scale * slope.T @ x, weights, unit) + pull
                weights -= rate * moved
        return weights

    def _logits(self, pool: Pool, backbone: str) -> Floats:
        features, (_, scale) = image_embeddings(pool, backbone), text_of(pool, backbone)
        return np.asarray(np.float32(scale) * (features @ self.coef_[backbone].T))


@dataclass(eq=False, repr=False)
class LPPlusPlus(TrainedHead):
    """``z_c = f w_c + b_c + alpha_c f t_c`` for the class embedding t_c.

    w_c starts as the sum of the embeddings of its class, alpha_c as 250 times the mean cosine of an
    image with its own class. Full-batch gradient descent with momentum 0.9 on the mean
    cross-entropy, 300 epochs; rates follow from the Lipschitz constants of the gradient: for w and
    b ``4 n / lambda_max(F^T F)``, for alpha, which moves every tenth epoch,
    ``n / (4 max_c sum_i (f_i t_c)^2)`` on the sum of its gradients so far, as in the authors' code.
    A class without images gets the mean w, b and alpha of the others.

    Learned: `coef_` w (class, embed), `intercept_` b and `alpha_` (class,) of each backbone.

    >>> from dataclasses import replace
    >>> import numpy as np
    >>> from clipsyn import LPPlusPlus, Pool
    >>> images = [[1, 0], [0.8, 0.6], [0.6, -0.8], [0, 1], [-0.6, 0.8], [-1, 0]]  # embeddings
    >>> text = dict(class_embeddings={"0": np.array([[0.8, -0.6], [0, 1]])}, logit_scales={"0": 10})
    >>> support = replace(Pool.of([[[0, 0]]] * 6, [0, 0, 0, 1, 1, 1], [images]), **text)
    >>> LPPlusPlus().fit(support).transform(support).logits.argmax(axis=2).ravel()
    array([0, 0, 0, 1, 1, 1])
    """

    coef_: dict[str, Floats] = learned()
    intercept_: dict[str, Floats] = learned()
    alpha_: dict[str, Floats] = learned()

    def _fit(self, pool: Pool) -> None:
        self.coef_, self.intercept_, self.alpha_ = {}, {}, {}
        for name in pool.backbones:
            lesson = Lesson.of(pool, name)
            found = (lesson.of_all(it, pool.n_classes) for it in self._trained(lesson))
            self.coef_[name], self.intercept_[name], self.alpha_[name] = found

    def _trained(self, lesson: Lesson) -> tuple[Floats, Floats, Floats]:
        n, x, cosines = len(lesson.labels), lesson.features, lesson.cosines
        own = cosines[np.arange(n), lesson.labels]
        coef = np.zeros_like(lesson.text)
        np.add.at(coef, lesson.labels, x)
        intercept = np.zeros(len(coef), np.float32)
        alpha = np.full(len(coef), _ALPHA_SCALE * (own @ lesson.shares), np.float32)
        rate = 4 * n / float(np.linalg.eigvalsh(x.T @ x)[-1])
        alpha_rate = n / (4 * float(np.square(cosines).sum(axis=0).max()))
        moved, shifted, summed = np.zeros_like(coef), np.zeros_like(intercept), np.zeros_like(alpha)
        logits = np.empty_like(cosines)
        for epoch in range(_EPOCHS):
            np.matmul(x, (coef + alpha[:, None] * lesson.text).T, out=logits)
            logits += intercept
            slope = lesson.slope(logits)
            gradient = slope.T @ x
            moved *= _MOMENTUM
            moved += gradient
            shifted *= _MOMENTUM
            shifted += slope.sum(axis=0)
            summed += np.einsum("cd,cd->c", gradient, lesson.text)
            coef -= rate * moved
            intercept -= rate * shifted
            if (epoch + 1) % _ALPHA_EVERY == 0:
                alpha -= alpha_rate * summed
        return coef, intercept, alpha

    def _logits(self, pool: Pool, backbone: str) -> Floats:
        features, (text, _) = image_embeddings(pool, backbone), text_of(pool, backbone)
        both = self.coef_[backbone] + self.alpha_[backbone][:, None] * text
        return np.asarray(features @ both.T + self.intercept_[backbone])


@dataclass(eq=False, repr=False)
class ResidualAdapter(TrainedHead):
    """``z = s (f A / |f A|) T^T``: all embeddings go through one matrix A (embed, embed) first.

    A minimises ``mean cross-entropy + |A - I|^2 / n`` over n images, from the identity, by Adam
    (eps 1e-4) with a cosine schedule over 300 full-batch epochs. T: class embeddings, s: the logit
    scale.

    learning_rate: from 1e-5 to 1e-2 in the publication.

    Learned: `adapter_` A of each backbone.

    >>> from dataclasses import replace
    >>> import numpy as np
    >>> from clipsyn import ResidualAdapter, Pool
    >>> images = [[1, 0], [0.8, 0.6], [0.6, -0.8], [0, 1], [-0.6, 0.8], [-1, 0]]  # embeddings
    >>> text = dict(class_embeddings={"0": np.array([[0.8, -0.6], [0, 1]])}, logit_scales={"0": 10})
    >>> support = replace(Pool.of([[[0, 0]]] * 6, [0, 0, 0, 1, 1, 1], [images]), **text)
    >>> ResidualAdapter().fit(support).transform(support).logits.argmax(axis=2).ravel()
    array([0, 0, 0, 1, 1, 1])
    """

    learning_rate: float = parameter(1e-3, NUMBER, above=0, most=1)

    adapter_: dict[str, Floats] = learned()

    def _fit(self, pool: Pool) -> None:
        self.adapter_ = {name: self._trained(Lesson.of(pool, name)) for name in pool.backbones}

    def _trained(self, lesson: Lesson) -> Floats:
        cost = lesson.features.size * len(lesson.text)
        dtype: Any = np.float64 if cost < _RLA_LARGE else np.float32
        x, text = lesson.features.astype(dtype), lesson.text.astype(dtype)
        identity = np.eye(x.shape[1], dtype=dtype)
        adapter = identity.copy()
        adam = Adam(adapter.size, 0, dtype, epsilon=_RLA_EPSILON)
        for epoch in range(_EPOCHS):
            moved = x @ adapter
            unit = normalised(moved)
            slope = lesson.slope(lesson.scale * unit @ text.T)
            back = _through_norm(lesson.scale * slope @ text, moved, unit)
            gradient = x.T @ back + 2 / len(x) * (adapter - identity)
            rate = _cosine(epoch, _EPOCHS, self.learning_rate)
            adam.step(adapter.reshape(-1), gradient.reshape(-1), rate)
        return adapter.astype(np.float32)

    def _logits(self, pool: Pool, backbone: str) -> Floats:
        text, scale = text_of(pool, backbone)
        unit = normalised(image_embeddings(pool, backbone) @ self.adapter_[backbone])
        return np.asarray(np.float32(scale) * (unit @ text.T))


def _cosine(epoch: int, epochs: int, rate: float) -> float:
    return rate * 0.5 * (1 + math.cos(math.pi * epoch / epochs))


def _through_norm(gradient: Array, values: Array, unit: Array) -> Array:
    """The gradient to `values` (row, embed) of what has this gradient to their unit vectors."""
    along = (gradient * unit).sum(axis=1, keepdims=True)
    return np.asarray((gradient - along * unit) / np.linalg.norm(values, axis=1, keepdims=True))
