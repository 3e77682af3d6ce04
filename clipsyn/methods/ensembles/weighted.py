"""Weights that are the same for all samples, by cross-entropy.

    super-learner    z = sum_b w_b z_b
    calibrated       T_b = argmin_T  mean_n cross_entropy(z_nb / T, y_n)
    stacking         z = V x + a, x the log-probabilities of all backbones side by side

Guo et al., On Calibration of Modern Neural Networks (2017), for each backbone alone. Ensembles on
calibrated logits are the paper's rows C-Conf and C-Log-Avg (section 4.2).

D. H. Wolpert, "Stacked Generalization", Neural Networks 5, 1992; with the class probabilities of
every model as inputs and a linear model on top: K. M. Ting, I. H. Witten, "Issues in Stacked
Generalization", JAIR 10, 1999.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from clipsyn.methods.ensembles.base import Ensemble, Router, most_confident, one_hot
from clipsyn.methods.estimator import learned, parameter
from clipsyn.methods.numerics import Array, Doubles, Floats, Labels
from clipsyn.methods.numerics.blocks import in_blocks, in_cache
from clipsyn.methods.numerics.logits import (
    cross_entropy,
    log_softmax,
    softmax,
    weighted_cross_entropy,
)
from clipsyn.methods.numerics.optimise import (
    LARGE,
    Axes,
    Linear,
    fit_logistic,
    minimise,
    principal_axes,
)
from clipsyn.methods.numerics.samples import stratified_folds
from clipsyn.methods.pool import Pool
from clipsyn.settings import FLAG, NUMBER

LOWEST, HIGHEST = 0.01, 100.0  # temperatures: scaled logits and bare cosines both fit in
_BOUNDS = (math.log(LOWEST), math.log(HIGHEST))

_GRID = (1.0, 10.0, 100.0)  # inverse penalties of stacking tried, the strongest penalty first
_FIXED = 10.0  # where the support set is too small to choose
_FOLDS = 3
_ENOUGH = 2_000  # held-out samples that settle the choice without another fold
# a fit stops where a step gains less, in nats: those of the choice, and the last one
_STEPS, _LARGE_STEPS = (1e-4, 1e-9), (3e-4, 3e-5)


@dataclass(eq=False, repr=False)
class SuperLearner(Router):
    """``z = sum_b w_b z_b``, with w minimising

        sum_n cross_entropy(z_n, y_n) + penalty / 2 sum_b (B w_b - 1)^2

    over the support set. Paper section 4.2, row SL, after van der Laan, Polley and Hubbard, Super
    Learner (2007); it does not say whether the weights are free or on the simplex.

    simplex: w_b >= 0 and sum_b w_b = 1, as w = softmax(u). By default w is free, and its sum is a
    temperature too.
    penalty: a Gaussian prior around log-avg. It makes the minimum unique (backbones with equal
    logits share their weight) and finite (without it there is no minimum where all samples are
    right), and counts less the more samples there are. 1 was chosen on training samples held out of
    the support set.

    `weights_`: (backbone,), in the order of `backbones_`; unset for one backbone.

    >>> from clipsyn import SuperLearner
    >>> logits = [[[2, 0], [1, 0]], [[1, 0], [0, 3]], [[0, 3], [0, 1]], [[0, 1], [2, 0]]]
    >>> labels = [0, 0, 1, 1]  # the first backbone is always right, the second half of the time
    >>> SuperLearner().fit(logits, labels).weights_.round(2)
    array([0.81, 0.1 ])
    >>> SuperLearner(simplex=True).fit(logits, labels).weights_.round(2)
    array([0.86, 0.14])
    """

    any_size: ClassVar[bool] = True

    simplex: bool = parameter(False, FLAG)
    penalty: float = parameter(1.0, NUMBER, least=0)

    weights_: Doubles = learned()

    def _fit(self, support: Pool) -> None:
        count = len(support.backbones)

        def free(weights: Doubles) -> tuple[float, Doubles]:
            return penalised_loss(support, weights, self.penalty)

        def on_simplex(u: Doubles) -> tuple[float, Doubles]:
            weights = softmax(u)
            value, gradient = free(weights)
            return value, weights * (gradient - weights @ gradient)

        if self.simplex:
            self.weights_ = softmax(minimise(on_simplex, np.zeros(count)))
        else:
            self.weights_ = minimise(free, np.full(count, 1 / count))

    def _weights(self, pool: Pool) -> Array:
        return self.weights_


def penalised_loss(support: Pool, weights: Doubles, penalty: float) -> tuple[float, Doubles]:
    """What a super learner minimises, over the number of samples, and its gradient (backbone,).

    One pass over the logits.
    """
    losses, gradients = weighted_cross_entropy(support.logits, weights, support.labels)
    excess = len(weights) * weights - 1
    share = penalty / len(support)
    value = losses.sum(dtype=np.float64) / len(support) + share / 2 * (excess @ excess)
    slope = gradients.sum(axis=0, dtype=np.float64) / len(support)
    return float(value), slope + share * len(weights) * excess


class _Calibrated(Router):
    """`temperatures_`: (backbone,), in the order of `backbones_`; unset for one backbone."""

    any_size: ClassVar[bool] = True

    temperatures_: Doubles

    def _fit(self, support: Pool) -> None:
        self.temperatures_ = fit_temperatures(support.logits, support.labels)


class CalibratedConfidence(_Calibrated):
    """``z = z_b* / T_b*`` with ``b* = argmax_b max_c softmax(z_b / T_b)_c``, for each sample.

    Equal confidences go to the backbone whose name sorts first. `temperatures_`: (backbone,).

    >>> from clipsyn import CalibratedConfidence
    >>> logits = [[[2, 0], [1, 0]], [[1, 0], [0, 3]], [[0, 3], [0, 1]], [[0, 1], [2, 0]]]
    >>> labels = [0, 0, 1, 1]  # the first backbone is always right, the second half of the time
    >>> ensemble = CalibratedConfidence().fit(logits, labels)
    >>> ensemble.temperatures_.round(2).tolist()  # the second is now never the surer one
    [0.06, 100.0]
    >>> ensemble.predict(logits)
    array([0, 0, 1, 1], dtype=uint16)
    """

    def _weights(self, pool: Pool) -> Array:
        inverse = (1 / self.temperatures_).astype(np.float32)
        return one_hot(most_confident(pool.logits * inverse[:, None]), len(inverse)) * inverse

    def _combine(self, pool: Pool) -> Array:
        scaled = pool.logits * (1 / self.temperatures_).astype(np.float32)[:, None]
        return scaled[np.arange(len(pool)), most_confident(scaled)]


class CalibratedLogAverage(_Calibrated):
    """``z = 1/B sum_b z_b / T_b``, divided by one more temperature T.

    The mean of backbones that are each as sure as they are right is less sure than it is right,
    the more so the less they agree. T is that of the lowest cross-entropy plus (log T)^2 / 2, a
    prior that keeps it finite. It changes no prediction. `temperatures_`: (backbone,);
    `temperature_`: T.

    >>> from clipsyn import CalibratedLogAverage
    >>> logits = [[[2, 0], [1, 0]], [[1, 0], [0, 3]], [[0, 3], [0, 1]], [[0, 1], [2, 0]]]
    >>> labels = [0, 0, 1, 1]  # the first backbone is always right, the second half of the time
    >>> ensemble = CalibratedLogAverage().fit(logits, labels)
    >>> ensemble.weights(logits[:1]).round(2)  # 1 / (B T_b T)
    array([[7.98, 0.01]], dtype=float32)
    """

    temperature_: float

    def _fit(self, support: Pool) -> None:
        super()._fit(support)
        self.temperature_ = 1.0
        mean = self._weights(support)

        def loss(log_t: Array) -> tuple[float, Array]:
            weights, share = mean * np.exp(-log_t), 1 / len(support)
            value, slope = penalised_loss(support, weights, 0)
            return value + share / 2 * float(log_t @ log_t), share * log_t - slope @ weights

        self.temperature_ = math.exp(minimise(loss, np.zeros(1), _BOUNDS)[0])

    def _weights(self, pool: Pool) -> Array:
        return 1 / (len(self.temperatures_) * self.temperatures_ * self.temperature_)


def fit_temperatures(logits: Array, labels: Labels) -> Doubles:
    """The temperature of each backbone that gives its probabilities the lowest cross-entropy.

    logits: (sample, backbone, class), all finite. labels: (sample,), all known.
    Returns (backbone,) between LOWEST and HIGHEST. With few samples the minimum can be at 0 (every
    sample is right) or infinity (no better than chance). The search then ends at a bound, or before
    it where nothing more is gained.

    L-BFGS on log T from 0, for all backbones at once: their losses are summed, so each reaches its
    own minimum. Each loss is convex in 1/T, so it has one minimum in log T.
    """

    def objective(log_temperatures: Doubles) -> tuple[float, Doubles]:
        losses, slopes = tempered_cross_entropy(logits, np.exp(log_temperatures), labels)
        loss = losses.sum(axis=0, dtype=np.float64) / len(labels)
        return float(loss.sum()), slopes.sum(axis=0, dtype=np.float64) / len(labels)

    return np.exp(minimise(objective, np.zeros(logits.shape[1]), _BOUNDS))


def tempered_cross_entropy(
    logits: Array, temperatures: Array, labels: Labels
) -> tuple[Array, Array]:
    """Losses (sample, backbone) of ``softmax(z_b / T_b)``, and their slopes along ``log T_b``.

        d loss_nb / d log T_b = - (sum_c p_nbc Z_nbc - Z_nb[y_n]) / T_b

    logits: (sample, backbone, class); temperatures: (backbone,). In the dtype of `logits`.
    """
    inverse = (1 / np.asarray(temperatures)).astype(logits.dtype)
    losses = np.empty(logits.shape[:2], logits.dtype)
    slopes = np.empty_like(losses)

    def block(rows: slice) -> None:
        for part in in_cache(rows, logits[0].size):
            scaled = logits[part] - logits[part].max(axis=2, keepdims=True)
            scaled *= inverse[:, None]
            true = np.take_along_axis(scaled, labels[part, None, None], axis=2)[:, :, 0]
            powers = np.exp(scaled)
            total = powers.sum(axis=2)
            losses[part] = np.log(total) - true
            slopes[part] = true - np.einsum("nbc,nbc->nb", powers, scaled) / total

    in_blocks(block, logits.shape)
    return losses, slopes


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

    seen_: Labels = learned()
    coefficients_: Floats = learned()
    intercepts_: Doubles = learned()
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
        axes, start = principal_axes(inputs), None
        self.inverse_penalty_ = self.inverse_penalty or 0
        if not self.inverse_penalty_:
            self.inverse_penalty_, start = _chosen(inputs, labels, axes, coarse)
        penalty = 1 / self.inverse_penalty_
        solution = fit_logistic(inputs, labels, penalty, fine, start=start, axes=axes)
        coefficients = solution.coef if wide is None else _turned_back(solution.coef, inputs, wide)
        self.coefficients_ = (coefficients / scale).astype(np.float32)
        self.intercepts_ = solution.intercept - self.coefficients_ @ center

    def _combine(self, pool: Pool) -> Array:
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


def _standardised(logits: Floats, dtype: Any) -> tuple[Array, Doubles, float]:
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


def _coordinates(inputs: Array) -> Array:
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


def _turned_back(coefficients: Floats, coordinates: Array, inputs: Array) -> Array:
    """Coefficients (class, n) of coordinates as coefficients (class, embed) of the wide inputs."""
    from scipy.linalg import solve_triangular  # 0.1 s

    factor = coordinates.astype(np.float64)
    combined = solve_triangular(factor, coefficients.T, trans="T", lower=True)
    return np.asarray(combined.T.astype(inputs.dtype) @ inputs)


def _chosen(
    inputs: Array, labels: Labels, axes: Axes, tolerance: float
) -> tuple[float, Linear | None]:
    """The inverse penalty with the best likelihood of held-out samples, and where to start."""
    sizes = np.bincount(labels)
    if len(sizes) < 2 or np.mean(sizes > 1) < 0.5:
        return _FIXED, None
    losses, judged = np.zeros(len(_GRID)), 0
    for held in stratified_folds(labels, _FOLDS, keep_classes=True):
        kept, rest = (inputs[~held], labels[~held]), inputs[held]
        path: list[Linear | None] = [None]  # each starts from the solution of the stronger penalty
        for number, inverse_penalty in enumerate(_GRID):
            penalty = 1 / inverse_penalty
            found = fit_logistic(*kept, penalty, tolerance, start=path[-1], axes=axes)
            losses[number] += cross_entropy(found.of(rest), labels[held])[0].sum()
            path.append(found)
        judged += len(rest)
        if judged >= _ENOUGH:
            break
    best = int(losses.argmin())
    return _GRID[best], path[best + 1]
