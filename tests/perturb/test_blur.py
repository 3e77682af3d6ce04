from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from clipsyn.perturb.blur import zoom_blur

SERIES = [
    np.arange(1, 1.11, 0.01),
    np.arange(1, 1.16, 0.01),
    np.arange(1, 1.21, 0.02),
    np.arange(1, 1.26, 0.02),
    np.arange(1, 1.31, 0.03),
]


def enlarged(image: np.ndarray, factor: float) -> np.ndarray:
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
def test_it_is_the_mean_over_imagenet_cs_factors(severity, size):
    rng = np.random.default_rng(severity)
    image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    views = [enlarged(image.astype(float), factor) for factor in SERIES[severity - 1]]
    expected = (image + np.sum(views, axis=0)) / (len(views) + 1)
    found = zoom_blur(image, severity, rng)
    assert np.abs(found - expected).max() < 2  # each view is rounded to a byte
    assert np.abs(found - expected).mean() < 0.5


def test_the_centre_stays_and_the_rim_moves():
    image = np.zeros((65, 65, 3), np.uint8)
    image[32, 32] = image[2, 2] = 255
    blurred = zoom_blur(image, 5, np.random.default_rng(0))
    assert blurred[32, 32, 0] > 200
    assert blurred[2, 2, 0] < 100


def test_a_flat_image_stays_flat():
    image = np.full((20, 30, 3), 77, np.uint8)
    np.testing.assert_array_equal(zoom_blur(image, 3, np.random.default_rng(0)), image)
