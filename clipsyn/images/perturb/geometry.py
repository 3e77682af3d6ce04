"""Perturbations that move pixels or cover them.

What lies outside the image is black, unless said otherwise.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clipsyn.images.perturb import Pixels

ROTATION_DEGREES = (5, 10, 20, 30, 45)
TRANSLATION = (0.05, 0.1, 0.15, 0.2, 0.3)  # of the width and height
CROP_SIDE = (0.9, 0.8, 0.7, 0.6, 0.5)  # of the width and height
PERSPECTIVE = (0.1, 0.2, 0.3, 0.4, 0.5)  # how far a corner may move inwards, of half a side

ERASED_SHARE = (0.1, 0.2, 0.3, 0.4, 0.5)  # of the area
ERASED_GREY = 127
TILES = (2, 3, 4, 6, 8)  # along each side

# Hendrycks & Dietterich (2019), ImageNet-C, as shares of the shorter side. Published in pixels for
# 224 of them, as multiples of 244: amplitude and smoothness of the displacements, largest move of
# a corner of the affine map.
_ELASTIC_SIZE = 244 / 224
ELASTIC = (
    (2, 0.7, 0.1),
    (2, 0.08, 0.2),
    (0.05, 0.01, 0.02),
    (0.07, 0.01, 0.02),
    (0.12, 0.01, 0.02),
)

# smallest share of the area that a crop keeps; Tip-Adapter's views have 0.5 (severity 3)
CROP_SCALE = (0.9, 0.7, 0.5, 0.3, 0.1)
# aspect ratios go from its inverse to it, as in Inception's and torchvision's crops
_ASPECT = 4 / 3


def augment(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """A random crop, resized (bicubic) to the size of the image, and mirrored half of the time.

    The crop keeps a share of the area drawn evenly from the severity's minimum to 1, its aspect
    ratio relative to the image's is drawn evenly on a logarithmic scale from 3/4 to 4/3, its place
    evenly. These are the views of Tip-Adapter's cache: each seed is another one. torchvision's
    RandomResizedCrop draws the aspect ratio of the crop itself and squares it; here a backbone's
    own preprocessing follows, so the crop keeps the image's shape.
    """
    height, width = image.shape[:2]
    share = rng.uniform(CROP_SCALE[severity - 1], 1)
    aspect = math.exp(rng.uniform(-math.log(_ASPECT), math.log(_ASPECT)))
    across, down = (min(1.0, math.sqrt(share * ratio)) for ratio in (aspect, 1 / aspect))
    left, top = rng.uniform(0, 1 - across) * width, rng.uniform(0, 1 - down) * height
    box = (left, top, left + across * width, top + down * height)
    view = Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC, box)
    if rng.random() < 0.5:
        view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.array(view)


def horizontal_flip(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Mirror left and right. It has one strength: all severities are equal."""
    return image[:, ::-1].copy()


def vertical_flip(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Mirror top and bottom. It has one strength: all severities are equal."""
    return image[::-1].copy()


def rotation(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Rotate about the centre, in either direction (bilinear)."""
    degrees = float(rng.choice([-1, 1]) * ROTATION_DEGREES[severity - 1])
    return np.array(Image.fromarray(image).rotate(degrees, Image.Resampling.BILINEAR))


def translation(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Shift by whole pixels along a diagonal, a fixed share of width and height."""
    height, width = image.shape[:2]
    share = TRANSLATION[severity - 1]
    down, right = (
        int(sign * max(1, round(share * size)))
        for sign, size in zip(rng.choice([-1, 1], 2), (height, width), strict=True)
    )
    shifted = np.zeros_like(image)
    kept = image[max(0, -down) : height - max(0, down), max(0, -right) : width - max(0, right)]
    shifted[max(0, down) :, max(0, right) :][: kept.shape[0], : kept.shape[1]] = kept
    return shifted


def crop(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """A part of the image, at a random place, enlarged to the image's size (bicubic)."""
    height, width = image.shape[:2]
    side = CROP_SIDE[severity - 1]
    left, top = (rng.uniform(0, 1 - side) * size for size in (width, height))
    box = (left, top, left + side * width, top + side * height)
    view = Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC, box)
    return np.array(view)


def perspective(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Move each corner inwards by random shares of half the sides, as torchvision (bilinear)."""
    height, width = image.shape[:2]
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float64)
    inwards = np.sign([width, height] - 2 * corners) * [width / 2, height / 2]
    moved = corners + inwards * rng.uniform(0, PERSPECTIVE[severity - 1], (4, 2))
    coefficients = projection(moved, corners).tolist()
    view = Image.fromarray(image).transform(
        (width, height), Image.Transform.PERSPECTIVE, coefficients, Image.Resampling.BILINEAR
    )
    return np.array(view)


def projection(points: NDArray[np.float64], images: NDArray[np.float64]) -> NDArray[np.floating]:
    """The eight coefficients a..h with which (ax + by + c, dx + ey + f) / (gx + hy + 1) maps four
    points (4, 2) to their images."""
    rows = []
    for (x, y), (u, v) in zip(points, images, strict=True):
        rows.append([x, y, 1, 0, 0, 0, -u * x, -u * y])
        rows.append([0, 0, 0, x, y, 1, -v * x, -v * y])
    return np.linalg.solve(np.array(rows), images.ravel())


def elastic_transform(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """A random affine map, then random smooth displacements, the image mirrored at its edges.

    ImageNet-C's lengths are those of a 224 pixel image; they go with the shorter side. As
    published, severities 1 and 2 bend the whole image and 3 to 5 ripple it.
    """
    shape = (image.shape[0], image.shape[1])
    size = min(shape) * _ELASTIC_SIZE
    amplitude, smoothness, corner = (size * part for part in ELASTIC[severity - 1])
    planes = np.moveaxis(image, 2, 0).astype(np.float32, order="C")
    planes = _warped(planes, *_affine_places(shape, corner, rng))
    down, right = np.indices(shape, np.float32)
    for places in (right, down):
        noise = 2 * rng.random(shape, np.float32) - 1
        np.add(places, np.float32(amplitude) * _mirrored_smooth(noise, smoothness), out=places)
    planes = _warped(planes, down, right)
    return np.moveaxis(np.rint(planes).astype(np.uint8), 0, 2).copy()


def _affine_places(
    shape: tuple[int, int], reach: float, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Where each pixel's value comes from: three points about the centre move by up to `reach`."""
    centre, third = np.array(shape[::-1]) // 2, min(shape) // 3
    points = centre + np.array([[third, third], [third, -third], [-third, -third]])
    moved = points + rng.uniform(-reach, reach, points.shape)
    # the pseudo-inverse, for on tiny images the moved points may lie on a line
    inverse = np.linalg.pinv(np.column_stack([moved, np.ones(3)])) @ points
    y, x = np.indices(shape, np.float32, sparse=True)
    right, down = (x * a + y * b + c for a, b, c in inverse.astype(np.float32).T)
    return down, right


def _warped(
    planes: NDArray[np.float32], down: NDArray[np.float32], right: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Bilinear values (3, h, w) at places (h, w), the image mirrored at its outer pixels.

    Channel by channel, because arithmetic on an axis of three is many times slower.
    """
    height, width = planes.shape[1:]
    row, below, share_below = _neighbours(down, height)
    column, beside, share_beside = _neighbours(right, width)
    row *= width
    below *= width
    corners = [row + column, row + beside, below + column, below + beside]
    warped = np.empty_like(planes)
    for plane, result in zip(planes.reshape(3, -1), warped, strict=True):
        first, second, third, fourth = (plane.take(corner) for corner in corners)
        first += share_beside * (second - first)
        third += share_beside * (fourth - third)
        np.add(first, share_below * (third - first), out=result)
    return warped


def _neighbours(
    places: NDArray[np.float32], size: int
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """The pixels before and after each place, folded into the image, and the latter's share."""
    period = np.float32(max(1, 2 * size - 2))
    folded = np.minimum(np.abs(places - period * np.rint(places / period)), np.float32(size - 1))
    before = folded.astype(np.intp)
    return before, np.minimum(before + 1, size - 1), folded - before.astype(np.float32)


def _mirrored_smooth(noise: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    """A Gaussian cut at three sigmas over `noise`, which is mirrored at its edges.

    The cosine transform makes a product of it, whose cost does not grow with sigma (which is 0.7
    of the image at severity 1).
    """
    from scipy.fft import dctn, idctn

    spectrum = dctn(noise, norm="ortho")
    spectrum *= _cosine_gain(noise.shape[0], sigma)[:, None]
    spectrum *= _cosine_gain(noise.shape[1], sigma)
    smoothed: NDArray[np.float32] = idctn(spectrum, norm="ortho")
    return smoothed


@cache
def _cosine_gain(size: int, sigma: float) -> NDArray[np.float32]:
    """The factor that the Gaussian gives to each of the `size` cosines."""
    radius = int(3 * sigma + 0.5)
    steps = np.arange(-radius, radius + 1)
    taps = np.exp(-(steps**2) / (2 * sigma**2))
    waves = np.cos(np.pi * np.outer(np.arange(size), steps) / size)
    gain: NDArray[np.float64] = waves @ (taps / taps.sum())
    return gain.astype(np.float32)


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
