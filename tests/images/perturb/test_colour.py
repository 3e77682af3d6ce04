from __future__ import annotations

import colorsys

import numpy as np
import pytest
from PIL import Image, ImageOps

from clipsyn.images.perturb.colour import (
    brightness,
    contrast,
    grayscale,
    hue,
    posterise,
    saturate,
    saturation,
    solarise,
)

# as published with ImageNet-C
BRIGHTNESS = [0.1, 0.2, 0.3, 0.4, 0.5]
CONTRAST = [0.4, 0.3, 0.2, 0.1, 0.05]
SATURATE = [(0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)]

LEVEL = range(1, 6)
NONE = np.random.default_rng(0)  # what draws nothing may have


def palette(seed: int = 0) -> np.ndarray:
    """Random colours, greys, black, white, and pure ones."""
    image = np.random.default_rng(seed).integers(0, 256, (18, 23, 3), dtype=np.uint8)
    image[0] = np.arange(23)[:, None] * 11  # greys from black
    image[1, :8] = [[255 * (i >> b & 1) for b in range(3)] for i in range(8)]
    image[2] //= 40  # nearly black
    return image


def in_hsv(image: np.ndarray, change) -> np.ndarray:
    """Pixel by pixel: h, s, v of 0..1 through `change`, s and v clipped, and back."""
    result = np.empty(image.shape)
    for place in np.ndindex(image.shape[:2]):
        h, s, v = change(*colorsys.rgb_to_hsv(*(image[place] / 255)))
        result[place] = colorsys.hsv_to_rgb(h % 1, min(max(s, 0), 1), min(max(v, 0), 1))
    return 255 * result


@pytest.mark.parametrize("severity", LEVEL)
def test_brightness_adds_to_the_value_of_hsv(severity):
    amount = BRIGHTNESS[severity - 1]
    expected = in_hsv(palette(), lambda h, s, v: (h, s, v + amount))
    assert np.abs(brightness(palette(), severity, NONE) - expected).max() < 0.501


@pytest.mark.parametrize("severity", LEVEL)
def test_saturate_scales_the_saturation_of_hsv(severity):
    factor, addend = SATURATE[severity - 1]
    expected = in_hsv(palette(), lambda h, s, v: (h, s * factor + addend, v))
    assert np.abs(saturate(palette(), severity, NONE) - expected).max() < 0.501


@pytest.mark.parametrize("severity", LEVEL)
def test_contrast_is_a_distance_from_the_channel_s_mean(severity):
    image = palette()
    mean = image.mean(axis=(0, 1))
    expected = (image - mean) * CONTRAST[severity - 1] + mean
    assert np.abs(contrast(image, severity, NONE) - expected).max() < 0.501


@pytest.mark.parametrize(("severity", "share"), list(enumerate([0.05, 0.1, 0.2, 0.3, 0.5], 1)))
def test_hue_turns_to_either_side(severity, share):
    image = palette()
    image = np.where(np.ptp(image, axis=2, keepdims=True) > 60, image, np.uint8(255))
    sides = {
        sign: in_hsv(image, lambda h, s, v, sign=sign: (h + sign * share, s, v)) for sign in (-1, 1)
    }
    taken = set()
    for seed in range(12):
        found = hue(image, severity, np.random.default_rng(seed))
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
    off = np.abs(saturation(image, severity, NONE) - expected)
    assert off.max() <= factor + 1  # luma may be rounded the other way
    assert off.mean() < 1


def test_grayscale_is_luma_in_all_channels():
    image = palette()
    found = grayscale(image, 3, NONE)
    assert (np.ptp(found, axis=2) == 0).all()
    assert np.abs(found[..., 0] - image @ [0.299, 0.587, 0.114]).max() < 1


@pytest.mark.parametrize(("severity", "bits"), list(enumerate([5, 4, 3, 2, 1], 1)))
def test_posterise_keeps_the_highest_bits(severity, bits):
    image = palette()
    expected = np.asarray(ImageOps.posterize(Image.fromarray(image), bits))
    np.testing.assert_array_equal(posterise(image, severity, NONE), expected)


@pytest.mark.parametrize(("severity", "start"), list(enumerate([224, 192, 160, 128, 96], 1)))
def test_solarise_inverts_what_is_bright(severity, start):
    image = palette()
    expected = np.asarray(ImageOps.solarize(Image.fromarray(image), start))
    np.testing.assert_array_equal(solarise(image, severity, NONE), expected)
