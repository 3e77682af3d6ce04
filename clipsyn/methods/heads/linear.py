"""The linear probe: multinomial logistic regression on a backbone's embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from clipsyn.errors import TooFewSamples
from clipsyn.methods.estimator import learned, parameter, seed
from clipsyn.methods.heads.base import Head, image_embeddings, mean_loss, repeated
from clipsyn.methods.numerics.folds import held_out
from clipsyn.methods.numerics.wide import LARGE, Linear, fit_probe
from clipsyn.methods.pool import Pool
from clipsyn.settings import NUMBER

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

    coef_: dict[str, NDArray[np.float32]] = learned()
    intercept_: dict[str, NDArray[np.float32]] = learned()
    present_: NDArray[np.bool_] = learned()
    penalty_: NDArray[np.float64] = learned()

    def _fit(self, pool: Pool) -> None:
        kept = ~self._held_out(pool)
        part = pool.take(np.flatnonzero(kept))
        self.present_ = np.bincount(part.labels, minlength=pool.n_classes) > 0
        weights = _weights(pool.labels, kept)
        labels = (np.cumsum(self.present_) - 1)[part.labels]  # among the present classes
        classes = int(self.present_.sum())
        self.coef_, self.intercept_ = {}, {}
        penalties = []
        for name in pool.backbones:
            features = image_embeddings(part, name)
            chosen, start = self.penalty, None
            if chosen is None:
                chosen, start = self._choose_penalty(features, labels)
            probe = fit_probe(
                features,
                labels,
                classes,
                chosen,
                sample_weights=weights,
                tolerance=_FINE if features.size * classes <= LARGE else _LARGE_FINE,
                start=start,
            )
            penalties.append(chosen)
            self.coef_[name] = _spread(probe.coef, self.present_)
            self.intercept_[name] = _spread(probe.intercept, self.present_)
        self.penalty_ = np.array(penalties)

    def _logits(self, pool: Pool, backbone: str) -> NDArray[np.float32]:
        logits = image_embeddings(pool, backbone) @ self.coef_[backbone].T
        logits += self.intercept_[backbone]
        if not self.present_.all():
            logits[:, ~self.present_] = logits[:, self.present_].min(axis=1, keepdims=True) - 1
        return logits

    def _combiner_pool(self, support: Pool) -> Pool:
        return self.transform(support.take(np.flatnonzero(self._held_out(support))))

    def _held_out(self, pool: Pool) -> NDArray[np.bool_]:
        rows = held_out(pool.labels, self.holdout, self.random_state)
        if not rows.any():
            raise TooFewSamples(
                f"{type(self).__name__} holds out {self.holdout:.0%} of the support for the "
                "combiner, but no class has two images: give more shots, or use the head "
                "anchored-probe, which works with one"
            )
        return rows

    def _choose_penalty(
        self, features: NDArray[np.float32], labels: NDArray[np.int32]
    ) -> tuple[float, Linear | None]:
        """The penalty, and a probe with it to start from."""
        if not repeated(labels):
            return DEFAULT_PENALTY, None
        out = held_out(labels, _VALIDATION, self.random_state)
        best, lowest, start, probe = DEFAULT_PENALTY, np.inf, None, None
        for penalty in PENALTIES:
            probe = fit_probe(
                features[~out],
                labels[~out],
                labels.max() + 1,
                penalty,
                sample_weights=_weights(labels, ~out),
                tolerance=_COARSE,
                start=probe,
            )
            loss = mean_loss(features[out] @ probe.coef.T + probe.intercept, labels[out])
            if loss >= lowest:
                break
            best, lowest, start = penalty, loss, probe
        return best, start


def _weights(labels: NDArray[Any], kept: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(kept,) size of each sample's class in all of `labels`, over that in the kept ones."""
    part = labels[kept]
    weights: NDArray[np.float64] = (np.bincount(labels)[part]) / np.bincount(part)[part]
    return weights


def _spread(values: NDArray[np.float32], present: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Rows of the present classes among those of all, the others zero."""
    out = np.zeros((len(present), *values.shape[1:]), np.float32)
    out[present] = values
    return out
