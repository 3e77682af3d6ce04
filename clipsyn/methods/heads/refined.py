"""A cache on the channels that tell classes apart, whose keys count by how well text fits them.

Zhu et al., "Not All Features Matter: Enhancing Few-shot CLIP with Adaptive Prior Refinement", ICCV
2023, arXiv 2304.01195.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from clipsyn.methods.estimator import learned, parameter
from clipsyn.methods.heads.base import image_embeddings
from clipsyn.methods.heads.kernel import TipAdapter, support_keys
from clipsyn.methods.heads.trained import text_of
from clipsyn.methods.numerics import Floats, Rows
from clipsyn.methods.numerics.logits import softmax
from clipsyn.methods.numerics.samples import by_class
from clipsyn.methods.pool import Pool
from clipsyn.settings import NUMBER

_ALIKE, _SPREAD = 0.7, 0.3  # weights of the two criteria: the publication's on ImageNet


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
        return self._on_channels(support_keys(pool, backbone), backbone)

    def _trust(self, backbone: str) -> Floats:
        return self.trust_[backbone]

    def _on_channels(self, values: Floats, backbone: str) -> Floats:
        """(row, channel) of unit norm."""
        part = values[:, self.channels_[backbone]]
        norms = np.linalg.norm(part, axis=1, keepdims=True)
        return np.asarray(part / np.maximum(norms, np.finfo(np.float32).tiny))


def telling_channels(text: Floats, share: float) -> Rows:
    """(channel,) ascending: those that tell classes apart best. text: (class, embed)."""
    exact = text.astype(np.float64)
    classes, width = exact.shape
    others = np.square(exact.sum(axis=0)) - np.square(exact).sum(axis=0)
    alike = others / max(classes * (classes - 1), 1)
    spread = exact.var(axis=0, ddof=min(classes - 1, 1))
    order = np.argsort(_ALIKE * alike - _SPREAD * spread, kind="stable")
    return np.sort(order[: math.ceil(share * width)])
