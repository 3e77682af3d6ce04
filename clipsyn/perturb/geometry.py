"""Perturbations that move pixels."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# smallest share of the area that a crop keeps; Tip-Adapter's views have 0.5 (severity 3)
CROP_SCALE = (0.9, 0.7, 0.5, 0.3, 0.1)
_ASPECT = (
    4 / 3
)  # aspect ratios go from its inverse to it, as in Inception's and torchvision's crops


def augment(image: NDArray[np.uint8], severity: int, rng: np.random.Generator) -> NDArray[np.uint8]:
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
