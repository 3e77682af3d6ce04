"""Rows of later papers beside a few lines of torch that write the publications' formulas.

    OMP_NUM_THREADS=1 python benchmarks/rivals.py                       all of them
    OMP_NUM_THREADS=1 python benchmarks/rivals.py --names proker,swig   some

Both sides get the same images and take the same number of steps: each fits on 16 images of each
class, and scores other images. Processor time, of one thread a side. What ours does beyond that,
to choose settings or for a combiner, takes no part. The images are those of `transductive.py`.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "10")  # as the command line does; before numpy
import math
from collections.abc import Callable
from typing import NamedTuple

import click
import numpy as np
import torch
from common import ratio, spread, start
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize, one_hot
from transductive import SCALE, SHOTS, pool_of, processor

from clipsyn.methods.ensembles import ENSEMBLES
from clipsyn.methods.estimator import from_text
from clipsyn.methods.heads import HEADS
from clipsyn.methods.pool import Pool

EPOCHS, STEPS, BATCH = 300, 600, 512
BACKBONES = "b1", "b5", "b6"  # of width 512; heads get the first


class Seen(NamedTuple):
    """What torch gets of a pool: by backbone f (image, embed), z_0 (image, class); labels y."""

    f: list[Tensor]
    z: list[Tensor]
    y: Tensor
    text: Tensor  # (class, embed) of the first backbone

    @classmethod
    def of(cls, pool: Pool) -> Seen:
        f = [torch.from_numpy(np.array(pool.embeddings[b], np.float32)) for b in pool.backbones]
        z = [torch.from_numpy(np.array(z)) for z in pool.logits.swapaxes(0, 1)]
        text = torch.from_numpy(pool.class_embeddings[pool.backbones[0]])
        return cls(f, z, torch.from_numpy(pool.labels).long(), text)


# what a user of torch would write: what is fitted on `few`, as scores (image, class) of `new`


def descend(optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()


def ape(few: Seen, new: Seen) -> Tensor:
    alike = (few.text.sum(0) ** 2 - (few.text**2).sum(0)) / (len(few.text) * (len(few.text) - 1))
    channels = (0.7 * alike - 0.3 * few.text.var(0)).argsort()[: few.text.shape[1] // 2]
    f, keys, text = (normalize(it[:, channels]) for it in (new.f[0], few.f[0], few.text))
    labels = one_hot(few.y).float()
    trust: Tensor = ((keys @ text.T).softmax(1)[labels.bool()].log2() * -0.1).exp()
    near: Tensor = (5.5 * (f @ keys.T - 1)).exp()
    return new.z[0] + near @ (trust[:, None] * labels)


def proker(few: Seen, new: Seen) -> Tensor:
    def kernel(one: Tensor, other: Tensor) -> Tensor:
        return (1.7 * (one @ other.T - 1)).exp()

    system = kernel(few.f[0], few.f[0]) / 0.1 + torch.eye(len(few.y))
    found: Tensor = torch.linalg.solve(system, one_hot(few.y).float() - few.z[0] / SCALE)
    return new.z[0] + SCALE * kernel(new.f[0], few.f[0]) @ found


def cosine(epoch: int, epochs: int) -> float:
    return 0.5 * (1 + math.cos(math.pi * epoch / epochs))


def clap(few: Seen, new: Seen) -> Tensor:
    x, y, w = few.f[0], few.y, few.text.clone().requires_grad_()
    own = few.z[0].softmax(1)[torch.arange(len(y)), y]
    hold = torch.bincount(y, own) / torch.bincount(y)
    optimiser = torch.optim.SGD([w], 0.1, momentum=0.9)
    for epoch in range(EPOCHS):
        optimiser.param_groups[0]["lr"] = 0.1 * cosine(epoch - 1, EPOCHS - 1) if epoch else 1e-5
        for rows in torch.randperm(len(y)).chunk(math.ceil(len(y) / 256)):
            loss = cross_entropy(SCALE * x[rows] @ normalize(w).T, y[rows])
            descend(optimiser, loss + (hold * (w - few.text).square().sum(1)).mean())
    return SCALE * new.f[0] @ normalize(w.detach()).T


def lp_plus_plus(few: Seen, new: Seen) -> Tensor:
    x, y, n = few.f[0], few.y, len(few.y)
    cosines = x @ few.text.T
    w = (one_hot(y).float().T @ x).requires_grad_()
    b = torch.zeros(len(w), requires_grad=True)
    alpha = torch.full((len(w),), 250 * float(cosines[torch.arange(n), y].mean()))
    alpha.requires_grad_()
    rate = 4 * n / float(torch.linalg.matrix_norm(x, 2)) ** 2
    alpha_rate = n / (4 * float(cosines.square().sum(0).max()))
    linear = torch.optim.SGD([w, b], rate, momentum=0.9)
    for epoch in range(EPOCHS):
        descend(linear, cross_entropy(x @ w.T + b + alpha * cosines, y))
        if (epoch + 1) % 10 == 0:  # its gradient adds up
            alpha.data -= alpha_rate * alpha.grad  # type: ignore[operator]
    return (new.f[0] @ w.T + b + alpha * (new.f[0] @ few.text.T)).detach()


def rla(few: Seen, new: Seen) -> Tensor:
    identity = torch.eye(few.f[0].shape[1])
    a = identity.clone().requires_grad_()
    optimiser = torch.optim.Adam([a], eps=1e-4)
    for epoch in range(EPOCHS):
        optimiser.param_groups[0]["lr"] = 1e-3 * cosine(epoch, EPOCHS)
        loss = cross_entropy(SCALE * normalize(few.f[0] @ a) @ few.text.T, few.y)
        descend(optimiser, loss + (a - identity).square().sum() / len(few.y))
    return SCALE * normalize(new.f[0] @ a.detach()) @ few.text.T


def swig(few: Seen, new: Seen) -> Tensor:
    def inputs(seen: Seen) -> tuple[Tensor, Tensor]:
        return torch.cat(seen.f, 1), torch.stack(seen.z, 1).softmax(2)

    x, p = inputs(few)
    network = torch.nn.Sequential(
        torch.nn.Linear(x.shape[1], 128), torch.nn.ReLU(), torch.nn.Linear(128, p.shape[1])
    )
    for values in network[2].parameters():
        torch.nn.init.zeros_(values)
    optimiser = torch.optim.Adam(network.parameters(), 2e-4, weight_decay=0.01)
    at = 0
    while at < STEPS:
        for rows in torch.randperm(len(few.y)).chunk(math.ceil(len(few.y) / BATCH)):
            gate: Tensor = network(x[rows]).softmax(1)
            descend(optimiser, cross_entropy((gate[..., None] * p[rows]).sum(1), few.y[rows]))
            at += 1
    with torch.no_grad():
        x, p = inputs(new)
        gate = network(x).softmax(1)
        return (gate[..., None] * p).sum(1)


PEERS: dict[str, Callable[[Seen, Seen], Tensor]] = {
    "ape:alpha=1:beta=5.5": ape,
    "proker": proker,
    "clap": clap,
    "lp++": lp_plus_plus,
    "rla": rla,
    f"swig:holdout=0:penalty=0:steps={STEPS}:epochs=1:patience={STEPS}": swig,
}


def ours(text: str, few: Pool, new: Pool) -> np.ndarray:
    """Classes: of a head on one backbone, or of an ensemble."""
    if text.partition(":")[0] in HEADS:
        return np.asarray(from_text(HEADS, text).fit(few).transform(new).logits[:, 0].argmax(1))
    return np.asarray(from_text(ENSEMBLES, text).fit(few).predict(new))


def beside_torch(text: str, few: Pool, new: Pool, rounds: int) -> None:
    peer, seen = PEERS[text], (Seen.of(few), Seen.of(new))
    found, theirs = ours(text, few, new), peer(*seen).argmax(1).numpy()
    took = [
        (processor(lambda: peer(*seen)), processor(lambda: ours(text, few, new)))
        for _ in range(rounds)
    ]
    both, alike = [*zip(*took, strict=True)], (found == theirs).mean()
    click.echo(
        f"{text}: torch over ours {ratio(*both):.2f} ({spread(*both)}), ours "
        f"{min(both[1]):.2f} s; {alike:.1%} alike"
    )


@click.command()
@click.option("--images", default=5000, help="That are scored.")
@click.option("--classes", default=100)
@click.option("--names", default=",".join(text.partition(":")[0] for text in PEERS))
@click.option("--rounds", default=3)
def main(images: int, classes: int, names: str, rounds: int) -> None:
    start("rows of later papers")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    pool = pool_of(images, 7, classes, SHOTS).of_backbones(BACKBONES)
    new, few = pool.take(slice(images)), pool.take(slice(images, None))
    for text in PEERS:
        name = text.partition(":")[0]
        if name in names.split(","):
            names_of = BACKBONES[:1] if name in HEADS else BACKBONES
            beside_torch(text, few.of_backbones(names_of), new.of_backbones(names_of), rounds)


if __name__ == "__main__":
    main()
