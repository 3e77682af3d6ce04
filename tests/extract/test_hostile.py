"""Images of strangers: each gives RGB pixels or a reason, runs nothing and stays within memory."""

import io
import shutil
import struct
import subprocess
import time
import zipfile
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from clipsyn.images.source import MOST_PIXELS, UndecodableImage, decode

NOISE = Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 30, 3), np.uint8))


def saved(kind, mode="RGB", **options):
    file = io.BytesIO()
    NOISE.convert(mode).save(file, kind, **options)
    return file.getvalue()


def chunk(kind, content):
    return (
        struct.pack(">I", len(content)) + kind + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )  # fmt: skip


def png(width, height, *chunks, colour=2, rows=9):
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(bytes(rows)))
    parts = chunk(b"IHDR", header), *chunks, data, chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def tiff(**tags):
    """One strip of zeros, 8 x 8 grey, with other tags where given."""
    known = {"w": 256, "h": 257, "bits": 258, "zip": 259, "black": 262, "at": 273, "rows": 278,
             "bytes": 279, "tw": 322, "tl": 323, "offsets": 324, "counts": 325}  # fmt: skip
    plain = {"w": 8, "h": 8, "bits": 8, "zip": 1, "black": 1, "at": 300, "rows": 8, "bytes": 64}
    values = sorted((known[name], value) for name, value in (plain | tags).items())
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in values)
    head = struct.pack("<2sHIH", b"II", 42, 8, len(values)) + entries + bytes(4)
    return head.ljust(300, b"\0") + bytes(64)


def jpeg_size(width, height):
    data = bytearray(saved("JPEG"))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def scans(count):
    """A progressive JPEG whose last scan comes again and again."""
    data = saved("JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * count + b"\xff\xd9"


def gif(width, height):
    data = bytearray(saved("GIF", "P"))
    data[6:10] = struct.pack("<HH", width, height)
    return bytes(data)


def bmp(width, height):
    data = bytearray(saved("BMP"))
    data[18:26] = struct.pack("<ii", width, height)
    return bytes(data)


def webp(width, height):
    """An animation without frames."""
    sizes = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    parts = b"VP8X\x0a\0\0\0\x02\0\0\0" + sizes + b"ANIM\x06\0\0\0" + bytes(6)
    return b"RIFF" + struct.pack("<I", len(parts) + 4) + b"WEBP" + parts


def frames(kind, count, **options):
    others = [NOISE.rotate(turn) for turn in range(1, count)]
    return saved(kind, save_all=True, append_images=others, **options)


def archive():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as members:
        members.writestr("a.png", saved("PNG"))
    return file.getvalue()


def text_bomb(kind, size):
    packed = b"a\0\0" + zlib.compress(bytes(size))
    return png(3, 1, chunk(kind, packed), rows=10)


SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
GOOD: dict[str, Callable[[], bytes]] = {
    "progressive JPEG": lambda: saved("JPEG", progressive=True),
    "JPEG of two pictures": lambda: frames("MPO", 2),
    "JPEG and an archive": lambda: saved("JPEG") + archive(),
    "GIF of 200 frames": lambda: frames("GIF", 200),
    "WebP of 20 frames": lambda: frames("WEBP", 20),
    "PNG of 20 frames": lambda: frames("PNG", 20),
    "TIFF of 20 pages": lambda: frames("TIFF", 20),
    "PNG with a text": lambda: saved("PNG", pnginfo=text("x" * 9_999)),
    "TIFF of floats": lambda: saved("TIFF", "F"),
    "TIFF of LAB": lambda: saved("TIFF", "LAB"),
    "TIFF by hand": tiff,
    "one pixel": lambda: png(1, 1, rows=4),
    "200 x 1": lambda: png(200, 1, rows=601),
}
EPS = """%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 20 20
%%EndComments
(WHERE) (w) file dup (ran) writestring closefile
0 0 moveto 20 20 lineto stroke showpage
%%EOF
"""
OTHERS = ("ICO", "TGA", "JPEG2000", "AVIF", "PDF", "EPS")
BAD: dict[str, Callable[[], bytes]] = {
    "nothing": bytes,
    "a text": lambda: b"I am no image.\n",
    "SVG": lambda: SVG,
    "EPS with a preview": lambda: (
        struct.pack("<IIIIIIIH", 0xC6D3D0C5, 32, 400, 0, 0, 0, 0, 0) + EPS.encode()
    ),
    "PSD": lambda: b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 9, 9, 8, 3) + bytes(999),
    "an archive": archive,
    "0 x 0": lambda: png(0, 0),
    "PNG of 10^10 pixels": lambda: png(100_000, 100_000),
    "PNG just too large": lambda: png(MOST_PIXELS // 8192 + 1, 8192, colour=0),
    "GIF of 65535^2": lambda: gif(65535, 65535),
    "BMP of 30000^2": lambda: bmp(30_000, 30_000),
    "BMP of -2^31": lambda: bmp(30, -(2**31)),
    "JPEG of 65500^2": lambda: jpeg_size(65_500, 65_500),
    "WebP of 16384^2": lambda: webp(16_384, 16_384),
    "PPM of 10^18": lambda: b"P6 1000000000 1000000000 255\n" + bytes(9),
    "PPM of many digits": lambda: b"P6 " + b"9" * 5000 + b" 1 255\n" + bytes(9),
    "TIFF of 2^64": lambda: tiff(w=2**32 - 1, h=2**32 - 1),
    "TIFF with large tiles": lambda: tiff(zip=5, tw=65_520, tl=65_520, offsets=300, counts=64),
    "TIFF with bits": lambda: tiff(bits=2**31),
    "TIFF without end": lambda: tiff()[:-60],
    "1 x 100000": lambda: png(1, 100_000, rows=400_000),
    "201 x 1": lambda: png(201, 1, rows=604),
    "JPEG of 1000 scans": lambda: scans(1000),
    "PNG whose text is a bomb": lambda: text_bomb(b"zTXt", 80_000_000),
    "PNG whose checksum is wrong": lambda: saved("PNG").replace(b"IDAT", b"IDAT\0", 1),
    **{
        f"half a {kind}": lambda kind=kind: (data := saved(kind))[: len(data) // 2]
        for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
    },
    **{f"{kind}, whatever its name": lambda kind=kind: saved(kind) for kind in OTHERS},
}


def text(value):
    told = PngImagePlugin.PngInfo()
    told.add_text("what", value, zip=True)
    return told


@pytest.mark.parametrize("name", GOOD)
def test_unusual_images_are_read(name):
    image = decode(GOOD[name]())
    assert image.mode == "RGB"
    assert np.asarray(image).shape == (image.height, image.width, 3)


@pytest.mark.filterwarnings("ignore::UserWarning")  # PIL warns of damaged metadata
@pytest.mark.parametrize("name", BAD)
def test_what_is_no_image_or_asks_for_too_much_has_a_reason(name, limited_memory, monkeypatch):
    def run(*_, **__):
        raise AssertionError("a program was run")

    data, started = BAD[name](), time.monotonic()
    monkeypatch.setattr(subprocess, "Popen", run)
    with limited_memory(1000), pytest.raises(UndecodableImage):
        decode(data)
    assert time.monotonic() - started < 10


@pytest.mark.skipif(shutil.which("gs") is None, reason="Ghostscript is not installed")
def test_the_program_of_a_postscript_file_is_not_run(tmp_path):
    data = EPS.replace("WHERE", str(tmp_path / "ran")).encode()
    with pytest.raises(UndecodableImage):
        decode(data)
    assert not (tmp_path / "ran").exists()


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")  # of more than 89 MP
def test_a_large_photograph_is_read(limited_memory):
    file = io.BytesIO()
    Image.new("RGB", (12_000, 8_400), "red").save(file, "JPEG")
    with limited_memory(700):
        assert decode(file.getvalue()).getpixel((9_999, 5)) == (254, 0, 0)
