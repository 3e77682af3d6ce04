"""Near copies against a comparison of all hashes with all."""

from __future__ import annotations

import numpy as np
import pytest

from clipsyn.store import overlap
from clipsyn.store.overlap import allowed_bits, near, near_pairs


def hashes(n: int, seed: int) -> np.ndarray:
    """Random ones; some equal each other, some are a few bits off, some are not known."""
    rng = np.random.default_rng(seed)
    values = rng.integers(1, 1 << 64, n, np.uint64)
    for row in range(0, n, 3):
        bits = rng.choice(64, rng.integers(0, 8), replace=False)
        values[row] = values[rng.integers(n)] ^ np.bitwise_or.reduce(
            np.uint64(1) << bits.astype(np.uint64), initial=np.uint64(0)
        )
    values[::7] = 0
    return values


def alike(one: int, other: int) -> bool:
    return bool(one and other) and (one ^ other).bit_count() <= 4


@pytest.mark.parametrize("at_once", [1, 50, 1 << 21])
@pytest.mark.parametrize("sizes", [(90, 60), (60, 90), (1, 40), (40, 1), (0, 5), (5, 0)])
def test_as_comparing_all_with_all(
    sizes: tuple[int, int], at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overlap, "_PAIRS", at_once)
    every = hashes(150, seed=1)
    one, other = every[: sizes[0]], every[len(every) - sizes[1] :]
    found = {row for part in near_pairs(one, other) for row in zip(*map(list, part), strict=True)}
    expected = {
        (i, j, (a ^ b).bit_count())
        for i, a in enumerate(one.tolist())
        for j, b in enumerate(other.tolist())
        if alike(a, b)
    }
    assert found == expected
    assert sizes != (90, 60) or len(expected) > 5
    rows = {i for i, *_ in expected}
    none = np.full(150, -1, np.int32)
    found = near(one, none[: len(one)], other, none[: len(other)])
    assert found.tolist() == [i in rows for i in range(len(one))]


@pytest.mark.parametrize(("strangers", "bits"), [(1, 4), (2, 4), (3, 1), (400, 1)])
def test_what_images_of_other_classes_look_like_is_no_copy(strangers: int, bits: int) -> None:
    """Of 400 images two may look like one of another class; unlabelled ones say nothing."""
    looks = np.random.default_rng(0).integers(1, 1 << 64, 400, np.uint64)
    labels, theirs = np.zeros(400, np.int32), np.zeros(400, np.int32)
    theirs[:strangers] = 1
    assert allowed_bits(looks, labels, looks ^ np.uint64(3), theirs) == bits
    found = near(looks, labels, looks ^ np.uint64(3), theirs)
    assert found.all() == (bits == 4)
    assert allowed_bits(looks, labels, looks ^ np.uint64(3), -theirs) == 4
