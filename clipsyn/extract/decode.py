"""Encoded bytes to RGB pixels, one way for every source.

The pixels are those of torchvision's ``pil_loader``: the first frame, ``convert("RGB")`` for
palette, alpha and CMYK images, no rotation by EXIF. One thing differs: samples of 16 bits keep
their upper 8, where PIL clips them and gives a white image.
"""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image, UnidentifiedImageError

from clipsyn.documents import one_line

# What PIL's decoders raise on damaged files. Fuzzing 13 kinds of file showed the first four and
# EOFError is documented; the rest are the ways in which a header can lead a parser astray.
_DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    RuntimeError,
    EOFError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    MemoryError,
    struct.error,
    zlib.error,
)


class UndecodableImage(Exception):
    """The bytes cannot be decoded as an image; `reason` says why, on one line."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def decode(data: bytes) -> Image.Image:
    """The first frame of an encoded image, as RGB.

    Raises UndecodableImage for an empty or truncated file, for bytes that are no image, and for
    an image of more pixels than PIL deems safe (`PIL.Image.MAX_IMAGE_PIXELS`, twice).
    """
    if not data:
        raise UndecodableImage("empty file")
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            return to_rgb(image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UndecodableImage(
            f"too large, maybe a decompression bomb: {one_line(error)}"
        ) from error
    except UnidentifiedImageError as error:
        raise UndecodableImage("not an image, or of a format PIL does not read") from error
    except _DAMAGED as error:
        raise UndecodableImage(f"damaged: {one_line(error)}") from error


def to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "I" or image.mode.startswith("I;16"):
        samples = np.asarray(image).astype(np.int64)
        return Image.fromarray(np.clip(samples >> 8, 0, 255).astype(np.uint8)).convert("RGB")
    # A palette's transparency does not reach RGB; left in place it makes PIL warn of its loss.
    image.info.pop("transparency", None)
    return image.convert("RGB")
