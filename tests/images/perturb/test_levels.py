"""Noise, JPEG, coarse pixels and colours."""

import colorsys
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageOps
from scipy.stats import binom, chisquare, poisson

from clipsyn.images.perturb import levels

# as published with ImageNet-C
SIGMA = [0.08, 0.12, 0.18, 0.26, 0.38]
PHOTONS = [60, 25, 12, 5, 3]
SHARE = [0.03, 0.06, 0.09, 0.17, 0.27]
SPECKLE = [0.15, 0.2, 0.35, 0.45, 0.6]

LEVEL = range(1, 6)


def image_and_draws(seed):
    """Random bytes, and the normal draws of a generator with that seed."""
    image = np.random.default_rng(99).integers(0, 256, (31, 45, 3), dtype=np.uint8)
    return image, np.random.default_rng(seed).standard_normal(image.shape, np.float32)


@pytest.mark.parametrize("severity", LEVEL)
def test_gaussian_and_speckle_noise_are_the_published_formulas_rounded(severity):
    image, draws = image_and_draws(severity)
    for noisy, added in (
        (levels.gaussian_noise, SIGMA[severity - 1] * draws),
        (levels.speckle_noise, image / 255 * SPECKLE[severity - 1] * draws),
    ):
        expected = np.clip(image / 255 + added, 0, 1) * 255
        found = noisy(image, severity, np.random.default_rng(severity))
        assert np.abs(found - expected).max() < 0.5001


@pytest.mark.parametrize("severity", LEVEL)
@pytest.mark.parametrize("value", [1, 60, 127, 254, 255])
def test_shot_noise_has_poisson_s_frequencies(severity, value):
    photons = PHOTONS[severity - 1]
    flat = np.full((200, 200, 3), value, np.uint8)
    found = levels.shot_noise(flat, severity, np.random.default_rng(value))
    counts = np.arange(photons + 1)
    observed = np.array([(found == round(255 * k / photons)).sum() for k in counts])
    assert observed.sum() == flat.size  # no other level occurs
    chances = poisson.pmf(counts, value / 255 * photons)
    chances[-1] = poisson.sf(photons - 1, value / 255 * photons)  # clipped
    often = chances * flat.size > 5
    observed = np.append(observed[often], observed[~often].sum())
    expected = np.append(chances[often], chances[~often].sum()) * flat.size
    if expected[-1] < 5:
        assert observed[-1] < 20
        observed, expected = observed[:-1], expected[:-1] * observed[:-1].sum() / flat.size
        expected *= observed.sum() / expected.sum()
    assert len(observed) == 1 or chisquare(observed, expected).pvalue > 1e-4


@pytest.mark.parametrize("severity", LEVEL)
def test_impulse_noise_is_as_much_salt_as_pepper(severity):
    grey = np.full((300, 300, 3), 127, np.uint8)
    found = levels.impulse_noise(grey, severity, np.random.default_rng(severity))
    assert set(np.unique(found)) == {0, 127, 255}
    spread = binom(grey.size, SHARE[severity - 1] / 2).interval(1 - 1e-6)
    for level in (0, 255):
        assert spread[0] <= (found == level).sum() <= spread[1]


@pytest.mark.parametrize(
    "function",
    [levels.gaussian_noise, levels.speckle_noise, levels.shot_noise, levels.impulse_noise],
)
def test_noise_is_independent_between_channels_and_pixels(function):
    grey = np.full((200, 200, 3), 127, np.uint8)
    noise = function(grey, 1, np.random.default_rng(0)).astype(float) - 127
    columns = noise.reshape(-1, 3).T
    assert np.abs(np.corrcoef(columns)[np.triu_indices(3, 1)]).max() < 0.02
    assert abs(np.corrcoef(columns[0][:-1], columns[0][1:])[0, 1]) < 0.02


@pytest.mark.parametrize(("severity", "quality"), [(1, 25), (2, 18), (3, 15), (4, 10), (5, 7)])
def test_jpeg_compresses_with_the_quality_of_imagenet_c(severity, quality):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (37, 50, 3), dtype=np.uint8)
    file = BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    expected = np.asarray(Image.open(file).convert("RGB"))
    np.testing.assert_array_equal(levels.jpeg(image, severity, rng), expected)


@pytest.mark.parametrize(("severity", "share"), [(1, 0.6), (2, 0.5), (3, 0.4), (4, 0.3), (5, 0.25)])
def test_pixelate_averages_boxes_of_the_sizes_of_imagenet_c(severity, share):
    rng = np.random.default_rng(0)
    # sizes of which all shares are odd: then no pixel's centre lies on the rim of a box
    image = rng.integers(0, 256, (79, 119, 3), dtype=np.uint8)
    height, width = int(79 * share), int(119 * share)
    small = boxes(79, height) @ np.moveaxis(image, 2, 0) @ boxes(119, width).T
    expected = boxes(height, 79) @ small @ boxes(width, 119).T
    found = levels.pixelate(image, severity, rng)
    assert np.abs(np.moveaxis(found, 2, 0) - expected).max() < 2  # Pillow rounds four times


def boxes(old, new):
    """Weights (new, old): the mean of those cells whose centre is in the box, else the nearest."""
    centre = (np.arange(new)[:, None] + 0.5) * old / new
    away = (np.arange(old) + 0.5 - centre) / max(1, old / new)
    inside = np.abs(away) < 0.5
    return inside / inside.sum(axis=1, keepdims=True)


# as published with ImageNet-C
BRIGHTNESS = [0.1, 0.2, 0.3, 0.4, 0.5]
CONTRAST = [0.4, 0.3, 0.2, 0.1, 0.05]
SATURATE = [(0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)]

NONE = np.random.default_rng(0)  # what draws nothing may have


def palette(seed=0):
    """Random colours, greys, black, white, and pure ones."""
    image = np.random.default_rng(seed).integers(0, 256, (18, 23, 3), dtype=np.uint8)
    image[0] = np.arange(23)[:, None] * 11  # greys from black
    image[1, :8] = [[255 * (i >> b & 1) for b in range(3)] for i in range(8)]
    image[2] //= 40  # nearly black
    return image


def in_hsv(image, change):
    """Pixel by pixel: h, s, v of 0..1 through `change`, s and v clipped, and back."""
    result = np.empty(image.shape)
    for place in np.ndindex(image.shape[:2]):
        h, s, v = change(*colorsys.rgb_to_hsv(*(image[place] / 255)))
        result[place] = colorsys.hsv_to_rgb(h % 1, min(max(s, 0), 1), min(max(v, 0), 1))
    return 255 * result


@pytest.mark.parametrize("severity", LEVEL)
def test_brightness_and_saturate_change_value_and_saturation_of_hsv(severity):
    amount, (factor, addend) = BRIGHTNESS[severity - 1], SATURATE[severity - 1]
    for function, change in (
        (levels.brightness, lambda h, s, v: (h, s, v + amount)),
        (levels.saturate, lambda h, s, v: (h, s * factor + addend, v)),
    ):
        found = function(palette(), severity, NONE)
        assert np.abs(found - in_hsv(palette(), change)).max() < 0.501


@pytest.mark.parametrize("severity", LEVEL)
def test_contrast_is_a_distance_from_the_channel_s_mean(severity):
    image = palette()
    mean = image.mean(axis=(0, 1))
    expected = (image - mean) * CONTRAST[severity - 1] + mean
    assert np.abs(levels.contrast(image, severity, NONE) - expected).max() < 0.501


@pytest.mark.parametrize(("severity", "share"), list(enumerate([0.05, 0.1, 0.2, 0.3, 0.5], 1)))
def test_hue_turns_to_either_side(severity, share):
    image = palette()
    image = np.where(np.ptp(image, axis=2, keepdims=True) > 60, image, np.uint8(255))
    sides = {
        sign: in_hsv(image, lambda h, s, v, sign=sign: (h + sign * share, s, v)) for sign in (-1, 1)
    }
    taken = set()
    for seed in range(12):
        found = levels.hue(image, severity, np.random.default_rng(seed))
        off = {sign: np.abs(found - expected).mean() for sign, expected in sides.items()}
        nearest = min(off, key=off.get)
        assert off[nearest] < 3  # Pillow's hue and saturation are bytes
        taken.add(nearest)
    assert taken == {-1, 1} or share == 0.5


@pytest.mark.parametrize(("severity", "factor"), list(enumerate([1.5, 2, 3, 4, 6], 1)))
def test_saturation_exaggerates_the_distance_from_luma(severity, factor):
    image = palette()
    luma = np.rint(image @ [0.299, 0.587, 0.114])[..., None]
    expected = np.clip(luma + factor * (image - luma), 0, 255)
    off = np.abs(levels.saturation(image, severity, NONE) - expected)
    assert off.max() <= factor + 1  # luma may be rounded the other way
    assert off.mean() < 1


def test_grayscale_is_luma_in_all_channels():
    image = palette()
    found = levels.grayscale(image, 3, NONE)
    assert (np.ptp(found, axis=2) == 0).all()
    assert np.abs(found[..., 0] - image @ [0.299, 0.587, 0.114]).max() < 1


@pytest.mark.parametrize(
    ("ours", "theirs", "amounts"),
    [
        (levels.posterise, ImageOps.posterize, [5, 4, 3, 2, 1]),
        (levels.solarise, ImageOps.solarize, [224, 192, 160, 128, 96]),
    ],
)
def test_posterise_and_solarise_are_those_of_pillow(ours, theirs, amounts):
    image = palette()
    for severity, amount in enumerate(amounts, 1):
        expected = np.asarray(theirs(Image.fromarray(image), amount))
        np.testing.assert_array_equal(ours(image, severity, NONE), expected)
