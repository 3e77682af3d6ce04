"""Noise, colours, coarse pixels and JPEG: levels change, and nothing moves.

With the strengths of ImageNet-C (Hendrycks & Dietterich, 2019), where it has them. ImageNet-C
truncates fractions of a grey level, which darkens an image by half a level; here all are rounded.
"""

from __future__ import annotations

from functools import cache
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

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
def _poisson_tables(photons: int) -> tuple[Pixels, NDArray[np.uint32], Pixels]:
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


BRIGHTNESS = (0.1, 0.2, 0.3, 0.4, 0.5)  # added to the value of HSV, which goes from 0 to 1
CONTRAST = (0.4, 0.3, 0.2, 0.1, 0.05)  # what is left of the distance from the mean
SATURATE = ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2))  # factor of HSV's saturation, addend
HUE_TURN = (0.05, 0.1, 0.2, 0.3, 0.5)  # of the colour circle
SATURATION = (1.5, 2, 3, 4, 6)  # factor of the distance from grey
POSTERISE_BITS = (5, 4, 3, 2, 1)
SOLARISE_FROM = (224, 192, 160, 128, 96)


def brightness(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Add to the value of HSV, clipped at 1: a pixel's channels grow until the largest is there."""
    table = _brighter(BRIGHTNESS[severity - 1]).ravel()
    result = np.empty_like(image)
    planes = [image[..., channel] for channel in range(3)]
    # reducing or broadcasting over an axis of three would be many times slower
    value = np.maximum(np.maximum(planes[0], planes[1]), planes[2]).astype(np.intp) * 256
    for channel, plane in enumerate(planes):
        result[..., channel] = table.take(value + plane)
    return result


@cache
def _brighter(amount: float) -> Pixels:
    """New level by (largest channel, this channel); black becomes grey, for it has no hue."""
    value = np.arange(256)[:, None]
    brighter = np.minimum(value + 255 * amount, 255)
    scaled = np.arange(256) * brighter / np.maximum(value, 1)
    table: NDArray[np.float64] = np.where(value == 0, brighter, np.minimum(scaled, 255))
    return np.rint(table).astype(np.uint8)


def contrast(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Move every value towards the mean of its channel over the image."""
    kept = CONTRAST[severity - 1]
    result = np.empty_like(image)
    for channel in range(3):
        plane = image[..., channel].copy()
        mean = plane.mean()
        table = np.rint((np.arange(256) - mean) * kept + mean).astype(np.uint8)
        result[..., channel] = table.take(plane)
    return result


def saturate(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Scale the saturation of HSV, add to it and clip it: paler at 1 and 2, stronger from 3 on.

    Grey has hue 0, red, so that adding to its saturation reddens it, as published.
    """
    factor, addend = SATURATE[severity - 1]
    planes = np.moveaxis(image, 2, 0).astype(np.float32, order="C")
    value = planes.max(axis=0)
    spread = value - planes.min(axis=0)  # saturation x value
    wanted = np.minimum(factor * spread + np.float32(addend) * value, value)
    planes -= value
    planes *= wanted / np.maximum(spread, 1)
    planes[1:] -= np.where(spread == 0, wanted, 0)
    planes += value
    return np.moveaxis(np.rint(planes).astype(np.uint8), 0, 2).copy()


def hue(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Rotate the hue of HSV (in bytes) in either direction, as torchvision's adjust_hue does."""
    turn = int(rng.choice([-1, 1]) * HUE_TURN[severity - 1] * 255)
    hsv = np.array(Image.fromarray(image).convert("HSV"))
    hsv[..., 0] += np.uint8(turn % 256)
    return np.array(Image.fromarray(hsv, "HSV").convert("RGB"))


def saturation(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Exaggerate colours: multiply the distance from the pixel's own grey (its luma)."""
    enhancer = ImageEnhance.Color(Image.fromarray(image))
    return np.array(enhancer.enhance(SATURATION[severity - 1]))


def grayscale(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """The luma in all three channels. It has one strength: all severities are equal."""
    return np.array(Image.fromarray(image).convert("L").convert("RGB"))


def posterise(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Keep the highest bits of every value."""
    return image & np.uint8(0x100 - (1 << (8 - POSTERISE_BITS[severity - 1])))


def solarise(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Invert the values from a threshold on."""
    solarised = image.copy()
    np.subtract(255, image, out=solarised, where=image >= SOLARISE_FROM[severity - 1])
    return solarised
