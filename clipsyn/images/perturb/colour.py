"""Perturbations that change colours and leave every pixel in its place.

The first three have the strengths of ImageNet-C (Hendrycks & Dietterich, 2019). None but `hue`
draws from `rng`.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from clipsyn.images.perturb import Pixels

BRIGHTNESS = (0.1, 0.2, 0.3, 0.4, 0.5)  # added to the value of HSV, which goes from 0 to 1
CONTRAST = (0.4, 0.3, 0.2, 0.1, 0.05)  # what is left of the distance from the mean
SATURATE = ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2))  # factor of HSV's saturation, addend
HUE_TURN = (0.05, 0.1, 0.2, 0.3, 0.5)  # of the colour circle
SATURATION = (1.5, 2, 3, 4, 6)  # factor of the distance from grey
POSTERISE_BITS = (5, 4, 3, 2, 1)
SOLARISE_FROM = (224, 192, 160, 128, 96)


def brightness(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Add to the value of HSV, clipped at 1: a pixel's channels grow until the largest is there."""
    table = _brighter(BRIGHTNESS[severity - 1]).ravel()
    result = np.empty_like(image)
    planes = [image[..., channel] for channel in range(3)]
    # reducing or broadcasting over an axis of three would be many times slower
    value = np.maximum(np.maximum(planes[0], planes[1]), planes[2]).astype(np.intp) * 256
    for channel, plane in enumerate(planes):
        result[..., channel] = table.take(value + plane)
    return result


@cache
def _brighter(amount: float) -> Pixels:
    """New level by (largest channel, this channel); black becomes grey, for it has no hue."""
    value = np.arange(256)[:, None]
    brighter = np.minimum(value + 255 * amount, 255)
    scaled = np.arange(256) * brighter / np.maximum(value, 1)
    table: NDArray[np.float64] = np.where(value == 0, brighter, np.minimum(scaled, 255))
    return np.rint(table).astype(np.uint8)


def contrast(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Move every value towards the mean of its channel over the image."""
    kept = CONTRAST[severity - 1]
    result = np.empty_like(image)
    for channel in range(3):
        plane = image[..., channel].copy()
        mean = plane.mean()
        table = np.rint((np.arange(256) - mean) * kept + mean).astype(np.uint8)
        result[..., channel] = table.take(plane)
    return result


def saturate(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Scale the saturation of HSV, add to it and clip it: paler at 1 and 2, stronger from 3 on.

    Grey has hue 0, red, so that adding to its saturation reddens it, as published.
    """
    factor, addend = SATURATE[severity - 1]
    planes = np.moveaxis(image, 2, 0).astype(np.float32, order="C")
    value = planes.max(axis=0)
    spread = value - planes.min(axis=0)  # saturation x value
    wanted = np.minimum(factor * spread + np.float32(addend) * value, value)
    planes -= value
    planes *= wanted / np.maximum(spread, 1)
    planes[1:] -= np.where(spread == 0, wanted, 0)
    planes += value
    return np.moveaxis(np.rint(planes).astype(np.uint8), 0, 2).copy()


def hue(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Rotate the hue of HSV (in bytes) in either direction, as torchvision's adjust_hue does."""
    turn = int(rng.choice([-1, 1]) * HUE_TURN[severity - 1] * 255)
    hsv = np.array(Image.fromarray(image).convert("HSV"))
    hsv[..., 0] += np.uint8(turn % 256)
    return np.array(Image.fromarray(hsv, "HSV").convert("RGB"))


def saturation(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Exaggerate colours: multiply the distance from the pixel's own grey (its luma)."""
    enhancer = ImageEnhance.Color(Image.fromarray(image))
    return np.array(enhancer.enhance(SATURATION[severity - 1]))


def grayscale(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """The luma in all three channels. It has one strength: all severities are equal."""
    return np.array(Image.fromarray(image).convert("L").convert("RGB"))


def posterise(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Keep the highest bits of every value."""
    return image & np.uint8(0x100 - (1 << (8 - POSTERISE_BITS[severity - 1])))


def solarise(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Invert the values from a threshold on."""
    solarised = image.copy()
    np.subtract(255, image, out=solarised, where=image >= SOLARISE_FROM[severity - 1])
    return solarised
