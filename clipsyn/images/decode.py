"""Encoded bytes to RGB pixels, one way for every source, and what an image may ask for at most.

The pixels are those of torchvision's ``pil_loader``: the first frame, ``convert("RGB")`` for
palette, alpha and CMYK images, no rotation by EXIF. One thing differs: samples of 16 bits keep
their upper 8, where PIL clips them and gives a white image.
"""

from __future__ import annotations

import io
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image, UnidentifiedImageError

from clipsyn.text import one_line

# Rasters alone: of the formats that PIL also reads, EPS runs a program, and a file's name says
# nothing of its format.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")

# Of one image, checked against its header before a pixel is decoded. PIL bounds what texts and
# profiles of a PNG unpack to; of frames the first alone is decoded.
MOST_BYTES = 1 << 28  # encoded
MOST_PIXELS = 1 << 27
MOST_MEMORY = 5 << 28  # while it is decoded
MOST_SCANS = 64  # of a JPEG: each is a pass over all pixels, and encoders make 10 or so
MOST_NARROW = 200  # times as long as wide: the shorter side is what is resized
_AREA_MEMORY = 5_000_000  # what resizing and perturbing take of a square of 224 to 384 pixels

# Memory that all threads share: who would exceed it waits until others are done.
# Bytes at a time, with room for several large photographs. What is larger than all of it runs
# alone, and readers bound that.
ENCODED, DECODED = "encoded", "decoded"
_MOST = {ENCODED: 1 << 28, DECODED: 5 << 28}

_CHANGED = threading.Condition()
_TAKEN: Counter[str] = Counter()  # of all threads
_THREAD = threading.local()


class UndecodableImage(Exception):
    """The bytes cannot be decoded as an image; it says why, on one line."""


def decode(data: bytes) -> Image.Image:
    """The first frame of an encoded image, as RGB.

    Raises UndecodableImage for an empty or truncated file, for bytes that are no image of
    `FORMATS`, and for an image that asks for more than the limits above.
    """
    if not data:
        raise UndecodableImage("empty file")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check_size(image, data)
            image.load()
            return to_rgb(image)
    except UndecodableImage:
        raise
    except UnidentifiedImageError as error:
        kinds = ", ".join(FORMATS)
        raise UndecodableImage(f"not an image of a format that is read ({kinds})") from error
    except Exception as error:  # a header can lead PIL's parsers to any
        raise UndecodableImage(f"damaged: {one_line(error)}") from error


@contextmanager
def returned() -> Iterator[None]:
    """Around the work on one image: what the thread takes inside is given back at the end."""
    own = _THREAD.own = Counter[str]()
    try:
        yield
    finally:
        _THREAD.own = None
        with _CHANGED:
            _TAKEN.subtract(own)
            _CHANGED.notify_all()


def take(kind: str, size: int) -> None:
    """Wait until `size` bytes are free; outside `returned`, where nothing is given back, never.

    Encoded bytes are taken before decoded ones, and each once an image, so no two threads wait for
    each other.
    """
    own: Counter[str] | None = getattr(_THREAD, "own", None)
    if own is None:
        return
    with _CHANGED:
        _CHANGED.wait_for(
            lambda: own[kind] or not _TAKEN[kind] or _TAKEN[kind] + size <= _MOST[kind]
        )
        _TAKEN[kind] += size
        own[kind] += size


def _check_size(image: Image.Image, data: bytes) -> None:
    """Raise UndecodableImage for an image beyond the limits; wait for memory for one within."""
    shorter, longer = sorted(image.size)
    memory = shorter * longer * _bytes_per_pixel(image)
    if shorter * longer > MOST_PIXELS or memory > MOST_MEMORY:
        raise UndecodableImage(f"too large: {image.width} x {image.height} pixels")
    if not shorter or longer > MOST_NARROW * shorter:
        raise UndecodableImage(f"too narrow: {image.width} x {image.height} pixels")
    if image.format in ("JPEG", "MPO") and data.count(b"\xff\xda") > MOST_SCANS:
        raise UndecodableImage(f"too many scans: more than {MOST_SCANS}")
    take(DECODED, memory + _AREA_MEMORY * longer // shorter)


def _bytes_per_pixel(image: Image.Image) -> int:
    """Memory of decoding and converting, as measured on each kind of image."""
    if image.format == "WEBP" or image.mode.startswith("I"):
        return 16
    return 4 if image.mode == "RGB" and not image.info.get("progressive") else 12


def to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "I" or image.mode.startswith("I;16"):
        samples = np.asarray(image) >> 8
        return Image.fromarray(np.clip(samples, 0, 255).astype(np.uint8)).convert("RGB")
    # A palette's transparency does not reach RGB; left in place it makes PIL warn of its loss.
    image.info.pop("transparency", None)
    return image if image.mode == "RGB" else image.convert("RGB")


def keep_to_rasters() -> None:
    """Hold what opens images by itself to `FORMATS` and `MOST_PIXELS`, in all of this process."""
    Image.init()
    Image.ID[:] = FORMATS
    Image.MAX_IMAGE_PIXELS = MOST_PIXELS // 2  # PIL warns of so many, and refuses twice as many


_SLIGHT = 2  # grey levels by which encoding moves a mean over a part of the image
_LEAST = 16  # steps of the 64, below which the image is nearly empty: such images are all alike


def look_of(image: Image.Image) -> int:
    """The difference hash: where brightness rises between neighbours of 9 x 8 means, row by row.

    0, which says nothing, for an image of one colour, or with next to nothing on it.
    """
    small = image.convert("L").resize((9, 8), Image.Resampling.BOX)
    steps = np.diff(np.asarray(small, np.int16), axis=1)
    if np.count_nonzero(np.abs(steps) > _SLIGHT) < _LEAST:
        return 0
    return int.from_bytes(np.packbits(steps > _SLIGHT).tobytes(), "big")
