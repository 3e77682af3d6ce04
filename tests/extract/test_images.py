"""`clipsyn.extract.images`: batches in order, decoded once; blanks for what cannot be decoded."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clipsyn.extract import images as module
from clipsyn.extract.images import Batch, Images, ReducedImages, batches
from clipsyn.images.perturb import apply, reduce_to_canvas, resolve
from clipsyn.names import Perturbation


def halved(image: Image.Image) -> np.ndarray:
    return np.asarray(image.resize((4, 4)))


def whole(image: Image.Image) -> np.ndarray:
    return np.asarray(image.resize((16, 16)))


def images(source: Any, start: int, stop: int, perturbation: str = "clean") -> Images:
    kinds = {"half": halved, "whole": whole}
    return Images(source, resolve(perturbation), kinds, range(start, stop))


def collected(work: list[Images], size: int, workers: int = 3) -> list[tuple[Images, Batch]]:
    with ThreadPoolExecutor(workers) as pool:
        return list(batches(work, size, pool))


@pytest.mark.parametrize(("size", "workers"), [(1, 4), (7, 1), (64, 4)])
def test_batches_are_the_rows_in_order(fakes: Any, size: int, workers: int) -> None:
    source = fakes.Source(count=50)
    first, second = images(source, 0, 20), images(source, 30, 41, "gaussian_noise:2")
    found = collected([first, second], size, workers)
    rows = [row for _, batch in found for row in batch.rows]
    assert rows == [*range(20), *range(30, 41)]
    for part, batch in found:
        assert len(batch.rows) <= size
        assert set(batch.rows) <= set(part.rows)  # never across two items
        for place, row in enumerate(batch.rows):
            pixels = apply(part.perturbation, np.asarray(source.image(row)), source.ids[row])
            assert np.array_equal(batch.pixels["half"][place], halved(Image.fromarray(pixels)))
            assert np.array_equal(batch.pixels["whole"][place], whole(Image.fromarray(pixels)))
        assert batch.valid["half"].all()
        assert batch.errors == {"half": {}, "whole": {}}


def test_decoding_runs_a_few_batches_ahead_and_no_further(fakes: Any) -> None:
    source = fakes.Source(count=100)
    decoded, lock, image = [], threading.Lock(), source.image

    def counting(row: int) -> Image.Image:
        with lock:
            decoded.append(row)
        return image(row)

    source.image = counting
    with ThreadPoolExecutor(2) as pool:
        stream: Iterator[Any] = batches([images(source, 0, 100)], 5, pool)
        for number in range(1, 8):
            next(stream)
            pool.submit(lambda: None).result()
            assert 5 * number <= len(decoded) <= 5 * (number + 4)
        stream.close()


def test_any_other_failure_is_not_taken_for_a_bad_image(fakes: Any) -> None:
    source = fakes.Source()

    def broken(row: int) -> Image.Image:
        raise ZeroDivisionError

    source.image = broken
    with pytest.raises(ZeroDivisionError):
        collected([images(source, 0, 3)], 2)


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


def test_the_same_rows_on_the_same_canvas_are_shared(fakes: Any) -> None:
    source = fakes.Source()

    def images(source: Any, rows: range, canvas: int) -> Images:
        return Images(source, Perturbation("jpeg", 1, canvas=canvas), {}, rows)

    first = images(source, ROWS, 8)
    assert first.are_shared(images(source, range(20), 8))
    assert not first.are_shared(images(source, range(19), 8))
    assert not first.are_shared(images(source, range(20), 9))
    assert not first.are_shared(images(fakes.Source(), range(20), 8))
