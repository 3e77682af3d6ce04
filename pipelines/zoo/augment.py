"""Augmentation of whole batches on tensors, so that a drawing style matters less.

Styles differ in outline, shading, palette and finish, so these are varied: by smooth warps of the
shape, smooth shading over the area, colour mixing, blur and sharpening, and the background.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

LUMINANCE = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Strength:
    """How far each change may go; the defaults suit icons."""

    rotation: float = 0.35  # radians
    zoom: float = 0.3
    shift: float = 0.15
    shear: float = 0.2
    flip: float = 0.3
    warp: float = 0.06
    shade: float = 0.35
    colour: float = 0.5
    grey: float = 0.1
    background: float = 0.4
    erase: float = 0.3


# Clothes are upright, grey and on black: they need less.
GENTLE = Strength(
    rotation=0.1, zoom=0.15, shift=0.1, shear=0.1, flip=0.5, warp=0.03, background=0.0
)


def spread(n: int, scale: float, generator: torch.Generator) -> Tensor:
    """n numbers, uniform in -scale..scale."""
    return (torch.rand(n, generator=generator) * 2 - 1) * scale


def smooth_noise(n: int, channels: int, size: int, generator: torch.Generator) -> Tensor:
    """Fields (n, channels, size, size) that vary slowly, of unit variance at 4 x 4 knots."""
    knots = torch.randn(n, channels, 4, 4, generator=generator)
    return F.interpolate(knots, size=(size, size), mode="bilinear", align_corners=True)


def warp(images: Tensor, s: Strength, g: torch.Generator) -> Tensor:
    """Move, turn, stretch, flip and bend images (n, channels, h, h)."""
    n, size = len(images), images.shape[-1]
    angle, shear = spread(n, s.rotation, g), spread(n, s.shear, g)
    scale = 1 + spread(n, s.zoom, g)
    mirror = torch.where(torch.rand(n, generator=g) < s.flip, -1.0, 1.0)
    cos, sin = angle.cos() * scale, angle.sin() * scale
    matrix = torch.stack(
        [
            torch.stack([cos * mirror, -sin + shear, spread(n, s.shift, g)], 1),
            torch.stack([sin * mirror, cos, spread(n, s.shift, g)], 1),
        ],
        1,
    )
    grid = F.affine_grid(matrix, [n, 1, size, size], align_corners=False)
    bend = smooth_noise(n, 2, size, g).permute(0, 2, 3, 1) * s.warp
    return F.grid_sample(images, grid + bend, mode="bilinear", align_corners=False)


def colour_matrix(n: int, s: Strength, g: torch.Generator) -> Tensor:
    """Matrices (n, 3, 3) that rotate the hue, change saturation and brightness, or make grey."""
    light = torch.tensor(LUMINANCE).expand(3, 3)
    angle = spread(n, s.colour * math.pi / 6, g)[:, None, None]
    third = torch.full((3, 3), 1 / 3)
    cross = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    hue = angle.cos() * (torch.eye(3) - third) + angle.sin() * cross + third
    saturation = (1 + spread(n, s.colour, g))[:, None, None]
    saturation = torch.where(torch.rand(n, 1, 1, generator=g) < s.grey, 0.0, saturation)
    brightness = (1 + spread(n, s.colour * 0.6, g))[:, None, None]
    return brightness * (saturation * hue + (1 - saturation) * light)


def recolour(images: Tensor, s: Strength, g: torch.Generator) -> Tensor:
    """Change colours and shading of premultiplied RGBA images."""
    n, size = len(images), images.shape[-1]
    colour, alpha = images[:, :3], images[:, 3:]
    colour = torch.bmm(colour_matrix(n, s, g), colour.flatten(2)).view_as(colour)
    contrast = (1 + spread(n, s.colour, g)).view(n, 1, 1, 1)
    colour = (colour - 0.5 * alpha) * contrast + 0.5 * alpha
    shade = 1 + s.shade * smooth_noise(n, 1, size, g) * torch.rand(n, 1, 1, 1, generator=g)
    return torch.cat([torch.minimum((colour * shade).clamp_min(0), alpha), alpha], 1)


def compose(images: Tensor, base: float, s: Strength, g: torch.Generator) -> Tensor:
    """RGB over the usual background (base: 1 white, 0 black) or, sometimes, over any colour."""
    n = len(images)
    other = torch.rand(n, 3, 1, 1, generator=g)
    usual = torch.rand(n, 1, 1, 1, generator=g) >= s.background
    return images[:, :3] + (1 - images[:, 3:]) * torch.where(usual, torch.tensor(base), other)


def finish(images: Tensor, s: Strength, g: torch.Generator) -> Tensor:
    """Blur or sharpen, and hide a box in some images."""
    n, size = len(images), images.shape[-1]
    smooth = F.avg_pool2d(images, 3, 1, 1, count_include_pad=False)
    images = images + spread(n, 1.0, g).view(n, 1, 1, 1) * (images - smooth)
    corner = torch.rand(2, n, 1, generator=g)
    extent = 0.1 + 0.3 * torch.rand(2, n, 1, generator=g)
    place = torch.linspace(0, 1, size)
    inside = (place >= corner) & (place < corner + extent)
    chosen = torch.rand(n, 1, 1, generator=g) < s.erase
    box = (inside[0, :, :, None] & inside[1, :, None, :] & chosen)[:, None]
    return torch.where(box, torch.rand(n, 3, 1, 1, generator=g), images).clamp(0, 1)


def augment(pixels: Tensor, base: float, s: Strength, g: torch.Generator) -> Tensor:
    """Premultiplied RGBA uint8 (n, h, h, 4) to RGB floats (n, 3, h, h) in 0..1."""
    images = pixels.permute(0, 3, 1, 2).float().div_(255)
    return finish(compose(recolour(warp(images, s, g), s, g), base, s, g), s, g)
