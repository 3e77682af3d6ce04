"""The residual router against NLC and other ensembles, paired, on the shipped sets.

    python pipelines/router_study.py STORE

STORE is what `clipsyn run pipelines/router-study.yaml` extracts. Every method is fitted on train
and measured on test: fitted on clean images for every perturbation, and on the perturbation that it
is measured on. A method with a setting takes the value with the lowest
cross-validated loss on the support; beside it stands the method as shipped. The sets that share no
images are also taken as one, with all their classes told apart at once, clean and with each image
under a perturbation of its own. Prints all tables, of which docs/router.md shows some.
"""

from __future__ import annotations

import itertools
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

from clipsyn.methods.ensembles import ENSEMBLES
from clipsyn.methods.ensembles.base import Ensemble
from clipsyn.methods.estimator import from_text
from clipsyn.methods.numerics.logits import log_softmax, zero_shot_logits
from clipsyn.methods.numerics.samples import few_shot, stratified_folds
from clipsyn.methods.pool import Pool
from clipsyn.stats.intervals import Interval, percentiles
from clipsyn.store.features import FeatureStore

DISTINCT = tuple(f"emoji-{name}" for name in ("animals", "faces", "food", "objects", "travel"))
DISTINCT += ("fashion-mnist",)
DATASETS = (*DISTINCT, "emoji-category")  # which has the others' images, so is in no mean
CLEAN, *PERTURBED = PERTURBATIONS = ("clean", "gaussian_noise-3", "jpeg-4")
SHOTS = (1, None)  # most sets have two images a class: there is hardly anything between
SEEDS = (0, 1, 2)
UNION = "union"
ROUTER = "residual-router"
SETTINGS = {  # the default is among them
    ROUTER: [f"{ROUTER}:shrinkage={value}" for value in (1, 3, 10, 30, 100)],
    "nlc": [f"nlc:holdout=0:epochs=0:steps={steps}" for steps in (75, 150, 300, 600, 1200)],
    "super-learner": [f"super-learner:penalty={value}" for value in (0.1, 0.3, 1, 3, 10, 30, 100)],
}
SHIPPED = " as shipped"
NLC_300 = "nlc of 300 steps"  # most supports choose these, and the shipped settings of the others
METHODS = {name: [name] for name in ("log-avg", "c-log-avg", "best-single")}
METHODS = (
    SETTINGS
    | {name + SHIPPED: [name] for name in SETTINGS}
    | {NLC_300: ["nlc:holdout=0:epochs=0:steps=300"]}
    | METHODS
)
PAIRS = [(ROUTER, name) for name in ("nlc", "super-learner", "log-avg", "c-log-avg", "best-single")]
PAIRS += [
    (ROUTER + SHIPPED, name) for name in (NLC_300, "nlc" + SHIPPED, "super-learner" + SHIPPED)
]
FOLDS = 4


class Column(NamedTuple):
    """A column of the tables over sets."""

    title: str
    support: str  # perturbation fitted on
    perturbation: str  # judged on
    shots: int | None


COLUMNS = [
    Column("clean, 1 shot", CLEAN, CLEAN, 1),
    Column("clean, whole support", CLEAN, CLEAN, None),
]
for _name in PERTURBED:
    COLUMNS += [
        Column(f"{_name}, fitted on clean", CLEAN, _name, None),
        Column(f"{_name}, fitted on the same", _name, _name, None),
    ]


class Case(NamedTuple):
    dataset: str
    support: str  # perturbation fitted on
    perturbation: str  # judged on
    shots: int | None
    seed: int
    method: str


Values = NDArray[np.float64]  # (2, sample): whether right, and loss in nats


class Outcome(NamedTuple):
    values: Values
    setting: str  # what was fitted


Results = dict[Case, Outcome]


def measure(store: FeatureStore, dataset: str) -> Iterator[tuple[Case, Outcome]]:
    tests = {p: store.pool(dataset, "test", perturbation=p) for p in PERTURBATIONS}
    for support in PERTURBATIONS:
        train = store.pool(dataset, "train", perturbation=support)
        judged = tests if support == CLEAN else {support: tests[support]}
        yield from compare(dataset, support, train, judged)


def measure_union(store: FeatureStore) -> Iterator[tuple[Case, Outcome]]:
    def pools(split: str) -> dict[str, Pool]:
        every = {
            p: union([store.pool(name, split, perturbation=p) for name in DISTINCT])
            for p in PERTURBATIONS
        }
        return {CLEAN: every[CLEAN], "mixed": mixed(list(every.values()))}

    train, test = pools("train"), pools("test")
    for name, support in train.items():
        yield from compare(UNION, name, support, {name: test[name]})


def compare(
    dataset: str, support: str, train: Pool, judged: Mapping[str, Pool]
) -> Iterator[tuple[Case, Outcome]]:
    for shots, (method, settings) in itertools.product(SHOTS, METHODS.items()):
        setting = None
        for seed in SEEDS:
            few = train.take(few_shot(train.labels, shots, seed))
            if setting is None or shots is not None:  # the whole support is the same for all seeds
                setting = chosen(settings, few)
            fitted = fit(setting, few, seed)
            for name, pool in judged.items():
                outcome = Outcome(judge(fitted, pool), setting)
                yield Case(dataset, support, name, shots, seed, method), outcome


def chosen(settings: Sequence[str], support: Pool) -> str:
    """The setting with the lowest loss of held-out samples, in `FOLDS` stratified folds."""
    if len(settings) == 1:
        return settings[0]
    folds = stratified_folds(support.labels, FOLDS, random_state=0)
    parts = [(np.flatnonzero(~held), np.flatnonzero(held)) for held in folds]

    def loss(setting: str) -> float:
        losses = [
            judge(fit(setting, support.take(kept), 0), support.take(held))[1]
            for kept, held in parts
        ]
        return float(np.concatenate(losses).sum())

    return min(settings, key=loss)


def union(pools: Sequence[Pool]) -> Pool:
    """One pool of the samples of all pools, with the classes of all."""
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
    """A pool that takes each sample from one of `pools` at random; all hold the same samples."""
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


def judge(ensemble: Ensemble, pool: Pool) -> Values:
    log_p = log_softmax(ensemble.combine(pool).astype(np.float64))
    loss = -log_p[np.arange(len(pool)), pool.labels]
    return np.stack([log_p.argmax(axis=1) == pool.labels, loss])


def values(results: Results, method: str, dataset: str, column: Column) -> Values:
    """(2, sample): means over seeds."""
    where = (dataset, column.support, column.perturbation, column.shots)
    found = [results[Case(*where, seed, method)].values for seed in SEEDS]
    return np.asarray(np.mean(found, axis=0))


def difference(results: Results, pair: tuple[str, str], dataset: str, column: Column) -> Values:
    """(2, sample): the first method minus the second."""
    one, other = (values(results, method, dataset, column) for method in pair)
    return one - other


def absolute(results: Results, metric: int) -> Iterator[str]:
    """A line for each method, a column for each of COLUMNS: means over the sets in DISTINCT."""
    yield heading("", (column.title for column in COLUMNS))
    for method in METHODS:
        means = [
            np.mean([values(results, method, name, column)[metric].mean() for name in DISTINCT])
            for column in COLUMNS
        ]
        shown = (f"{100 * mean:.1f}" if metric == 0 else f"{mean:.3f}" for mean in means)
        yield f"| {method} | " + " | ".join(shown) + " |"


def over_sets(results: Results, metric: int) -> Iterator[str]:
    """A line for each pair of methods: mean difference over these sets ± half a 95 % t interval."""
    yield heading("", (column.title for column in COLUMNS))
    factor, digits = (100, 1) if metric == 0 else (1, 3)
    for pair in PAIRS:
        cells = []
        for column in COLUMNS:
            means = [
                factor * difference(results, pair, name, column)[metric].mean() for name in DISTINCT
            ]
            half = t.ppf(0.975, len(means) - 1) * np.std(means, ddof=1) / len(means) ** 0.5
            cells.append(f"{np.mean(means):+.{digits}f} ± {half:.{digits}f}")
        yield f"| {' minus '.join(pair)} | " + " | ".join(cells) + " |"


def by_set(results: Results, shots: int | None) -> Iterator[str]:
    """A line for each set, on clean images: differences with their intervals over samples."""
    rivals = ("nlc", "super-learner")
    titles = [f"{rival}: {kind}" for rival in rivals for kind in ("points", "nats")]
    yield heading(f"{ROUTER} minus", titles)
    for dataset in DATASETS:
        cells = []
        for rival in rivals:
            column = Column("", CLEAN, CLEAN, shots)
            right, loss = difference(results, (ROUTER, rival), dataset, column)
            cells += [over_samples(100 * right, 1), over_samples(loss, 3)]
        yield f"| {dataset} | " + " | ".join(cells) + " |"


def counted(results: Results) -> Iterator[str]:
    """A line for each pair: how many intervals of sets and columns are on one side of zero."""
    yield heading("won / lost / level", ("points", "nats"))
    columns = [column for column in COLUMNS if column.shots is None]
    for pair in PAIRS:
        verdicts = []
        for dataset, column in itertools.product(DISTINCT, columns):
            right, loss = difference(results, pair, dataset, column)
            verdicts.append((verdict(right, 1), verdict(loss, -1)))
        cells = []
        for found in zip(*verdicts, strict=True):
            won, lost = found.count(1), found.count(-1)
            cells.append(f"{won} / {lost} / {len(found) - won - lost}")
        yield f"| {' over '.join(pair)} | " + " | ".join(cells) + " |"


def interval(values: NDArray[np.float64]) -> Interval:
    """Of the mean of values (sample,), by a bootstrap."""
    rng, n = np.random.default_rng(0), len(values)
    return percentiles(np.array([values[rng.integers(0, n, n)].mean() for _ in range(1000)]))


def over_samples(values: NDArray[np.float64], digits: int) -> str:
    low, high = interval(values)
    return f"{values.mean():+.{digits}f} ({low:+.{digits}f} to {high:+.{digits}f})"


def verdict(values: NDArray[np.float64], better: int) -> int:
    """1 where the interval is on the better side of 0, -1 where on the other, else 0."""
    low, high = interval(better * values)
    return int(low > 0) - int(high < 0)


def over_union(results: Results) -> Iterator[str]:
    """A line for each pair and kind of images: differences with intervals over samples."""
    titles = [f"{kind}, {k or 'whole support'}" for k in SHOTS for kind in ("points", "nats")]
    yield heading("", ["images", *(title.replace(", 1", ", 1 shot") for title in titles)])
    for pair, name in itertools.product(PAIRS, (CLEAN, "mixed")):
        cells = []
        for shots in SHOTS:
            right, loss = difference(results, pair, UNION, Column("", name, name, shots))
            cells += [over_samples(100 * right, 1), over_samples(loss, 3)]
        yield f"| {' minus '.join(pair)} | {name} | " + " | ".join(cells) + " |"


def settings_chosen(results: Results) -> Iterator[str]:
    """A line for each setting: how many supports of all sets, clean and perturbed, chose it."""
    yield heading("chosen by so many supports", ("1 shot", "whole support"))
    picked = {
        (case.dataset, case.support, case.shots, case.seed if case.shots else 0, outcome.setting)
        for case, outcome in results.items()
        if case.method in SETTINGS and case.dataset in DISTINCT
    }
    times = Counter((shots, setting) for _, _, shots, _, setting in picked)
    for setting in itertools.chain(*SETTINGS.values()):
        name = setting.replace(":holdout=0:epochs=0", "")
        yield f"| {name} | " + " | ".join(str(times[shots, setting]) for shots in SHOTS) + " |"


def heading(first: str, titles: Iterable[str]) -> str:
    names = list(titles)
    return f"| {first} | " + " | ".join(names) + " |\n| --- |" + " ---: |" * len(names)


def report(results: Results) -> Iterator[str]:
    over = "mean over six sets"
    tables = {
        "Settings": settings_chosen(results),
        f"Accuracy in %, {over}": absolute(results, 0),
        f"Loss in nats, {over}": absolute(results, 1),
        f"Accuracy in points, difference, {over}": over_sets(results, 0),
        f"Loss in nats, difference, {over}": over_sets(results, 1),
        "Every set, whole support": by_set(results, None),
        "Every set, 1 shot": by_set(results, 1),
        "Counted over six sets, clean, noise and jpeg, fitted on clean and on the same": counted(
            results
        ),
        "Six sets as one": over_union(results),
    }
    for title, lines in tables.items():
        yield f"\n**{title}**\n"
        yield from lines


def main() -> None:
    store = FeatureStore.open(Path(sys.argv[1]))
    results = {case: found for name in DATASETS for case, found in measure(store, name)}
    results |= dict(measure_union(store))
    sys.stdout.write("\n".join(report(results)) + "\n")


if __name__ == "__main__":
    main()
