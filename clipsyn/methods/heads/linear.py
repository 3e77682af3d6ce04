"""Linear probes: multinomial logistic regression on a backbone's embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from clipsyn.errors import TooFewSamples
from clipsyn.methods.estimator import learned, parameter, seed
from clipsyn.methods.heads.base import (
    CrossFitted,
    Head,
    backbone_logits,
    image_embeddings,
    mean_loss,
    repeated,
)
from clipsyn.methods.numerics import Array, Doubles, Floats, Labels, Mask
from clipsyn.methods.numerics.optimise import LARGE, Linear, fit_logistic, fit_probe
from clipsyn.methods.numerics.samples import held_out
from clipsyn.methods.pool import Pool
from clipsyn.settings import NUMBER, WHOLE

PENALTIES = (1.0, 0.1, 0.01, 0.001)  # tried in this order, until the held-out loss rises
DEFAULT_PENALTY = 0.1
_VALIDATION = 0.2  # of the probe's part, for choosing the penalty
# a fit stops where a step gains less, in nats: while the penalty is chosen, then, then of many
_COARSE, _FINE, _LARGE_FINE = 1e-4, 1e-7, 1e-6


@dataclass(eq=False, repr=False)
class LinearProbe(Head):
    """``z = f W^T + b`` for the unit-norm embedding f, one probe for each backbone.

    W, b minimise ``sum_n s_n cross-entropy(z_n, y_n) + penalty / 2 |W|^2``: scikit-learn's
    LogisticRegression with ``C = 1 / penalty``.

    The protocol is the paper's (section 4.2): the probe is fitted on all of the support but
    `holdout`, and `fit_transform` returns the held-out part for the combiner. The part is
    stratified and drawn with `random_state`; every class keeps at least one image. By s_n each
    class weighs as much as it does in the whole support, or its weight would tell which images are
    held out.

    penalty: None tries 1, 0.1, 0.01, 0.001 on a stratified fifth of the probe's part and takes
    the one with the lowest loss there, then fits on the whole part. Where most classes have one
    image there it is 0.1.

    A class without an image in the probe's part gets one less than the smallest logit of the
    others.

    Learned: `coef_` W (class, embed) and `intercept_` b (class,) of each backbone; `penalty_`
    (backbone,); `present_` (class,), the classes that the probes have seen.

    Raises TooFewSamples where no class has two images.

    >>> from clipsyn import LinearProbe, Pool
    >>> images = [[1, 0], [0.8, 0.6], [0.6, -0.8], [0, 1], [-0.6, 0.8], [-1, 0]]  # embeddings
    >>> support = Pool.of([[[0, 0]]] * 6, [0, 0, 0, 1, 1, 1], [images])  # zero-shot knows nothing
    >>> new = Pool.of([[[0, 0]]] * 2, embeddings=[[[0.96, 0.28], [-0.28, 0.96]]])
    >>> head = LinearProbe().fit(support)
    >>> head.coef_["0"].shape  # (class, embed), by backbone
    (2, 2)
    >>> head.transform(new).logits.argmax(axis=2).ravel()
    array([0, 1])
    """

    needs_text: ClassVar[bool] = False

    penalty: float | None = parameter(None, NUMBER, above=0)
    holdout: float = parameter(0.1, NUMBER, above=0, most=0.5)
    random_state: int = seed()

    coef_: dict[str, Floats] = learned()
    intercept_: dict[str, Floats] = learned()
    present_: Mask = learned()
    penalty_: Doubles = learned()

    def _fit(self, pool: Pool) -> None:
        kept = ~self._held_out(pool)
        part = pool.take(np.flatnonzero(kept))
        self.present_ = np.bincount(part.labels, minlength=pool.n_classes) > 0
        labels = (np.cumsum(self.present_) - 1)[part.labels]  # among the present classes
        weights = _weights(pool.labels, kept)
        self.coef_, self.intercept_, penalties = {}, {}, []
        for name in pool.backbones:
            features = image_embeddings(part, name)
            chosen, start = self._chosen(features, labels)
            fine = _FINE if features.size * self.present_.sum() <= LARGE else _LARGE_FINE
            probe = fit_probe(features, labels, chosen, fine, start=start, weights=weights)
            penalties.append(chosen)
            self.coef_[name] = _spread(probe.coef, self.present_)
            self.intercept_[name] = _spread(probe.intercept, self.present_)
        self.penalty_ = np.array(penalties)

    def _logits(self, pool: Pool, backbone: str) -> Floats:
        probe = Linear(self.coef_[backbone], self.intercept_[backbone])
        logits = probe.of(image_embeddings(pool, backbone))
        if not self.present_.all():
            logits[:, ~self.present_] = logits[:, self.present_].min(axis=1, keepdims=True) - 1
        return logits

    def _combiner_pool(self, support: Pool) -> Pool:
        return self.transform(support.take(np.flatnonzero(self._held_out(support))))

    def _held_out(self, pool: Pool) -> Mask:
        rows = held_out(pool.labels, self.holdout, self.random_state)
        if not rows.any():
            raise TooFewSamples(
                f"{type(self).__name__} holds out {self.holdout:.0%} of the support for the "
                "combiner, but no class has two images: give more shots, or use the head "
                "anchored-probe, which works with one"
            )
        return rows

    def _chosen(self, features: Floats, labels: Labels) -> tuple[float, Linear | None]:
        """The penalty, and a probe with it to start from."""
        if self.penalty is not None:
            return self.penalty, None
        if not repeated(labels):
            return DEFAULT_PENALTY, None
        out = held_out(labels, _VALIDATION, self.random_state)
        weights, part = _weights(labels, ~out), (features[~out], labels[~out])
        best, lowest, start, probe = DEFAULT_PENALTY, np.inf, None, None
        for penalty in PENALTIES:
            probe = fit_probe(*part, penalty, _COARSE, start=probe, weights=weights)
            loss = mean_loss(probe.of(features[out]), labels[out])
            if loss >= lowest:
                break
            best, lowest, start = penalty, loss, probe
        return best, start


@dataclass(eq=False, repr=False)
class AnchoredProbe(CrossFitted):
    """``z = z_0 + f D^T``: the zero-shot logits z_0, corrected by a linear classifier D.

    D minimises ``sum_n s_n cross-entropy(z_n, y_n) + penalty / 2 |D|^2`` over the unit-norm
    embeddings f. With ``z_0 = t f W_0^T`` (t the logit scale, W_0 the class
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

    delta_: dict[str, Floats] = learned()

    def _fit(self, pool: Pool) -> None:
        sizes = np.bincount(pool.labels, minlength=pool.n_classes)
        present = np.flatnonzero(sizes)
        labels = np.searchsorted(present, pool.labels).astype(np.int32)
        weights = len(labels) / len(present) / sizes[pool.labels]
        self.delta_ = {}
        for name in pool.backbones:
            inputs, base = image_embeddings(pool, name), backbone_logits(pool, name)[:, present]
            found = fit_logistic(inputs, labels, self.penalty, _FINE, weights=weights, base=base)
            self.delta_[name] = _spread(found.coef, sizes > 0)

    def _logits(self, pool: Pool, backbone: str) -> Floats:
        correction = image_embeddings(pool, backbone) @ self.delta_[backbone].T
        return backbone_logits(pool, backbone) + correction


def _weights(labels: Array, kept: Mask) -> Doubles:
    """(kept,) size of each sample's class in all of `labels`, over that in the kept ones."""
    part = labels[kept]
    weights: Doubles = (np.bincount(labels)[part]) / np.bincount(part)[part]
    return weights


def _spread(values: Floats, present: Mask) -> Floats:
    """Rows of the present classes among those of all, the others zero."""
    out = np.zeros((len(present), *values.shape[1:]), np.float32)
    out[present] = values
    return out
