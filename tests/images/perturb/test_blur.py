import math

import numpy as np
import pytest
from scipy.ndimage import convolve, correlate, gaussian_filter, map_coordinates

from clipsyn.images.perturb import optics

# as published with ImageNet-C
SIGMA = [1, 2, 3, 4, 6]
DEFOCUS = [(3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)]
GLASS = [(0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)]
MOTION = [(10, 3), (15, 5), (15, 8), (15, 12), (20, 15)]
SERIES = [
    np.arange(1, 1.11, 0.01),
    np.arange(1, 1.16, 0.01),
    np.arange(1, 1.21, 0.02),
    np.arange(1, 1.26, 0.02),
    np.arange(1, 1.31, 0.03),
]


LEVEL = range(1, 6)


def noise(height=61, width=47, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def on_planes(function, image):
    return np.stack([function(image[..., c].astype(float)) for c in range(3)], axis=2)


def window(radius, sigma):
    """A two-dimensional Gaussian, cut, with sum one."""
    steps = np.arange(-radius, radius + 1)
    taps = np.exp(-(steps**2) / (2 * sigma**2))
    return np.outer(taps, taps) / taps.sum() ** 2


@pytest.mark.parametrize("severity", LEVEL)
def test_gaussian_blur_is_a_convolution(severity):
    sigma, image = SIGMA[severity - 1], noise()
    kernel = window(4 * sigma, sigma)
    expected = on_planes(lambda plane: convolve(plane, kernel, mode="nearest"), image)
    found = optics.gaussian_blur(image, severity, np.random.default_rng(0))
    assert np.abs(found - expected).max() < 0.51


@pytest.mark.parametrize("severity", LEVEL)
def test_defocus_blur_is_a_correlation_with_a_smoothed_disc(severity):
    radius, sigma = DEFOCUS[severity - 1]
    image = noise()
    border = radius + 2
    y, x = np.mgrid[-border : border + 1, -border : border + 1]
    disc = (x**2 + y**2 <= radius**2).astype(float)
    disc /= disc.sum()
    kernel = convolve(disc, window(1 if radius <= 8 else 2, sigma), mode="constant")
    expected = on_planes(lambda plane: correlate(plane, kernel, mode="mirror"), image)
    found = optics.defocus_blur(image, severity, np.random.default_rng(0))
    assert np.abs(found - expected).max() < 0.51


def glass_by_loop(pixels, offsets, reach):
    """One round as published, in place: the swap of two views copies."""
    height, width = pixels.shape[:2]
    for row in range(height - reach, reach, -1):
        for column in range(width - reach, reach, -1):
            down, right = offsets[:, row, column]
            one, other = pixels[row, column], pixels[row + down, column + right]
            pixels[row, column], pixels[row + down, column + right] = other, one


@pytest.mark.parametrize("severity", LEVEL)
@pytest.mark.parametrize("size", [(40, 31), (16, 16)])
def test_glass_blur_is_the_published_loop(severity, size):
    sigma, reach, rounds = GLASS[severity - 1]
    image, rng = noise(*size), np.random.default_rng(severity)
    pixels = np.rint(gaussian_filter(image.astype(float), (sigma, sigma, 0), mode="nearest"))
    for _ in range(rounds):
        glass_by_loop(pixels, rng.integers(-reach, reach, (2, *size), dtype=np.int8), reach)
    expected = gaussian_filter(pixels, (sigma, sigma, 0), mode="nearest")
    found = optics.glass_blur(image, severity, np.random.default_rng(severity))
    assert np.abs(found - expected).max() < 0.51


def dragged_by_loop(image, radius, sigma, angle):
    height, width = image.shape[:2]
    taps = [math.exp(-(i**2) / (2 * sigma**2)) for i in range(2 * radius + 1)]
    total = np.zeros(image.shape)
    for i, tap in enumerate(taps):
        down = math.ceil(i * math.sin(math.radians(angle)) - 0.5)
        right = math.ceil(i * math.cos(math.radians(angle)) - 0.5)
        rows = np.clip(np.arange(height) + down, 0, height - 1)
        columns = np.clip(np.arange(width) + right, 0, width - 1)
        total += tap / sum(taps) * image[rows][:, columns]
    return total


@pytest.mark.parametrize("severity", LEVEL)
@pytest.mark.parametrize("angle", [-45, -17.3, 0, 30, 45, -135, -90])
def test_drag_is_the_motion_blur_of_imagemagick(severity, angle):
    image = noise(52, 33)
    expected = dragged_by_loop(image, *MOTION[severity - 1], angle)
    assert np.abs(optics.drag(image, *MOTION[severity - 1], angle) - expected).max() < 0.01


@pytest.mark.parametrize("severity", LEVEL)
def test_motion_blur_drags_by_at_most_45_degrees(severity):
    image = noise(30, 36)
    for seed in range(10):
        angle = np.random.default_rng(seed).uniform(-45, 45)
        expected = dragged_by_loop(image, *MOTION[severity - 1], angle)
        found = optics.motion_blur(image, severity, np.random.default_rng(seed))
        assert np.abs(found - expected).max() < 0.51


def enlarged(image, factor):
    """Bilinear sampling about the centre, pixel by pixel coordinates."""
    height, width = image.shape[:2]
    y, x = np.mgrid[:height, :width]
    coordinates = [
        (y + 0.5 - height / 2) / factor + height / 2 - 0.5,
        (x + 0.5 - width / 2) / factor + width / 2 - 0.5,
    ]
    planes = [
        map_coordinates(image[..., c], coordinates, order=1, mode="nearest") for c in range(3)
    ]
    return np.stack(planes, axis=2)


@pytest.mark.parametrize("severity", range(1, 6))
@pytest.mark.parametrize("size", [(40, 56), (33, 17)])
def test_zoom_blur_is_the_mean_over_the_factors_of_imagenet_c(severity, size):
    rng = np.random.default_rng(severity)
    image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    views = [enlarged(image.astype(float), factor) for factor in SERIES[severity - 1]]
    expected = (image + np.sum(views, axis=0)) / (len(views) + 1)
    found = optics.zoom_blur(image, severity, rng)
    assert np.abs(found - expected).max() < 2  # each view is rounded to a byte
    assert np.abs(found - expected).mean() < 0.5
