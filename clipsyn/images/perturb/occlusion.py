"""Perturbations that hide a part of the image or its arrangement."""

from __future__ import annotations

import math

import numpy as np

from clipsyn.images.perturb.pixels import Pixels

ERASED_SHARE = (0.1, 0.2, 0.3, 0.4, 0.5)  # of the area
ERASED_GREY = 127
TILES = (2, 3, 4, 6, 8)  # along each side


def random_erase(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Paint a rectangle grey: its share of the area is fixed, its place drawn evenly.

    Its aspect ratio relative to the image's is drawn evenly on a logarithmic scale from 1/2 to 2,
    or as far as it fits.
    """
    height, width = image.shape[:2]
    share = ERASED_SHARE[severity - 1]
    limit = min(math.log(2), -math.log(share))  # beyond it a side would be longer than the image's
    aspect = math.exp(rng.uniform(-limit, limit))
    across = max(1, round(width * math.sqrt(share * aspect)))
    down = max(1, round(height * math.sqrt(share / aspect)))
    top, left = rng.integers(0, height - down + 1), rng.integers(0, width - across + 1)
    erased = image.copy()
    erased[top : top + down, left : left + across] = ERASED_GREY
    return erased


def patch_shuffle(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Cut the image into a grid of equal tiles and permute them at random.

    The grid is in the middle: pixels left over by the division stay at the edges. No more tiles
    than pixels along a side.
    """
    height, width = image.shape[:2]
    rows, columns = (min(TILES[severity - 1], size) for size in (height, width))
    tall, wide = height // rows, width // columns
    top, left = (height - rows * tall) // 2, (width - columns * wide) // 2
    shuffled = image.copy()
    grid = shuffled[top : top + rows * tall, left : left + columns * wide]
    tiles = grid.reshape(rows, tall, columns, wide, 3).swapaxes(1, 2).reshape(-1, tall, wide, 3)
    order = rng.permutation(rows * columns)
    permuted = tiles[order].reshape(rows, columns, tall, wide, 3).swapaxes(1, 2)
    grid[:] = permuted.reshape(grid.shape)
    return shuffled
