"""Perturbations that blur."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# Hendrycks & Dietterich (2019), ImageNet-C: (last factor, step); all series start at 1. Their
# series are np.arange(1, 1.11, 0.01), (1, 1.16, 0.01), (1, 1.21, 0.02), (1, 1.26, 0.02) and
# (1, 1.31, 0.03), of which rounding lets the first include its end point.
ZOOM_FACTORS = ((1.11, 0.01), (1.15, 0.01), (1.20, 0.02), (1.24, 0.02), (1.30, 0.03))


def zoom_blur(
    image: NDArray[np.uint8], severity: int, rng: np.random.Generator
) -> NDArray[np.uint8]:
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
