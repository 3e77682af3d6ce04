"""Logits, their weighted sums, probabilities and predicted classes: the one place for each.

Stored and derived logits come from here and from the same stored embeddings, so they agree.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipsyn.methods.numerics.blocks import in_blocks

CHUNK_ROWS = 1024  # of a store: 1.5 MB at width 768 in float16
NO_PREDICTION = 65535
NO_CLASS = 65534  # an imported answer that is none of the classes: it counts as wrong
NONE_OF_THEM = "none of the classes"  # how tables write it
MOST_CLASSES = NO_CLASS  # so many indices lie below it
LARGEST_LOGIT = 1e10  # of what others give: sums of squares stay within float32
_LARGE = 1e30  # a sum of powers that single precision has numbers beyond
_SMALL = 1e-30  # a probability beside which one that is 0 in single precision matters no more


def is_scale(scale: float) -> bool:
    """Whether cosines times `scale` are logits that single precision holds and tells apart."""
    return 1e-6 <= scale <= 1e6


def zero_shot_logits(
    image_embedding: NDArray[Any],
    class_embedding: NDArray[np.float32],
    scale: float,
    rows: int = CHUNK_ROWS,
) -> NDArray[np.float32]:
    """``scale * image_embedding @ class_embedding.T`` in float32.

    image_embedding: (n, embed) float16 or float32, unit norm; NaN rows stay NaN.
    class_embedding: (class, embed) float32, unit norm.
    Returns (n, class) float32.

    Two choices keep the result the same for everybody. The product is always taken over blocks of
    `rows` rows counted from row 0, since BLAS may round differently for other shapes. Equal class
    embeddings are multiplied once, since BLAS may round columns differently, which would break ties
    between classes of one name.
    """
    _check_embeddings(image_embedding, class_embedding, rows)
    distinct, position = _distinct_rows(class_embedding.astype(np.float32, copy=False))
    weights = np.ascontiguousarray(distinct.T)
    logits = np.empty((len(image_embedding), len(class_embedding)), np.float32)
    for start in range(0, len(image_embedding), rows):
        block = image_embedding[start : start + rows].astype(np.float32)
        out = logits[start : start + rows]
        with np.errstate(invalid="ignore"):  # who reads the logits says what is wrong
            if len(distinct) == len(position):
                np.matmul(block, weights, out=out)
            else:
                np.take(block @ weights, position, axis=1, out=out)
        out *= np.float32(scale)
    return logits


def predictions(logits: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The class with the largest logit, lowest index on ties: (n, class) -> (n,) uint16.

    Rows with a NaN get NO_PREDICTION.
    """
    return top_class(logits)[0]


def top_class(logits: NDArray[np.float32]) -> tuple[NDArray[np.uint16], NDArray[np.float32]]:
    """`predictions`, and the largest logit (n, 1), NaN in rows with a NaN."""
    if logits.ndim != 2 or not 0 < logits.shape[1] <= NO_PREDICTION:
        raise ValueError(
            f"logits are (sample, class) with 1 to {NO_PREDICTION} classes, not {logits.shape}"
        )
    best = logits.argmax(axis=1)  # a NaN wins, which tells the rows that have one
    value = np.take_along_axis(logits, best[:, None], axis=1)
    return np.where(np.isnan(value[:, 0]), NO_PREDICTION, best).astype(np.uint16), value


def weighted_sum(logits: NDArray[Any], weights: NDArray[Any]) -> NDArray[Any]:
    """``sum over b of weights[n, b] * logits[n, b, c]``: what a router's scores are.

    logits: (sample, backbone, class). weights: (sample, backbone), or (backbone,) for all samples.
    Returns (sample, class) of the dtype of `logits`.

    A batched matrix product over blocks of rows, on all cores: limited by memory bandwidth.
    """
    weights = np.broadcast_to(weights, logits.shape[:2]).astype(logits.dtype, copy=False)
    out = np.empty((logits.shape[0], logits.shape[2]), logits.dtype)

    def block(rows: slice) -> None:
        np.matmul(weights[rows, None, :], logits[rows], out=out[rows, None, :])

    in_blocks(block, logits.shape)
    return out


def softmax(logits: NDArray[Any]) -> NDArray[Any]:
    """Probabilities over the last axis, in the dtype of `logits`."""
    with np.errstate(over="ignore"):  # a difference too large for the dtype: a probability of 0
        values: NDArray[Any] = logits - logits.max(axis=-1, keepdims=True)
    np.exp(values, out=values)
    values /= values.sum(axis=-1, keepdims=True)
    return values


def log_softmax(logits: NDArray[Any]) -> NDArray[Any]:
    """Log-probabilities over the last axis, in the dtype of `logits`."""
    values: NDArray[Any] = logits - logits.max(axis=-1, keepdims=True)
    values -= np.log(np.exp(values).sum(axis=-1, keepdims=True))
    return values


def mixture(logits: NDArray[Any], weights: NDArray[Any]) -> NDArray[Any]:
    """``sum over b of w_b p_b``: a mixture of the backbones' probabilities.

    logits: (sample, backbone, class). weights: (sample, backbone), or (backbone,) for all.
    Returns (sample, class) in the dtype of `logits`.

    The logits are read once where they are of usual size: then their powers need no shift, and are
    divided by their sums as they are added up.
    """
    with np.errstate(over="ignore"):
        powers: NDArray[Any] = np.exp(logits)
        totals = sums(powers)
    # what is rounded to 0 beside a total from 1 on is a probability of 0 in any case
    if totals.min() < 1 or not totals.max() < _LARGE:
        powers = softmax(logits)
        totals = np.ones_like(totals)
    shares = (weights / totals).astype(logits.dtype, copy=False)
    return np.asarray((shares[:, None] @ powers)[:, 0])


def log_mixture(logits: NDArray[Any], log_weights: NDArray[Any]) -> NDArray[Any]:
    """``log(sum over b of w_b p_b)``: the log-probabilities of a mixture of backbones.

    logits: (sample, backbone, class). log_weights: (sample, backbone), or (backbone,) for all.
    Returns (sample, class); finite where probabilities are 0 in float32.
    """
    log_weights = np.broadcast_to(log_weights, logits.shape[:2])
    mixed = mixture(logits, np.exp(log_weights))
    small = np.flatnonzero(mixed.min(axis=1) < _SMALL)
    with np.errstate(divide="ignore"):
        np.log(mixed, out=mixed)
    if len(small):
        mixed[small] = _exact_log_mixture(logits[small], log_weights[small])
    return mixed


def _exact_log_mixture(logits: NDArray[Any], log_weights: NDArray[Any]) -> NDArray[Any]:
    terms = log_softmax(logits)
    terms += log_weights[..., None]
    largest: NDArray[Any] = terms.max(axis=1)
    terms -= largest[:, None]
    np.exp(terms, out=terms)
    largest += np.log(terms.sum(axis=1))
    return largest


def sums(values: NDArray[Any]) -> NDArray[Any]:
    """Over the last axis, by BLAS: a third of the time that numpy takes."""
    flat = values.reshape(-1, values.shape[-1])
    return np.asarray((flat @ np.ones(flat.shape[1], flat.dtype)).reshape(values.shape[:-1]))


def _check_embeddings(images: NDArray[Any], classes: NDArray[Any], rows: int) -> None:
    if images.ndim != 2 or classes.ndim != 2 or images.shape[1] != classes.shape[1]:
        raise ValueError(
            "image and class embeddings are (n, embed) and (class, embed) of one width, "
            f"not {images.shape} and {classes.shape}"
        )
    if rows < 1:
        raise ValueError(f"a block has at least one row, not {rows}")


def _distinct_rows(array: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """The distinct rows in order of appearance, and which of them each row is."""
    first: dict[bytes, int] = {}
    position = np.array([first.setdefault(row.tobytes(), len(first)) for row in array], np.intp)
    _, appearance = np.unique(position, return_index=True)
    return array[appearance], position
