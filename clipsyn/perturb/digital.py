"""Perturbations by digital processing."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# Hendrycks & Dietterich (2019), ImageNet-C: libjpeg quality
JPEG_QUALITY = (25, 18, 15, 10, 7)


def jpeg(image: NDArray[np.uint8], severity: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Compress as JPEG (4:2:0) and decode again. Draws nothing from `rng`."""
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=JPEG_QUALITY[severity - 1])
    return np.array(Image.open(buffer))
