"""Perturbations by digital processing, with the strengths of ImageNet-C.

Hendrycks & Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions" (2019).
"""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import Image

from clipsyn.images.perturb.pixels import Pixels

JPEG_QUALITY = (25, 18, 15, 10, 7)  # libjpeg's
PIXELATE = (0.6, 0.5, 0.4, 0.3, 0.25)  # of the width and height


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
