"""`clipsyn.extract.images`: decoded once, in bounded memory."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clipsyn.extract import images as module
from clipsyn.extract.images import Images, ReducedImages
from clipsyn.images.decode import UndecodableImage
from clipsyn.images.perturb import reduce_to_canvas
from clipsyn.names import Perturbation

ROWS = range(20)


def reduced(source: Any, canvas: int, keep: bool = True) -> ReducedImages:
    perturbation = Perturbation("jpeg", 1, canvas=canvas)
    return ReducedImages(Images(source, perturbation, {}, ROWS), keep)


def test_what_is_kept_is_decoded_once(fakes: Any) -> None:
    source = fakes.Source()
    images = reduced(source, 8)
    expected = [reduce_to_canvas(np.asarray(fakes.Source().image(row)), 8) for row in ROWS]
    for _ in range(3):
        for row in ROWS:
            assert np.array_equal(images.image(row), expected[row])
    assert source.decoded == [*ROWS]


def test_else_it_is_decoded_each_time(fakes: Any) -> None:
    source = fakes.Source()
    images = reduced(source, 8, keep=False)
    for _ in range(3):
        images.image(3)
    assert source.decoded == [3, 3, 3]


def test_room_is_limited(fakes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_KEPT_BYTES", 2 * 16 * 20 * 3 + 1)
    source = fakes.Source()
    images = reduced(source, 224)
    for row in (0, 1, 2, 0, 1, 2):
        images.image(row)
    assert source.decoded == [0, 1, 2, 2]


def test_who_asks_for_a_row_that_is_being_decoded_waits(fakes: Any) -> None:
    source = fakes.Source()
    image = source.image

    def slowly(row: int) -> Image.Image:
        time.sleep(0.002)
        return image(row)

    source.image = slowly
    images = reduced(source, 8)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(images.image, [r for r in ROWS for _ in "abcd"]))
    assert sorted(source.decoded) == [*ROWS]


def test_a_bad_image_is_bad_each_time(fakes: Any) -> None:
    images = reduced(fakes.Source(bad={2: "torn"}), 8)
    for _ in range(2):
        with pytest.raises(UndecodableImage, match="torn"):
            images.image(2)


def test_the_same_rows_on_the_same_canvas_are_shared(fakes: Any) -> None:
    source = fakes.Source()

    def images(source: Any, rows: range, canvas: int) -> Images:
        return Images(source, Perturbation("jpeg", 1, canvas=canvas), {}, rows)

    first = images(source, ROWS, 8)
    assert first.are_shared(images(source, range(20), 8))
    assert not first.are_shared(images(source, range(19), 8))
    assert not first.are_shared(images(source, range(20), 9))
    assert not first.are_shared(images(fakes.Source(), range(20), 8))
