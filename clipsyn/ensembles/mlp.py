"""One hidden layer trained by Adam: the controller of NLC, the gate of a mixture of experts.

    u = relu(x W1 + b1)        t = u W2 + b2

Several seeds are several networks that see the same batches: their first layers stand side by
side in one matrix (width, seed * hidden), which one product serves. All parameters lie in one
vector, all gradients in another, so that Adam is one pass over blocks that fit a cache.

The samples come shuffled. A batch is a slice of them, only the order of the slices changes, and no
step allocates anything large: gathering rows and page faults cost more than the arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import islice
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from clipsyn.ensembles.base import Router
from clipsyn.errors import RouterMismatch
from clipsyn.estimator import check_range
from clipsyn.numerics.blocks import equal_slices
from clipsyn.pool import Pool

# (rows, outputs (sample, seed, output)) -> losses (sample, seed), gradients like the outputs
Loss = Callable[[slice, NDArray[Any]], tuple[NDArray[Any], NDArray[Any]]]
Weights = dict[str, NDArray[Any]]

_ADAM_BLOCK = 65_536  # parameters: with gradient and moments 1 MB, which a core's cache holds
_FIRST_DECAY, _SECOND_DECAY, _EPSILON = 0.9, 0.999, 1e-8  # torch's defaults
_SMALL_BATCH = 32
_ORDER = 0  # seed of the order of the samples and of the batches, which all seeds share
_FEWEST_HELD_OUT = 100  # with fewer, a held-out loss is mostly noise: see PerceptronRouter
_HELD_OUT_BLOCK = 256  # samples
_LOOK = 25  # steps between looks at the held-out loss, or an epoch where that is longer
_PROGRESS = 1e-3  # a held-out loss that is lower by less than this fraction is no progress


@dataclass(frozen=True)
class Recipe:
    """How networks are trained; see `PerceptronRouter` for what each number is."""

    hidden: int
    learning_rate: float
    weight_decay: float
    batch_size: int
    steps: int
    epochs: int
    patience: int
    holdout: float

    def __post_init__(self) -> None:
        check_range(self, ("hidden", "batch_size", "steps", "patience"), 1)
        check_range(self, ("epochs",), 0)
        check_range(self, ("learning_rate", "weight_decay"), 0, 1)
        check_range(self, ("holdout",), 0, 0.5)

    def held_out(self, samples: int) -> int:
        """How many samples are kept out of the training: none where they would be too few."""
        count = round(self.holdout * samples)
        return count if count >= _FEWEST_HELD_OUT else 0

    def batches(self, samples: int) -> list[slice]:
        size = min(self.batch_size, max(_SMALL_BATCH, samples // 8))
        return equal_slices(samples, math.ceil(samples / size))


class Network:
    """Networks of several seeds, their activations and gradients.

    The first layer starts as torch's Linear does, uniform in +-1/sqrt(width); the last layer is
    zero, so every output starts as its bias.
    """

    def __init__(
        self, width: int, hidden: int, bias: NDArray[Any], seeds: Sequence[int], dtype: Any
    ) -> None:
        outputs, count = len(bias), len(seeds)
        self.shapes = {
            "hidden_weight": (width, count * hidden),
            "hidden_bias": (count * hidden,),
            "output_weight": (count, hidden, outputs),
            "output_bias": (count, outputs),
        }
        size = sum(math.prod(shape) for shape in self.shapes.values())
        self.values, self.gradient = np.zeros(size, dtype), np.zeros(size, dtype)
        self._at, self._slope = self._views(self.values), self._views(self.gradient)
        self.hidden, self.count = hidden, count
        bound = 1 / math.sqrt(width)
        for number, seed in enumerate(seeds):
            rng = np.random.default_rng(seed)
            start = self.weights(number)
            start["hidden_weight"][...] = rng.uniform(-bound, bound, (width, hidden))
            start["hidden_bias"][...] = rng.uniform(-bound, bound, hidden)
            start["output_bias"][...] = bias
        self._buffers: dict[int, tuple[NDArray[Any], ...]] = {}

    def weights(self, number: int) -> Weights:
        """Views of the parameters of one network."""
        return self._of(self._at, number)

    def gradients(self, number: int) -> Weights:
        """Views of the gradients of one network."""
        return self._of(self._slope, number)

    def forward(self, x: NDArray[Any]) -> NDArray[Any]:
        """Outputs (sample, seed, output) of x (sample, width)."""
        active, _ = self._activations(len(x))
        np.matmul(x, self._at["hidden_weight"], out=active)
        active += self._at["hidden_bias"]
        np.maximum(active, 0, out=active)
        out = self._by_seed(active) @ self._at["output_weight"]
        out += self._at["output_bias"][:, None]
        return out.transpose(1, 0, 2)

    def backward(self, x: NDArray[Any], slope: NDArray[Any]) -> None:
        """Set the gradient, given that of the loss to the outputs of the last `forward` of x."""
        active, hidden = self._activations(len(x))
        by_seed, slope = self._by_seed(active), slope.transpose(1, 0, 2)
        np.matmul(by_seed.transpose(0, 2, 1), slope, out=self._slope["output_weight"])
        np.sum(slope, axis=1, out=self._slope["output_bias"])
        weight = self._at["output_weight"].transpose(0, 2, 1)
        np.matmul(slope, weight, out=self._by_seed(hidden))
        hidden *= active > 0
        np.sum(hidden, axis=0, out=self._slope["hidden_bias"])
        np.matmul(x.T, hidden, out=self._slope["hidden_weight"])

    def _of(self, views: Weights, number: int) -> Weights:
        columns = slice(number * self.hidden, (number + 1) * self.hidden)
        return {
            "hidden_weight": views["hidden_weight"][:, columns],
            "hidden_bias": views["hidden_bias"][columns],
            "output_weight": views["output_weight"][number],
            "output_bias": views["output_bias"][number],
        }

    def _views(self, vector: NDArray[Any]) -> Weights:
        ends = np.cumsum([math.prod(shape) for shape in self.shapes.values()])
        parts = np.split(vector, ends[:-1])
        pairs = zip(self.shapes.items(), parts, strict=True)
        return {name: part.reshape(shape) for (name, shape), part in pairs}

    def _activations(self, samples: int) -> tuple[NDArray[Any], ...]:
        """Two arrays (sample, seed * hidden) to write to, the same ones on every step."""
        if samples not in self._buffers:
            shape = (samples, self.count * self.hidden)
            self._buffers[samples] = tuple(np.empty(shape, self.values.dtype) for _ in range(2))
        return self._buffers[samples]

    def _by_seed(self, array: NDArray[Any]) -> NDArray[Any]:
        return array.reshape(len(array), self.count, self.hidden).transpose(1, 0, 2)


class Adam:
    """torch.optim.Adam: weight decay is a part of the gradient (L2), not AdamW's.

    The moments are kept without the factors (1 - beta), which the step size takes over: two passes
    less over the parameters.
    """

    def __init__(self, size: int, learning_rate: float, weight_decay: float, dtype: Any) -> None:
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self._first, self._second = np.zeros(size, dtype), np.zeros(size, dtype)
        self._steps = 0

    def step(self, values: NDArray[Any], gradient: NDArray[Any]) -> None:
        """Move `values` in place; overwrites `gradient`."""
        self._steps += 1
        spread = math.sqrt((1 - _SECOND_DECAY**self._steps) / (1 - _SECOND_DECAY))
        mean = (1 - _FIRST_DECAY) / (1 - _FIRST_DECAY**self._steps)
        size = self.learning_rate * mean * spread
        for start in range(0, len(values), _ADAM_BLOCK):
            block = slice(start, start + _ADAM_BLOCK)
            self._move(values[block], gradient[block], block, size, _EPSILON * spread)

    def _move(
        self,
        values: NDArray[Any],
        gradient: NDArray[Any],
        block: slice,
        size: float,
        epsilon: float,
    ) -> None:
        first, second = self._first[block], self._second[block]
        gradient += self.weight_decay * values
        first *= _FIRST_DECAY
        first += gradient
        second *= _SECOND_DECAY
        gradient *= gradient
        second += gradient
        np.sqrt(second, out=gradient)
        gradient += epsilon
        np.divide(first, gradient, out=gradient)
        gradient *= size
        values -= gradient


@dataclass(frozen=True)
class Trained:
    weights: Weights
    steps: int  # of Adam that led to these weights
    loss: float  # of the held-out samples; NaN where there are none


class _Best:
    """The weights of every seed where its held-out loss was lowest; the start counts.

    Without held-out samples the losses are NaN, and the last weights count as best: therefore
    ``not losses >= best`` below, where one expects ``losses < best``.
    """

    def __init__(self, network: Network, losses: NDArray[Any], patience: int) -> None:
        self._network, self._patience = network, patience
        self._mark, self._marked_at = losses.copy(), np.zeros(network.count, int)
        self._running = np.ones(network.count, bool)
        self.trained = [self._now(number, 0, loss) for number, loss in enumerate(losses)]

    def look(self, losses: NDArray[Any], step: int) -> bool:
        """Take note of the losses after `step` steps; returns whether every seed has stopped."""
        for number in map(int, np.flatnonzero(self._running)):
            if not losses[number] >= self.trained[number].loss:
                self.trained[number] = self._now(number, step, losses[number])
        progress = ~(losses >= self._mark * (1 - _PROGRESS))
        self._mark[progress], self._marked_at[progress] = losses[progress], step
        self._running &= step - self._marked_at < self._patience
        return not self._running.any()

    def _now(self, number: int, step: int, loss: float) -> Trained:
        weights = self._network.weights(number)
        return Trained({name: view.copy() for name, view in weights.items()}, step, float(loss))


def train(
    features: NDArray[Any], loss: Loss, bias: NDArray[Any], recipe: Recipe, seeds: Sequence[int]
) -> list[Trained]:
    """One network for each seed, each as if it had been trained alone.

    features: (sample, width), shuffled, with the samples to hold out at the end.
    """
    held = slice(len(features) - recipe.held_out(len(features)), len(features))
    batches = recipe.batches(held.start)
    network = Network(features.shape[1], recipe.hidden, bias, seeds, features.dtype)
    adam = Adam(len(network.values), recipe.learning_rate, recipe.weight_decay, features.dtype)
    best = _Best(network, _mean_losses(network, features, loss, held), recipe.patience)
    last, look = max(recipe.steps, recipe.epochs * len(batches)), max(_LOOK, len(batches))
    schedule = enumerate(_in_random_order(batches), start=1)
    for step, rows in islice(schedule, last):
        x = features[rows]
        _, slope = loss(rows, network.forward(x))
        network.backward(x, slope / len(x))
        adam.step(network.values, network.gradient)
        if step % look == 0 or step == last:
            losses = _mean_losses(network, features, loss, held)
            if best.look(losses, step):
                break
    return best.trained


def _in_random_order(batches: Sequence[slice]) -> Iterator[slice]:
    """All batches, then all in another order, without end."""
    rng = np.random.default_rng(_ORDER)
    while True:
        for number in rng.permutation(len(batches)):
            yield batches[number]


def _mean_losses(
    network: Network, features: NDArray[Any], loss: Loss, rows: slice
) -> NDArray[np.float64]:
    """(seed,) mean loss over `rows`, NaN if there are none."""
    total = np.zeros(network.count)
    count = rows.stop - rows.start
    if not count:
        return np.full(network.count, np.nan)
    for part in equal_slices(count, math.ceil(count / _HELD_OUT_BLOCK)):
        here = slice(rows.start + part.start, rows.start + part.stop)
        total += loss(here, network.forward(features[here]))[0].sum(axis=0, dtype=float)
    return np.asarray(total / count)


class PerceptronRouter(Router):
    """A router whose weights come from a network on the unit-norm embeddings of all backbones.

    hidden: width of its hidden layer. learning_rate, weight_decay: of Adam, from 0 to 1.
    batch_size: at most so many samples a step; a small set makes about eight batches of 32 or more.
    steps, epochs: the training ends after the longer of the two, or after `patience` steps
    in which the loss of the held-out samples has not become lower by a thousandth.
    holdout: the share of the support that is held out, at most half, chosen at random. The weights
    with the lowest held-out loss are kept, the start among them. Where that were fewer than 100
    samples, nothing is held out and the last weights are kept.
    random_state: seed of the network's start. The order of the samples does not depend on it.

    How long to train is not known. 600 steps are a compromise from cross-validation on the shipped
    training splits (1 shot to 657 images): the loss is lowest after about 300, accuracy grows
    to 1,000 and beyond; holding out a tenth of them cost 0.003 to 0.01 of accuracy.

    Learned: `hidden_weight_` (width, hidden), `hidden_bias_`, `output_weight_` (hidden,
    backbone), `output_bias_`; `steps_` that led there; `held_out_loss_`.
    """

    needs_embeddings: ClassVar[bool] = True
    maskable: ClassVar[bool] = True

    hidden_weight_: NDArray[np.float32]
    hidden_bias_: NDArray[np.float32]
    output_weight_: NDArray[np.float32]
    output_bias_: NDArray[np.float32]
    steps_: int
    held_out_loss_: float

    def __init__(
        self,
        *,
        hidden: int = 128,
        learning_rate: float = 2e-4,
        weight_decay: float = 0.01,
        batch_size: int = 512,
        steps: int = 600,
        epochs: int = 10,
        patience: int = 200,
        holdout: float = 0.1,
        random_state: int = 0,
    ) -> None:
        self.hidden = hidden
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.steps = steps
        self.epochs = epochs
        self.patience = patience
        self.holdout = holdout
        self.random_state = random_state

    def fit_seeds(self, support: Pool, seeds: Sequence[int]) -> list[Self]:
        """A router for each seed, equal to ``fit`` with that `random_state` up to rounding.

        They share the arrays of features and logits, every batch and its product.
        """
        params = self.get_params()
        routers = [type(self)(**{**params, "random_state": int(seed)}) for seed in seeds]
        pools = [router._admit(support) for router in routers]
        if pools and len(support.backbones) > 1:
            self._fit_together(routers, pools[0].of_backbones(routers[0].backbones_))
        return routers

    def _fit(self, pool: Pool) -> None:
        self._fit_together([self], pool)

    def _fit_together(self, routers: Sequence[PerceptronRouter], pool: Pool) -> None:
        recipe = Recipe(**{field.name: getattr(self, field.name) for field in fields(Recipe)})
        pool = pool.take(np.random.default_rng(_ORDER).permutation(len(pool)))
        bias = self._start(len(pool.backbones))
        seeds = [router.random_state for router in routers]
        trained = train(pool.features(), self._loss(pool), bias, recipe, seeds)
        for router, result in zip(routers, trained, strict=True):
            for name, values in result.weights.items():
                setattr(router, f"{name}_", values)
            router.steps_, router.held_out_loss_ = result.steps, result.loss

    def _outputs(self, pool: Pool) -> NDArray[np.float32]:
        """(sample, backbone) what the network says."""
        features = pool.features()
        if features.shape[1] != len(self.hidden_weight_):
            raise RouterMismatch(
                "width of the embeddings", len(self.hidden_weight_), features.shape[1]
            )
        active = features @ self.hidden_weight_
        active += self.hidden_bias_
        np.maximum(active, 0, out=active)
        return np.asarray(active @ self.output_weight_ + self.output_bias_, np.float32)

    def _start(self, backbones: int) -> NDArray[np.float32]:
        """(backbone,) what the outputs start as."""
        raise NotImplementedError

    def _loss(self, pool: Pool) -> Loss:
        """The loss of rows of `pool` given the outputs for them."""
        raise NotImplementedError
