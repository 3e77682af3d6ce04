import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from clipsyn.images.perturb.optics import MUD, PANES, WATER, fog, frost, ice, plasma, snow, spatter

# as published with ImageNet-C
SNOW = [
    (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
    (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
    (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
    (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
    (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
]
FOG = [(1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)]
FROST = [(1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)]
SPATTER = [(0.65, 0.3, 4, 0.69), (0.65, 0.3, 3, 0.68), (0.65, 0.3, 2, 0.68)]
SPATTERED_MUD = {4: (0.65, 0.3, 1, 0.65, 1.5), 5: (0.67, 0.4, 1, 0.65, 1.5)}

LEVEL = range(1, 6)


def image(height=70, width=90, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def flat(level, height=70, width=90):
    return np.full((height, width, 3), level, np.uint8)


@pytest.mark.parametrize("severity", LEVEL)
def test_snow_whitens_and_falls_twice(severity):
    kept = SNOW[severity - 1][-1]
    found = snow(flat(0), severity, np.random.default_rng(1)).astype(int)
    white = (1 - kept) * 127.5
    assert found.min() == pytest.approx(white, abs=0.51)  # where no flake falls
    assert (found == found.min()).mean() < 0.9
    np.testing.assert_array_equal(found, found[::-1, ::-1])  # the second layer is the first, turned
    assert (np.ptp(found, axis=2) == 0).all()


def published_plasma(size, decay, draws):
    """Diamonds and squares, point by point, with draws in the order of the grid."""
    heights = np.zeros((size, size))
    step, wobble = size, 100.0

    def wobbled(n):
        return wobble * wobble * (2 * draws.random((n, n), np.float32).astype(float) - 1)

    while step >= 2:
        half, n = step // 2, size // step
        grid = [(i * step, j * step) for i in range(n) for j in range(n)]
        at = lambda y, x: heights[y % size, x % size]  # noqa: E731
        for (y, x), wobbling in zip(grid, wobbled(n).ravel(), strict=True):
            corners = at(y, x) + at(y + step, x) + at(y, x + step) + at(y + step, x + step)
            heights[y + half, x + half] = corners / 4 + wobbling
        for (y, x), wobbling in zip(grid, wobbled(n).ravel(), strict=True):
            beside = at(y, x) + at(y, x + step) + at(y + half, x + half) + at(y - half, x + half)
            heights[y, x + half] = beside / 4 + wobbling
        for (y, x), wobbling in zip(grid, wobbled(n).ravel(), strict=True):
            below = at(y, x) + at(y + step, x) + at(y + half, x + half) + at(y + half, x - half)
            heights[y + half, x] = below / 4 + wobbling
        step, wobble = half, wobble / decay
    heights -= heights.min()
    return heights / heights.max()


@pytest.mark.parametrize("decay", [1.4, 2, 3])
@pytest.mark.parametrize(("size", "side"), [(32, 32), (20, 32), (2, 2), (1, 2)])
def test_plasma_is_diamonds_and_squares(decay, size, side):
    expected = published_plasma(side, decay, np.random.default_rng(7))
    found = plasma(size, decay, np.random.default_rng(7))
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("severity", LEVEL)
@pytest.mark.parametrize("size", [(60, 41), (16, 16)])
def test_fog_adds_a_cloud_and_scales_back(severity, size):
    amount, decay = FOG[severity - 1]
    before = image(*size) // 2 / 255
    cloud = plasma(max(size), decay, np.random.default_rng(3))[: size[0], : size[1], None]
    expected = (before + amount * cloud) * before.max() / (before.max() + amount)
    found = fog(image(*size) // 2, severity, np.random.default_rng(3))
    assert np.abs(found - 255 * expected).max() < 0.51


def test_fog_over_a_black_image_is_black():
    assert not fog(flat(0), 5, np.random.default_rng(0)).any()


@pytest.mark.parametrize("severity", LEVEL)
def test_frost_is_a_weighted_sum_with_ice(severity):
    kept, weight = FROST[severity - 1]
    before = image()
    expected = kept * before + weight * ice((70, 90), np.random.default_rng(5))
    found = frost(before, severity, np.random.default_rng(5))
    assert np.abs(found - np.clip(expected, 0, 255)).max() < 0.51


def test_ice_has_the_colour_and_contrast_of_a_pane():
    seen = set()
    for seed in range(20):
        sheet = ice((224, 224), np.random.default_rng(seed))
        colour = sheet.mean(axis=(0, 1))
        off = [np.abs(colour - pane).max() for pane, _ in PANES]
        nearest = int(np.argmin(off))
        assert off[nearest] < 0.01
        assert sheet[..., 0].std() == pytest.approx(PANES[nearest][1], rel=1e-3)
        seen.add(PANES[nearest])
    assert len(seen) == len(set(PANES))


@pytest.mark.parametrize("severity", [1, 2, 3])
def test_spatter_of_low_severity_has_the_colour_of_water(severity):
    mean, sigma, smooth, threshold = SPATTER[severity - 1]
    before = flat(0, 120, 100)
    found = spatter(before, severity, np.random.default_rng(2))
    noise = np.random.default_rng(2).normal(mean, sigma, (120, 100))
    wet = gaussian_filter(noise, smooth, mode="nearest") >= threshold
    assert 0.02 < wet.mean() < 0.5
    assert not found[~wet].any()
    assert (found[wet] > 0).any()
    shine = found / np.array(WATER)
    assert np.ptp(shine, axis=2).max() < 0.0051  # rounding
    strength = (0.6, 0.6, 0.5)[severity - 1]
    assert shine.max() == pytest.approx(strength, abs=0.004)


@pytest.mark.parametrize("severity", [4, 5])
def test_spatter_of_high_severity_is_mud_by_the_published_formula(severity):
    mean, sigma, smooth, threshold, spread = SPATTERED_MUD[severity]
    before = image(80, 100)
    noise = np.random.default_rng(2).normal(mean, sigma, (80, 100))
    liquid = gaussian_filter(noise, smooth, mode="nearest")
    cover = gaussian_filter((liquid > threshold) * 1.0, spread, mode="nearest")
    cover[cover < 0.8] = 0
    expected = before * (1 - cover[..., None]) + cover[..., None] * np.array(MUD)
    found = spatter(before, severity, np.random.default_rng(2))
    off = np.abs(found - expected).max(axis=2)
    assert (off > 0.51).mean() < 0.002  # a value at the threshold may round to either side
    assert 0.05 < (cover > 0).mean() < 0.6
