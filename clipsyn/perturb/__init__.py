"""What can happen to an image before a backbone sees it.

A perturbation is a pure function ``(image uint8 (h, w, 3), severity 1..5, rng) -> uint8``, same
shape, registered here under a name. Its random state comes from (seed, name, severity,
sample id) alone, so order, workers, batch size and restarts cannot change a pixel.
"""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from importlib import import_module

import numpy as np
from numpy.typing import NDArray

from clipsyn.errors import UsageError
from clipsyn.registry import unknown_name
from clipsyn.specs import CLEAN, Perturbation, canonical_json, parse_perturbation

SEVERITIES = range(1, 6)


@dataclass(frozen=True)
class PerturbationInfo:
    """Where a perturbation lives; `version` is raised whenever its output changes."""

    target: str  # "module:function", imported on first use
    version: int
    doc: str


REGISTRY: dict[str, PerturbationInfo] = {}


def register(name: str, target: str, version: int = 1, doc: str = "") -> None:
    """Make ``module:function`` known as `name`; a name can be taken once."""
    if name in REGISTRY or name == CLEAN.name:
        raise ValueError(f"perturbation '{name}' is registered twice")
    if target.count(":") != 1:
        raise ValueError(f"perturbation '{name}': '{target}' is not 'module:function'")
    REGISTRY[name] = PerturbationInfo(target, version, doc)


register(
    "augment",
    "clipsyn.perturb.geometry:augment",
    doc="a random crop, resized, and mirrored half of the time; every seed is another view",
)
register(
    "gaussian_noise",
    "clipsyn.perturb.noise:gaussian_noise",
    doc="independent normal noise on every channel (ImageNet-C's sigmas)",
)
register(
    "jpeg",
    "clipsyn.perturb.digital:jpeg",
    doc="JPEG compression (ImageNet-C's jpeg_compression qualities)",
)
register(
    "zoom_blur",
    "clipsyn.perturb.blur:zoom_blur",
    doc="mean of the image and of ever closer views of its centre (ImageNet-C's factors)",
)


def resolve(spec: str | Perturbation) -> Perturbation:
    """The registered perturbation that `spec` describes, with its current version.

    Raises UnknownName with near matches, UsageError for a severity outside 1..5 or an empty
    canvas.
    """
    asked = parse_perturbation(spec) if isinstance(spec, str) else spec
    if asked.name == CLEAN.name:
        if asked.severity:
            raise UsageError("clean images have no severity: write clean")
        return CLEAN
    if asked.name not in REGISTRY:
        raise unknown_name("perturbation", asked.name, [CLEAN.name, *REGISTRY])
    if asked.severity not in SEVERITIES:
        raise UsageError(
            f"perturbation '{asked.name}' has severities 1 to 5, not {asked.severity}: "
            f"write for instance {asked.name}:3"
        )
    if asked.canvas < 1 or asked.seed < 0:
        raise UsageError(
            f"perturbation '{asked.name}': canvas is at least 1 pixel and seed at least 0, "
            f"not {asked.canvas} and {asked.seed}"
        )
    return dataclasses.replace(asked, version=REGISTRY[asked.name].version)


def apply(
    perturbation: Perturbation, image: NDArray[np.uint8], sample_id: str
) -> NDArray[np.uint8]:
    """Perturb one decoded image (h, w, 3): reduce to the canvas, then the registered function.

    Clean images come back untouched, the same object. The result is otherwise at most
    `perturbation.canvas` along its shorter side; `image` is never written to.
    """
    if perturbation.name == CLEAN.name:
        return image
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"an image is uint8 (h, w, 3), not {image.dtype} {image.shape}")
    module, function = REGISTRY[resolve(perturbation).name].target.split(":")
    reduced = reduce_to_canvas(image, perturbation.canvas).view()
    reduced.flags.writeable = False
    result: NDArray[np.uint8] = getattr(import_module(module), function)(
        reduced, perturbation.severity, random_state(perturbation, sample_id)
    )
    if result.dtype != np.uint8 or result.shape != reduced.shape:
        raise ValueError(
            f"perturbation '{perturbation.name}' made {result.dtype} {result.shape} "
            f"of uint8 {reduced.shape}"
        )
    return result


def random_state(perturbation: Perturbation, sample_id: str) -> np.random.Generator:
    """The generator for one image: PCG64 seeded by SHA-256 of what identifies the draw."""
    identity = [perturbation.seed, perturbation.name, perturbation.severity, sample_id]
    digest = hashlib.sha256(canonical_json(identity).encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "big")))


def reduce_to_canvas(image: NDArray[np.uint8], canvas: int) -> NDArray[np.uint8]:
    """Bicubic reduction of the shorter side to `canvas`; smaller images stay as they are."""
    height, width = image.shape[:2]
    shorter = min(height, width)
    if shorter <= canvas:
        return image
    from PIL import Image

    size = (round(width * canvas / shorter), round(height * canvas / shorter))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
