"""Perturbations that blur, with the strengths of ImageNet-C (Hendrycks & Dietterich, 2019).

Lengths are pixels, as published for images of 224 pixels: on smaller ones they weigh more.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clipsyn.images.perturb import Pixels, grey_levels

GAUSSIAN_SIGMA = (1, 2, 3, 4, 6)
DEFOCUS = ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))  # radius, sigma that smooths the disc
GLASS = ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2))  # sigma, reach, rounds
MOTION = ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))  # radius, sigma
MOTION_ANGLE = 45.0  # degrees to either side

# (last factor, step); all series start at 1. The published
# series are np.arange(1, 1.11, 0.01), (1, 1.16, 0.01), (1, 1.21, 0.02), (1, 1.26, 0.02) and
# (1, 1.31, 0.03), of which rounding lets the first include its end point.
ZOOM_FACTORS = ((1.11, 0.01), (1.15, 0.01), (1.20, 0.02), (1.24, 0.02), (1.30, 0.03))


def gaussian_blur(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Convolve with a Gaussian, edge pixels repeated. Draws nothing from `rng`."""
    return grey_levels(_smooth(image, GAUSSIAN_SIGMA[severity - 1]))


def defocus_blur(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """The mean over a disc that is smoothed a little, the image mirrored at its edges.

    Draws nothing from `rng`. Each row of the disc is a run of ones, so its sums are differences
    of cumulative sums: exact integers, and the work grows with the radius, not with the area.
    """
    radius, sigma = DEFOCUS[severity - 1]
    window = 3 if radius <= 8 else 5  # of the smoothing
    border = radius + window // 2
    padded = np.pad(image, ((border, border), (border, border), (0, 0)), "reflect")
    total, count = _disc_sum(padded, radius)
    for axis in (0, 1):
        total = _weighted_shifts(total, _window(window, sigma), axis)
    return grey_levels(total / np.float32(count))


def _disc_sum(padded: Pixels, radius: int) -> tuple[NDArray[np.float32], int]:
    """Sum of the pixels within `radius` of each that is as far from the edge, and their number."""
    height, width = (size - 2 * radius for size in padded.shape[:2])
    running = np.zeros((len(padded), padded.shape[1] + 1, 3), np.int32)
    np.cumsum(padded, axis=1, dtype=np.int32, out=running[:, 1:])
    total, count = np.zeros((height, width, 3), np.int32), 0
    row = np.empty((len(padded), width, 3), np.int32)
    for down in range(radius + 1):
        half = math.isqrt(radius**2 - down**2)
        first, last = radius - half, radius + half + 1
        np.subtract(running[:, last:][:, :width], running[:, first:][:, :width], out=row)
        for offset in {radius - down, radius + down}:
            total += row[offset : offset + height]
            count += 2 * half + 1
    return total.astype(np.float32), count


def _window(size: int, sigma: float) -> NDArray[np.float32]:
    """A Gaussian cut to `size` taps that sum to one."""
    taps = np.exp(-((np.arange(size) - size // 2) ** 2) / (2 * sigma**2)).astype(np.float32)
    window: NDArray[np.float32] = taps / taps.sum()
    return window


def _weighted_shifts(
    array: NDArray[np.float32], taps: NDArray[np.float32], axis: int
) -> NDArray[np.float32]:
    """Correlation along `axis`, only where all taps lie inside."""
    length = array.shape[axis] - len(taps) + 1
    shifted = array.swapaxes(0, axis)
    total = np.zeros((length, *shifted.shape[1:]), np.float32)
    for start, tap in enumerate(taps):
        total += tap * shifted[start : start + length]
    return total.swapaxes(0, axis)


def glass_blur(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Smooth, give every pixel the value of one nearby, several times, and smooth again."""
    sigma, reach, rounds = GLASS[severity - 1]
    blurred = grey_levels(_smooth(image, sigma))
    pixels = blurred.reshape(-1, 3)
    for _ in range(rounds):
        offsets = rng.integers(-reach, reach, (2, *image.shape[:2]), dtype=np.int8)
        pixels = pixels[glass_sources(offsets, reach)]
    return grey_levels(_smooth(pixels.reshape(image.shape), sigma))


def glass_sources(offsets: NDArray[np.int8], reach: int) -> NDArray[np.int64]:
    """Where each pixel's value comes from after one round, as indices into the flat image.

    ImageNet-C goes through the pixels from the last to the first, leaving a rim out, and means to
    swap each with the one at ``offsets[:, row, column]`` (down, right). Its swap of two views of
    an array copies: a pixel takes the other's value as it is by then, and the other keeps it. We do
    as the published images were made. Those that copy from a pixel that has copied before form
    chains, which are followed by doubling: the same result as that of the loop.
    """
    _, height, width = offsets.shape
    count = height * width
    here = np.arange(count).reshape(height, width)
    inside = np.zeros((height, width), bool)
    inside[reach + 1 : height - reach + 1, reach + 1 : width - reach + 1] = True
    there = here + np.where(inside, offsets[0].astype(np.int64) * width + offsets[1], 0)
    # node p is pixel p at the end of the round, node count + p is p at its start
    copied_before = inside.ravel()[there] & (there > here)
    follow = np.where(copied_before, there, there + count).ravel()
    while (unfinished := np.flatnonzero(follow < count)).size:
        follow[unfinished] = follow[follow[unfinished]]
    sources: NDArray[np.int64] = follow - count
    return sources


def motion_blur(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Drag the image in a random direction, at most 45 degrees from the horizontal."""
    radius, sigma = MOTION[severity - 1]
    angle = rng.uniform(-MOTION_ANGLE, MOTION_ANGLE)
    return grey_levels(drag(image, radius, sigma, angle))


def drag(image: Pixels, radius: int, sigma: float, angle: float) -> NDArray[np.float32]:
    """ImageMagick's motion blur, which ImageNet-C uses: half a Gaussian along a line.

    The i-th of 2 radius + 1 taps has weight exp(-i² / 2 sigma²) and lies i pixels away at `angle`
    (degrees), rounded to whole pixels; edge pixels are repeated.
    """
    height, width = image.shape[:2]
    steps = np.arange(2 * radius + 1)
    taps = np.exp(-(steps**2) / (2 * sigma**2))
    taps = (taps / taps.sum()).astype(np.float32)
    down, right = (
        np.ceil(steps * wave(math.radians(angle)) - 0.5).astype(int)
        for wave in (math.sin, math.cos)
    )
    above, left = max(0, -down.min()), max(0, -right.min())
    rims = ((above, max(0, down.max())), (left, max(0, right.max())))
    padded = np.pad(image, (*rims, *[(0, 0)] * (image.ndim - 2)), "edge").astype(np.float32)
    total, part = np.zeros(image.shape, np.float32), np.empty(image.shape, np.float32)
    for tap, y, x in zip(taps, down + above, right + left, strict=True):
        total += np.multiply(tap, padded[y : y + height, x : x + width], out=part)
    return total


def zoom_blur(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """The mean of the image and of bilinear enlargements about its centre.

    As in ImageNet-C the image itself counts twice, as such and as the enlargement by 1.
    Draws nothing from `rng`.
    """
    last, step = ZOOM_FACTORS[severity - 1]
    factors = 1 + step * np.arange(1, round((last - 1) / step) + 1)
    height, width = image.shape[:2]
    original = Image.fromarray(image)
    total = 2 * image.astype(np.float32)
    for factor in factors:
        left, top = width * (1 - 1 / factor) / 2, height * (1 - 1 / factor) / 2
        window = (left, top, width - left, height - top)
        total += np.asarray(original.resize((width, height), Image.Resampling.BILINEAR, window))
    return np.rint(total / (len(factors) + 2)).astype(np.uint8)


def _smooth(image: Pixels, sigma: float) -> NDArray[np.float32]:
    """A Gaussian cut at four sigmas, along rows and columns, edge pixels repeated."""
    from scipy.ndimage import gaussian_filter

    smoothed: NDArray[np.float32] = gaussian_filter(
        image, (sigma, sigma, 0), output=np.float32, mode="nearest"
    )
    return smoothed
