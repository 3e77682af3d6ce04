"""A router with a handful of parameters: a shrunk super learner and a shrunk residual.

Not in the paper, whose NLC has a thousand parameters for every label of a few-shot run.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from clipsyn.methods.ensembles.base import Router
from clipsyn.methods.estimator import learned, parameter
from clipsyn.methods.numerics import Array, Doubles, Floats, Labels
from clipsyn.methods.numerics.blocks import in_blocks
from clipsyn.methods.numerics.logits import log_softmax, softmax, sums, weighted_sum
from clipsyn.methods.pool import Pool
from clipsyn.settings import NUMBER

STATISTICS = ("margin", "spread", "divergence")
PENALTIES = (1e9, 300.0, 100.0, 30.0, 10.0)  # of the residual; the first leaves nothing of it

_STEPS, _HALVINGS = 50, 30  # of Newton's method
_DECREMENT = 1e-7  # squared, in the units of the value: it ends there
_ENOUGH = 1e-4  # of the gain that the slope promises
_NEGLIGIBLE = -60.0  # log-probabilities below it are this: products of tiny numbers are slow
_SMALLER = 4  # blocks than usual: copies in double precision stay in a core's cache, too
_CLIP = 3.0  # standard deviations: an image unlike all of the support moves no weight further


@dataclass(eq=False, repr=False)
class ResidualRouter(Router):
    """``z(x) = sum over b of a_b(x) Z_b(x)``, with weights that are linear in few parameters:

        a_b(x) = t/B (w_b + sum over k of v_k phi_bk(x))

    t: one temperature for log-avg, the unit of everything else. w (backbone,), shrunk to 1, which
    is log-avg. phi (sample, backbone, 3): how decided backbone b is about x and how far from the
    others (`statistics`), as deviations from its own mean on the support. v (3,), shrunk to 0.
    For any penalty p the fit is the only minimum of a convex function,

        sum over n of -log softmax(z_n)[y_n] + shrinkage/2B |w - 1|^2 + p/2 |v|^2

    found by Newton's method. The solutions for p in `PENALTIES`, of which the first is a super
    learner without residual, are averaged with weights exp(-their leave-one-out loss): the residual
    counts as far as it predicts labels that it has not seen.

    shrinkage: how firmly w is held at log-avg. penalty: p, or None for the average.
    Learned: `temperature_`, `weights_` (w), `coefficients_` (v), `means_` and `deviations_`
    (backbone, 3), `posterior_` (the averaging weight of each penalty).

    Why it can help, how it was chosen, wins and losses: docs/router.md. Leave-one-out by a Newton
    step: Beirami et al., "On optimal generalizability in parametric learning", 2017.

    >>> from clipsyn import ResidualRouter
    >>> logits = [[[3, 0], [0, 1]], [[0, 3], [1, 0]], [[0, 1], [3, 0]], [[1, 0], [0, 3]]]
    >>> labels = [0, 1, 0, 1]  # each backbone is right where it is sure
    >>> ResidualRouter().fit(logits, labels).weights(logits).round(2)
    array([[1.41, 1.26],
           [1.41, 1.26],
           [1.26, 1.41],
           [1.26, 1.41]], dtype=float32)
    """

    shrinkage: float = parameter(3.0, NUMBER, above=0)
    penalty: float | None = parameter(None, NUMBER, above=0)

    temperature_: float = learned()
    weights_: Doubles = learned()
    coefficients_: Doubles = learned()
    means_: Doubles = learned()
    deviations_: Doubles = learned()
    posterior_: Doubles = learned()

    def _fit(self, pool: Pool) -> None:
        penalties = PENALTIES if self.penalty is None else (self.penalty,)
        count = len(pool.backbones)
        self.temperature_ = common_temperature(mean_logits(pool.logits), pool.labels)
        measured = statistics(pool.logits, self.temperature_)
        self.means_ = measured.mean(axis=0)
        self.deviations_ = measured.std(axis=0)
        unit = self.temperature_ / count
        problem = Problem(pool.logits, pool.labels, self._design(measured), unit)
        parameters, solutions, losses = problem.centre, [], []
        for penalty in penalties:
            precision = np.repeat([self.shrinkage / count, penalty], [count, len(STATISTICS)])
            parameters = problem.solve(precision, start=parameters)
            solutions.append(parameters)
            losses.append(problem.leave_one_out(parameters, precision).sum())
        self.posterior_ = softmax(-np.array(losses))
        average = self.posterior_ @ np.array(solutions)
        self.weights_, self.coefficients_ = average[:count], average[count:]

    def _weights(self, pool: Pool) -> Array:
        design = self._design(statistics(pool.logits, self.temperature_))
        parameters = np.concatenate([self.weights_, self.coefficients_])
        weights: Doubles = self.temperature_ / len(pool.backbones) * (design @ parameters)
        return weights

    def _design(self, measured: Doubles) -> Doubles:
        """(sample, backbone, backbone + 3): what the weights are linear in."""
        varies = self.deviations_ > 1e-9 * (1 + np.abs(self.means_))
        standard = (measured - self.means_) / np.where(varies, self.deviations_, 1)
        deviation = np.where(varies, standard, 0).clip(-_CLIP, _CLIP)
        own = np.broadcast_to(np.eye(measured.shape[1]), (*measured.shape[:2], measured.shape[1]))
        return np.concatenate([own, deviation], axis=2)


def mean_logits(logits: Floats) -> Floats:
    """(sample, class) over backbones."""
    count = logits.shape[1]
    return np.asarray(weighted_sum(logits, np.full(count, 1 / count)))


def common_temperature(mean_logits: Array, labels: Labels) -> float:
    """t > 0 that minimises the cross-entropy of ``t * mean_logits`` plus (log t)^2 / 2.

    The last term, a prior that logits are roughly calibrated, keeps t finite where the few
    labels are all right or all wrong.
    """
    from scipy.optimize import minimize_scalar

    shifted = mean_logits.astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    true = float(shifted[np.arange(len(labels)), labels].sum())

    def loss(log_t: float) -> float:
        t = math.exp(log_t)

        def block(rows: slice) -> float:
            powers = t * shifted[rows]
            return float(np.log(sums(np.exp(powers, out=powers))).sum())

        return 0.5 * log_t**2 + math.fsum(in_blocks(block, (*shifted.shape, _SMALLER))) - t * true

    return math.exp(minimize_scalar(loss, bounds=(-10, 10), method="bounded").x)


def statistics(logits: Array, temperature: float) -> Doubles:
    """(sample, backbone, 3) of the logits (sample, backbone, class) times `temperature`.

    - margin: between the two largest log-probabilities;
    - spread: log of the standard deviation of the logits over classes;
    - divergence: Kullback-Leibler, from the mean logits of the other backbones to this one.
    """
    out = np.empty((*logits.shape[:2], len(STATISTICS)))

    def block(rows: slice) -> None:
        z = logits[rows] * logits.dtype.type(temperature)
        best = z.argmax(axis=2)[:, :, None]
        z -= np.take_along_axis(z, best, axis=2)
        variance = np.einsum("nbc,nbc->nb", z, z) / z.shape[2] - (sums(z) / z.shape[2]) ** 2
        out[rows, :, 1] = np.log(np.sqrt(variance.clip(min=0)) + 1e-6)
        out[rows, :, 2] = _divergence(z)
        np.put_along_axis(z, best, -np.inf, axis=2)
        out[rows, :, 0] = 0 if z.shape[2] == 1 else -z.max(axis=2)  # one class has no other

    in_blocks(block, (*logits.shape, _SMALLER))
    return out


def _divergence(z: Array) -> Array:
    """(sample, backbone): from q, the mean logits of the others, to p, each of `z`; largest 0.

    sum_c q_c (log q_c - log p_c), with log q_c = (sum_b z_bc - z_c) / (B - 1) - log Q, and so
    log q_c - log p_c = (sum_b z_bc - B z_c) / (B - 1) - log Q + log P: two products with q.
    """
    count = z.shape[1]
    powers = np.exp(z)
    log_p = np.log(sums(powers))
    total = z.sum(axis=1)
    others = np.subtract(total[:, None], z, out=powers)
    others /= count - 1
    largest = others.max(axis=2)
    others -= largest[:, :, None]
    q = np.exp(others, out=others)
    weight = sums(q)
    apart = (q @ total[:, :, None])[:, :, 0] - count * np.einsum("nbc,nbc->nb", q, z)
    return np.asarray(apart / (weight * (count - 1)) - np.log(weight) - largest + log_p)


@dataclass(frozen=True)
class Problem:
    """Cross-entropy of ``sum over b of unit * (design @ parameters)_b * logits_b``.

    logits (sample, backbone, class), labels (sample,), design (sample, backbone, parameter).
    Parameters are shrunk to those of log-avg: 1 for each backbone, 0 for the rest.
    """

    logits: Array
    labels: Labels
    design: Doubles
    unit: float
    _latest: dict[bytes, tuple[Doubles, Doubles, Doubles]] = field(default_factory=dict, init=False)

    @property
    def centre(self) -> Doubles:
        centre = np.zeros(self.design.shape[2])
        centre[: self.design.shape[1]] = 1
        return centre

    def at(self, parameters: Doubles) -> tuple[Doubles, Doubles, Doubles]:
        """Loss (sample,), its gradient (sample, backbone) and Hessian (sample, backbone, backbone).

        The derivatives are those to ``design @ parameters``. With p = softmax(z) they are the
        mean of Z_b under p minus the true class's, and the covariance of Z_b and Z_b' under p.
        """
        key = parameters.tobytes()
        if key in self._latest:
            return self._latest[key]
        weights = self.unit * (self.design @ parameters)
        losses, gradient = np.empty(len(weights)), np.empty(weights.shape)
        hessian = np.empty((*weights.shape, weights.shape[1]))

        def block(rows: slice) -> None:
            z = self.logits[rows]
            exact = z.astype(np.float64)
            log_p = log_softmax(np.matmul(weights[rows, None, :], exact)[:, 0])
            p = np.exp(np.maximum(log_p, _NEGLIGIBLE))
            n, true = np.arange(len(z)), self.labels[rows]
            losses[rows] = -log_p[n, true]
            mean = np.matmul(exact, p[:, :, None])
            gradient[rows] = mean[:, :, 0] - exact[n, :, true]
            # centred, so that nothing cancels: a curvature needs no more digits than logits have
            centred = z - mean.astype(z.dtype)
            weighed = centred * p.astype(z.dtype)[:, None, :]
            hessian[rows] = np.matmul(weighed, centred.transpose(0, 2, 1))

        in_blocks(block, (*self.logits.shape, _SMALLER))
        found = losses, self.unit * gradient, self.unit**2 * hessian
        self._latest.clear()
        self._latest[key] = found
        return found

    def solve(self, precision: Doubles, start: Doubles) -> Doubles:
        """The parameters that minimise the losses plus ``precision/2 (parameters - centre)^2``.

        By Newton's method from `start`; a step that goes too far is halved.
        """
        parameters = start
        value, slope, curvature = self._penalised(parameters, precision)
        for _ in range(_STEPS):
            step = np.linalg.solve(curvature, slope)
            decrement = float(slope @ step)
            if decrement < _DECREMENT:
                break
            for size in 0.5 ** np.arange(_HALVINGS):
                nearer = self._penalised(parameters - size * step, precision)
                if nearer[0] <= value - _ENOUGH * size * decrement:
                    break
            parameters = parameters - size * step
            value, slope, curvature = nearer
        return parameters

    def leave_one_out(self, parameters: Doubles, precision: Doubles) -> Doubles:
        """(sample,) loss of each sample at the parameters fitted without it, about.

        One Newton step without it is taken from `parameters`, the solution with it.
        """
        _, gradient, hessian = self.at(parameters)
        count, backbones, width = self.design.shape
        curvature = self._curvature(hessian, precision)
        spread = np.linalg.solve(curvature, self.design.reshape(-1, width).T)
        leverage = self.design @ spread.reshape(width, count, backbones).transpose(1, 0, 2)
        # Woodbury: only matrices of (backbone, backbone) are left to invert for each sample
        without = np.eye(backbones) - leverage @ hessian
        unseen = np.linalg.solve(without, leverage @ gradient[:, :, None])
        weights = self.unit * (self.design @ parameters + unseen[:, :, 0])
        scores = weighted_sum(self.logits, weights).astype(np.float64)
        return -log_softmax(scores)[np.arange(count), self.labels]

    def _penalised(self, parameters: Doubles, precision: Doubles) -> tuple[float, Doubles, Doubles]:
        """Value, gradient and Hessian of what `solve` minimises, in the parameters."""
        losses, gradient, hessian = self.at(parameters)
        offset = parameters - self.centre
        value = losses.sum() + 0.5 * precision @ offset**2
        slope = np.tensordot(gradient, self.design, 2) + precision * offset
        return float(value), slope, self._curvature(hessian, precision)

    def _curvature(self, hessian: Doubles, precision: Doubles) -> Doubles:
        square = np.tensordot(self.design, hessian @ self.design, ((0, 1), (0, 1)))
        return np.asarray(square + np.diag(precision))
