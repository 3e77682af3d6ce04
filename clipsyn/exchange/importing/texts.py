"""Class embeddings that come with image embeddings: among the arrays of a file, or in another."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipsyn.errors import DatasetError, UsageError
from clipsyn.exchange.importing.parts import Text, short
from clipsyn.exchange.importing.settings import ImportSettings

_LOG = logging.getLogger("clipsyn")
_CLASSES = ("class_embeddings", "class_embedding", "text_embeddings", "text_features")
_SCALES = ("logit_scale", "scale")
_ROUNDED = 1e-6  # how far rounding to float32 takes a norm from 1
_LOGARITHM = 10  # models have a factor of 14 or more; its logarithm, their parameter, is below 5


def text_of(path: Path, arrays: Mapping[str, NDArray[Any]], wanted: ImportSettings) -> Text | None:
    """The class embeddings among the arrays of a file, with the logit scale; None without any."""
    embeddings = _first(arrays, _CLASSES)
    if embeddings is None:
        return None
    if embeddings.ndim != 2 or embeddings.dtype.kind not in "fiu" or not embeddings.size:
        raise DatasetError(
            f"{path}: class embeddings are numbers (class, embed), not {embeddings.dtype} "
            f"{embeddings.shape}"
        )
    values = embeddings.astype(np.float64)
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    if not (np.isfinite(norms) & (norms > 0)).all():
        raise DatasetError(f"{path}: class embeddings are finite, and none is of norm 0")
    scale = _scale(path, _first(arrays, _SCALES), wanted)
    unit = values if (abs(norms - 1) < _ROUNDED).all() else values / norms
    return Text(unit.astype(np.float32), scale, path)


def text_beside(path: Path, arrays: Mapping[str, NDArray[Any]], wanted: ImportSettings) -> Text:
    """The class embeddings of a file that holds nothing else, but perhaps the logit scale."""
    if len(arrays) == 1:
        arrays = {_CLASSES[0]: next(iter(arrays.values()))}
    text = text_of(path, arrays, wanted)
    if text is None:
        raise DatasetError(
            f"{path} has no array {_CLASSES[0]}; its arrays are {short(list(arrays))}"
        )
    return text


def _scale(path: Path, inside: NDArray[Any] | None, wanted: ImportSettings) -> float:
    scale = wanted.logit_scale
    if scale is None:
        if inside is None:
            raise UsageError(
                f"{path} has class embeddings without their scale: give logit_scale=…, the factor "
                "of the logits, such as 100 for OpenAI's models"
            )
        if inside.size != 1 or inside.dtype.kind not in "fiu":
            raise DatasetError(
                f"{path}: a logit scale is one number, not {inside.dtype} {inside.shape}"
            )
        scale = float(inside.reshape(-1)[0])
    if scale < _LOGARITHM:
        _LOG.info(
            f"note: logits are {scale:g} times the cosines; if {scale:g} is the logarithm of the "
            f"factor, give logit_scale={np.exp(scale):.4g}"
        )
    return scale


def _first(arrays: Mapping[str, NDArray[Any]], names: Sequence[str]) -> NDArray[Any] | None:
    return next((arrays[name] for name in names if name in arrays), None)
