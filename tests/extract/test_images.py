"""`clipsyn.extract.images`: batches in order, decoded once; blanks for what cannot be decoded."""

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clipsyn.extract.images import batches
from clipsyn.images.perturb import apply, resolve


def halved(image):
    return np.asarray(image.resize((4, 4)))


def whole(image):
    return np.asarray(image.resize((16, 16)))


def block(source, start, stop, *perturbations):
    kinds = {"half": halved, "whole": whole}
    asked = [resolve(text) for text in perturbations or ("clean",)]
    views = {(one, name): kind for one in asked for name, kind in kinds.items()}
    return (start, stop), source, range(start, stop), views


def collected(blocks, size, workers=3):
    with ThreadPoolExecutor(workers) as pool:
        return list(batches(blocks, size, pool))


@pytest.mark.parametrize(("size", "workers"), [(1, 4), (7, 1), (64, 4)])
def test_batches_are_the_rows_in_order_each_decoded_once(fakes, size, workers):
    source, plain = fakes.Source(count=50), fakes.Source(count=50)
    several = "clean", "gaussian_noise:2", "jpeg:3", "jpeg:3:canvas=8"
    found = collected([block(source, 0, 20), block(source, 30, 41, *several)], size, workers)
    rows = [row for _, batch in found for row in batch.rows]
    assert rows == [*range(20), *range(30, 41)]
    assert Counter(source.decoded) == Counter(rows)
    for part, batch in found:
        assert len(batch.rows) <= size
        assert set(batch.rows) <= set(range(*part))  # never across two blocks
        assert len(batch.pixels) == (2 if part == (0, 20) else 8)
        for (perturbation, name), pixels in batch.pixels.items():
            for row, got in zip(batch.rows, pixels, strict=True):
                image = apply(perturbation, np.asarray(plain.image(row)), source.ids[row])
                resized = {"half": halved, "whole": whole}[name](Image.fromarray(image))
                assert np.array_equal(got, resized)
        assert not any(batch.errors.values())


def test_decoding_runs_a_few_batches_ahead_and_no_further(fakes):
    source = fakes.Source(count=100)
    decoded, lock, image = [], threading.Lock(), source.image

    def counting(row):
        with lock:
            decoded.append(row)
        return image(row)

    source.image = counting
    with ThreadPoolExecutor(2) as pool:
        stream: Iterator[Any] = batches([block(source, 0, 100)], 5, pool)
        for number in range(1, 8):
            next(stream)
            pool.submit(lambda: None).result()
            assert 5 * number <= len(decoded) <= 5 * (number + 4)
        stream.close()


def test_any_other_failure_is_not_taken_for_a_bad_image(fakes):
    source = fakes.Source()

    def broken(row):
        raise ZeroDivisionError

    source.image = broken
    with pytest.raises(ZeroDivisionError):
        collected([block(source, 0, 3)], 2)
