"""Is the residual router better than what it is to beat? Paired, on the shipped sets.

    python pipelines/router_study.py STORE

STORE is what `clipsyn run pipelines/router-study.yaml` extracts. Everything is fitted on train and
judged on test, once: on clean images for every perturbation ("clean"), and on the perturbation that
it is judged on ("same"). The sets whose images are distinct are also taken as one, all their
classes told apart at once, clean and with each image under a perturbation of its own. Prints the
paired tables of docs/router.md.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

from clipsyn.ensembles import ENSEMBLES
from clipsyn.ensembles.base import Ensemble
from clipsyn.estimator import from_text
from clipsyn.fewshot import few_shot
from clipsyn.logits import log_softmax, zero_shot_logits
from clipsyn.pool import Pool
from clipsyn.stats import bootstrap_mean
from clipsyn.store.features import FeatureStore

SETS = ("animals", "category", "faces", "food", "objects", "travel")
DATASETS = (*(f"emoji-{name}" for name in SETS), "fashion-mnist")
PERTURBATIONS = ("clean", "gaussian_noise-3", "jpeg-4")
SHOTS = (1, 2, 4, 8, 16, None)
SEEDS = (0, 1, 2)
DISTINCT = tuple(name for name in DATASETS if name != "emoji-category")  # it has the others' images
UNION = "union"
RIVALS = ("nlc", "super-learner", "log-avg", "c-log-avg", "best-single")
ROUTER = "residual-router"


class Case(NamedTuple):
    dataset: str
    support: str  # perturbation fitted on
    perturbation: str  # judged on
    shots: int | None
    seed: int
    method: str


Outcome = NDArray[np.float64]  # (2, sample): whether right, and loss in nats
Results = dict[Case, Outcome]


def measure(store: FeatureStore, dataset: str) -> Iterator[tuple[Case, Outcome]]:
    tests = {p: store.pool(dataset, "test", perturbation=p) for p in PERTURBATIONS}
    for support in PERTURBATIONS:
        train = store.pool(dataset, "train", perturbation=support)
        judged = tests if support == "clean" else {support: tests[support]}
        yield from compare(dataset, support, train, judged)


def measure_union(store: FeatureStore) -> Iterator[tuple[Case, Outcome]]:
    def pools(split: str) -> dict[str, Pool]:
        every = {
            p: union([store.pool(name, split, perturbation=p) for name in DISTINCT])
            for p in PERTURBATIONS
        }
        return {"clean": every["clean"], "mixed": mixed(list(every.values()))}

    train, test = pools("train"), pools("test")
    for name, support in train.items():
        yield from compare(UNION, name, support, {name: test[name]})


def compare(
    dataset: str, support: str, train: Pool, judged: Mapping[str, Pool]
) -> Iterator[tuple[Case, Outcome]]:
    for shots, seed in itertools.product(SHOTS, SEEDS):
        few = train.take(few_shot(train.labels, shots, seed))
        for method in (ROUTER, *RIVALS):
            fitted = fit(method, few, seed)
            for name, pool in judged.items():
                yield Case(dataset, support, name, shots, seed, method), judge(fitted, pool)


def union(pools: Sequence[Pool]) -> Pool:
    """The samples of all pools, told apart among the classes of all."""
    classes = np.cumsum([0, *(pool.n_classes for pool in pools)])
    logits, embeddings = [], {}
    for name in pools[0].backbones:
        images = np.concatenate([pool.embeddings[name] for pool in pools])
        texts = np.concatenate([pool.class_embeddings[name] for pool in pools])
        logits.append(zero_shot_logits(images, texts, pools[0].logit_scales[name]))
        embeddings[name] = images
    labels = np.concatenate([p.labels + first for p, first in zip(pools, classes, strict=False)])
    of, split = pools[0].backbones, pools[0].split
    return Pool.of(np.stack(logits, axis=1), labels, embeddings, backbones=of, split=split)


def mixed(pools: Sequence[Pool]) -> Pool:
    """Each sample from one of the pools, which hold the same ones, at random."""
    rows = np.arange(len(pools[0]))
    which = np.random.default_rng(0).integers(0, len(pools), len(rows))
    embeddings = {
        name: np.stack([pool.embeddings[name] for pool in pools])[which, rows]
        for name in pools[0].backbones
    }
    logits = np.stack([pool.logits for pool in pools])[which, rows]
    return replace(pools[0], logits=logits, embeddings=embeddings)


def fit(method: str, support: Pool, seed: int) -> Ensemble:
    ensemble: Ensemble = from_text(ENSEMBLES, method, seed)
    return ensemble.fit(support)


def judge(ensemble: Ensemble, pool: Pool) -> Outcome:
    log_p = log_softmax(ensemble.combine(pool).astype(np.float64))
    loss = -log_p[np.arange(len(pool)), pool.labels]
    return np.stack([log_p.argmax(axis=1) == pool.labels, loss])


def differences(
    results: Results,
    rival: str,
    dataset: str,
    support: str,
    name: str,
    *,
    shots: Sequence[int | None],
) -> Outcome:
    """(2, sample): router minus rival, means over shots and seeds."""
    where = support if support == "clean" else name
    cases = [(dataset, where, name, k, seed) for k in shots for seed in SEEDS]
    pairs = [results[Case(*c, ROUTER)] - results[Case(*c, rival)] for c in cases]
    return np.asarray(np.mean(pairs, axis=0))


def by_set(results: Results, support: str, rival: str) -> Iterator[str]:
    """A line a set, a column pair a perturbation: difference with its interval over samples."""
    yield (
        f"| vs {rival}, fitted on {support} | "
        + " | ".join(f"{name}: accuracy | nats" for name in PERTURBATIONS)
        + " |"
    )
    yield "| --- |" + " ---: | ---: |" * len(PERTURBATIONS)
    verdicts = []
    for dataset in DATASETS:
        cells = []
        for name in PERTURBATIONS:
            right, loss = differences(results, rival, dataset, support, name, shots=SHOTS)
            cells += [over_samples(100 * right, 1), over_samples(loss, 3)]
            verdicts.append((verdict(right, 1), verdict(loss, -1)))
        yield f"| {dataset} | " + " | ".join(cells) + " |"
    for kind, found in zip(("accuracy", "nats"), zip(*verdicts, strict=True), strict=True):
        wins, losses = found.count(1), found.count(-1)
        yield f"<!-- {kind}: {wins} wins, {losses} losses, {len(found) - wins - losses} ties -->"


def over_samples(values: NDArray[np.float64], digits: int) -> str:
    low, high = bootstrap_mean(values)
    return f"{values.mean():+.{digits}f} ({low:+.{digits}f} to {high:+.{digits}f})"


def verdict(values: NDArray[np.float64], better: int) -> int:
    """1 where the interval is on the better side of 0, -1 where on the other, else 0."""
    low, high = bootstrap_mean(better * values)
    return int(low > 0) - int(high < 0)


def over_sets(results: Results, support: str, metric: int) -> Iterator[str]:
    """A line a rival and perturbation, a column a number of shots: mean over sets, t interval."""
    yield "| vs | judged on | " + " | ".join(f"{k or 'full'}" for k in SHOTS) + " | all |"
    yield "| --- | --- |" + " ---: |" * (len(SHOTS) + 1)
    factor, digits = (100, 1) if metric == 0 else (1, 3)
    for rival, name in itertools.product(RIVALS, PERTURBATIONS):
        cells = []
        for shots in (*((k,) for k in SHOTS), SHOTS):
            means = [
                factor * differences(results, rival, d, support, name, shots=shots)[metric].mean()
                for d in DATASETS
            ]
            half = t.ppf(0.975, len(means) - 1) * np.std(means, ddof=1) / len(means) ** 0.5
            cells.append(f"{np.mean(means):+.{digits}f} ± {half:.{digits}f}")
        yield f"| {rival} | {name} | " + " | ".join(cells) + " |"


def over_union(results: Results) -> Iterator[str]:
    """A line a rival, clean and mixed: differences with their intervals over samples."""
    yield "| router minus | images | accuracy, 1 shot | all shots | nats, 1 shot | all shots |"
    yield "| --- | --- |" + " ---: |" * 4
    for rival, name in itertools.product(RIVALS, ("clean", "mixed")):
        few, all_ = (
            differences(results, rival, UNION, "same", name, shots=shots) for shots in ((1,), SHOTS)
        )
        cells = [over_samples(100 * part[0], 1) for part in (few, all_)]
        cells += [over_samples(part[1], 3) for part in (few, all_)]
        yield f"| {rival} | {name} | " + " | ".join(cells) + " |"


def absolute(results: Results, support: str, metric: int) -> Iterator[str]:
    """A line a method, a column a number of shots on clean, then all shots elsewhere."""
    yield "| | " + " | ".join(f"{k or 'full'}" for k in SHOTS) + " | noise | jpeg |"
    yield "| --- |" + " ---: |" * (len(SHOTS) + 2)
    factor, digits = (100, 1) if metric == 0 else (1, 3)
    columns = [("clean", (k,)) for k in SHOTS] + [(name, SHOTS) for name in PERTURBATIONS[1:]]
    for method in (ROUTER, *RIVALS):
        cells = []
        for name, shots in columns:
            where = support if support == "clean" else name
            values = [
                results[Case(d, where, name, k, seed, method)][metric].mean()
                for d, k, seed in itertools.product(DATASETS, shots, SEEDS)
            ]
            cells.append(f"{factor * np.mean(values):.{digits}f}")
        yield f"| {method} | " + " | ".join(cells) + " |"


def report(results: Results) -> Iterator[str]:
    for support, metric in itertools.product(("clean", "same"), (0, 1)):
        title = ("Accuracy in points", "Loss in nats")[metric]
        yield f"\n{title}, mean over sets, fitted on {support}\n"
        yield from absolute(results, support, metric)
        yield f"\n{title}, router minus rival, over sets, fitted on {support}\n"
        yield from over_sets(results, support, metric)
    for support, rival in itertools.product(("clean", "same"), RIVALS[:3]):
        yield ""
        yield from by_set(results, support, rival)
    yield f"\nThe union of {', '.join(DISTINCT)}\n"
    yield from over_union(results)


def main() -> None:
    store = FeatureStore.open(Path(sys.argv[1]))
    results = {case: found for name in DATASETS for case, found in measure(store, name)}
    results |= dict(measure_union(store))
    sys.stdout.write("\n".join(report(results)) + "\n")


if __name__ == "__main__":
    main()
