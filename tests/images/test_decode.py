"""Decoding: pixels against PIL's as torchvision converts them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets.folder import pil_loader

from clipsyn.images.decode import UndecodableImage, decode

PIXELS = np.random.default_rng(7).integers(0, 256, (20, 31, 3), dtype=np.uint8)


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("kind", "mode"),
    [(kind, "RGB") for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")]
    + [("PNG", mode) for mode in ("L", "RGBA", "LA", "P", "1")]
    + [("JPEG", "CMYK"), ("GIF", "P"), ("WEBP", "RGBA")],
)
def test_pixels_are_those_of_torchvisions_loader(kind: str, mode: str, tmp_path: Path) -> None:
    data = encode(Image.fromarray(PIXELS).convert(mode), kind)
    file = tmp_path / "image"
    file.write_bytes(data)
    decoded = decode(data)
    assert decoded.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(decoded), np.asarray(pil_loader(str(file))))


def test_a_palette_with_transparency_decodes_without_a_warning() -> None:
    palette = Image.fromarray(PIXELS).convert("P")
    for transparency in (3, bytes(range(256))):
        decoded = decode(encode(palette, "PNG", transparency=transparency))
        np.testing.assert_array_equal(np.asarray(decoded), np.asarray(palette.convert("RGB")))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_keep_the_upper_eight(kind: str) -> None:
    samples = np.array([[0, 255, 256, 4096], [32768, 65279, 65280, 65535]], dtype=np.uint16)
    expected = np.repeat((samples >> 8).astype(np.uint8)[..., None], 3, axis=2)
    decoded = decode(encode(Image.fromarray(samples), kind))
    np.testing.assert_array_equal(np.asarray(decoded), expected)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_an_animation_gives_its_first_frame(kind: str) -> None:
    first = Image.new("RGB", (16, 16), (200, 10, 10))
    second = Image.new("RGB", (16, 16), (10, 200, 10))
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(first, kind, save_all=True, append_images=[second], duration=50, **options)
    np.testing.assert_array_equal(np.asarray(decode(data)), np.asarray(first))


def test_exif_does_not_rotate() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    assert decode(encode(Image.fromarray(PIXELS), "JPEG", exif=exif)).size == (31, 20)


@pytest.mark.filterwarnings("ignore::UserWarning")  # PIL warns of damaged metadata and reads on
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "TIFF"])
def test_no_flipped_byte_escapes_as_another_error(kind: str) -> None:
    """Every byte of the header region, then a sample of the rest: an image or UndecodableImage."""
    data = encode(Image.fromarray(PIXELS), kind)
    positions = [*range(min(64, len(data))), *range(64, len(data), 37)]
    outcomes = set()
    for position in positions:
        damaged = bytearray(data)
        damaged[position] ^= 0xFF
        try:
            outcomes.add(decode(bytes(damaged)).mode)
        except UndecodableImage:
            outcomes.add("undecodable")
    assert outcomes <= {"RGB", "undecodable"}
    assert "undecodable" in outcomes
