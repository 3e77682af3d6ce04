"""Bad input and damaged stores, through the command line: one clear sentence, nothing lost."""

from __future__ import annotations

import io
import json
import logging
import signal
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from clipsyn.cli import main
from clipsyn.store import arrays
from clipsyn.store.features import FeatureStore


@pytest.fixture
def clipsyn() -> Iterator[Callable[..., Any]]:
    """Function (*arguments) -> result of that command, which must be no traceback."""
    before, logger = signal.getsignal(signal.SIGTERM), logging.getLogger("clipsyn")

    def run(*arguments: str | Path) -> Any:
        logger.handlers.clear()  # they hold the standard error of the command before
        result = CliRunner().invoke(main, list(map(str, arguments)))
        assert result.exception is None or isinstance(result.exception, SystemExit), result
        return result

    yield run
    logger.handlers.clear()
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def tiny(saved: Any) -> str:
    return f"tiny={saved('clipsyn-vit').by_folder}"


def refusal(result: Any) -> str:
    """The one sentence of a command that failed."""
    assert result.exit_code not in (0, 1), result.stderr
    line = result.stderr.strip().splitlines()[-1]
    assert line.startswith("Error: ")
    assert "Traceback" not in result.stderr
    return line


# Images


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


PIXELS = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 48, 3), np.uint8))


def bomb() -> bytes:
    """A PNG of a few bytes that says it has 10^10 pixels."""

    def part(kind: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    parts = part(b"IHDR", header) + part(b"IDAT", zlib.compress(bytes(99))) + part(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


UNUSUAL: dict[str, bytes] = {
    "cmyk.jpg": encoded(PIXELS.convert("CMYK"), "JPEG"),
    "grey16.png": encoded(Image.fromarray(np.arange(1600, dtype=np.uint16).reshape(40, 40)), "PNG"),
    "palette.png": encoded(PIXELS.convert("P"), "PNG", transparency=3),
    "alpha.png": encoded(PIXELS.convert("RGBA"), "PNG"),
    "animated.gif": encoded(PIXELS, "GIF", save_all=True, append_images=[PIXELS.rotate(90)]),
    "one-pixel.png": encoded(PIXELS.crop((0, 0, 1, 1)), "PNG"),
    "grey.jpg": encoded(PIXELS.convert("L"), "JPEG"),
    "bits.png": encoded(PIXELS.convert("1"), "PNG"),
}
BAD: dict[str, tuple[bytes, str]] = {
    "cut.jpg": (encoded(PIXELS, "JPEG")[:700], "damaged"),
    "empty.png": (b"", "empty file"),
    "text.png": (b"I am no image.\n", "not an image"),
    "bomb.png": (bomb(), "decompression bomb"),
}


def test_bad_images_are_named_and_unusual_ones_are_read(tmp_path, clipsyn, tiny, write_images):
    images = write_images(count=1)
    for name, content in UNUSUAL.items():
        (images / "cat" / name).write_bytes(content)
    for name, (content, _) in BAD.items():
        (images / "dog" / name).write_bytes(content)
    (images / "dog" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    line = ["extract", tmp_path / "store", "-b", tiny, "-d", f"pets={images}", "-p", "clean,jpeg:2"]
    sentence = refusal(clipsyn(*line))
    assert "5 of 15 images of pets/test cannot be decoded" in sentence
    assert "dog/bomb.png: " in sentence
    assert "--max-bad 0.334" in sentence
    assert FeatureStore.open(tmp_path / "store").keys() == []
    result = clipsyn(*line, "--max-bad", "0.334")
    assert result.exit_code == 0, result.stderr
    store = FeatureStore.open(tmp_path / "store")
    keys = store.keys()
    assert [key.perturbation for key in keys] == ["clean", "jpeg-2"]
    for key in keys:
        attributes = arrays.read_attributes(store.features_path(key))
        assert set(attributes["errors"]) == {f"dog/{name}" for name in [*BAD, "gone.png"]}
        for name, (_, words) in BAD.items():
            assert words in attributes["errors"][f"dog/{name}"]
        assert "cannot be read" in attributes["errors"]["dog/gone.png"]
        bad = {
            row
            for row, name in enumerate(store.samples("pets", "test").ids)
            if name in attributes["errors"]
        }
        assert set(np.flatnonzero(~store.valid(key))) == bad
        assert np.isfinite(store.embeddings(key)[store.valid(key)]).all()
    table = clipsyn("zeroshot", tmp_path / "store", "-o", "-")
    assert table.exit_code == 0, table.stderr
    scored = {row["n"] for row in json.loads(table.stdout) if row["ensemble"] != "chance"}
    assert scored == {10}  # of 15, five are bad


# Stores


@pytest.fixture
def filled(tmp_path, clipsyn, tiny, write_images):
    """A store with one cell, and the command that made it."""
    store = tmp_path / "store"
    line = ["extract", str(store), "-b", tiny, "-d", f"pets={write_images(count=3)}"]
    assert clipsyn(*line).exit_code == 0
    return store, line


LOGITS, LABELS = "logits/pets/test/clean/tiny/simple", "samples/pets/test/label/c.0"


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-3])


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 4
    file.write_bytes(data)


@pytest.mark.parametrize(
    ("spoil", "file"),
    [(cut, f"{LOGITS}/prediction/c.0"), (flip, LABELS), (Path.unlink, LABELS)],
    ids=["cut", "flip", "unlink"],
)
def test_a_damaged_chunk_stops_the_evaluation_and_names_it(filled, clipsyn, spoil, file):
    store, line = filled
    spoil(store / file)
    assert file in refusal(clipsyn("zeroshot", store))
    result = clipsyn("verify", store)
    assert result.exit_code == 4
    assert "block 0 (rows 0-5)" in result.stdout
    assert clipsyn("rm", store, "-d", "pets", "-y").exit_code == 0
    assert clipsyn(*line).exit_code == 0
    assert clipsyn("verify", store).exit_code == 0
