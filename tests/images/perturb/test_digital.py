from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from clipsyn.images.perturb.noise import jpeg, pixelate


@pytest.mark.parametrize(("severity", "quality"), [(1, 25), (2, 18), (3, 15), (4, 10), (5, 7)])
def test_it_is_a_round_trip_at_imagenet_cs_quality(severity, quality):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (37, 50, 3), dtype=np.uint8)
    file = BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    expected = np.asarray(Image.open(file).convert("RGB"))
    np.testing.assert_array_equal(jpeg(image, severity, rng), expected)


@pytest.mark.parametrize(("severity", "share"), [(1, 0.6), (2, 0.5), (3, 0.4), (4, 0.3), (5, 0.25)])
def test_pixels_are_means_of_boxes_at_imagenet_cs_sizes(severity, share):
    rng = np.random.default_rng(0)
    # sizes of which all shares are odd: then no pixel's centre lies on the rim of a box
    image = rng.integers(0, 256, (79, 119, 3), dtype=np.uint8)
    height, width = int(79 * share), int(119 * share)
    small = boxes(79, height) @ np.moveaxis(image, 2, 0) @ boxes(119, width).T
    expected = boxes(height, 79) @ small @ boxes(width, 119).T
    found = pixelate(image, severity, rng)
    assert np.abs(np.moveaxis(found, 2, 0) - expected).max() < 2  # Pillow rounds four times


def boxes(old: int, new: int) -> np.ndarray:
    """Weights (new, old): the mean of those cells whose centre is in the box, else the nearest."""
    centre = (np.arange(new)[:, None] + 0.5) * old / new
    away = (np.arange(old) + 0.5 - centre) / max(1, old / new)
    inside = np.abs(away) < 0.5
    return inside / inside.sum(axis=1, keepdims=True)


def test_halving_and_enlarging_makes_squares_of_two():
    image = np.zeros((4, 4, 3), np.uint8)
    image[:2, :2], image[3, 3] = 200, 100
    found = pixelate(image, 2, np.random.default_rng(0))[..., 0]
    expected = [[200, 200, 0, 0], [200, 200, 0, 0], [0, 0, 25, 25], [0, 0, 25, 25]]
    assert found.tolist() == expected
