"""`clipsyn.extract.images`: decoded once, in bounded memory."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clipsyn.extract import images as module
from clipsyn.extract.images import ReducedImages
from clipsyn.images.decode import UndecodableImage
from clipsyn.images.perturb import reduce_to_canvas

ROWS = range(20)


def test_what_is_kept_is_decoded_once(fakes: Any) -> None:
    source = fakes.Source()
    images = ReducedImages(source, ROWS, 8, keep=True)
    expected = [reduce_to_canvas(np.asarray(fakes.Source().image(row)), 8) for row in ROWS]
    for _ in range(3):
        for row in ROWS:
            assert np.array_equal(images.image(row), expected[row])
    assert source.decoded == [*ROWS]


def test_else_it_is_decoded_each_time(fakes: Any) -> None:
    source = fakes.Source()
    images = ReducedImages(source, ROWS, 8, keep=False)
    for _ in range(3):
        images.image(3)
    assert source.decoded == [3, 3, 3]


def test_room_is_limited(fakes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_KEPT_BYTES", 2 * 16 * 20 * 3 + 1)
    source = fakes.Source()
    images = ReducedImages(source, ROWS, 224, keep=True)
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
    images = ReducedImages(source, ROWS, 8, keep=True)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(images.image, [r for r in ROWS for _ in "abcd"]))
    assert sorted(source.decoded) == [*ROWS]


def test_a_bad_image_is_bad_each_time(fakes: Any) -> None:
    images = ReducedImages(fakes.Source(bad={2: "torn"}), ROWS, 8, keep=True)
    for _ in range(2):
        with pytest.raises(UndecodableImage, match="torn"):
            images.image(2)


def test_it_serves_the_same_rows_on_the_same_canvas_only(fakes: Any) -> None:
    source = fakes.Source()
    images = ReducedImages(source, ROWS, 8, keep=True)
    assert images.serves(source, range(20), 8)
    assert not images.serves(source, range(19), 8)
    assert not images.serves(source, range(20), 9)
    assert not images.serves(fakes.Source(), range(20), 8)
