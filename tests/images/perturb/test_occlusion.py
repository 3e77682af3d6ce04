from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from clipsyn.images.perturb.geometry import patch_shuffle, random_erase


def erased(severity: int, seed: int, height: int = 90, width: int = 120) -> np.ndarray:
    """Where a black image is grey afterwards."""
    image = np.zeros((height, width, 3), np.uint8)
    found = random_erase(image, severity, np.random.default_rng(seed))
    assert set(np.unique(found)) == {0, 127}
    return (found == 127).all(axis=2)


@pytest.mark.parametrize(("severity", "share"), list(enumerate([0.1, 0.2, 0.3, 0.4, 0.5], 1)))
def test_a_rectangle_of_that_share_is_grey(severity, share):
    for seed in range(50):
        grey = erased(severity, seed)
        rows, columns = grey.any(axis=1), grey.any(axis=0)
        assert grey.sum() == rows.sum() * columns.sum()
        assert np.diff(np.flatnonzero(rows)).max() == np.diff(np.flatnonzero(columns)).max() == 1
        assert grey.mean() == pytest.approx(share, abs=0.01)
        aspect = (columns.sum() / 120) / (rows.sum() / 90)
        assert 0.48 < aspect < 2.1


@pytest.mark.parametrize(("severity", "tiles"), list(enumerate([2, 3, 4, 6, 8], 1)))
def test_tiles_are_permuted_and_whole(severity, tiles):
    size = 6
    y, x = np.mgrid[: tiles * size, : tiles * size]
    image = np.stack([y // size * tiles + x // size, y % size, x % size], axis=2).astype(np.uint8)
    found = patch_shuffle(image, severity, np.random.default_rng(2))
    np.testing.assert_array_equal(found[..., 1:], image[..., 1:])
    grid = found[..., 0].reshape(tiles, size, tiles, size).swapaxes(1, 2).reshape(tiles**2, -1)
    assert (grid == grid[:, :1]).all()
    assert sorted(grid[:, 0]) == list(range(tiles**2))
    assert grid[:, 0].tolist() != list(range(tiles**2))


def test_every_arrangement_of_four_is_as_likely():
    image = np.arange(4, dtype=np.uint8).reshape(2, 2)[..., None].repeat(3, axis=2)
    found = Counter(
        patch_shuffle(image, 1, np.random.default_rng(seed))[..., 0].tobytes()
        for seed in range(2400)
    )
    assert len(found) == 24
    assert max(found.values()) < 150
    assert min(found.values()) > 55


def test_what_the_division_leaves_over_stays_at_the_edges():
    image = np.random.default_rng(0).integers(0, 256, (26, 35, 3), dtype=np.uint8)
    found = patch_shuffle(image, 5, np.random.default_rng(0))  # tiles of 3 x 4
    np.testing.assert_array_equal(found[[0, -1]], image[[0, -1]])
    np.testing.assert_array_equal(found[:, [0, -1, -2]], image[:, [0, -1, -2]])
    assert (found[1:-1, 1:-2] != image[1:-1, 1:-2]).mean() > 0.8
