"""One hidden layer trained by Adam: the controller of NLC, the gate of a mixture of experts.

    u = relu(x W1 + b1)        t = u W2 + b2

All parameters lie in one vector, all gradients in another, so that a step of Adam is one pass over
blocks that fit a cache. The samples come shuffled. A batch is a slice of them, only the order of
the slices changes, and no step allocates anything large: gathering rows and page faults cost more
than the arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipsyn.errors import RouterMismatch
from clipsyn.methods.ensembles.base import Router
from clipsyn.methods.estimator import learned, parameter, seed
from clipsyn.methods.numerics.blocks import equal_slices
from clipsyn.methods.numerics.optimise import Adam
from clipsyn.methods.numerics.samples import stratified
from clipsyn.methods.pool import IN_MEMORY, Pool
from clipsyn.settings import NUMBER, WHOLE

# rows, outputs (sample, output) -> losses (sample,), gradients like the outputs
Loss = Callable[[slice, NDArray[Any]], tuple[NDArray[Any], NDArray[Any]]]
# features of a batch, and the loss of these rows
Step = tuple[NDArray[Any], Callable[[NDArray[Any]], tuple[NDArray[Any], NDArray[Any]]]]
Weights = dict[str, NDArray[Any]]

_SMALL_BATCH = 32
_ORDER = 0  # seed of the order of the samples and of the batches, whatever the random state
_FEWEST_HELD_OUT = 100  # with fewer, a held-out loss is mostly noise: see PerceptronRouter
_HELD_OUT_BLOCK = 256  # samples
_LOOK = 25  # steps between looks at the held-out loss, or an epoch where that is longer
_PROGRESS = 1e-3  # a held-out loss that is lower by less than this fraction is no progress


class Network:
    """A network, its activations and gradients.

    The first layer starts as torch's Linear does, uniform in +-1/sqrt(width); the last layer is
    zero, so every output starts as its bias.
    """

    def __init__(self, width: int, hidden: int, bias: NDArray[Any], seed: int, dtype: Any) -> None:
        outputs = len(bias)
        self._shapes = {
            "hidden_weight": (width, hidden),
            "hidden_bias": (hidden,),
            "output_weight": (hidden, outputs),
            "output_bias": (outputs,),
        }
        size = sum(math.prod(shape) for shape in self._shapes.values())
        self.values, self.gradient = np.zeros(size, dtype), np.zeros(size, dtype)
        self.weights, self.gradients = self._views(self.values), self._views(self.gradient)
        bound = 1 / math.sqrt(width)
        rng = np.random.default_rng(seed)
        self.weights["hidden_weight"][...] = rng.uniform(-bound, bound, (width, hidden))
        self.weights["hidden_bias"][...] = rng.uniform(-bound, bound, hidden)
        self.weights["output_bias"][...] = bias
        self._buffers: dict[int, tuple[NDArray[Any], NDArray[Any]]] = {}

    def forward(self, x: NDArray[Any]) -> NDArray[Any]:
        """Outputs (sample, output) of x (sample, width)."""
        active, _ = self._activations(len(x))
        np.matmul(x, self.weights["hidden_weight"], out=active)
        active += self.weights["hidden_bias"]
        np.maximum(active, 0, out=active)
        out: NDArray[Any] = active @ self.weights["output_weight"]
        out += self.weights["output_bias"]
        return out

    def backward(self, x: NDArray[Any], slope: NDArray[Any]) -> None:
        """Set the gradient, given that of the loss to the outputs of the last `forward` of x."""
        active, hidden = self._activations(len(x))
        np.matmul(active.T, slope, out=self.gradients["output_weight"])
        np.sum(slope, axis=0, out=self.gradients["output_bias"])
        np.matmul(slope, self.weights["output_weight"].T, out=hidden)
        hidden *= active > 0
        np.sum(hidden, axis=0, out=self.gradients["hidden_bias"])
        np.matmul(x.T, hidden, out=self.gradients["hidden_weight"])

    def _views(self, vector: NDArray[Any]) -> Weights:
        ends = np.cumsum([math.prod(shape) for shape in self._shapes.values()])
        parts = np.split(vector, ends[:-1])
        pairs = zip(self._shapes.items(), parts, strict=True)
        return {name: part.reshape(shape) for (name, shape), part in pairs}

    def _activations(self, samples: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Two arrays (sample, hidden) to write to, the same ones on every step."""
        if samples not in self._buffers:
            shape = (samples, len(self.weights["hidden_bias"]))
            self._buffers[samples] = (
                np.empty(shape, self.values.dtype),
                np.empty(shape, self.values.dtype),
            )
        return self._buffers[samples]


class Trained(NamedTuple):
    weights: Weights
    steps: int  # of Adam that led to these weights
    loss: float  # of the held-out samples; NaN where there are none


class _Best:
    """The weights where the held-out loss was lowest; the start counts.

    Without held-out samples the loss is NaN, and the last weights count as best: therefore
    ``not loss >= best`` below, where one expects ``loss < best``.
    """

    def __init__(self, network: Network, loss: float, patience: int) -> None:
        self._network, self._patience = network, patience
        self._mark, self._marked_at = loss, 0
        self.trained = self._now(0, loss)

    def look(self, loss: float, step: int) -> bool:
        """Take note of the loss after `step` steps; returns whether the training shall end."""
        if not loss >= self.trained.loss:
            self.trained = self._now(step, loss)
        if not loss >= self._mark * (1 - _PROGRESS):
            self._mark, self._marked_at = loss, step
        return step - self._marked_at >= self._patience

    def _now(self, step: int, loss: float) -> Trained:
        weights = {name: view.copy() for name, view in self._network.weights.items()}
        return Trained(weights, step, loss)


def train(
    settings: PerceptronRouter, features: NDArray[Any], loss: Loss, bias: NDArray[Any]
) -> Trained:
    """A network whose outputs start as `bias` and minimise `loss`, as `settings` say.

    features: (sample, width), shuffled, with the samples to hold out at the end.
    """
    held = slice(len(features) - _held_out(settings, len(features)), len(features))
    batches = batches_of(settings, held.start)
    network = _started(settings, features, bias)
    steps = ((features[rows], partial(loss, rows)) for rows in _in_random_order(batches))
    held_loss = partial(_mean_loss, network, features, loss, held)
    return _descend(settings, network, steps, held_loss, an_epoch=len(batches), samples=held.start)


def _train_from_disk(settings: PerceptronRouter, pool: Pool) -> Trained:
    """The same for samples in files, gathered batch by batch; the held-out ones are in memory."""
    most = IN_MEMORY // (4 * pool.bytes_a_sample)
    held_rows = stratified(pool.labels, min(_held_out(settings, len(pool)), most), _ORDER)
    held, rows = pool.take(held_rows), np.delete(np.arange(len(pool)), held_rows)
    features = held.features()
    network = _started(settings, features, settings._start(held))
    count = math.ceil(len(rows) / _batch_size(settings, len(rows)))
    held_loss = partial(_mean_loss, network, features, settings._loss(held), slice(0, len(held)))
    steps = _gathered(settings, pool, rows, count)
    return _descend(settings, network, steps, held_loss, an_epoch=count, samples=len(rows))


def _gathered(
    settings: PerceptronRouter, pool: Pool, rows: NDArray[np.intp], count: int
) -> Iterator[Step]:
    """Pass after pass without end, each of `count` batches of other samples."""
    rng = np.random.default_rng(_ORDER)
    while True:
        for batch in np.array_split(rng.permutation(rows), count):
            part = pool.take(np.sort(batch))
            yield part.features(), partial(settings._loss(part), slice(0, len(part)))


def _started(settings: PerceptronRouter, features: NDArray[Any], bias: NDArray[Any]) -> Network:
    width, dtype = features.shape[1], features.dtype
    return Network(width, settings.hidden, bias, settings.random_state, dtype)


def _descend(
    settings: PerceptronRouter,
    network: Network,
    steps: Iterator[Step],
    held_loss: Callable[[], float],
    *,
    an_epoch: int,
    samples: int,
) -> Trained:
    """Adam, a batch a step, until there is no more progress on the held-out samples."""
    values = network.values
    adam = Adam(len(values), settings.learning_rate, settings.weight_decay, values.dtype)
    best = _Best(network, held_loss(), settings.patience)
    last, look = max(settings.steps, settings.epochs * an_epoch), max(_LOOK, an_epoch)
    start, pull = network.weights["output_bias"].copy(), settings.penalty / samples
    for step, (x, loss) in enumerate(islice(steps, last), start=1):
        outputs = network.forward(x)
        slope = loss(outputs)[1] + pull * (outputs - start)
        network.backward(x, slope / len(x))
        adam.step(values, network.gradient)
        looks = step % look == 0 or step == last
        if looks and best.look(held_loss(), step):
            break
    return best.trained


def batches_of(settings: PerceptronRouter, samples: int) -> list[slice]:
    """The samples in batches of about equal size: about eight of 32 or more for a small set."""
    return equal_slices(samples, math.ceil(samples / _batch_size(settings, samples)))


def _batch_size(settings: PerceptronRouter, samples: int) -> int:
    return min(settings.batch_size, max(_SMALL_BATCH, samples // 8))


def _held_out(settings: PerceptronRouter, samples: int) -> int:
    """How many samples are kept out of the training: none where they would be too few."""
    count = round(settings.holdout * samples)
    return count if count >= _FEWEST_HELD_OUT else 0


def _in_random_order(batches: Sequence[slice]) -> Iterator[slice]:
    """All batches, then all in another order, without end."""
    rng = np.random.default_rng(_ORDER)
    while True:
        for number in rng.permutation(len(batches)):
            yield batches[number]


def _mean_loss(network: Network, features: NDArray[Any], loss: Loss, rows: slice) -> float:
    """The mean loss over `rows`, NaN if there are none."""
    count: int = rows.stop - rows.start
    if not count:
        return math.nan
    total = 0.0
    for part in equal_slices(count, math.ceil(count / _HELD_OUT_BLOCK)):
        here = slice(rows.start + part.start, rows.start + part.stop)
        losses, _ = loss(here, network.forward(features[here]))
        total += float(losses.sum(dtype=float))
    return total / count


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
    backbone), `output_bias_`; `steps_` that led there; `held_out_loss_`.
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

    hidden_weight_: NDArray[np.float32] = learned()
    hidden_bias_: NDArray[np.float32] = learned()
    output_weight_: NDArray[np.float32] = learned()
    output_bias_: NDArray[np.float32] = learned()
    steps_: int = learned()
    held_out_loss_: float = learned()

    def _fit(self, support: Pool) -> None:
        if support.is_too_large:
            trained = _train_from_disk(self, support)
        else:
            pool = support.take(np.random.default_rng(_ORDER).permutation(len(support)))
            bias = self._start(pool)
            trained = train(self, pool.features(), self._loss(pool), bias)
        for name, values in trained.weights.items():
            setattr(self, f"{name}_", values)
        self.steps_, self.held_out_loss_ = trained.steps, trained.loss

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

    def _start(self, pool: Pool) -> NDArray[np.float32]:
        """(backbone,) what the outputs start as, and are held to."""
        raise NotImplementedError

    def _loss(self, pool: Pool) -> Loss:
        """The loss of rows of `pool` given the outputs for them."""
        raise NotImplementedError
