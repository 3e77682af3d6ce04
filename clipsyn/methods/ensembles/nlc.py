"""Networks on the embeddings that weigh backbones for each image.

NLC, the neural logit controller: C. Rodriguez-Opazo et al., "Synergy and Diversity in CLIP:
Enhancing Performance Through Adaptive Backbone Ensembling", ICLR 2025, section 3.

It has one hidden layer, trained by Adam:

    t(x) = relu([f_1(x) … f_B(x)] W1 + b1) W2 + b2      f_b: unit-norm embeddings

All parameters lie in one vector, all gradients in another, so that a step of Adam is one pass over
blocks that fit a cache. The samples come shuffled. A batch is a slice of them, only the order of
the slices changes, and no step allocates anything large: gathering rows and page faults cost more
than the arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import ClassVar

import numpy as np

from clipsyn.errors import RouterMismatch
from clipsyn.methods.ensembles.base import Router
from clipsyn.methods.ensembles.residual import common_temperature, mean_logits
from clipsyn.methods.estimator import learned, parameter, seed
from clipsyn.methods.numerics import Array, Floats, Rows
from clipsyn.methods.numerics.blocks import equal_slices
from clipsyn.methods.numerics.logits import softmax, weighted_cross_entropy
from clipsyn.methods.numerics.optimise import Adam
from clipsyn.methods.numerics.samples import stratified
from clipsyn.methods.pool import IN_MEMORY, Pool
from clipsyn.settings import NUMBER, TEXT, WHOLE

# outputs (sample, output) -> losses (sample,), gradients like the outputs; `Loss` of some rows
BatchLoss = Callable[[Array], tuple[Array, Array]]
Loss = Callable[[slice, Array], tuple[Array, Array]]
Step = tuple[Array, BatchLoss]  # features of a batch, and its loss

_SMALL_BATCH = 32
_ORDER = 0  # seed of the order of the samples and of the batches, whatever the random state
_FEWEST_HELD_OUT = 100  # with fewer, a held-out loss is mostly noise: see PerceptronRouter
_HELD_OUT_BLOCK = 256  # samples
_LOOK = 25  # steps between looks at the held-out loss, or an epoch where that is longer
_PROGRESS = 1e-3  # a held-out loss that is lower by less than this fraction is no progress
_SHARPEST, _FLATTEST = 20.0, 0.05  # multipliers that a fit of NLC starts with
_LEAST_TEMPERATURE = 1e-3  # of the weight map `divide`: what keeps the multiplier finite


class Network:
    """A network, its activations and gradients.

    The first layer starts as torch's Linear does, uniform in +-1/sqrt(width); the last layer is
    zero, so every output starts as its bias.
    """

    def __init__(self, width: int, hidden: int, bias: Array, seed: int) -> None:
        shapes = {
            "hidden_weight": (width, hidden),
            "hidden_bias": (hidden,),
            "output_weight": (hidden, len(bias)),
            "output_bias": (len(bias),),
        }
        ends = np.cumsum([math.prod(shape) for shape in shapes.values()])
        self.values, self.gradient = np.zeros((2, ends[-1]), np.float32)
        self.weights, self.gradients = (
            {
                name: part.reshape(shapes[name])
                for name, part in zip(shapes, np.split(vector, ends[:-1]), strict=True)
            }
            for vector in (self.values, self.gradient)
        )
        bound = 1 / math.sqrt(width)
        rng = np.random.default_rng(seed)
        for name in ("hidden_weight", "hidden_bias"):
            self.weights[name][...] = rng.uniform(-bound, bound, shapes[name])
        self.weights["output_bias"][...] = bias
        self._buffers: dict[int, Array] = {}

    def forward(self, x: Array) -> Array:
        """Outputs (sample, output) of x (sample, width)."""
        return outputs_of(self.weights, x, self._activations(len(x))[0])

    def backward(self, x: Array, slope: Array) -> None:
        """Set the gradient, given that of the loss to the outputs of the last `forward` of x."""
        active, hidden = self._activations(len(x))
        np.matmul(active.T, slope, out=self.gradients["output_weight"])
        np.sum(slope, axis=0, out=self.gradients["output_bias"])
        np.matmul(slope, self.weights["output_weight"].T, out=hidden)
        hidden *= active > 0
        np.sum(hidden, axis=0, out=self.gradients["hidden_bias"])
        np.matmul(x.T, hidden, out=self.gradients["hidden_weight"])

    def _activations(self, samples: int) -> Array:
        """Two arrays (sample, hidden) to write to, the same ones on every step."""
        if samples not in self._buffers:
            width = len(self.weights["hidden_bias"])
            self._buffers[samples] = np.empty((2, samples, width), np.float32)
        return self._buffers[samples]


def outputs_of(weights: dict[str, Array], x: Array, active: Array | None = None) -> Array:
    """(sample, output) of x (sample, width); active: what to write the hidden layer to."""
    active = np.matmul(x, weights["hidden_weight"], out=active)
    active += weights["hidden_bias"]
    np.maximum(active, 0, out=active)
    out: Array = active @ weights["output_weight"]
    out += weights["output_bias"]
    return out


@dataclass(eq=False, repr=False)
class PerceptronRouter(Router):
    """A router whose weights come from a network on the unit-norm embeddings of all backbones.

    hidden: width of the hidden layer. learning_rate, weight_decay: of Adam, from 0 to 1.
    batch_size: the most samples a step; a small set is cut into about eight batches of 32 or more.
    steps, epochs: the training ends after the longer of the two, or after `patience` steps
    in which the held-out loss has not become lower by a thousandth.
    holdout: the share of the support that is held out at random, at most half. The weights with the
    lowest held-out loss are kept, the start among them. Where fewer than 100 samples would be held
    out, none are, and the last weights are kept.
    penalty: adds penalty/2 |t(x) - t_0|^2 / n to the mean loss over n samples, t_0 the start: a
    prior worth a fixed number of samples, so that few labels stay close to it.
    random_state: seed of the network's start. The order of the samples does not depend on it.

    `steps`, `epochs`, `holdout` and `penalty` are from cross-validation on training splits, whose
    numbers are in docs/dev/decisions.md.

    Of a support that is larger than memory the held-out samples stay in memory (the same share of
    each class, at most 256 MiB), and each epoch has other batches, gathered from the disk.

    Learned: `hidden_weight_` (width, hidden), `hidden_bias_`, `output_weight_` (hidden,
    backbone), `output_bias_`; `steps_` that led there; `held_out_loss_`, None where none is held
    out.
    """

    needs_embeddings: ClassVar[bool] = True
    any_size: ClassVar[bool] = True

    hidden: int = parameter(128, WHOLE, least=1, keyword=True)
    learning_rate: float = parameter(2e-4, NUMBER, least=0, most=1, keyword=True)
    weight_decay: float = parameter(0.01, NUMBER, least=0, most=1, keyword=True)
    batch_size: int = parameter(512, WHOLE, least=1, keyword=True)
    steps: int = parameter(600, WHOLE, least=1, keyword=True)
    epochs: int = parameter(10, WHOLE, least=0, keyword=True)
    patience: int = parameter(200, WHOLE, least=1, keyword=True)
    holdout: float = parameter(0.1, NUMBER, least=0, most=0.5, keyword=True)
    penalty: float = parameter(3.0, NUMBER, least=0, keyword=True)
    random_state: int = seed(keyword=True)

    hidden_weight_: Floats = learned()
    hidden_bias_: Floats = learned()
    output_weight_: Floats = learned()
    output_bias_: Floats = learned()
    steps_: int = learned()
    held_out_loss_: float | None = learned()

    def _fit(self, support: Pool) -> None:
        count = round(self.holdout * len(support))
        held_out = count if count >= _FEWEST_HELD_OUT else 0
        if support.is_too_large:
            most = IN_MEMORY // (4 * support.bytes_a_sample)
            rows = stratified(support.labels, min(held_out, most), _ORDER)
            held, rest = support.take(rows), np.delete(np.arange(len(support)), rows)
            start, samples, batches = self._start(held), len(rest), self._gathered(support, rest)
        else:
            pool = support.take(np.random.default_rng(_ORDER).permutation(len(support)))
            start, samples = self._start(pool), len(pool) - held_out
            held, batches = pool.take(slice(samples, None)), self._sliced(pool, samples)
        self._train(batches, samples, held, start)

    def _batch_count(self, samples: int) -> int:
        """Batches are of about equal size: about eight of 32 or more for a small set."""
        return math.ceil(samples / min(self.batch_size, max(_SMALL_BATCH, samples // 8)))

    def _sliced(self, pool: Pool, samples: int) -> Iterator[Step]:
        """Batches of the first samples, in another order each time, without end."""
        learned = pool.take(slice(samples))
        features, loss, rng = learned.features(), self._loss(learned), np.random.default_rng(_ORDER)
        batches = equal_slices(samples, self._batch_count(samples))
        while True:
            for number in rng.permutation(len(batches)):
                yield features[batches[number]], partial(loss, batches[number])

    def _gathered(self, pool: Pool, rows: Rows) -> Iterator[Step]:
        """The same of samples in files: each time batches of other samples."""
        rng = np.random.default_rng(_ORDER)
        while True:
            for batch in np.array_split(rng.permutation(rows), self._batch_count(len(rows))):
                part = pool.take(np.sort(batch))
                yield part.features(), partial(self._loss(part), slice(0, len(part)))

    def _train(self, batches: Iterator[Step], samples: int, held: Pool, start: Array) -> None:
        """Adam, a batch a step, until there is no more progress on the held-out samples.

        Without held-out samples the loss is NaN, and the last weights count as best: therefore
        ``not loss >= lowest`` below, where one expects ``loss < lowest``.
        """
        features, loss = held.features(), self._loss(held)
        network = Network(features.shape[1], self.hidden, start, self.random_state)
        adam = Adam(len(network.values), self.weight_decay, np.float32)
        an_epoch, pull = self._batch_count(samples), self.penalty / samples
        last, look = max(self.steps, self.epochs * an_epoch), max(_LOOK, an_epoch)
        lowest = mark = _mean_loss(network, features, loss)
        best, best_at, marked_at = network.values.copy(), 0, 0
        for step, (x, batch_loss) in enumerate(islice(batches, last), start=1):
            outputs = network.forward(x)
            slope = batch_loss(outputs)[1] + pull * (outputs - start)
            network.backward(x, slope / len(x))
            adam.step(network.values, network.gradient, self.learning_rate)
            if step % look and step != last:
                continue
            found = _mean_loss(network, features, loss)
            if not found >= lowest:
                best, best_at, lowest = network.values.copy(), step, found
            if not found >= mark * (1 - _PROGRESS):
                mark, marked_at = found, step
            if step - marked_at >= self.patience:
                break
        network.values[...] = best
        for name, values in network.weights.items():
            setattr(self, f"{name}_", values.copy())
        self.steps_ = best_at
        self.held_out_loss_ = None if math.isnan(lowest) else lowest

    def _outputs(self, pool: Pool) -> Floats:
        """(sample, backbone) what the network says."""
        features = pool.features()
        if features.shape[1] != len(self.hidden_weight_):
            raise RouterMismatch(
                "width of the embeddings", len(self.hidden_weight_), features.shape[1]
            )
        weights = {name[:-1]: values for name, values in self.learned().items()}
        return np.asarray(outputs_of(weights, features), np.float32)

    def _start(self, pool: Pool) -> Floats:
        """(backbone,) what the outputs start as, and are held to."""
        raise NotImplementedError

    def _loss(self, pool: Pool) -> Loss:
        """The loss of rows of `pool` given the outputs for them."""
        raise NotImplementedError


def _mean_loss(network: Network, features: Array, loss: Loss) -> float:
    """Over all samples, NaN if there are none."""
    count = len(features)
    total = 0.0
    for rows in equal_slices(count, math.ceil(count / _HELD_OUT_BLOCK)) if count else ():
        total += float(loss(rows, network.forward(features[rows]))[0].sum(dtype=float))
    return total / count if count else math.nan


@dataclass(eq=False, repr=False)
class NLC(PerceptronRouter):
    """``z(x) = (1/B) sum over b of a_b(x) Z_b(x)``, with ``a(x) = weight_map(t(x))``.

        t(x) = relu([f_1(x) … f_B(x)] W1 + b1) W2 + b2      f_b: unit-norm embeddings

    minimises the cross-entropy of z by Adam (2e-4, weight decay 0.01 as a part of the gradient).
    W2 starts as zero, and b2 such that every multiplier a_b is the one under which log-avg has the
    lowest cross-entropy: the fit starts at log-avg, as sure as it should be. `weights` are a_b/B.

    weight_map: the paper does not say which one it uses.

    - ``softplus``: a = log(1 + exp t), positive. The default.
    - ``linear``: a = t, of either sign. With more backbones than classes this is hardly a selection
      any more: the weights can give almost any scores.
    - ``divide``: a = 1 / (softplus(t) + 0.001), a temperature for each backbone and image.
    - ``softmax``: a = B softmax(t), so the weights sum to 1; the start is plain log-avg.

    The other parameters, and what is learned, are those of `PerceptronRouter`.

    Raises UnknownName for another weight map, InputError for a pool without embeddings.

    >>> from clipsyn import NLC, Pool
    >>> kinds = [[1, 0], [1, 0], [0, 1], [0, 1]]  # embeddings of two kinds of images
    >>> logits = [[[3, 0], [0, 1]], [[0, 3], [1, 0]], [[0, 1], [3, 0]], [[1, 0], [0, 3]]]
    >>> support = Pool.of(logits, [0, 1, 0, 1], [kinds, kinds])  # a backbone is right on each kind
    >>> NLC(penalty=0).fit(support).weights(support).round(1)  # (sample, backbone), a / B
    array([[1.8, 1.1],
           [1.8, 1.1],
           [1. , 1.8],
           [1. , 1.8]], dtype=float32)
    """

    weight_map: str = parameter(
        "softplus", TEXT, choices=("softplus", "linear", "divide", "softmax")
    )

    def _weights(self, pool: Pool) -> Array:
        return self._multipliers(self._outputs(pool)) / len(pool.backbones)

    def _multipliers(self, outputs: Array) -> Array:
        if self.weight_map == "linear":
            return outputs
        if self.weight_map == "softmax":
            return np.asarray(outputs.shape[-1] * softmax(outputs))
        positive: Array = np.logaddexp(0, outputs)
        if self.weight_map == "divide":
            positive = 1 / (positive + _LEAST_TEMPERATURE)
        return positive

    def _slopes(self, outputs: Array, multipliers: Array, gradient: Array) -> Array:
        """Along the outputs, of what has this gradient along the multipliers."""
        if self.weight_map == "linear":
            return gradient
        if self.weight_map == "softmax":
            mean = (multipliers * gradient).mean(axis=-1, keepdims=True)
            return np.asarray(multipliers * (gradient - mean))
        slopes = gradient * (0.5 + 0.5 * np.tanh(0.5 * outputs))  # sigmoid without overflow
        return slopes if self.weight_map == "softplus" else -slopes * multipliers**2

    def _start(self, pool: Pool) -> Floats:
        found = common_temperature(mean_logits(pool.logits), pool.labels)
        multiplier = min(max(found, _FLATTEST), _SHARPEST)
        output = {
            "linear": multiplier,
            "softmax": 0.0,
            "softplus": math.log(math.expm1(multiplier)),
            "divide": math.log(math.expm1(1 / multiplier - _LEAST_TEMPERATURE)),
        }[self.weight_map]
        return np.full(len(pool.backbones), output, np.float32)

    def _loss(self, pool: Pool) -> Loss:
        def loss(rows: slice, outputs: Array) -> tuple[Array, Array]:
            multipliers, count = self._multipliers(outputs), len(pool.backbones)
            losses, gradient = weighted_cross_entropy(
                pool.logits[rows], multipliers / count, pool.labels[rows]
            )
            return losses, self._slopes(outputs, multipliers, gradient / count)

        return loss
