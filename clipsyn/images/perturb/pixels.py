"""What perturbations take and give."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]  # grey levels; an image is (h, w, 3)


def grey_levels(values: NDArray[np.float32]) -> Pixels:
    """Numbers rounded to grey levels, 0 to 255."""
    return np.rint(np.clip(values, 0, 255)).astype(np.uint8)
