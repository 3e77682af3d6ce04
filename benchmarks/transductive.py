"""Transductive ensembles at the paper's size: seconds and memory, and beside a few lines of torch.

    python benchmarks/transductive.py              50,000 images x 9 backbones x 1,000 classes
    python benchmarks/transductive.py --only-peer  4,000 images of one backbone, beside torch

Images lie around the centres of their classes. Their arrays are in temporary files, as those of a
target that is larger than memory. What learns gets 16 more images of each class. The peer is the
publication's formulas with dense matrices.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "10")  # as the command line does; before numpy
import time
from collections.abc import Callable
from dataclasses import replace

import click
import numpy as np
import torch
from common import ratio, spread, start
from memory import peak_bytes

from clipsyn.methods.ensembles import ENSEMBLES
from clipsyn.methods.pool import Pool, on_disk

WIDTHS = 1024, 512, 640, 768, 1024, 512, 512, 768, 768  # of OpenAI's
NAMES = "sota", "zlap", "transclip"
SHOTS = 16
SCALE = 30.0  # of the logits
_ROWS = 2000  # made at once


def pool_of(images: int, backbones: int, classes: int, shots: int = 0) -> Pool:
    """Images of any class, then `shots` of each."""
    rng = np.random.default_rng(0)
    drawn, few = rng.integers(0, classes, images), np.repeat(np.arange(classes), shots)
    labels = np.concatenate([drawn, few]).astype(np.int32)
    images = len(labels)
    names = tuple(f"b{number}" for number in range(backbones))
    logits = on_disk((images, backbones, classes), np.float32)
    embeddings, class_embeddings = {}, {}
    for column, name in enumerate(names):
        width = WIDTHS[column % len(WIDTHS)]
        embeddings[name] = on_disk((images, width), np.float16)
        centres = unit(rng.normal(size=(classes, width)))
        texts = unit(centres + rng.normal(size=centres.shape) / np.sqrt(width))
        class_embeddings[name] = texts
        for first in range(0, images, _ROWS):
            rows = slice(first, first + _ROWS)
            noise = rng.normal(size=(len(labels[rows]), width)) / np.sqrt(width)
            part = unit(centres[labels[rows]] + 2 * noise)
            embeddings[name][rows] = part
            logits[rows, column] = SCALE * part @ texts.T
            Pool(logits, labels, names, embeddings).let_go()  # peaks are those of methods alone
    pool, scales = Pool(logits, labels, names, embeddings), dict.fromkeys(names, SCALE)
    return replace(pool, logit_scales=scales, class_embeddings=class_embeddings)


def unit(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


# what a user of torch would write: f (image, embed), logits (image, class)


def gaussians(f: torch.Tensor, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    mu = torch.nn.functional.normalize(z.T @ f, dim=1)
    spread = z.sum(1) @ f**2 - 2 * (mu * (z.T @ f)).sum(0) + z.sum(0) @ mu**2
    return mu, spread / z.sum()


def started(f: torch.Tensor, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    top = torch.topk(z, 8, dim=0)
    means = (f[top.indices] * top.values[..., None]).mean(0)
    return torch.nn.functional.normalize(means, dim=1), torch.full(f.shape[1:], 1 / f.shape[1])


def density(f: torch.Tensor, mu: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
    return -0.5 * ((f**2 / s).sum(1)[:, None] - 2 * f @ (mu / s).T + (mu**2 / s).sum(1))


def neighbours(f: torch.Tensor, k: int) -> torch.Tensor:
    near = torch.topk(f @ f.T, k + 1)
    at = torch.stack([torch.arange(len(f)).repeat_interleave(k), near.indices[:, 1:].flatten()])
    return torch.sparse_coo_tensor(at, near.values[:, 1:].flatten(), (len(f), len(f)))


def transclip(f: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    p = z = logits.softmax(1)
    (mu, s), w = started(f, p), neighbours(f, 3)
    w = (w + w.T).coalesce() / 6
    for step in range(11):
        mu, s = gaussians(f, z) if step else (mu, s)
        held = p.log() + density(f, mu, s) / 50
        for _ in range(5):
            z = (held + w @ z).softmax(1)
    return z


def zlap(f: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    classes, n = logits.shape[1], len(f)
    top = torch.topk(logits / SCALE, 5)
    texts = torch.zeros(n, classes).scatter(1, top.indices, top.values.clamp(0) ** 5)
    w = torch.zeros(n + classes, n + classes)
    w[classes:, classes:] = neighbours(f, 4).to_dense()
    w[classes:, :classes] = texts
    w = w + w.T
    root = w.sum(1).clamp(1e-12).rsqrt()
    s = (root[:, None] * w * root).to_sparse_csr()
    seeds = z = torch.eye(n + classes, classes)
    for _ in range(15):
        z = seeds + 0.3 * (s @ z)
    return z[classes:]


def sota(f: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    p = z = logits.softmax(1)
    mu, s = started(f, p)
    for step in range(10):
        mu, s = gaussians(f, z) if step else (mu, s)
        fused = (density(f, mu, s) / 50).softmax(1) + p
        plan = ((fused - fused.max(1, keepdim=True).values) / 0.01).exp()
        plan /= plan.sum()
        for _ in range(15):
            before = plan
            plan = plan / plan.sum(0) / plan.shape[1]
            plan = plan / plan.sum(1, keepdim=True) / len(plan)
            if (plan - before).abs().max() < 1e-5:
                break
        z = plan * len(plan)
    return z


PEERS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "sota": sota,
    "zlap": zlap,
    "transclip": transclip,
}


def beside_torch(name: str, images: int, classes: int) -> None:
    pool = pool_of(images, 1, classes)
    f = torch.from_numpy(np.array(pool.embeddings["b0"], np.float32))
    logits = torch.from_numpy(np.array(pool.logits[:, 0]))
    ours = ENSEMBLES.load(name)()
    found, theirs = ours.predict(pool), PEERS[name](f, logits).argmax(1).numpy()
    rounds = [
        (processor(lambda: PEERS[name](f, logits)), processor(lambda: ours.combine(pool)))
        for _ in range(3)
    ]
    both, same = [*zip(*rounds, strict=True)], (found == theirs).mean()
    click.echo(f"{name}: torch over ours {ratio(*both):.2f} ({spread(*both)}); {same:.1%} alike")


def processor(work: Callable[[], object]) -> float:
    """Seconds of processor time, which a busy machine does not change much."""
    began = time.process_time()
    work()
    return time.process_time() - began


@click.command()
@click.option("--images", default=50_000)
@click.option("--backbones", default=9)
@click.option("--classes", default=1000)
@click.option("--names", default=",".join(NAMES))
@click.option("--only-peer", is_flag=True, help="Beside torch, not at the paper's size.")
def main(images: int, backbones: int, classes: int, names: str, only_peer: bool) -> None:
    start("transductive ensembles")
    if only_peer:
        for name in names.split(","):
            beside_torch(name, min(images, 4000), classes)
        return
    both = pool_of(images, backbones, classes, SHOTS)
    pool, support = both.take(slice(images)), both.take(slice(images, None))
    click.echo(f"{images:,} x {backbones} x {classes:,}: pool {pool.nbytes / 1e9:.2f} GB in files")
    for name in names.split(","):
        began, worked = time.perf_counter(), time.process_time()
        accuracy = ENSEMBLES.load(name)().fit(support).score(pool)
        wall, cpu = time.perf_counter() - began, time.process_time() - worked
        peak = peak_bytes() / 1e9
        click.echo(f"{name}: {wall:.0f} s, processor {cpu:.0f} s, {peak:.2f} GB, {accuracy:.1%}")


if __name__ == "__main__":
    main()
