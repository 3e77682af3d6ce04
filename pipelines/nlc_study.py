"""What a reviewer asks of NLC, on the shipped sets that share no images.

    python pipelines/nlc_study.py STORE

STORE is what `clipsyn run pipelines/rivals.yaml` extracts. Everything is fitted on clean images of
train, ten draws with one image a class and ten starts of the network with all, three for the curve
over steps, and measured on test. Does NLC need its embeddings, or would shuffled or constant ones
do? How long need it train? Does it choose between backbones image by image, or only calibrate: is
it better than calibrated backbones, and than its own weights, averaged over the images? On which
images and classes does it gain? Prints all tables, of which docs/router.md shows some.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipsyn.methods.ensembles import ENSEMBLES
from clipsyn.methods.estimator import from_text
from clipsyn.methods.numerics.logits import log_softmax
from clipsyn.methods.numerics.samples import few_shot
from clipsyn.methods.pool import Pool
from clipsyn.stats.differences import crossed
from clipsyn.stats.images import Images
from clipsyn.store.features import FeatureStore

DATASETS = (*(f"emoji-{name}" for name in ("animals", "faces", "food", "objects", "travel")),)
DATASETS += ("fashion-mnist",)
SHOTS = {1: "1 image a class", None: "all"}
SEEDS = range(10)
STEPS = (75, 150, 300, 1200)  # NLC itself takes 600 here
STEPPED = 3  # draws for the curve over steps
QUARTERS = 4  # of the images of a set, by the entropy of their mean probabilities
NLC = "nlc"
OTHERS = ("best-single", "log-avg", "c-log-avg", "super-learner")
AVERAGED, SHUFFLED, CONSTANT = "nlc, mean weights", "nlc, shuffled", "nlc, constant"
Change = Callable[[NDArray[np.float32], int], NDArray[np.float32]]


class Judged(NamedTuple):
    """Where a method is right, and its loss in nats: (draw, sample) each."""

    right: NDArray[np.bool_]
    loss: NDArray[np.float64]


class Measured(NamedTuple):
    """A set with so many labelled images: by method, and what is known of its test images."""

    judged: Mapping[str, Judged]
    labels: NDArray[np.int32]
    entropy: NDArray[np.float64]  # in nats, of the mean probabilities


def shuffled(embeddings: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """Each image has those of another one, of the same for every backbone."""
    return embeddings[np.random.default_rng(seed).permutation(len(embeddings))]


def constant(embeddings: NDArray[np.float32], _: int) -> NDArray[np.float32]:
    """Each image has those of the first one."""
    return np.repeat(embeddings[:1], len(embeddings), axis=0)


def changed(pool: Pool, change: Change, seed: int) -> Pool:
    return replace(pool, embeddings={b: change(pool.embeddings[b], seed) for b in pool.backbones})


def scores(support: Pool, test: Pool, seed: int) -> Iterator[tuple[str, NDArray[np.floating]]]:
    """(sample, class) of each method that is fitted on the support."""
    for name in OTHERS:
        yield name, from_text(ENSEMBLES, name, seed).fit(support).combine(test)
    for steps in STEPS if seed < STEPPED else ():
        shorter = from_text(ENSEMBLES, f"nlc:holdout=0:epochs=0:steps={steps}", seed)
        yield f"nlc, {steps} steps", shorter.fit(support).combine(test)
    nlc = from_text(ENSEMBLES, NLC, seed).fit(support)
    yield NLC, nlc.combine(test)
    weights = nlc.weights(test).mean(axis=0)  # one for each backbone, the same for all images
    yield AVERAGED, np.einsum("b,sbc->sc", weights, test.logits)
    for name, change in ((SHUFFLED, shuffled), (CONSTANT, constant)):
        without = from_text(ENSEMBLES, NLC, seed).fit(changed(support, change, seed))
        yield name, without.combine(changed(test, change, seed + len(SEEDS)))


def measure(store: FeatureStore, dataset: str, shots: int | None) -> Measured:
    train, test = store.pool(dataset, "train"), store.pool(dataset, "test")
    found: dict[str, list[tuple[NDArray, NDArray]]] = {}
    for seed in SEEDS:
        few = train.take(few_shot(train.labels, shots, seed))
        for name, values in scores(few, test, seed):
            log_p = log_softmax(values.astype(np.float64))
            loss = -log_p[np.arange(len(test)), test.labels]
            found.setdefault(name, []).append((log_p.argmax(axis=1) == test.labels, loss))
    judged = {name: Judged(*map(np.stack, zip(*each, strict=True))) for name, each in found.items()}
    return Measured(judged, test.labels, entropy(test))


def entropy(pool: Pool) -> NDArray[np.float64]:
    """(sample,) in nats, of the mean of the probabilities of all backbones."""
    mean = np.exp(log_softmax(pool.logits.astype(np.float64))).mean(axis=1)
    return -(mean * np.log(np.maximum(mean, 1e-300))).sum(axis=1)


def difference(leads: list[NDArray[np.float64]]) -> str:
    """Points of the mean over sets of leads (draw, sample), over draws and images."""
    images = [Images.distinct(lead.shape[1]) for lead in leads]
    low, high = crossed(leads, images, [True] * len(leads)).interval()
    mean = np.mean([lead.mean() for lead in leads])
    return f"{100 * mean:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def lead(found: Measured, first: str, second: str) -> NDArray[np.float64]:
    """(draw, sample), of the draws that both have."""
    one, other = found.judged[first].right, found.judged[second].right
    draws = min(len(one), len(other))
    return one[:draws].astype(np.float64) - other[:draws]


def by_method(sets: list[Measured]) -> Iterator[str]:
    """A line a method: accuracy and its spread over draws, loss, NLC's lead."""
    yield "| | top-1 in % | sd of draws | loss in nats | nlc minus this, points |"
    yield "| --- | ---: | ---: | ---: | ---: |"
    for name in sets[0].judged:
        accuracy = np.mean([it.judged[name].right.mean(axis=1) for it in sets], axis=0)
        loss = np.mean([it.judged[name].loss.mean() for it in sets])
        ahead = "" if name == NLC else difference([lead(it, NLC, name) for it in sets])
        row = f"{100 * accuracy.mean():.1f} | {100 * accuracy.std(ddof=1):.1f} | {loss:.3f}"
        yield f"| {name} | {row} | {ahead} |"


def by_entropy(sets: list[Measured]) -> Iterator[str]:
    """A line a quarter of each set's images, the surest first: NLC's lead over two methods."""
    yield "| images | nlc, top-1 in % | minus log-avg, points | minus c-log-avg, points |"
    yield "| --- | ---: | ---: | ---: |"
    ranks = [np.argsort(np.argsort(it.entropy, kind="stable"), kind="stable") for it in sets]
    for quarter in range(QUARTERS):
        inside = [QUARTERS * rank // len(rank) == quarter for rank in ranks]
        pairs = [*zip(sets, inside, strict=True)]
        accuracy = np.mean([it.judged[NLC].right[:, kept].mean() for it, kept in pairs])
        leads = [
            difference([lead(it, NLC, other)[:, kept] for it, kept in pairs])
            for other in ("log-avg", "c-log-avg")
        ]
        yield f"| quarter {quarter + 1} of entropy | {100 * accuracy:.1f} | {' | '.join(leads)} |"


def by_class(sets: list[Measured]) -> Iterator[str]:
    """A line a set: in how many classes NLC is ahead of log-avg over all draws, and behind."""
    yield "| set | classes | ahead | behind | level |"
    yield "| --- | ---: | ---: | ---: | ---: |"
    for name, it in zip(DATASETS, sets, strict=True):
        gain = np.bincount(it.labels, lead(it, NLC, "log-avg").sum(axis=0))
        gain = gain[np.bincount(it.labels) > 0]
        ahead, behind = int((gain > 0).sum()), int((gain < 0).sum())
        yield f"| {name} | {len(gain)} | {ahead} | {behind} | {len(gain) - ahead - behind} |"


def main() -> None:
    store = FeatureStore.open(Path(sys.argv[1]))
    for shots, label in SHOTS.items():
        sets = [measure(store, name, shots) for name in DATASETS]
        for table in (by_method, by_entropy, by_class):
            sys.stdout.write(f"\n**{label}**: {table.__doc__.splitlines()[0]}\n\n")
            sys.stdout.write("\n".join(table(sets)) + "\n")


if __name__ == "__main__":
    main()
