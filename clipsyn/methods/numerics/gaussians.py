"""Classes as Gaussians around unit vectors, with one diagonal covariance for all of them.

The images are read a block at a time.
"""

from __future__ import annotations

from typing import NamedTuple, Self

import numpy as np

from clipsyn.methods.numerics import Array, Doubles, Floats

_ROWS = 4096  # in one product
_MOST_CONFIDENT = 8  # images of a class that it starts from
_TINY = np.finfo(np.float32).tiny
_LEAST_VARIANCE = 1e-3  # of that of the start: images that are all alike have none


class Moments(NamedTuple):
    """Sums over images, each of which counts for each class by a share."""

    mass: Doubles  # (class,) of the shares
    sums: Doubles  # (class, embed) of the embeddings
    squares: Doubles  # (embed,) of their squares, over all classes

    @classmethod
    def of(cls, features: Array, shares: Array) -> Self:
        classes, width = shares.shape[1], features.shape[1]
        mass, sums, squares = np.zeros(classes), np.zeros((classes, width)), np.zeros(width)
        for start in range(0, len(features), _ROWS):
            rows = slice(start, start + _ROWS)
            part, of_part = features[rows].astype(np.float32), shares[rows]
            mass += of_part.sum(axis=0)
            sums += of_part.T @ part
            part *= part
            squares += of_part.sum(axis=1) @ part
        return cls(mass, sums, squares)

    def plus(self, other: Moments, weight: float) -> Moments:
        """With those of other images, which count `weight` times."""
        return Moments(*(a + weight * b for a, b in zip(self, other, strict=True)))


class Gaussians(NamedTuple):
    means: Floats  # (class, embed), unit norm
    variances: Floats  # (embed,)

    @classmethod
    def around(cls, features: Array, shares: Floats) -> Self:
        """The weighted means of the images with the largest shares; every variance is 1 / embed."""
        classes, width = shares.shape[1], features.shape[1]
        sums, left_out = np.zeros((classes, width)), max(0, len(shares) - _MOST_CONFIDENT)
        for at, column in enumerate(shares.T):
            rows = np.argpartition(column, left_out)[left_out:]
            sums[at] = column[rows] @ features[rows].astype(np.float32)
        return cls(_unit(sums, np.zeros_like(sums)), np.full(width, 1 / width, np.float32))

    def log_densities(self, features: Array) -> Floats:
        """(sample, class) less a number that is the same for all classes of a sample."""
        scaled = self.means / self.variances
        densities: Floats = features.astype(np.float32) @ scaled.T
        densities -= np.einsum("cd,cd->c", scaled, self.means) / 2
        return densities

    def fitted(self, moments: Moments) -> Gaussians:
        """To images with these moments; a class without any keeps its mean."""
        mass, sums, squares = moments
        means = _unit(sums, self.means)
        spread = squares + mass @ (means.astype(float) ** 2)
        spread -= 2 * np.einsum("cd,cd->d", means, sums)
        least = _LEAST_VARIANCE / means.shape[1]
        variances = np.maximum(spread / max(mass.sum(), _TINY), least)
        return Gaussians(means, variances.astype(np.float32))


def _unit(sums: Doubles, instead: Array) -> Floats:
    """Rows of unit norm; those of `instead` where a row is 0."""
    norms = np.linalg.norm(sums, axis=1, keepdims=True)
    known = norms > _TINY
    return np.where(known, sums / np.where(known, norms, 1), instead).astype(np.float32)
