"""Noise, coarse pixels and JPEG, with the strengths of ImageNet-C (Hendrycks & Dietterich, 2019).

ImageNet-C truncates fractions of a grey level, which darkens an image by half a level; here all
are rounded.
"""

from __future__ import annotations

from functools import cache
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clipsyn.images.perturb import Pixels

GAUSSIAN_SIGMA = (0.08, 0.12, 0.18, 0.26, 0.38)  # standard deviation on the scale 0..1
SHOT_PHOTONS = (60, 25, 12, 5, 3)  # expected events of a white pixel
IMPULSE_SHARE = (0.03, 0.06, 0.09, 0.17, 0.27)  # of all values, half black and half white
JPEG_QUALITY = (25, 18, 15, 10, 7)  # libjpeg's
PIXELATE = (0.6, 0.5, 0.4, 0.3, 0.25)  # of the width and height
SPECKLE_SIGMA = (0.15, 0.2, 0.35, 0.45, 0.6)  # standard deviation as a share of the value

_COLUMNS = 128  # of the alias tables: a power of two above every count up to twice SHOT_PHOTONS


def gaussian_noise(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Add independent normal noise to every channel, clip to 0..255 and round."""
    noisy = rng.standard_normal(image.shape, dtype=np.float32)
    noisy *= np.float32(255 * GAUSSIAN_SIGMA[severity - 1])
    noisy += image
    np.clip(noisy, 0, 255, out=noisy)
    return np.rint(noisy, out=noisy).astype(np.uint8)


def speckle_noise(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Add to every value its product with independent normal noise, clip and round."""
    noisy = rng.standard_normal(image.shape, dtype=np.float32)
    noisy *= np.float32(SPECKLE_SIGMA[severity - 1])
    noisy += 1
    noisy *= image
    np.clip(noisy, 0, 255, out=noisy)
    return np.rint(noisy, out=noisy).astype(np.uint8)


def impulse_noise(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Salt and pepper: a share of the values, channel by channel, becomes 0 or 255.

    Shares are rounded to a multiple of 2 / 65,536.
    """
    draws = rng.integers(0, 1 << 16, image.shape, dtype=np.uint16)
    each = round(IMPULSE_SHARE[severity - 1] / 2 * (1 << 16))
    noisy = np.where(draws < each, np.uint8(0), image)
    noisy[draws >= (1 << 16) - each] = 255
    return noisy


def shot_noise(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Replace every value v by Poisson(v / 255 * c) / c * 255, clipped and rounded.

    Drawn by the alias method (Walker 1977) from a table for each of the 256 values: 25 bits of a
    draw say whether its column or the column's alias counts.
    """
    levels, thresholds, aliases = _poisson_tables(SHOT_PHOTONS[severity - 1])
    draws = rng.integers(0, 1 << 32, image.shape, dtype=np.uint32)
    columns = (draws % np.uint32(_COLUMNS)).astype(np.int32)
    cells = columns + image.astype(np.int32) * _COLUMNS
    draws >>= np.uint32(7)  # the bits that did not choose the column
    counts = np.where(draws < thresholds[cells], columns, aliases[cells])
    return levels[counts]


@cache
def _poisson_tables(
    photons: int,
) -> tuple[Pixels, NDArray[np.uint32], Pixels]:
    """Grey level of each count, and for value x count: threshold (of 2**25) and alias.

    Counts from `photons` on are all white, so they are one outcome.
    """
    from scipy.stats import poisson

    counts = np.arange(photons)
    below = poisson.pmf(counts, np.arange(256)[:, None] * photons / 255)
    share = np.zeros((256, _COLUMNS))
    share[:, :photons] = below
    share[:, photons] = np.maximum(0, 1 - below.sum(axis=1))
    tables = [_alias_table(row / row.sum()) for row in share]
    thresholds = np.concatenate([threshold for threshold, _ in tables])
    aliases = np.concatenate([alias for _, alias in tables])
    levels = np.rint(np.minimum(np.arange(_COLUMNS) / photons, 1) * 255).astype(np.uint8)
    return levels, np.rint(thresholds * (1 << 25)).astype(np.uint32), aliases.astype(np.uint8)


def _alias_table(share: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """How likely each column is to count as itself, and what it is otherwise (Vose 1991)."""
    own, alias = share * len(share), np.arange(len(share))
    small, large = (list(np.flatnonzero(side)) for side in (own < 1, own >= 1))
    while small and large:
        poor, rich = small.pop(), large.pop()
        alias[poor] = rich
        own[rich] -= 1 - own[poor]
        (small if own[rich] < 1 else large).append(rich)
    own[[*small, *large]] = 1  # left over by rounding
    return own, alias


def jpeg(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Compress as JPEG (4:2:0) and decode again. Draws nothing from `rng`."""
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=JPEG_QUALITY[severity - 1])
    return np.array(Image.open(buffer))


def pixelate(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Reduce by box averages and enlarge again. Draws nothing from `rng`."""
    share = PIXELATE[severity - 1]
    height, width = image.shape[:2]
    size = (max(1, int(width * share)), max(1, int(height * share)))
    small = Image.fromarray(image).resize(size, Image.Resampling.BOX)
    return np.array(small.resize((width, height), Image.Resampling.BOX))
