"""Blur and weather, with the strengths of ImageNet-C (Hendrycks & Dietterich, 2019).

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


# mean and sigma of the flakes' noise, its enlargement, threshold, radius and sigma of the motion,
# share of the image that is not whitened
SNOW = (
    (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
    (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
    (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
    (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
    (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
)
FOG = ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4))  # amount, decay of finer structure
FROST = ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))  # weights of image and frost
# mean, sigma and smoothing of the noise, threshold, strength (water) or smoothing (mud), mud?
SPATTER = (
    (0.65, 0.3, 4, 0.69, 0.6, False),
    (0.65, 0.3, 3, 0.68, 0.6, False),
    (0.65, 0.3, 2, 0.68, 0.5, False),
    (0.65, 0.3, 1, 0.65, 1.5, True),
    (0.67, 0.4, 1, 0.65, 1.5, True),
)
WATER, MUD = (175, 238, 238), (63, 42, 20)


def snow(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Whiten the image and let flakes fall: thresholded noise, dragged steeply, twice.

    The second layer is the first turned by 180 degrees, as published.
    """
    mean, sigma, size, threshold, radius, spread, kept = SNOW[severity - 1]
    height, width = image.shape[:2]
    rows, columns = (max(2, math.ceil(side / size)) for side in (height, width))
    noise = Image.fromarray(rng.normal(mean, sigma, (rows, columns)).astype(np.float32))
    # from the first centre to the last: a whole factor would else meet the same few phases
    # everywhere, which smooth more than others and thin the flakes
    centres = (0.5, 0.5, columns - 0.5, rows - 0.5)
    flakes = np.asarray(noise.resize((width, height), Image.Resampling.BILINEAR, centres))
    flakes = np.where(flakes < threshold, 0, np.minimum(flakes, 1) * 255).astype(np.uint8)
    flakes = drag(flakes, int(radius), spread, rng.uniform(-135, -45))
    grey = np.asarray(Image.fromarray(image).convert("L"), np.float32)
    white = np.maximum(image, (grey * 1.5 + 127.5)[..., None])
    total = kept * image + (1 - kept) * white + (flakes + flakes[::-1, ::-1])[..., None]
    return grey_levels(total)


def fog(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Add a random cloud and scale back to the image's brightest value; black stays black."""
    amount, decay = FOG[severity - 1]
    height, width = image.shape[:2]
    cloud = plasma(max(height, width), decay, rng)[:height, :width, None]
    brightest = float(image.max())
    scale = brightest / (brightest + 255 * amount)
    return grey_levels((image + np.float32(255 * amount) * cloud) * np.float32(scale))


def plasma(size: int, decay: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """A fractal height map by diamonds and squares, 0 to 1, periodic.

    Its side is the next power of two from `size` on. Each halving of the grid divides the random
    part by ``decay**2``: the published code scales its amplitude and its range alike.
    """
    side = 1 << max(1, size - 1).bit_length()
    heights = np.zeros((side, side), np.float32)
    step, wobble = side, np.float32(100**2)
    while step >= 2:
        half = step // 2
        corners = heights[::step, ::step]
        pairs = corners + np.roll(corners, -1, axis=0)
        centres = _wobbled(pairs + np.roll(pairs, -1, axis=1), wobble, rng)
        heights[half::step, half::step] = centres
        beside = corners + np.roll(corners, -1, axis=1) + centres + np.roll(centres, 1, axis=0)
        heights[::step, half::step] = _wobbled(beside, wobble, rng)
        below = corners + np.roll(corners, -1, axis=0) + centres + np.roll(centres, 1, axis=1)
        heights[half::step, ::step] = _wobbled(below, wobble, rng)
        step, wobble = half, wobble / np.float32(decay**2)
    heights -= heights.min()
    heights /= heights.max()
    return heights


def _wobbled(
    sums: NDArray[np.float32], wobble: np.float32, rng: np.random.Generator
) -> NDArray[np.float32]:
    """The mean of four neighbours, given their sum, plus an even draw from -wobble to wobble."""
    return sums / 4 + wobble * (2 * rng.random(sums.shape, np.float32) - 1)


def frost(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """A weighted sum of the image and of ice, with the published weights.

    The ice is *not* ImageNet-C's: its photographs of frosted panes are not ours to ship, so
    crystals are made up, with about their colours, contrasts and scales. Damage is alike on
    average, pixels are not.
    """
    kept, weight = FROST[severity - 1]
    return grey_levels(np.float32(kept) * image + np.float32(weight) * ice(image.shape[:2], rng))


# mean colour, and contrast within a window of 224 pixels, of the five panes ImageNet-C cuts from
PANES = (
    ((78, 149, 166), 15),
    ((201, 205, 214), 19),
    ((201, 205, 214), 19),
    ((138, 153, 165), 27),
    ((112, 123, 135), 37),
)


def ice(shape: tuple[int, int], rng: np.random.Generator) -> NDArray[np.float32]:
    """Crystals (h, w, 3) in the colour of one of the panes: ridges of noise of 2 to 64 pixels.

    Values are grey levels and may lie outside of 0..255.
    """
    height, width = shape
    total = 0.7 * rng.standard_normal(shape, dtype=np.float32)
    for scale in (2, 4, 8, 16, 32, 64):
        small = (height // scale + 2, width // scale + 2)
        noise = Image.fromarray(rng.standard_normal(small, dtype=np.float32))
        layer = np.asarray(noise.resize((width, height), Image.Resampling.BICUBIC))
        total -= np.abs(layer)  # bright and sharp where the noise changes sign: a needle
    total -= total.mean()
    colour, contrast = PANES[rng.integers(len(PANES))]
    total *= contrast / max(float(total.std()), 1e-6)
    return total[..., None] + np.array(colour, np.float32)


def spatter(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Drops of water (severities 1 to 3) or of mud (4 and 5) on the lens."""
    from scipy.ndimage import gaussian_filter

    mean, sigma, smooth, threshold, last, is_mud = SPATTER[severity - 1]
    noise = rng.normal(mean, sigma, image.shape[:2]).astype(np.float32)
    liquid = gaussian_filter(noise, smooth, mode="nearest")
    if is_mud:
        cover = gaussian_filter((liquid > threshold).astype(np.float32), last, mode="nearest")
        cover = np.where(cover < 0.8, 0, cover)[..., None]
        return grey_levels(image * (1 - cover) + cover * np.array(MUD, np.float32))
    drops = np.where(liquid < threshold, 0, np.minimum(liquid, 1) * 255).astype(np.uint8)
    shine = drops * _relief(drops)
    shine *= last / max(float(shine.max()), 1)
    return grey_levels(image + shine[..., None] * np.array(WATER, np.float32))


def _relief(drops: Pixels) -> NDArray[np.float32]:
    """How much each drop shines where: an embossed map of the distance to its rim.

    The published code finds the rims with OpenCV's Canny detector; here a rim is where a drop meets
    none, which is all that the detector finds but for folds within large drops.
    """
    from scipy.ndimage import binary_erosion, correlate, distance_transform_edt, uniform_filter

    rim = (drops > 0) & ~binary_erosion(drops > 0, border_value=1)
    if not rim.any():
        return np.zeros(drops.shape, np.float32)
    distance = np.minimum(distance_transform_edt(~rim), 20)
    levels = _equalised(uniform_filter(distance, 3, mode="mirror").astype(np.uint8))
    light = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])
    embossed = np.clip(correlate(levels.astype(np.int32), light, mode="mirror"), 0, 255)
    relief: NDArray[np.float32] = uniform_filter(embossed.astype(np.float32), 3, mode="mirror")
    return np.rint(relief)


def _equalised(levels: Pixels) -> Pixels:
    """Spread grey levels so that all are about equally frequent; the darkest there is becomes 0."""
    counts = np.bincount(levels.ravel(), minlength=256)
    darkest = int(levels.min())
    others = levels.size - counts[darkest]
    table = (np.cumsum(counts) - counts[darkest]) * (255 / max(others, 1))
    equalised: Pixels = np.rint(np.clip(table, 0, 255)).astype(np.uint8)[levels]
    return equalised
