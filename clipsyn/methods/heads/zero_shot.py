"""The zero-shot head: logits as they are."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from clipsyn.methods.heads.base import Head
from clipsyn.methods.pool import Pool


class ZeroShot(Head):
    """``logit scale * image embedding @ class embedding.T``, as the store holds them.

    Nothing is learned, so the support's own logits know no label.

    >>> from clipsyn import Pool, ZeroShot
    >>> pool = Pool.of([[[2, 0, 1]]])  # one sample, one backbone, three classes
    >>> ZeroShot().fit(pool).transform(pool).logits
    array([[[2., 0., 1.]]], dtype=float32)
    """

    learns: ClassVar[bool] = False

    def _transform(self, pool: Pool) -> NDArray[np.float32]:
        return pool.logits

    def _combiner_pool(self, support: Pool) -> Pool:
        return support
