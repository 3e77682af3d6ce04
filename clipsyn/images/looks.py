"""What an image looks like, in 64 bits that survive another size or encoding."""

from __future__ import annotations

import numpy as np
from PIL import Image

_NOISE = 2  # grey levels by which encoding moves a mean over a part of the image
_LEAST = 16  # steps of the 64, below which the image is nearly empty: such images are all alike


def look_of(image: Image.Image) -> int:
    """The difference hash: where brightness rises between neighbours of 9 x 8 means, row by row.

    0, which says nothing, for an image of one colour, or with next to nothing on it.
    """
    small = image.convert("L").resize((9, 8), Image.Resampling.BOX)
    steps = np.diff(np.asarray(small, np.int16), axis=1)
    if np.count_nonzero(np.abs(steps) > _NOISE) < _LEAST:
        return 0
    return int.from_bytes(np.packbits(steps > _NOISE).tobytes(), "big")
