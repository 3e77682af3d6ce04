"""Images of one backbone that lie around the centre of their class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from clipsyn.methods.pool import Pool


def clusters(
    sizes: Sequence[int] = (4, 4, 4, 4),
    *,
    seed: int = 0,
    width: int = 9,
    noise: float = 0.6,
    spread: Sequence[float] | None = None,
    mixed: bool = True,
) -> Pool:
    """spread: noise by coordinate, as parts of it. mixed: classes come in no order."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(sizes)), sizes)
    labels = rng.permutation(labels) if mixed else labels
    centre = np.random.default_rng(7).normal(size=(len(sizes), width))
    scale = noise * (np.ones(width) if spread is None else np.asarray(spread))
    values = centre[labels] + scale * rng.normal(size=(len(labels), width)) + 1
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    return Pool.of(
        rng.normal(size=(len(labels), 1, len(sizes))), labels, [values.astype(np.float32)]
    )
