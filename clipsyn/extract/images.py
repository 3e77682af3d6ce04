"""From a source's images to the pixels that backbones read: decoded, perturbed, resized in advance.

An image is decoded and perturbed once for all backbones; those with the same preprocessing share
pixels. Consecutive perturbations of the same rows share the decoded images.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain, pairwise
from threading import Lock
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clipsyn.images.decode import UndecodableImage, look_of, returned
from clipsyn.images.perturb import apply, reduce_to_canvas
from clipsyn.images.sources import ImageSource
from clipsyn.names import CLEAN, Perturbation

Preprocess = Callable[[Image.Image], NDArray[np.uint8]]

PIXELS_VERSION = 1  # raised when the same file would give a backbone other pixels

_AHEAD = 3  # batches being decoded while one is encoded
_SLICE = 16  # images a decoding task: enough to hide what a task costs
_BLANK = Image.new("RGB", (64, 64))
_KEPT_BYTES = 1 << 28  # a block of 1,024 images of 224 x 300 pixels has 206 MB
_LOCKS = 16


@dataclass(frozen=True, eq=False)
class Images:
    """Some rows of a source, with their perturbation and all preprocessings that are needed."""

    source: ImageSource
    perturbation: Perturbation
    preprocess: Mapping[str, Preprocess]
    rows: range

    def are_shared(self, other: Images) -> bool:
        """Whether another perturbation may have the same decoded images."""
        same_images = self.source is other.source and self.rows == other.rows
        return same_images and self.perturbation.canvas == other.perturbation.canvas


_Images = TypeVar("_Images", bound=Images)


@dataclass(frozen=True)
class Batch:
    """Pixels of consecutive rows, by preprocessing: (n, height, width, 3) uint8.

    A row whose image cannot be decoded, or not preprocessed in that way, is blank and not `valid`,
    and has its reason in `errors`, by sample id. looks: of each clean image what it looks like, see
    `look_of`; 0 for others.
    """

    rows: range
    pixels: Mapping[str, NDArray[np.uint8]]
    valid: Mapping[str, NDArray[np.bool_]]
    errors: Mapping[str, Mapping[str, str]]
    looks: tuple[int, ...] = ()


class ReducedImages:
    """Images of some rows of a source, decoded and reduced to the canvas of their perturbation.

    With `keep` they are needed more than once, and as many are kept as there is room for. Several
    threads may ask at once: one that asks for a row that is being decoded waits for it.
    """

    def __init__(self, images: Images, keep: bool) -> None:
        self.images = images
        self._kept: dict[int, NDArray[np.uint8]] = {}
        self._free = _KEPT_BYTES if keep else 0
        self._accounts = Lock()
        self._decoding = [Lock() for _ in range(_LOCKS)]  # of every 16th row each

    def image(self, row: int) -> NDArray[np.uint8]:
        """One image (h, w, 3). Raises what the source raises, UndecodableImage above all."""
        with self._decoding[row % _LOCKS]:
            kept = self._kept.get(row)
            if kept is not None:
                return kept
            decoded = np.asarray(self.images.source.image(row))
            image = reduce_to_canvas(decoded, self.images.perturbation.canvas)
            if self._has_room(image.nbytes):
                self._kept[row] = image
            return image

    def _has_room(self, size: int) -> bool:
        with self._accounts:
            fits = size <= self._free
            self._free -= size if fits else 0
            return fits


@dataclass(frozen=True)
class _Loaded:
    """One row: pixels and errors, by preprocessing."""

    sample_id: str
    pixels: dict[str, NDArray[np.uint8]]
    errors: dict[str, str]
    look: int = 0


def batches(
    work: Iterable[_Images], batch_size: int, pool: ThreadPoolExecutor
) -> Iterator[tuple[_Images, Batch]]:
    """Batches of each of `work`, in order, decoded ahead by `pool`.

    Batches never span two items of `work`, so what is encoded together does not depend on what
    else is being done.
    """
    waiting: deque[tuple[_Images, range, list[Future[list[_Loaded]]]]] = deque()
    reduced: ReducedImages | None = None
    for images, following in pairwise(chain(work, [None])):
        if images is None:
            break
        if not (reduced and images.are_shared(reduced.images)):
            keep = following is not None and images.are_shared(following)
            reduced = ReducedImages(images, keep)
        for start in range(images.rows.start, images.rows.stop, batch_size):
            rows = range(start, min(start + batch_size, images.rows.stop))
            waiting.append((images, rows, _submit(images, reduced, rows, pool)))
            if len(waiting) > _AHEAD:
                yield _collect(*waiting.popleft())
    while waiting:
        yield _collect(*waiting.popleft())


def _submit(
    images: Images, reduced: ReducedImages, rows: range, pool: ThreadPoolExecutor
) -> list[Future[list[_Loaded]]]:
    slices = [rows[start : start + _SLICE] for start in range(0, len(rows), _SLICE)]
    load = partial(_load, images, reduced)
    return [pool.submit(list, map(load, part)) for part in slices]


def _collect(
    images: _Images, rows: range, futures: list[Future[list[_Loaded]]]
) -> tuple[_Images, Batch]:
    loaded = [row for future in futures for row in future.result()]
    keys = images.preprocess
    pixels = {key: np.stack([row.pixels[key] for row in loaded]) for key in keys}
    valid = {key: np.array([key not in row.errors for row in loaded]) for key in keys}
    errors = {
        key: {row.sample_id: row.errors[key] for row in loaded if key in row.errors} for key in keys
    }
    return images, Batch(rows, pixels, valid, errors, tuple(row.look for row in loaded))


@returned()
def _load(images: Images, reduced: ReducedImages, row: int) -> _Loaded:
    sample_id = images.source.ids[row]
    try:
        image = _perturbed(images, reduced, row, sample_id)
    except UndecodableImage as error:
        blank = {key: preprocess(_BLANK) for key, preprocess in images.preprocess.items()}
        return _Loaded(sample_id, blank, dict.fromkeys(blank, str(error)))
    is_clean = images.perturbation.name == CLEAN.name
    loaded = _Loaded(sample_id, {}, {}, look_of(image) if is_clean else 0)
    for key, preprocess in images.preprocess.items():
        try:
            loaded.pixels[key] = preprocess(image)
        except UndecodableImage as error:
            loaded.pixels[key] = preprocess(_BLANK)
            loaded.errors[key] = str(error)
    return loaded


def _perturbed(images: Images, reduced: ReducedImages, row: int, sample_id: str) -> Image.Image:
    if images.perturbation.name == CLEAN.name:
        return images.source.image(row)
    image = reduced.image(row)
    return Image.fromarray(apply(images.perturbation, image, sample_id))
