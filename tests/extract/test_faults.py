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
import torch
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


def test_bad_images_are_named_and_unusual_ones_are_read(
    tmp_path: Path, clipsyn: Callable[..., Any], tiny: str, write_images: Callable[..., Path]
) -> None:
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


# Datasets


def test_missing_and_empty_folders(tmp_path: Path, clipsyn: Callable[..., Any], tiny: str) -> None:
    (tmp_path / "empty").mkdir()
    for place, words in (("absent", "absent"), ("empty", "no image")):
        result = clipsyn("extract", tmp_path / "store", "-b", tiny, "-d", tmp_path / place)
        assert words in refusal(result)
    assert not (tmp_path / "store").exists()


def test_class_names_that_do_not_count_like_the_folders(
    tmp_path: Path, clipsyn: Callable[..., Any], tiny: str, write_images: Callable[..., Path]
) -> None:
    images = write_images(count=1)
    (images / "classnames.txt").write_text("cat\ndog\nhorse\n")
    result = clipsyn("extract", tmp_path / "store", "-b", tiny, "-d", f"pets={images}")
    assert "classnames.txt" in refusal(result)


def test_labels_beyond_the_classes(
    tmp_path: Path, clipsyn: Callable[..., Any], tiny: str, write_images: Callable[..., Path]
) -> None:
    images = write_images(count=2)
    (images / "list.csv").write_text("path,label\ncat/0.png,0\ncat/1.png,1\ndog/0.png,7\n")
    (images / "list.classnames.txt").write_text("cat\ndog\n")
    result = clipsyn("extract", tmp_path / "store", "-b", tiny, "-d", f"p={images / 'list.csv'}")
    assert "label 7" in refusal(result)


# Checkpoints


class Harmful:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return Path.touch, (self.trace,)


@pytest.mark.parametrize("fault", ["other architecture", "pickle that runs code", "NaN", "no file"])
def test_checkpoints_that_cannot_be_used(
    tmp_path: Path,
    clipsyn: Callable[..., Any],
    saved: Any,
    write_images: Callable[..., Path],
    fault: str,
) -> None:
    model, file, trace = saved("clipsyn-vit"), tmp_path / "weights.pt", tmp_path / "ran"
    state = {name: tensor.clone() for name, tensor in model.model.state_dict().items()}
    if fault == "other architecture":
        state = saved("clipsyn-vit-wide").model.state_dict()
    if fault == "NaN":
        state["visual.proj"][0, 0] = float("nan")
    content = {"state_dict": state, "x": Harmful(trace)} if "code" in fault else state
    if fault != "no file":
        torch.save(content, file)
    images = write_images(count=1)
    backbone = f"bad=clipsyn-vit@{file}"
    result = clipsyn("extract", tmp_path / "store", "-b", backbone, "-d", f"pets={images}")
    refusal(result)
    assert result.exit_code in (2, 3)
    assert not trace.exists()
    assert not (tmp_path / "store").exists()


# Stores


@pytest.fixture
def filled(
    tmp_path: Path, clipsyn: Callable[..., Any], tiny: str, write_images: Callable[..., Path]
) -> tuple[Path, list[str]]:
    """A store with one cell, and the command that made it."""
    store = tmp_path / "store"
    line = ["extract", str(store), "-b", tiny, "-d", f"pets={write_images(count=3)}"]
    assert clipsyn(*line).exit_code == 0
    return store, line


CELL = "features/pets/test/clean/tiny"
LOGITS = "logits/pets/test/clean/tiny/simple"


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-3])


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 4
    file.write_bytes(data)


@pytest.mark.parametrize("spoil", [cut, flip, Path.unlink])
@pytest.mark.parametrize("file", [f"{LOGITS}/prediction/c.0", "samples/pets/test/label/c.0"])
def test_a_damaged_chunk_stops_the_evaluation_and_names_it(
    filled: tuple[Path, list[str]],
    clipsyn: Callable[..., Any],
    spoil: Callable[[Path], None],
    file: str,
) -> None:
    store, line = filled
    spoil(store / file)
    assert file in refusal(clipsyn("zeroshot", store))
    result = clipsyn("verify", store)
    assert result.exit_code == 4
    assert "block 0 (rows 0-5)" in result.stdout
    assert clipsyn("rm", store, "-d", "pets", "-y").exit_code == 0
    assert clipsyn(*line).exit_code == 0
    assert clipsyn("verify", store).exit_code == 0


@pytest.mark.parametrize("command", ["zeroshot", "ls", "info", "verify", "ls --status"])
def test_damaged_metadata_is_no_traceback(
    filled: tuple[Path, list[str]], clipsyn: Callable[..., Any], command: str
) -> None:
    store, _ = filled
    for file in (f"{CELL}/zarr.json", "samples/pets/test/zarr.json", f"{LOGITS}/zarr.json"):
        sound = (store / file).read_bytes()
        for content in (b"", b"{}", b"[]", sound[:-9]):
            (store / file).write_bytes(content)
            result = clipsyn(*command.split(), store)
            assert result.exit_code in (0, 4), (file, content[:9])
        (store / file).write_bytes(sound)


@pytest.mark.parametrize(
    "command", ["extract", "zeroshot", "ls", "info", "ls --status", "verify", "rm"]
)
def test_a_newer_store_and_no_store(
    filled: tuple[Path, list[str]], tmp_path: Path, clipsyn: Callable[..., Any], command: str
) -> None:
    store, line = filled
    marker = json.loads((store / "clipsyn.json").read_text()) | {"format": "9.0"}
    (store / "clipsyn.json").write_text(json.dumps(marker))
    arguments = line if command == "extract" else [*command.split(), str(store)]
    assert "has format 9.0" in refusal(clipsyn(*arguments))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    mine = str(tmp_path / "mine")
    arguments = [mine if word == str(store) else word for word in arguments]
    assert "feature store" in refusal(clipsyn(*arguments))


# What has changed


def test_a_changed_image_prompt_class_or_weight_is_named_and_never_used(
    filled: tuple[Path, list[str]], tmp_path: Path, clipsyn: Callable[..., Any], saved: Any
) -> None:
    store, line = filled
    images = tmp_path / "photos"
    other = f"tiny={saved('clipsyn-vit-quickgelu').by_folder}"
    assert "backbone." in refusal(clipsyn(*line[:3], other, *line[4:]))
    prompts = tmp_path / "simple.json"
    prompts.write_text('["a sketch of a {c}."]')
    assert "prompts.templates" in refusal(clipsyn(*line, "--prompts", prompts))
    (images / "classnames.txt").write_text("cat\nhound\n")
    assert "class_names" in refusal(clipsyn(*line))
    (images / "classnames.txt").unlink()
    sound = (images / "dog" / "1.png").read_bytes()
    PIXELS.save(images / "dog" / "1.png")
    assert "1 changed (dog/1.png)" in refusal(clipsyn(*line))
    assert clipsyn(*line, "--replace").exit_code == 0
    (images / "dog" / "1.png").write_bytes(sound)
    assert "1 changed" in refusal(clipsyn(*line))
    assert clipsyn("verify", store).exit_code == 0
