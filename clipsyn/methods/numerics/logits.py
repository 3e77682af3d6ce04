"""Logits, their weighted sums, probabilities, losses and predicted classes: a place for each.

Stored and derived logits come from here and from the same stored embeddings, so they agree.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipsyn.methods.numerics import Array, Floats, Labels, Rows
from clipsyn.methods.numerics.blocks import in_blocks, in_cache

CHUNK_ROWS = 1024  # of a store: 1.5 MB at width 768 in float16
NO_PREDICTION = 65535
NO_CLASS = 65534  # an imported answer that is none of the classes: it counts as wrong
NONE_OF_THEM = "none of the classes"  # how tables write it
MOST_CLASSES = NO_CLASS  # so many indices lie below it
LARGEST_LOGIT = 1e10  # of what others give: sums of squares stay within float32
_UP, _NO_HALF = np.float32(2.0**112), np.float32(2.0**16)  # from which on a half is not finite
_SIGN_AND_NUMBER = np.int32(-0x70000001)  # the bits 31 and 27 to 0
_LARGE = 1e30  # a sum of powers that single precision has numbers beyond
_SMALL = 1e-30  # a probability beside which one that is 0 in single precision matters no more


def is_scale(scale: float) -> bool:
    """Whether cosines times `scale` are logits that single precision holds and tells apart."""
    return 1e-6 <= scale <= 1e6


def zero_shot_logits(
    image_embedding: Array, class_embedding: Floats, scale: float, rows: int = CHUNK_ROWS
) -> Floats:
    """``scale * image_embedding @ class_embedding.T`` in float32.

    image_embedding: (n, embed) float16 or float32, unit norm; NaN rows stay NaN.
    class_embedding: (class, embed) float32, unit norm.
    Returns (n, class) float32.

    Two choices keep the result the same for everybody. The product is always taken over blocks of
    `rows` rows counted from row 0, since BLAS may round differently for other shapes. Equal class
    embeddings are multiplied once, since BLAS may round columns differently, which would break ties
    between classes of one name.
    """
    distinct, position = _distinct_rows(class_embedding.astype(np.float32, copy=False))
    weights = np.ascontiguousarray(distinct.T)
    logits = np.empty((len(image_embedding), len(class_embedding)), np.float32)
    for start in range(0, len(image_embedding), rows):
        block = single(image_embedding[start : start + rows])
        out = logits[start : start + rows]
        with np.errstate(invalid="ignore"):  # who reads the logits says what is wrong
            if len(distinct) == len(position):
                np.matmul(block, weights, out=out)
            else:
                np.take(block @ weights, position, axis=1, out=out)
        out *= np.float32(scale)
    return logits


def cosines(embedding: NDArray[np.float16], query: Floats) -> Floats:
    """``embedding @ query`` in float32: (n, embed) unit norm, (embed,) unit norm -> (n,).

    NaN for rows that begin with NaN: those of images that could not be read.

    numpy converts half precision at 1.7 ns a number. Its bits, moved to where single precision has
    them, are the same number times 2^-112 (of subnormal ones, too), which takes a tenth of that.
    """
    scaled = query * _UP
    found = np.empty(len(embedding), np.float32)
    for rows in in_cache(slice(0, len(embedding)), len(query)):
        np.matmul(_moved(embedding[rows]), scaled, out=found[rows])
    found[np.isnan(embedding[:, 0])] = np.nan
    return found


def _moved(half: NDArray[np.float16]) -> Floats:
    moved = half.view(np.int16).astype(np.int32)
    moved <<= 13
    moved &= _SIGN_AND_NUMBER
    return moved.view(np.float32)


def single(values: Array) -> Floats:
    """The same numbers in single precision, of half precision as `cosines` converts it."""
    if values.dtype != np.float16 or not values.size:
        return values.astype(np.float32)
    found = _moved(values)
    found *= _UP
    if found.max() >= _NO_HALF or found.min() <= -_NO_HALF:
        strange = ~np.isfinite(values)
        found[strange] = values[strange]
    return found


def squares(values: Array) -> Floats:
    """(row,) sum of the squares of a row, in single precision."""
    out = np.empty(len(values), np.float32)
    with np.errstate(over="ignore", invalid="ignore"):  # who reads the sums says what is wrong
        for rows in in_cache(slice(0, len(values)), values.shape[1]):
            part = single(values[rows])
            np.einsum("ij,ij->i", part, part, out=out[rows])
    return out


def predictions(logits: Floats) -> NDArray[np.uint16]:
    """The class with the largest logit, lowest index on ties: (n, class) -> (n,) uint16.

    Rows with a NaN get NO_PREDICTION.
    """
    return top_class(logits)[0]


def top_class(logits: Floats) -> tuple[NDArray[np.uint16], Floats]:
    """`predictions`, and the largest logit (n, 1), NaN in rows with a NaN."""
    best = logits.argmax(axis=1)  # a NaN wins, which tells the rows that have one
    value = np.take_along_axis(logits, best[:, None], axis=1)
    return np.where(np.isnan(value[:, 0]), NO_PREDICTION, best).astype(np.uint16), value


def weighted_sum(logits: Array, weights: Array) -> Array:
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


def softmax(logits: Array) -> Array:
    """Probabilities over the last axis, in the dtype of `logits`."""
    with np.errstate(over="ignore"):  # a difference too large for the dtype: a probability of 0
        values: Array = logits - logits.max(axis=-1, keepdims=True)
    np.exp(values, out=values)
    values /= values.sum(axis=-1, keepdims=True)
    return values


def log_softmax(logits: Array) -> Array:
    """Log-probabilities over the last axis, in the dtype of `logits`."""
    values: Array = logits - logits.max(axis=-1, keepdims=True)
    values -= np.log(np.exp(values).sum(axis=-1, keepdims=True))
    return values


def mixture(logits: Array, weights: Array) -> Array:
    """``sum over b of w_b p_b``: a mixture of the backbones' probabilities.

    logits: (sample, backbone, class). weights: (sample, backbone), or (backbone,) for all.
    Returns (sample, class) in the dtype of `logits`.

    The logits are read once where they are of usual size: then their powers need no shift, and are
    divided by their sums as they are added up.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        powers: Array = np.exp(logits)
        totals = sums(powers)
    # what is rounded to 0 beside a total from 1 on is a probability of 0 in any case
    if totals.min() < 1 or not totals.max() < _LARGE:
        powers = softmax(logits)
        totals = np.ones_like(totals)
    shares = (weights / totals).astype(logits.dtype, copy=False)
    return np.asarray((shares[:, None] @ powers)[:, 0])


def log_mixture(logits: Array, log_weights: Array) -> Array:
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


def _exact_log_mixture(logits: Array, log_weights: Array) -> Array:
    terms = log_softmax(logits)
    terms += log_weights[..., None]
    largest: Array = terms.max(axis=1)
    terms -= largest[:, None]
    np.exp(terms, out=terms)
    largest += np.log(terms.sum(axis=1))
    return largest


def sums(values: Array) -> Array:
    """Over the last axis, by BLAS: a third of the time that numpy takes."""
    flat = values.reshape(-1, values.shape[-1])
    return np.asarray((flat @ np.ones(flat.shape[1], flat.dtype)).reshape(values.shape[:-1]))


def _distinct_rows(array: Floats) -> tuple[Floats, Rows]:
    """The distinct rows in order of appearance, and which of them each row is."""
    first: dict[bytes, int] = {}
    position = np.array([first.setdefault(row.tobytes(), len(first)) for row in array], np.intp)
    _, appearance = np.unique(position, return_index=True)
    return array[appearance], position


def cross_entropy(scores: Array, labels: Labels) -> tuple[Array, Array]:
    """Losses (sample,) in nats, and their gradients (sample, class) to the scores.

    scores: (sample, class), overwritten by the gradients.

    Probabilities below exp(-40) of the largest are rounded up to that: numbers near the smallest of
    single precision would slow the products that follow down many times.
    """
    rows = np.arange(len(scores))
    scores -= scores.max(axis=1, keepdims=True)
    true = scores[rows, labels]
    np.maximum(scores, -40, out=scores)
    np.exp(scores, out=scores)
    total = scores.sum(axis=1, keepdims=True)
    scores /= total
    scores[rows, labels] -= 1
    return np.log(total[:, 0]) - true, scores


def weighted_cross_entropy(logits: Array, weights: Array, labels: Labels) -> tuple[Array, Array]:
    """Losses (sample,) in nats, and their gradients (sample, backbone) to the weights.

        z_n = sum_b w_nb Z_nb        loss_n = logsumexp(z_n) - z_n[y_n]
        d loss_n / d w_nb = sum_c p_nc Z_nbc - Z_nb[y_n]          p_n = softmax(z_n)

    logits: (sample, backbone, class); weights: (sample, backbone) or (backbone,). A block of rows
    is read from memory once, for loss and gradient, on all cores.
    """
    weights = np.broadcast_to(weights, logits.shape[:2]).astype(logits.dtype, copy=False)
    gradient = np.empty(weights.shape, logits.dtype)
    losses = np.empty(len(logits), logits.dtype)

    def block(rows: slice) -> None:
        scores = (weights[rows, None, :] @ logits[rows])[:, 0]
        losses[rows], residual = cross_entropy(scores, labels[rows])
        # on short vectors OpenBLAS can set this flag though all that goes in and out is finite
        with np.errstate(invalid="ignore"):
            gradient[rows] = (logits[rows] @ residual[:, :, None])[:, :, 0]

    in_blocks(block, logits.shape)
    return losses, gradient


# of the largest logit, for each backbone: sums in single precision are off by less
_ROUNDING = 1e-6


class Contenders(NamedTuple):
    """Some samples that have up to so many contenders each."""

    samples: Rows  # (sample,) ascending rows
    classes: Rows  # (sample, contender) ascending; the last again where there are fewer

    def of(self, logits: Array) -> Array:
        """(sample, backbone, contender) of all logits (sample, backbone, class)."""
        backbones = np.arange(logits.shape[1])[:, None]
        return logits[self.samples[:, None, None], backbones, self.classes[:, None]]


def contenders(logits: Floats) -> list[Contenders]:
    """The classes of each sample that a weighted sum of its backbones may put first.

    Few of a thousand can: most samples keep one to five. What depends on predictions alone looks
    at these.

    logits: (sample, backbone, class), all finite. The weights may be any numbers from 0, one at
    least above it. Left out is a class that another one is above in every backbone, by more than
    rounding can undo in single precision: so the first of the largest sums is among those that are
    kept, equal classes too. Some that are kept can never come first: to find all of these takes
    longer than they cost.

    Returns groups of samples, each with twice as many contenders as the one before at most, from 1
    on; every sample is in one group.
    """
    found = in_blocks(lambda rows: _found(logits[rows], rows.start), logits.shape)
    if not found:
        return []
    samples, classes = (np.concatenate(part) for part in zip(*found, strict=True))
    counts = np.bincount(samples, minlength=len(logits))
    starts = np.cumsum(counts) - counts
    widths = np.exp2(np.ceil(np.log2(counts))).astype(np.intp)
    groups = []
    for width in np.unique(widths):
        rows = np.flatnonzero(widths == width)
        place = np.minimum(np.arange(width), counts[rows, None] - 1)
        groups.append(Contenders(rows, classes[starts[rows, None] + place]))
    return groups


def _found(logits: Floats, first: int) -> tuple[Rows, Rows]:
    """Sample, counted from `first`, and class of each contender, in order."""
    backbones = logits.shape[1]
    best = logits.argmax(axis=2)
    highest = np.take_along_axis(logits, best[:, :, None], axis=2)[:, :, 0]
    size = np.maximum(highest, -logits.min(axis=2))
    margin = size * np.float32(_ROUNDING * (backbones + 4))

    def lowest(rivals: Rows) -> Floats:
        """(sample, backbone) logits that a class must reach in one backbone beside a rival."""
        reached = np.take_along_axis(logits, rivals[:, None, None], axis=2)[:, :, 0]
        return np.asarray(reached - margin)

    with np.errstate(over="ignore", invalid="ignore"):  # any class will do as a rival
        leader = logits.sum(axis=1).argmax(axis=1)
    samples, classes = np.nonzero((logits >= lowest(leader)[:, :, None]).any(axis=1))
    values = logits[samples, :, classes]
    for rivals in best.T:
        kept = (values >= lowest(rivals)[samples]).any(axis=1)
        samples, classes, values = samples[kept], classes[kept], values[kept]
    return samples + first, classes


def finite_rows(values: NDArray[Any]) -> NDArray[np.bool_]:
    """(row,) whether all of a row is finite, and not so large that sums of it are not."""
    columns = tuple(range(1, values.ndim))
    if values.dtype == np.float16:  # what is finite is not so large; bits are compared faster
        return np.asarray((values.view(np.uint16) & 0x7FFF).max(axis=columns) < 0x7C00)
    high, low = (limit(axis=columns).astype(np.float64) for limit in (values.max, values.min))
    finite: NDArray[np.bool_] = (low >= -LARGEST_LOGIT) & (high <= LARGEST_LOGIT)
    return finite
