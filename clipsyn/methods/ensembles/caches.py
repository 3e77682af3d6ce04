"""Caches of all backbones beside their text, weighed by how far each agrees with it.

Zhang et al., "Prompt, Generate, then Cache: Cascade of Foundation Models Makes Strong Few-shot
Learners", CVPR 2023, arXiv 2303.02151.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from clipsyn.methods.ensembles.base import Ensemble
from clipsyn.methods.estimator import learned, parameter
from clipsyn.methods.heads.base import mean_loss, repeated
from clipsyn.methods.heads.cache import ALPHAS, BETAS, DEFAULT_ALPHA, DEFAULT_BETA, cache_sums
from clipsyn.methods.numerics import Array, Doubles, Floats, Rows
from clipsyn.methods.numerics.blocks import in_blocks
from clipsyn.methods.numerics.logits import softmax
from clipsyn.methods.numerics.samples import by_class
from clipsyn.methods.pool import Pool
from clipsyn.settings import NUMBER

_CHOICE_SAMPLES = 1000  # leave-one-out losses are over so many samples at most
_BETAS = BETAS[:12]  # to 32: beyond, single precision makes 0 of what is far from all keys


@dataclass(eq=False, repr=False)
class CacheFusion(Ensemble):
    """``z = z_0 + alpha sum over b of w_b A_b``, for the mean z_0 of the backbones' logits.

        A_b = exp(-beta (1 - f_b K_b^T)) L        w = softmax over b of A_b z_0^T

    A_b: the cache of a backbone, as in `TipAdapter`. Each row of A_b, and of z_0 in w, is shifted
    and scaled over the classes to mean 0 and deviation 1. The publication has one CLIP, whose
    logits are z_0, beside DINO, and images from DALL-E in the caches.

    alpha, beta: one pair for all backbones. None chooses it by the mean cross-entropy of
    leave-one-out scores, as `TipAdapter` does. Where most classes have one image they are 1 and
    5.5.

    Learned: `keys_` (support, sum of embed), class after class; `sizes_` (class,) keys of each;
    `alpha_`; `beta_`.

    >>> from clipsyn import CacheFusion, Pool
    >>> images = [[1, 0], [0.8, 0.6], [0.6, -0.8], [0, 1], [-0.6, 0.8], [-1, 0]]  # embeddings
    >>> support = Pool.of([[[0, 0]] * 2] * 6, [0, 0, 0, 1, 1, 1], [images, images])
    >>> CacheFusion().fit(support).predict(support)
    array([0, 0, 0, 1, 1, 1], dtype=uint16)
    """

    needs_embeddings: ClassVar[bool] = True
    knows_classes: ClassVar[bool] = True

    alpha: float | None = parameter(None, NUMBER, least=0, most=10_000)
    beta: float | None = parameter(None, NUMBER, least=0, most=32)

    keys_: Floats = learned()
    sizes_: Rows = learned()
    alpha_: float = learned()
    beta_: float = learned()

    def _fit(self, support: Pool) -> None:
        pool = support.take(by_class(support.labels))
        self.keys_ = pool.features()
        self.sizes_ = np.bincount(pool.labels, minlength=pool.n_classes)
        self.alpha_, self.beta_ = self._chosen(pool)

    def _combine(self, pool: Pool) -> Array:
        zero_shot = pool.logits.mean(axis=1)
        added = _fused(zero_shot, self._sums(pool, [self.beta_])[:, 0])
        return np.asarray(zero_shot + np.float32(self.alpha_) * added)

    def _sums(self, pool: Pool, betas: Sequence[float], own: Rows | None = None) -> Floats:
        """(backbone, beta, sample, class)"""
        features = pool.features()
        ends = np.cumsum([pool.embeddings[name].shape[1] for name in pool.backbones])[:-1]
        images, keys = (np.split(it, ends, axis=1) for it in (features, self.keys_))
        pairs = zip(images, keys, strict=True)
        sums = [cache_sums(image, key, self.sizes_, betas, own=own) for image, key in pairs]
        return np.stack(sums)

    def _chosen(self, pool: Pool) -> tuple[float, float]:
        """alpha, beta of the lowest leave-one-out loss, the first of equals."""
        alpha = DEFAULT_ALPHA if self.alpha is None else self.alpha
        beta = DEFAULT_BETA if self.beta is None else self.beta
        if None not in (self.alpha, self.beta) or not repeated(pool.labels):
            return alpha, beta
        alphas = ALPHAS if self.alpha is None else (alpha,)
        betas = _BETAS if self.beta is None else (beta,)
        losses = self._left_out_losses(pool, alphas, betas)
        place = np.unravel_index(losses.argmin(), losses.shape)
        return float(alphas[place[0]]), float(betas[place[1]])

    def _left_out_losses(
        self, pool: Pool, alphas: Sequence[float], betas: Sequence[float]
    ) -> Doubles:
        """(alpha, beta) sums over some samples, each without its own keys."""
        count = min(len(pool), _CHOICE_SAMPLES)
        chosen = np.linspace(0, len(pool) - 1, count).astype(np.intp)

        def block(rows: slice) -> Doubles:
            part = pool.take(chosen[rows])
            zero_shot = part.logits.mean(axis=1)
            sums = self._sums(part, betas, chosen[rows])
            added = [_fused(zero_shot, of_beta) for of_beta in sums.swapaxes(0, 1)]
            losses = [
                [mean_loss(zero_shot + np.float32(alpha) * it, part.labels) for it in added]
                for alpha in alphas
            ]
            return len(part) * np.array(losses)

        return np.asarray(np.sum(in_blocks(block, (count, *pool.shape[1:])), axis=0))


def _fused(zero_shot: Floats, sums: Floats) -> Floats:
    """(sample, class) the caches (backbone, sample, class), weighed by likeness to the text."""
    caches = _standardised(sums)
    weights = softmax(np.einsum("bnc,nc->nb", caches, _standardised(zero_shot)))
    return np.asarray(np.einsum("nb,bnc->nc", weights, caches))


def _standardised(values: Floats) -> Floats:
    """Over the last axis, with the deviation of a sample; 0 where all are equal."""
    classes = values.shape[-1]
    largest = np.abs(values).max(axis=-1, keepdims=True)  # squares of small ones would be 0
    scaled = values / np.where(largest > 0, largest, np.float32(1))
    shifted = scaled - scaled.mean(axis=-1, keepdims=True)
    deviation = shifted.std(axis=-1, keepdims=True, ddof=min(classes - 1, 1))
    return np.asarray(shifted / np.where(deviation > 0, deviation, 1))
