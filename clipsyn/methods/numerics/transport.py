"""Entropic optimal transport between samples and classes."""

from __future__ import annotations

import numpy as np

from clipsyn.methods.numerics import Floats
from clipsyn.methods.numerics.blocks import in_blocks
from clipsyn.methods.numerics.logits import sums

_EPSILON, _MOST_STEPS, _TOLERANCE = 0.01, 15, 1e-5
_TINY = np.finfo(np.float32).tiny


def balance(fused: Floats) -> None:
    """Make (sample, class) scores a plan in place: samples add up to 1, classes to the same.

    Sinkhorn's iterations on exp(scores / 0.01), at most 15, until no entry of the plan (whose sum
    is 1) changes by 1e-5. The largest score of each class is subtracted first, which its sum makes
    up for: single precision would lose a class that no sample is near.
    """
    count, classes = fused.shape
    fused -= fused.max(axis=1, keepdims=True)
    fused /= _EPSILON
    fused -= fused.max(axis=0)
    np.exp(fused, out=fused)
    fused /= fused.sum(dtype=float)
    for _ in range(_MOST_STEPS):
        by = 1 / np.maximum(np.ones(count, np.float32) @ fused * classes, _TINY)

        def scale(rows: slice, by: Floats = by) -> float:
            part = fused[rows] * by
            part /= (sums(part) * count)[:, None]
            change = float(np.abs(part - fused[rows]).max())
            fused[rows] = part
            return change

        if max(in_blocks(scale, fused.shape)) < _TOLERANCE:
            break
    fused *= count
