"""Stacking: a multinomial logistic regression on the log-probabilities of all backbones.

D. H. Wolpert, "Stacked Generalization", Neural Networks 5, 1992; with the class probabilities of
every model as inputs and a linear model on top: K. M. Ting, I. H. Witten, "Issues in Stacked
Generalization", JAIR 10, 1999.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from clipsyn.methods.ensembles.base import Ensemble
from clipsyn.methods.estimator import learned, parameter
from clipsyn.methods.numerics.logits import cross_entropy, log_softmax
from clipsyn.methods.numerics.samples import stratified_folds
from clipsyn.methods.numerics.wide import LARGE, Axes, Linear, fit_wide, principal_axes
from clipsyn.methods.pool import Pool
from clipsyn.settings import NUMBER

_GRID = (1.0, 10.0, 100.0)  # inverse penalties tried, the strongest penalty first
_FIXED = 10.0  # where the support set is too small to choose
_FOLDS = 3
_ENOUGH = 2_000  # held-out samples that settle the choice without another fold
# a fit stops where a step gains less, in nats: those of the choice, and the last one
_STEPS, _LARGE_STEPS = (1e-4, 1e-9), (3e-4, 3e-5)


@dataclass(eq=False, repr=False)
class Stacking(Ensemble):
    """Logistic regression from all backbones' log-probabilities to the class.

        x_n = log softmax(Z_nb) for all b, side by side        z_nk = v_k . x_n + a_k
        minimise  |V|^2 / 2 + c * sum_n cross_entropy(z_n, y_n)

    The inputs are centred and divided by one number, which makes the mean `|x_n|^2` one (why:
    docs/methods.md). scikit-learn's `LogisticRegression(C=c)` on these inputs has the same
    solution (`C=2*c` for two classes, where it has coefficients for one class alone).

    inverse_penalty: c. None chooses 1, 10 or 100 by the likelihood in a 3-fold cross-validation
    on the support set if at least half of its classes have two samples; otherwise it is 10. Folds
    after 2,000 held-out samples are left out.

    A class without a sample in the support set cannot be learned. Such classes come after all
    learned ones, in the order of the mean log-probability of the backbones.

    A fit takes 40 to 80 steps of 4 * samples * coordinates * classes operations each, with at most
    backbones * classes coordinates. Above 2e8 samples * coordinates * classes it is in single
    precision, and the objective, divided by the samples, is within a thousandth of a nat of its
    minimum. Sixteen samples of each of a thousand classes and nine backbones are 576 billion
    operations a step: minutes in all.

    Learned: `seen_` (learned,) the classes of the support set; `coefficients_` (learned,
    backbone * class) and `intercepts_` (learned,), for log-probabilities as they are;
    `inverse_penalty_`.

    >>> from clipsyn import Stacking
    >>> logits = [[[2, 0], [1, 0]], [[1, 0], [0, 3]], [[0, 3], [0, 1]], [[0, 1], [2, 0]]]
    >>> labels = [0, 0, 1, 1]  # the first backbone is always right, the second half of the time
    >>> ensemble = Stacking().fit(logits, labels)
    >>> ensemble.coefficients_.shape  # (learned class, backbone * class)
    (2, 4)
    >>> ensemble.score(logits, labels)
    1.0
    """

    knows_classes: ClassVar[bool] = True

    inverse_penalty: float | None = parameter(None, NUMBER, above=0)

    seen_: NDArray[np.int32] = learned()
    coefficients_: NDArray[np.float32] = learned()
    intercepts_: NDArray[np.float64] = learned()
    inverse_penalty_: float = learned()

    def _fit(self, pool: Pool) -> None:
        self.seen_, positions = np.unique(pool.labels, return_inverse=True)
        labels = positions.astype(np.int32)
        exact = pool.logits.size * len(self.seen_) <= LARGE
        coarse, fine = _STEPS if exact else _LARGE_STEPS
        inputs, center, scale = _standardised(pool.logits, np.float64 if exact else np.float32)
        wide = inputs if len(inputs) <= inputs.shape[1] / 2 else None
        if wide is not None:
            inputs = _coordinates(wide)
        axes = principal_axes(inputs)
        start = Linear.nothing(len(self.seen_), inputs.shape[1])
        if self.inverse_penalty is None:
            self.inverse_penalty_, start = _chosen(inputs, labels, axes, coarse)
        else:
            self.inverse_penalty_ = self.inverse_penalty
        solution = fit_wide(
            inputs, labels, start, 1 / self.inverse_penalty_, axes=axes, tolerance=fine
        )
        coefficients = solution.coef if wide is None else _turned_back(solution.coef, inputs, wide)
        self.coefficients_ = (coefficients / scale).astype(np.float32)
        self.intercepts_ = solution.intercept - self.coefficients_ @ center

    def _combine(self, pool: Pool) -> NDArray[Any]:
        inputs = log_softmax(pool.logits)
        learned = inputs.reshape(len(pool), -1) @ self.coefficients_.T + self.intercepts_
        scores = np.empty((len(pool), pool.n_classes), np.float32)
        scores[:, self.seen_] = learned
        absent = np.setdiff1d(np.arange(pool.n_classes), self.seen_)
        if len(absent):
            mean = inputs[:, :, absent].mean(axis=1)
            below = learned.min(axis=1, keepdims=True) - 1
            scores[:, absent] = mean - mean.max(axis=1, keepdims=True) + below
        return scores


def _standardised(
    logits: NDArray[np.float32], dtype: type[np.floating[Any]]
) -> tuple[NDArray[Any], NDArray[np.float64], float]:
    """Log-probabilities (sample, backbone * class), centred and scaled; their mean and scale."""
    inputs = np.empty(logits.shape, dtype)
    for column in range(logits.shape[1]):
        inputs[:, column] = log_softmax(logits[:, column])
    inputs = inputs.reshape(len(logits), -1)
    center = inputs.mean(axis=0, dtype=np.float64)
    inputs -= center.astype(dtype)
    squares = np.einsum("nd,nd->n", inputs, inputs)
    scale = float(np.sqrt(squares.mean(dtype=np.float64))) or 1.0
    inputs /= dtype(scale)
    return inputs, center, scale


def _coordinates(inputs: NDArray[Any]) -> NDArray[Any]:
    """Wide inputs in the space that they span: (n, n), lower triangular, the same products.

    |V| and V x stay the same when both are rotated, so as many coordinates as samples do. They are
    the Cholesky factor of the products, which takes a tenth of a QR decomposition's time. Centred
    inputs are linearly dependent: what is added to the diagonal is above the rounding of the
    products, and too little to be fitted to.
    """
    precise = inputs.astype(np.float64, copy=False)
    products = precise @ precise.T
    rounding = 10 * len(products) * np.finfo(np.float64).eps * np.trace(products)
    products[np.diag_indices_from(products)] += rounding or 1.0
    return np.linalg.cholesky(products).astype(inputs.dtype)


def _turned_back(
    coefficients: NDArray[np.float32], coordinates: NDArray[Any], inputs: NDArray[Any]
) -> NDArray[Any]:
    """Coefficients (class, n) of coordinates as coefficients (class, embed) of the wide inputs."""
    from scipy.linalg import solve_triangular  # 0.1 s

    factor = coordinates.astype(np.float64)
    combined = solve_triangular(factor, coefficients.T, trans="T", lower=True)
    return np.asarray(combined.T.astype(inputs.dtype) @ inputs)


def _chosen(
    inputs: NDArray[Any], labels: NDArray[np.int32], axes: Axes, tolerance: float
) -> tuple[float, Linear]:
    """The inverse penalty with the best likelihood of held-out samples, and where to start."""
    sizes = np.bincount(labels)
    nothing = Linear.nothing(len(sizes), inputs.shape[1])
    if len(sizes) < 2 or np.mean(sizes > 1) < 0.5:
        return _FIXED, nothing
    losses, judged = np.zeros(len(_GRID)), 0
    for held in stratified_folds(labels, _FOLDS, keep_classes=True):
        kept, rest = inputs[~held], inputs[held]
        path = [nothing]  # each penalty starts from the solution of the stronger one
        for number, inverse_penalty in enumerate(_GRID):
            path.append(
                fit_wide(
                    kept,
                    labels[~held],
                    path[-1],
                    1 / inverse_penalty,
                    axes=axes,
                    tolerance=tolerance,
                )
            )
            scores = rest @ path[-1].coef.T + path[-1].intercept
            losses[number] += cross_entropy(scores, labels[held])[0].sum()
        judged += len(rest)
        if judged >= _ENOUGH:
            break
    best = int(losses.argmin())
    return _GRID[best], path[best + 1]
