"""The classes that can come first when backbones are combined, whatever their weights.

Few of a thousand classes can: a class that another one is above in every backbone cannot, and most
samples keep one to five. What depends on predictions alone looks at these.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipsyn.methods.numerics.blocks import in_blocks

# of the largest logit, for each backbone: sums in single precision are off by less
_ROUNDING = 1e-6


class Contenders(NamedTuple):
    """Some samples that have up to so many contenders each."""

    samples: NDArray[np.intp]  # (sample,) ascending rows
    classes: NDArray[np.intp]  # (sample, contender) ascending; the last again where there are fewer

    def of(self, logits: NDArray[Any]) -> NDArray[Any]:
        """(sample, backbone, contender) of all logits (sample, backbone, class)."""
        backbones = np.arange(logits.shape[1])[:, None]
        return logits[self.samples[:, None, None], backbones, self.classes[:, None]]


def contenders(logits: NDArray[np.float32]) -> list[Contenders]:
    """The classes of each sample that a weighted sum of its backbones may put first.

    logits: (sample, backbone, class), all finite. The weights may be any numbers from 0, one at
    least above it. Left out is a class that another one is above in every backbone, by more than
    rounding can undo in single precision: so the first of the largest sums is among those that are
    kept, equal classes too. Some that are kept can never come first: to find all of these takes
    longer than they cost.

    Returns groups of samples, each with twice as many contenders as the one before at most, from 1
    on; every sample is in one group.
    """
    found = in_blocks(lambda rows: _found(logits[rows], rows.start), logits.shape)
    if not found:
        return []
    samples, classes = (np.concatenate(part) for part in zip(*found, strict=True))
    counts = np.bincount(samples, minlength=len(logits))
    starts = np.cumsum(counts) - counts
    widths = np.exp2(np.ceil(np.log2(counts))).astype(np.intp)
    groups = []
    for width in np.unique(widths):
        rows = np.flatnonzero(widths == width)
        place = np.minimum(np.arange(width), counts[rows, None] - 1)
        groups.append(Contenders(rows, classes[starts[rows, None] + place]))
    return groups


def _found(logits: NDArray[np.float32], first: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Sample, counted from `first`, and class of each contender, in order."""
    backbones = logits.shape[1]
    best = logits.argmax(axis=2)
    highest = np.take_along_axis(logits, best[:, :, None], axis=2)[:, :, 0]
    size = np.maximum(highest, -logits.min(axis=2))
    margin = size * np.float32(_ROUNDING * (backbones + 4))

    def lowest(rivals: NDArray[np.intp]) -> NDArray[np.float32]:
        """(sample, backbone) logits that a class must reach in one backbone beside a rival."""
        reached = np.take_along_axis(logits, rivals[:, None, None], axis=2)[:, :, 0]
        return np.asarray(reached - margin)

    with np.errstate(over="ignore", invalid="ignore"):  # any class will do as a rival
        leader = logits.sum(axis=1).argmax(axis=1)
    samples, classes = np.nonzero((logits >= lowest(leader)[:, :, None]).any(axis=1))
    values = logits[samples, :, classes]
    for rivals in best.T:
        kept = (values >= lowest(rivals)[samples]).any(axis=1)
        samples, classes, values = samples[kept], classes[kept], values[kept]
    return samples + first, classes
