"""Caches: the labels of the support's images, by likeness, beside the zero-shot classifier.

tip-adapter     Zhang et al., "Tip-Adapter: Training-free Adaption of CLIP for Few-shot
                Classification", ECCV 2022, arXiv 2207.09519
ape             Zhu et al., "Not All Features Matter: Enhancing Few-shot CLIP with Adaptive Prior
                Refinement", ICCV 2023, arXiv 2304.01195
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from clipsyn.methods.estimator import learned, parameter, seed
from clipsyn.methods.heads.base import (
    Head,
    backbone_logits,
    image_embeddings,
    mean_loss,
    normalised,
    repeated,
)
from clipsyn.methods.heads.trained import text_of
from clipsyn.methods.numerics import Array, Doubles, Floats, Rows
from clipsyn.methods.numerics.logits import cross_entropy, softmax
from clipsyn.methods.numerics.optimise import Adam
from clipsyn.methods.numerics.samples import by_class
from clipsyn.methods.pool import Pool
from clipsyn.settings import FLAG, NUMBER, WHOLE

ALPHAS = (0.0, *(2.0**exponent for exponent in range(-2, 14)))  # 0, 0.25 to 8,192
BETAS = tuple(2.0**exponent for exponent in range(-6, 10))  # 1/64 to 512
DEFAULT_ALPHA, DEFAULT_BETA = 1.0, 5.5  # the publication's
_HIGHEST = 10_000  # alpha, beta: beyond it zero-shot logits, or all but one key, count for nothing
_CHOICE_SAMPLES = 1000  # leave-one-out losses are over so many samples at most
_RATE, _DECAY, _EPSILON, _BATCH = 1e-3, 0.01, 1e-4, 256  # of the training, as published
_BLOCK_VALUES = 4_000_000  # affinities or kernel values at once: 16 MB, of doubles 32 MB
_ALIKE, _SPREAD = 0.7, 0.3  # weights of the criteria of channels: those published for ImageNet


@dataclass(eq=False, repr=False)
class TipAdapter(Head):
    """``z = z_0 + alpha exp(-beta (1 - f K^T)) L``, for the zero-shot logits z_0.

    f: unit-norm embedding; K (support, embed): the support's embeddings, or the mean over its
    augmented views where the pool has any, scaled to unit norm; L: their labels, one-hot, times
    the mean number of images of a class over that of their own class. With k images of each
    class, as in the publication, that factor is 1. With unequal classes it keeps the larger ones,
    whose sums have more terms, from being preferred.

    alpha, beta: from 0 to 10,000. None chooses them for each backbone on the support, by the mean
    cross-entropy of leave-one-out logits over ALPHAS x BETAS (of 1,000 samples evenly spread over
    the classes if there are more). Where most classes have one image nothing can be left out and
    they are the publication's 1 and 5.5.

    For the combiner, `fit_transform` leaves each sample's own key out, for which the other keys of
    its class make up by the same factor. An image alone in its class keeps its zero-shot logits.
    ``leave_one_out=False`` keeps the own key, which has the largest affinity and the right label:
    the combiner then learns that the cache is always right.

    Learned: `keys_` K (support, embed) of each backbone, class after class; `sizes_` (class,) keys
    of each class; `alpha_` and `beta_` (backbone,).

    >>> from clipsyn import Pool, TipAdapter
    >>> images = [[1, 0], [0.8, 0.6], [0.6, -0.8], [0, 1], [-0.6, 0.8], [-1, 0]]  # embeddings
    >>> support = Pool.of([[[0, 0]]] * 6, [0, 0, 0, 1, 1, 1], [images])  # zero-shot knows nothing
    >>> new = Pool.of([[[0, 0]]] * 2, embeddings=[[[0.96, 0.28], [-0.28, 0.96]]])
    >>> head = TipAdapter(alpha=1, beta=5.5).fit(support)
    >>> head.transform(new).logits[:, 0].round(2)  # (sample, class)
    array([[1.53, 0.02],
           [0.03, 1.52]], dtype=float32)
    """

    needs_text: ClassVar[bool] = False
    learns_from_views: ClassVar[bool] = True

    alpha: float | None = parameter(None, NUMBER, least=0, most=_HIGHEST)
    beta: float | None = parameter(None, NUMBER, least=0, most=_HIGHEST)
    leave_one_out: bool = parameter(True, FLAG)

    keys_: dict[str, Floats] = learned()
    sizes_: NDArray[np.int64] = learned()
    alpha_: Doubles = learned()
    beta_: Doubles = learned()

    def _fit(self, pool: Pool) -> None:
        pool = pool.take(by_class(pool.labels))
        self.sizes_ = np.bincount(pool.labels, minlength=pool.n_classes)
        self.keys_ = {name: self._keys(pool, name) for name in pool.backbones}
        chosen = [self._choose(pool, name) for name in pool.backbones]
        self.alpha_, self.beta_ = (np.array(values) for values in zip(*chosen, strict=True))

    def _logits(self, pool: Pool, backbone: str) -> Floats:
        return self._with_cache(pool, backbone, self.keys_[backbone])

    def _with_cache(
        self, pool: Pool, backbone: str, keys: Floats, own: Rows | None = None
    ) -> Floats:
        """z (sample, class); own: as `cache_sums` takes it."""
        alpha, beta = self._settings(backbone)
        images, trust = self._images(pool, backbone), self._trust(backbone)
        sums = cache_sums(images, keys, self.sizes_, [beta], own=own, trust=trust)[0]
        return np.asarray(backbone_logits(pool, backbone) + np.float32(alpha) * sums)

    def _combiner_pool(self, support: Pool) -> Pool:
        if not self.leave_one_out:
            return self.transform(support)
        order = by_class(support.labels)
        pool, own = support.take(order), np.arange(len(order))
        logits = np.empty_like(support.logits)
        for column, name in enumerate(support.backbones):
            logits[order, column] = self._with_cache(pool, name, self._keys(pool, name), own)
        return support.with_logits(logits)

    def _images(self, pool: Pool, backbone: str) -> Floats:
        """f (sample, embed)"""
        return image_embeddings(pool, backbone)

    def _keys(self, pool: Pool, backbone: str) -> Floats:
        """K (sample, embed) of a support: the mean over augmented views, or the clean f."""
        if not pool.views:
            return image_embeddings(pool, backbone)
        return normalised(
            np.mean([view[backbone].astype(np.float32) for view in pool.views], axis=0)
        )

    def _trust(self, backbone: str) -> Floats | None:
        """(key,) factors of the affinities; None where these count as they are"""

    def _settings(self, backbone: str) -> tuple[float, float]:
        index = self.backbones_.index(backbone)
        return float(self.alpha_[index]), float(self.beta_[index])

    def _choose(self, pool: Pool, backbone: str) -> tuple[float, float]:
        """alpha, beta of the lowest leave-one-out loss, the first of equals."""
        alpha = DEFAULT_ALPHA if self.alpha is None else self.alpha
        beta = DEFAULT_BETA if self.beta is None else self.beta
        if None not in (self.alpha, self.beta) or not repeated(pool.labels):
            return alpha, beta
        count = min(len(pool), _CHOICE_SAMPLES)
        rows = np.linspace(0, len(pool) - 1, count).astype(np.intp)
        zero_shot, labels = backbone_logits(pool, backbone)[rows], pool.labels[rows]
        embeddings, trust = self._images(pool, backbone)[rows], self._trust(backbone)
        betas = BETAS if self.beta is None else (self.beta,)
        keys = self.keys_[backbone]
        choices = cache_sums(embeddings, keys, self.sizes_, betas, own=rows, trust=trust)
        losses = {}
        for beta, sums in zip(betas, choices, strict=True):
            lowest = np.inf
            for alpha in ALPHAS[::-1] if self.alpha is None else [self.alpha]:
                loss = mean_loss(zero_shot + np.float32(alpha) * sums, labels)
                if loss > lowest:
                    break  # it is convex in alpha
                losses[alpha, beta] = lowest = loss
        return min(losses, key=losses.__getitem__)


@dataclass(eq=False, repr=False)
class TipAdapterF(TipAdapter):
    """Tip-Adapter with trained keys: the same formula, K fitted to the support's labels.

    K starts at Tip-Adapter's keys and minimises the mean cross-entropy of z over the support by
    AdamW (rate 1e-3, eps 1e-4, weight decay 0.01) with a cosine schedule, `epochs` epochs in
    batches of 256 drawn with `random_state`. alpha and beta are Tip-Adapter's and stay: the
    publication searches for them again after the training, on a validation set; here there is none,
    and the support's own labels would praise keys that have learned them. What else differs:
    docs/methods.md.

    The trained keys have seen every label. For the combiner `fit_transform` therefore returns the
    leave-one-out logits of the untrained cache, which cost one product. The combiner does not know
    what the training adds.

    >>> from clipsyn import Pool, TipAdapterF
    >>> images = [[1, 0], [0.8, 0.6], [0.6, -0.8], [0, 1], [-0.6, 0.8], [-1, 0]]  # embeddings
    >>> support = Pool.of([[[0, 0]]] * 6, [0, 0, 0, 1, 1, 1], [images])  # zero-shot knows nothing
    >>> new = Pool.of([[[0, 0]]] * 2, embeddings=[[[0.96, 0.28], [-0.28, 0.96]]])
    >>> head = TipAdapterF(alpha=1, beta=5.5, epochs=5).fit(support)
    >>> head.transform(new).logits.argmax(axis=2).ravel()
    array([0, 1])
    """

    epochs: int = parameter(20, WHOLE, least=0, keyword=True)
    random_state: int = seed(keyword=True)

    def _fit(self, pool: Pool) -> None:
        super()._fit(pool)
        pool = pool.take(by_class(pool.labels))
        for name in pool.backbones:
            self.keys_[name] = self._trained(pool, name)

    def _trained(self, pool: Pool, backbone: str) -> Floats:
        """The keys of one backbone after the training; in double precision meanwhile."""
        alpha, beta = self._settings(backbone)
        embeddings, zero_shot = image_embeddings(pool, backbone), backbone_logits(pool, backbone)
        keys = self.keys_[backbone]
        exact = keys.astype(np.float64).ravel()
        adam = Adam(len(exact), _DECAY, np.float64, decoupled=True, epsilon=_EPSILON)
        rng, ends = np.random.default_rng(self.random_state), range(_BATCH, len(pool), _BATCH)
        orders = [rng.permutation(len(pool)) for _ in range(self.epochs)]
        batches = [batch for order in orders for batch in np.split(order, ends)]
        weigh = _values(self.sizes_, np.float32)
        # with E = exp(-beta (1 - f K^T)) and G = (softmax(z) - onehot(y)) / n the gradient of the
        # mean cross-entropy to the keys is (alpha beta E * (G L^T))^T f
        for step, rows in enumerate(batches):
            affinities = np.exp(beta * (embeddings[rows] @ keys.T - 1))
            scores = zero_shot[rows] + alpha * _sum_classes(affinities, self.sizes_)
            slope = cross_entropy(scores, pool.labels[rows])[1] * (alpha * beta / len(rows))
            affinities *= (slope * weigh)[:, pool.labels]
            rate = _RATE * (1 + np.cos(np.pi * step / len(batches))) / 2
            adam.step(exact, (affinities.T @ embeddings[rows]).astype(np.float64).ravel(), rate)
            keys = exact.reshape(keys.shape).astype(np.float32)
        return keys


@dataclass(eq=False, repr=False)
class APE(TipAdapter):
    """``z = z_0 + alpha exp(-beta (1 - f' K'^T)) R L``: Tip-Adapter, refined by the class texts.

    f', K': embeddings and keys on some channels alone, scaled to unit norm. These are the ones on
    which the texts of two classes are least alike and vary most over the classes: the `share` of
    all with the largest

        - 0.7 mean over c != c' of t_c t_c' + 0.3 variance over c of t_c        for each channel

    R: diagonal, ``e^(gamma KL)``, KL in bits (as in the authors' code) between the label of a key
    and the softmax of its cosines with the texts on those channels: ``- log2`` of the share of its
    class. L, alpha, beta and what the combiner gets: as in `TipAdapter`.

    share: 500 of RN50's 1,024 channels in the publication, on ImageNet. gamma: there one of 0 to
    0.4, chosen on a validation set. Cosines without a scale are nearly alike, so R is nearly a
    number, which alpha makes up for.

    Learned, beside `keys_` and the others of `TipAdapter`: `channels_` (channel,) and `trust_`
    (key,), the diagonal of R, of each backbone.

    >>> from dataclasses import replace
    >>> import numpy as np
    >>> from clipsyn import APE, Pool
    >>> images = [[1, 0], [0.8, 0.6], [0.6, -0.8], [0, 1], [-0.6, 0.8], [-1, 0]]  # embeddings
    >>> text = dict(class_embeddings={"0": np.array([[0.8, -0.6], [0, 1]])}, logit_scales={"0": 10})
    >>> support = replace(Pool.of([[[0, 0]]] * 6, [0, 0, 0, 1, 1, 1], [images]), **text)
    >>> APE(share=1).fit(support).transform(support).logits.argmax(axis=2).ravel()
    array([0, 0, 0, 1, 1, 1])
    """

    needs_text: ClassVar[bool] = True

    share: float = parameter(0.5, NUMBER, above=0, most=1, keyword=True)
    gamma: float = parameter(0.1, NUMBER, least=0, most=10, keyword=True)

    channels_: dict[str, Rows] = learned()
    trust_: dict[str, Floats] = learned()

    def _fit(self, pool: Pool) -> None:
        self.channels_, self.trust_ = {}, {}
        ordered = pool.take(by_class(pool.labels))
        for name in pool.backbones:
            text, _ = text_of(pool, name)
            self.channels_[name] = telling_channels(text, self.share)
            shares = softmax(self._keys(ordered, name) @ self._on_channels(text, name).T)
            own = shares[np.arange(len(ordered)), ordered.labels]
            self.trust_[name] = own ** np.float32(-self.gamma / math.log(2))
        super()._fit(pool)

    def _images(self, pool: Pool, backbone: str) -> Floats:
        return self._on_channels(image_embeddings(pool, backbone), backbone)

    def _keys(self, pool: Pool, backbone: str) -> Floats:
        return self._on_channels(super()._keys(pool, backbone), backbone)

    def _trust(self, backbone: str) -> Floats:
        return self.trust_[backbone]

    def _on_channels(self, values: Floats, backbone: str) -> Floats:
        """(row, channel) of unit norm."""
        return normalised(values[:, self.channels_[backbone]])


def telling_channels(text: Floats, share: float) -> Rows:
    """(channel,) ascending: those that tell classes apart best. text: (class, embed)."""
    exact = text.astype(np.float64)
    classes, width = exact.shape
    others = np.square(exact.sum(axis=0)) - np.square(exact).sum(axis=0)
    alike = others / max(classes * (classes - 1), 1)
    spread = exact.var(axis=0, ddof=min(classes - 1, 1))
    order = np.argsort(_ALIKE * alike - _SPREAD * spread, kind="stable")
    return np.sort(order[: math.ceil(share * width)])


def cache_sums(
    embeddings: Floats,
    keys: Floats,
    sizes: Array,
    betas: Sequence[float],
    *,
    own: Rows | None = None,
    trust: Floats | None = None,
) -> Floats:
    """``exp(-beta (1 - f K^T)) L``: (beta, n, class), zero for a class without keys.

    keys: class after class; sizes: (class,) keys of each. Betas share the product with the keys.
    Sums over runs of columns are up to five times as fast as the product with L.

    own: (n,) the key of each sample, which is left out. Its class's sum is scaled as if it had one
    key more; a sample alone in its class has only zeros. trust: (key,) factors of the affinities.
    """
    out = np.empty((len(betas), len(embeddings), len(sizes)), np.float32)
    labels = np.repeat(np.arange(len(sizes)), sizes)
    step = max(1, _BLOCK_VALUES // len(keys))
    for start in range(0, len(embeddings), step):
        rows = slice(start, start + step)
        closeness = embeddings[rows] @ keys.T
        closeness -= 1
        affinities = closeness if len(betas) == 1 else np.empty_like(closeness)
        for sums, beta in zip(out[:, rows], betas, strict=True):
            np.multiply(closeness, beta, out=affinities)
            np.exp(affinities, out=affinities)
            if trust is not None:
                affinities *= trust
            if own is None:
                sums[:] = _sum_classes(affinities, sizes)
                continue
            at, mine = np.arange(len(sums)), own[rows]
            affinities[at, mine] = 0
            sums[:] = _sum_classes(affinities, sizes)
            size = sizes[labels[mine]]
            sums[at, labels[mine]] *= size / np.maximum(size - 1, 1)
            sums[size == 1] = 0
    return out


def _values(sizes: Array, dtype: Any) -> Array:
    """(class,) the entries of L that are not zero: mean number of keys over that of the class."""
    mean = sizes.sum() / np.count_nonzero(sizes)
    return np.asarray(mean / np.maximum(sizes, 1), dtype)


def _sum_classes(affinities: Array, sizes: Array) -> Array:
    """The product with L: (n, key) -> (n, class)."""
    out = np.zeros((len(affinities), len(sizes)), affinities.dtype)
    starts = np.cumsum(sizes) - sizes
    present = sizes > 0
    out[:, present] = np.add.reduceat(affinities, starts[present], axis=1)
    out *= _values(sizes, out.dtype)
    return out
