"""Perturbations that add noise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Hendrycks & Dietterich (2019), ImageNet-C: standard deviation on the scale 0..1
GAUSSIAN_SIGMA = (0.08, 0.12, 0.18, 0.26, 0.38)


def gaussian_noise(
    image: NDArray[np.uint8], severity: int, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Add independent normal noise to every channel, clip to 0..255 and round.

    ImageNet-C cuts the fraction off instead, which darkens the image by half a grey level.
    """
    noisy = rng.standard_normal(image.shape, dtype=np.float32)
    noisy *= np.float32(255 * GAUSSIAN_SIGMA[severity - 1])
    noisy += image
    np.clip(noisy, 0, 255, out=noisy)
    return np.rint(noisy, out=noisy).astype(np.uint8)
