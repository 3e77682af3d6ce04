"""Decoding: pixels against PIL's as torchvision converts them; what images look like."""

import io
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image, ImageDraw
from torchvision.datasets.folder import pil_loader

from clipsyn.images.source import UndecodableImage, decode, look_of

PIXELS = np.random.default_rng(7).integers(0, 256, (20, 31, 3), dtype=np.uint8)


def encode(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("kind", "mode"),
    [(kind, "RGB") for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")]
    + [("PNG", mode) for mode in ("L", "RGBA", "LA", "P", "1")]
    + [("JPEG", "CMYK"), ("GIF", "P"), ("WEBP", "RGBA")],
)
def test_pixels_are_those_of_torchvisions_loader(kind, mode, tmp_path):
    data = encode(Image.fromarray(PIXELS).convert(mode), kind)
    file = tmp_path / "image"
    file.write_bytes(data)
    decoded = decode(data)
    assert decoded.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(decoded), np.asarray(pil_loader(str(file))))


def test_a_palette_with_transparency_decodes_without_a_warning():
    palette = Image.fromarray(PIXELS).convert("P")
    for transparency in (3, bytes(range(256))):
        decoded = decode(encode(palette, "PNG", transparency=transparency))
        np.testing.assert_array_equal(np.asarray(decoded), np.asarray(palette.convert("RGB")))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_keep_the_upper_eight(kind):
    samples = np.array([[0, 255, 256, 4096], [32768, 65279, 65280, 65535]], dtype=np.uint16)
    expected = np.repeat((samples >> 8).astype(np.uint8)[..., None], 3, axis=2)
    decoded = decode(encode(Image.fromarray(samples), kind))
    np.testing.assert_array_equal(np.asarray(decoded), expected)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_an_animation_gives_its_first_frame(kind):
    first = Image.new("RGB", (16, 16), (200, 10, 10))
    second = Image.new("RGB", (16, 16), (10, 200, 10))
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(first, kind, save_all=True, append_images=[second], duration=50, **options)
    np.testing.assert_array_equal(np.asarray(decode(data)), np.asarray(first))


def test_exif_does_not_rotate():
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    assert decode(encode(Image.fromarray(PIXELS), "JPEG", exif=exif)).size == (31, 20)


@pytest.mark.filterwarnings("ignore::UserWarning")  # PIL warns of damaged metadata and reads on
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "TIFF"])
def test_no_flipped_byte_escapes_as_another_error(kind):
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


def picture(seed):
    """Shapes on white."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", (128, 96), "white")
    draw = ImageDraw.Draw(image)
    for _ in range(12):
        x, y, width, height = rng.integers(0, (120, 90, 40, 40))
        draw.ellipse((x, y, x + width + 9, y + height + 9), tuple(rng.integers(0, 256, 3)))
    return image


def encoded(image, size, quality):
    file = io.BytesIO()
    image.resize(size, Image.Resampling.LANCZOS).save(file, "JPEG", quality=quality)
    return Image.open(file)


def distance(one, other):
    return (look_of(one) ^ look_of(other)).bit_count()


def test_bits_say_where_a_row_of_means_gets_brighter():
    grey = np.random.default_rng(0).integers(0, 256, (8, 9), np.uint8)
    image = Image.fromarray(grey.repeat(5, axis=0).repeat(4, axis=1))
    expected = 0
    for row in grey.astype(int):
        for left, right in pairwise(row.tolist()):
            expected = 2 * expected + (right - left > 2)
    assert look_of(image) == look_of(image.convert("RGB")) == expected


@pytest.mark.parametrize("seed", range(8))
def test_another_size_or_encoding_changes_few_bits(seed):
    image = picture(seed)
    for size, quality in (((128, 96), 70), ((80, 60), 90), ((256, 192), 80)):
        assert distance(image, encoded(image, size, quality)) <= 4


def test_images_with_next_to_nothing_on_them_look_like_nothing():
    noise = np.random.default_rng(0).integers(126, 129, (60, 60, 3), np.uint8)
    dot = Image.new("RGB", (90, 80), "white")
    ImageDraw.Draw(dot).ellipse((40, 40, 44, 44), "black")
    empty = [Image.new("RGB", (9, 8), colour) for colour in ("black", "white", "red")]
    assert {look_of(image) for image in (*empty, Image.fromarray(noise), dot)} == {0}
