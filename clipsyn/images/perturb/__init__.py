"""What can happen to an image before a backbone sees it.

A perturbation is a pure function ``(image uint8 (h, w, 3), severity 1..5, rng) -> uint8``, same
shape, registered here under a name. Its random state comes from (seed, name, severity,
sample id) alone, so order, workers, batch size and restarts cannot change a pixel.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pkgutil import resolve_name
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from clipsyn.errors import UsageError
from clipsyn.names import CLEAN, Perturbation, canonical_json, parse_perturbation
from clipsyn.registry import plugin, unknown_name

SEVERITIES = range(1, 6)

Pixels = NDArray[np.uint8]  # grey levels; an image is (h, w, 3)


def grey_levels(values: NDArray[np.float32]) -> Pixels:
    """Numbers rounded to grey levels, 0 to 255."""
    return np.rint(np.clip(values, 0, 255)).astype(np.uint8)


# group -> name -> (module below clipsyn.images.perturb with a function of that name, description)
BUILT_IN = {
    "imagenet-c": {
        "gaussian_noise": ("levels", "independent normal noise on every channel"),
        "shot_noise": ("levels", "Poisson noise, as of few photons"),
        "impulse_noise": ("levels", "salt and pepper, channel by channel"),
        "defocus_blur": ("optics", "mean over a disc, as out of focus"),
        "glass_blur": ("optics", "pixels take the place of near ones, as behind frosted glass"),
        "motion_blur": ("optics", "the image dragged along a line, as of a moving camera"),
        "zoom_blur": ("optics", "mean of the image and of ever closer views of its centre"),
        "snow": ("optics", "falling flakes on a whitened image"),
        "frost": ("optics", "ice crystals over it; made up, not the published photographs"),
        "fog": ("optics", "a fractal cloud over it"),
        "brightness": ("levels", "more value in HSV"),
        "contrast": ("levels", "values moved towards the mean"),
        "elastic_transform": ("geometry", "an affine map and smooth displacements"),
        "pixelate": ("levels", "coarse pixels"),
        "jpeg": ("levels", "JPEG compression (ImageNet-C's jpeg_compression)"),
    },
    "imagenet-c-extra": {
        "speckle_noise": ("levels", "normal noise in proportion to the value"),
        "gaussian_blur": ("optics", "a Gaussian blur"),
        "spatter": ("optics", "drops of water (1 to 3) or mud (4 and 5) on the lens"),
        "saturate": ("levels", "paler (1 and 2) or stronger colours (3 to 5) in HSV"),
    },
    "geometric": {
        "rotation": ("geometry", "turned by 5 to 45 degrees to either side"),
        "horizontal_flip": ("geometry", "mirrored left and right"),
        "vertical_flip": ("geometry", "upside down, mirrored"),
        "translation": ("geometry", "shifted by 5 to 30 % of its sides"),
        "crop": ("geometry", "a part with sides of 90 to 50 %, enlarged"),
        "perspective": ("geometry", "corners moved inwards, as seen from aside"),
    },
    "photometric": {
        "hue": ("levels", "hue turned by 5 to 50 % of the circle"),
        "saturation": ("levels", "distance from grey times 1.5 to 6"),
        "grayscale": ("levels", "no colour"),
        "posterise": ("levels", "5 to 1 bits a channel"),
        "solarise": ("levels", "values from a threshold on inverted"),
    },
    "occlusion": {
        "random_erase": ("geometry", "a grey rectangle over 10 to 50 % of it"),
        "patch_shuffle": ("geometry", "tiles of a 2 x 2 to 8 x 8 grid permuted"),
    },
    "": {
        "augment": (
            "geometry",
            "a random crop, resized, mirrored half of the time; each seed another",
        )
    },
}

# They have one strength: every severity gives the same image.
EVEN = frozenset({"horizontal_flip", "vertical_flip", "grayscale"})


@dataclass(frozen=True)
class PerturbationInfo:
    """Where a perturbation lives; `version` is raised whenever its output changes."""

    target: str  # "module:function", imported on first use
    version: int
    doc: str
    group: str = ""
    graded: bool = True  # False: it has one strength, whatever the severity

    def __post_init__(self) -> None:
        if self.target.count(":") != 1:
            raise ValueError(f"'{self.target}' is not 'module:function'")


INFO = {  # by name
    name: PerturbationInfo(
        f"clipsyn.images.perturb.{module}:{name}", 1, doc, group, graded=name not in EVEN
    )
    for group, members in BUILT_IN.items()
    for name, (module, doc) in members.items()
}
GROUPS = {group: [*members] for group, members in BUILT_IN.items() if group}


def expand(texts: Iterable[str]) -> list[Perturbation]:
    """The perturbations that `texts` ask for, once each, in order, with current versions.

    A text describes one perturbation, see `resolve`, or a group: ``imagenet-c:3`` is every member
    at severity 3, ``imagenet-c`` every member at all five (at 1 where it has one strength).
    Options follow as they do on members: ``geometric:2:seed=1``, ``geometric:seed=1``.

    Raises UnknownName with near matches, UsageError for a severity or option that is not allowed.
    """
    perturbations: dict[Perturbation, None] = {}
    for text in texts:
        head, *options = text.strip().split(":")
        if head in GROUPS:
            perturbations |= dict.fromkeys(_members(head, options))
        else:
            perturbations[resolve(text)] = None
    return list(perturbations)


def _members(group: str, options: list[str]) -> Iterator[Perturbation]:
    severities: list[str] | None = None
    if options and "=" not in options[0]:
        severities, options = options[:1], options[1:]
        if severities[0] not in map(str, SEVERITIES):
            raise UsageError(
                f"'{group}' has severities 1 to 5, not {severities[0]}: write {group}:3 or {group}"
            )
    for name in GROUPS[group]:
        default = map(str, SEVERITIES if INFO[name].graded else SEVERITIES[:1])
        for severity in severities or default:
            yield resolve(":".join([name, severity, *options]))


def resolve(spec: str | Perturbation) -> Perturbation:
    """The registered perturbation that `spec` describes, with its current version.

    Raises UnknownName with near matches, UsageError for a severity outside 1..5 or an empty
    canvas.
    """
    asked = parse_perturbation(spec) if isinstance(spec, str) else spec
    if asked.name == CLEAN.name:
        return CLEAN
    if asked.name not in INFO and (info := plugin("perturbations", asked.name)):
        INFO[asked.name] = dataclasses.replace(info, group="")  # groups are our own
    if asked.name not in INFO:
        raise unknown_name("perturbation", asked.name, [CLEAN.name, *INFO, *GROUPS])
    if asked.severity not in SEVERITIES:
        raise UsageError(
            f"'{asked.name}' has severities 1 to 5, not {asked.severity}: write {asked.name}:3"
        )
    if asked.canvas < 1 or asked.seed < 0:
        raise UsageError(
            f"perturbation '{asked.name}': canvas is at least 1 pixel and seed at least 0, "
            f"not {asked.canvas} and {asked.seed}"
        )
    return dataclasses.replace(asked, version=INFO[asked.name].version)


def apply(perturbation: Perturbation, image: Pixels, sample_id: str) -> Pixels:
    """Perturb one decoded image (h, w, 3): reduce to the canvas, then the registered function.

    A clean image is returned as it is, the same object. Any other result is at most
    `perturbation.canvas` along its shorter side; `image` is never written to.
    """
    if perturbation.name == CLEAN.name:
        return image
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"an image is uint8 (h, w, 3), not {image.dtype} {image.shape}")
    target = INFO[resolve(perturbation).name].target
    reduced = reduce_to_canvas(image, perturbation.canvas).view()
    reduced.flags.writeable = False
    rng = random_state(perturbation, sample_id)
    result: Pixels
    with nullcontext() if target in _USED else _FIRST_USE:
        result = resolve_name(target)(reduced, perturbation.severity, rng)
    _USED.add(target)
    if result.dtype != np.uint8 or result.shape != reduced.shape:
        raise ValueError(
            f"perturbation '{perturbation.name}' made {result.dtype} {result.shape} "
            f"of uint8 {reduced.shape}"
        )
    return result


# A function imports on its first call what it needs. Threads that import a module of scipy at once
# may see half of it, so first calls do not overlap.
_FIRST_USE = Lock()
_USED: set[str] = set()


def random_state(perturbation: Perturbation, sample_id: str) -> np.random.Generator:
    """The generator for one image: PCG64, seeded by the SHA-256 of what identifies the draw."""
    identity = [perturbation.seed, perturbation.name, perturbation.severity, sample_id]
    digest = hashlib.sha256(canonical_json(identity).encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "big")))


def reduce_to_canvas(image: Pixels, canvas: int) -> Pixels:
    """Bicubic reduction of the shorter side to `canvas`; smaller images stay as they are."""
    height, width = image.shape[:2]
    shorter = min(height, width)
    if shorter <= canvas:
        return image
    from PIL import Image

    size = (round(width * canvas / shorter), round(height * canvas / shorter))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
