"""Decoded images, shared by several perturbations of the same rows."""

from __future__ import annotations

from threading import Lock

import numpy as np
from numpy.typing import NDArray

from clipsyn.extract.sources.base import ImageSource
from clipsyn.perturb import reduce_to_canvas

_KEPT_BYTES = 1 << 28  # a block of 1,024 images of 224 x 300 pixels has 206 MB
_LOCKS = 16


class ReducedImages:
    """Images of some rows of a source, decoded and reduced to a canvas.

    With `keep` they are needed more than once, and as many are kept as there is room for. Several
    threads may ask at once: one that asks for a row that is being decoded waits for it.
    """

    def __init__(self, source: ImageSource, rows: range, canvas: int, keep: bool) -> None:
        self._source, self._rows, self._canvas = source, rows, canvas
        self._kept: dict[int, NDArray[np.uint8]] = {}
        self._free = _KEPT_BYTES if keep else 0
        self._accounts = Lock()
        self._decoding = [Lock() for _ in range(_LOCKS)]  # of every 16th row each

    def serves(self, source: ImageSource, rows: range, canvas: int) -> bool:
        """Whether these are images of that source, canvas and rows."""
        return source is self._source and (rows, canvas) == (self._rows, self._canvas)

    def image(self, row: int) -> NDArray[np.uint8]:
        """One image (h, w, 3). Raises what the source raises, UndecodableImage above all."""
        with self._decoding[row % _LOCKS]:
            kept = self._kept.get(row)
            if kept is not None:
                return kept
            image = reduce_to_canvas(np.asarray(self._source.image(row)), self._canvas)
            if self._has_room(image.nbytes):
                self._kept[row] = image
            return image

    def _has_room(self, size: int) -> bool:
        with self._accounts:
            fits = size <= self._free
            self._free -= size if fits else 0
            return fits
