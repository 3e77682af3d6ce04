"""How far weights could go: images whose true class some mixture of the backbones ranks first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

_CELLS = 2_000_000  # of all tableaus worked on at once: 16 MB
_ROUNDING = 1e-12  # of margins that are at most 1; optima closer to 0 count as 0
_PIVOTS = 50  # for each backbone; 2 or 3 are usual


def reachable(logits: NDArray[Any], labels: NDArray[Any]) -> NDArray[np.bool_]:
    """(sample,): whether the true class is first in ``sum_b a_b logits[b]`` for weights a >= 0.

    logits: (backbone, sample, class), finite; labels: (sample,), all known. The weights may differ
    from sample to sample, so the share of reachable samples bounds the accuracy of every ensemble
    that weighs these logits without negative weights. Ties go to the lowest class, as everywhere.

    With margins ``m_bc = logits[b, y] - logits[b, c]`` the weights exist if the matrix game with
    payoff m has a positive value (von Neumann). Two cases need no game: where a backbone is right,
    all weight goes to it; where one wrong class is ahead in all backbones, no weights help. Classes
    that are ahead in none do not matter. The other samples are solved exactly, all at once, by the
    simplex method, and the weights are checked. A value of 0 within rounding counts as not
    reachable, except where a backbone itself is right.
    """
    _check(logits, labels)
    index = np.broadcast_to(labels[:, None], (*logits.shape[:2], 1))
    true = np.take_along_axis(logits, index, axis=2)
    lower = np.arange(logits.shape[2]) < labels[:, None]
    ahead = (logits > true) | ((logits == true) & lower)
    reached = np.asarray(~ahead.any(axis=2).all(axis=0))
    hopeless = ahead.all(axis=0).any(axis=1)
    open_cases = np.flatnonzero(~reached & ~hopeless)
    rivals = ahead.any(axis=0)[open_cases]
    for rows, classes, real in _batches(rivals, len(logits)):
        samples = open_cases[rows]
        rivals_logits = np.take_along_axis(logits[:, samples], classes[None], axis=2)
        margins = true[:, samples].astype(np.float64) - rivals_logits
        reached[samples] = _winnable(margins.transpose(1, 0, 2), real)
    return reached


def _batches(
    rivals: NDArray[np.bool_], backbones: int
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.bool_]]]:
    """Rows with about as many rivals (row, class) each, few enough for the memory.

    Yields rows, the classes (row, k) that are rivals, and which of these are real, not padding.
    """
    counts = np.asarray(rivals.sum(axis=1, dtype=np.int64))
    order = np.argsort(counts, kind="stable")
    start = 0
    while start < len(order):
        cells = (counts[order[start:]] + backbones + 1) * (backbones + 1)
        fitting = np.arange(1, len(cells) + 1) * cells <= _CELLS  # each padded to the last
        rows = order[start : start + max(1, int(fitting.sum()))]
        width = counts[rows[-1]]
        classes = np.argsort(~rivals[rows], axis=1, kind="stable")[:, :width]
        yield rows, classes, np.take_along_axis(rivals[rows], classes, axis=1)
        start += len(rows)


def _winnable(margins: NDArray[np.float64], real: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(game,): whether some convex combination of the rows is positive in every real column.

    margins: (game, row, column); real: (game, column).
    """
    scaled = margins / np.abs(margins).max(axis=(1, 2), keepdims=True)
    weights = _strategies(scaled, real)
    values = np.matmul(weights[:, None, :], scaled)[:, 0]
    return np.asarray(np.where(real, values, np.inf).min(axis=1) > _ROUNDING)


def _strategies(payoff: NDArray[np.float64], real: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(game, row): weights >= 0 that maximise the smallest weighted sum over columns.

    payoff: (game, row, column) from -1 to 1. With payoff + 2, which is positive, the column
    player's problem is: maximise sum(x) with (payoff + 2) x <= 1, x >= 0 (Dantzig 1951). The
    slack variables are a basis to start from, and the duals of the constraints are the weights.
    """
    games, rows, columns = payoff.shape
    tableau = np.zeros((games, rows + 1, columns + rows + 1))
    tableau[:, :rows, :columns] = payoff + 2
    tableau[:, :rows, columns:-1] = np.eye(rows)
    tableau[:, :rows, -1] = 1
    tableau[:, rows, :columns] = -1.0 * real
    weights = np.zeros((games, rows))
    running = np.arange(games)
    for _ in range(_PIVOTS * rows):
        entering = tableau[:, rows, :-1].argmin(axis=1)
        costs = np.take_along_axis(tableau[:, rows], entering[:, None], axis=1)[:, 0]
        weights[running] = np.maximum(tableau[:, rows, columns:-1], 0)
        going = costs < -_ROUNDING
        if not going.all():
            tableau, running, entering = tableau[going], running[going], entering[going]
        if not len(running):
            break
        _pivot(tableau, entering)
    return weights


def _pivot(tableau: NDArray[np.float64], entering: NDArray[np.intp]) -> None:
    """Bring the entering column of each tableau into its basis, in place."""
    games, rows = np.arange(len(tableau)), tableau.shape[1] - 1
    column = tableau[games, :, entering]
    usable = column[:, :rows] > _ROUNDING
    ratios = np.where(usable, tableau[:, :rows, -1] / np.where(usable, column[:, :rows], 1), np.inf)
    leaving = ratios.argmin(axis=1)
    row = tableau[games, leaving] / column[games, leaving][:, None]
    tableau -= column[:, :, None] * row[:, None, :]
    tableau[games, leaving] = row


def _check(logits: NDArray[Any], labels: NDArray[Any]) -> None:
    if logits.ndim != 3 or logits.shape[1:2] != labels.shape or 0 in logits.shape[::2]:
        raise ValueError(
            f"logits are (backbone, sample, class) beside labels (sample,), "
            f"not {logits.shape} and {labels.shape}"
        )
    if len(labels) and not 0 <= labels.min() <= labels.max() < logits.shape[2]:
        raise ValueError(f"labels are from 0 to {logits.shape[2] - 1}")
