"""What images look like: near copies have near hashes, and empty images have none."""

from __future__ import annotations

import io
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image, ImageDraw

from clipsyn.images.looks import look_of


def picture(seed: int) -> Image.Image:
    """Shapes on white."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", (128, 96), "white")
    draw = ImageDraw.Draw(image)
    for _ in range(12):
        x, y, width, height = rng.integers(0, (120, 90, 40, 40))
        draw.ellipse((x, y, x + width + 9, y + height + 9), tuple(rng.integers(0, 256, 3)))
    return image


def encoded(image: Image.Image, size: tuple[int, int], quality: int) -> Image.Image:
    file = io.BytesIO()
    image.resize(size, Image.Resampling.LANCZOS).save(file, "JPEG", quality=quality)
    return Image.open(file)


def distance(one: Image.Image, other: Image.Image) -> int:
    return (look_of(one) ^ look_of(other)).bit_count()


def test_bits_say_where_a_row_of_means_gets_brighter() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (8, 9), np.uint8)
    image = Image.fromarray(grey.repeat(5, axis=0).repeat(4, axis=1))
    expected = 0
    for row in grey.astype(int):
        for left, right in pairwise(row.tolist()):
            expected = 2 * expected + (right - left > 2)
    assert look_of(image) == look_of(image.convert("RGB")) == expected


@pytest.mark.parametrize("seed", range(8))
def test_another_size_or_encoding_changes_few_bits(seed: int) -> None:
    image = picture(seed)
    for size, quality in (((128, 96), 70), ((80, 60), 90), ((256, 192), 80)):
        assert distance(image, encoded(image, size, quality)) <= 4


def test_images_with_next_to_nothing_on_them_look_like_nothing() -> None:
    noise = np.random.default_rng(0).integers(126, 129, (60, 60, 3), np.uint8)
    dot = Image.new("RGB", (90, 80), "white")
    ImageDraw.Draw(dot).ellipse((40, 40, 44, 44), "black")
    empty = [Image.new("RGB", (9, 8), colour) for colour in ("black", "white", "red")]
    assert {look_of(image) for image in (*empty, Image.fromarray(noise), dot)} == {0}
