"""The oracle over the backbones of a store, over every subset of them, and what each adds to it.

Reads predictions and labels; logits for the weight oracle alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import polars as pl
from numpy.typing import NDArray

from clipsyn.analyses.oracle import OracleSettings
from clipsyn.analyses.oracle.measures import (
    MOST_BACKBONES,
    Overlap,
    best_subsets,
    class_accuracy,
    class_choice,
    correctness,
    independent_oracle,
    members,
    subset_hits,
    subset_sizes,
)
from clipsyn.analyses.oracle.reachable import reachable
from clipsyn.analyses.predicted import Predicted, predicted
from clipsyn.errors import UsageError
from clipsyn.numerics.metrics import Score, scored
from clipsyn.results.frame import Measured, Row, frame
from clipsyn.schema import NO_CLASS, NO_PREDICTION
from clipsyn.specs import fingerprint
from clipsyn.stats import (
    UNKNOWN,
    Interval,
    Resamples,
    bootstrap_difference,
    percentiles,
    wilson_interval,
)
from clipsyn.store.arrays import Blocks
from clipsyn.store.features import FeatureStore

MOST_REGIONS = 1000  # of one group in the frame: all there can be of nine backbones
_WHERE = ("dataset", "split", "perturbation", "prompts")


def measure(store: FeatureStore, settings: OracleSettings) -> pl.DataFrame:
    """The oracle of all backbones and of the best subsets of them, and each backbone's part in it.

    Filters are names or patterns with ``*``; None takes all there is. pooled: over all
    perturbations of a dataset together, where each image was shown under one. Returns a tidy frame
    with the columns of `RESULT`, all of it over the samples that every backbone has a prediction
    for.
    Metrics of a backbone (`ensemble` null):

    - acc1, with Wilson's 95 % interval, as all shares;
    - unique_correct: share of samples that it alone gets right, what the oracle loses without it;
    - shapley: its Shapley value in the oracle (`Overlap.credit`), with a bootstrap interval;
    - unique_correct_floor, shapley_floor: what a guess in its place would get of either.

    Of the "oracle" of the best subset of each size from two (of equals the one that lacks the later
    backbones), and of all, with their names in `backbones`:

    - acc1; gain over the best single backbone on these samples, and gain_relative to its accuracy
      (NaN where that is 0), with paired bootstrap intervals;
    - acc1_independent: the upper mark, what errors independent within each class would give.

    Of the "class-oracle", the best backbone for each class, between the best for all images and the
    oracle, which is the best for each:

    - acc1 and gain, the best chosen on these very images;
    - acc1_left_out and gain_left_out, chosen on the other images of each image's class.

    Of the "oracle" of all:

    - none_correct and all_correct: shares that no backbone, and every backbone, gets right;
    - region: share that some backbones get right and no others, with their names in `backbones`,
      the `MOST_REGIONS` largest.

    With `weights`, acc1 and gain of the "weight-oracle", which is right where the sum of the
    backbones' logits with any weights >= 0 is (`reachable`).

    Beyond `MOST_BACKBONES` backbones only the oracle of all is there.
    Raises MissingCell with the extract line that helps, UnknownName with near matches, and
    DatasetError where nothing has labels.
    """
    groups = predicted(store, settings, pooled=settings.pooled)
    if settings.pooled and settings.weights:
        raise UsageError("logits are not pooled: ask for weights without pooling")
    return frame(row for group in groups for row in _rows(group, settings.weights))


def sample_table(store: FeatureStore, settings: OracleSettings) -> pl.DataFrame:
    """What every backbone says of every image, so that one can go and look.

    Filters and errors are those of `oracle`. A row a sample, in the order of the store. Columns:
    dataset, split, perturbation, prompts, id, label, class (null without a label), right (how many
    backbones; null where the sample does not count), and for each backbone NAME: "NAME" (the class
    it predicts), "NAME label" and "NAME right", null where it has no prediction, or no label.
    """
    return pl.concat(
        map(_samples, predicted(store, settings, pooled=settings.pooled)), how="diagonal"
    )


def subset_table(store: FeatureStore, settings: OracleSettings) -> pl.DataFrame:
    """The oracle of every subset of the backbones, a row each but for the empty one.

    Filters and errors are those of `oracle`, and UsageError beyond `MOST_BACKBONES` backbones.
    Columns: dataset, split, perturbation, prompts, size, hits (samples), acc1, gain (over the best
    single backbone), n, and a Boolean column for each backbone: is it in the subset.
    """
    return pl.concat(
        map(_subsets, predicted(store, settings, pooled=settings.pooled)), how="diagonal"
    )


def _rows(group: Predicted, weights: bool) -> Iterator[Row]:
    """All rows of one dataset, split, perturbation and prompt set."""
    whole = fingerprint({"cells": list(group.fingerprints.values())})
    right = correctness(group.predictions, group.labels)
    labels = group.labels[scored(group.predictions, group.labels)]
    overlap = Overlap.of(right)
    resamples = Resamples(overlap.counts)
    for name, measured in _singles(group, overlap, resamples):
        yield group.row(measured, (name,)) | {"fingerprint": whole}
    for chosen, measured in _oracles(right, labels, overlap, resamples):
        names = tuple(group.backbones[b] for b in chosen)
        yield group.row(measured, names, "oracle") | {"fingerprint": whole}
    for measured in _class_oracle(right, labels):
        yield group.row(measured, group.backbones, "class-oracle")
    for metric, hits in (("none_correct", overlap.none()), ("all_correct", overlap.every())):
        yield group.row(_share(metric, hits, overlap.n), group.backbones, "oracle")
    if weights:
        for measured in _weight_oracle(group, right):
            yield group.row(measured, group.backbones, "weight-oracle")
    for region, count in zip(overlap.right[:MOST_REGIONS], overlap.counts, strict=False):
        names = tuple(group.backbones[b] for b in np.flatnonzero(region))
        measured = _share("region", int(count), overlap.n)
        yield group.row(measured, names, "oracle") | {"fingerprint": whole}


def _singles(
    group: Predicted, overlap: Overlap, resamples: Resamples
) -> Iterator[tuple[str, Measured]]:
    credit = overlap.credit()
    values, draws = overlap.mean(credit), resamples.means(credit)
    floors = {
        "unique_correct_floor": overlap.mean(overlap.guessed(group.n_classes)),
        "shapley_floor": overlap.mean(overlap.guessed_credit(group.n_classes)),
    }
    for b, name in enumerate(group.backbones):
        yield name, _share("acc1", int(overlap.hits()[b]), overlap.n)
        yield name, _share("unique_correct", int(overlap.only()[b]), overlap.n)
        score = Score(float(values[b]), overlap.n)
        yield name, Measured("shapley", score, _interval(draws[:, b]))
        for metric, floor in floors.items():
            yield name, Measured(metric, Score(float(floor[b]), overlap.n), None)


def _oracles(
    right: NDArray[np.bool_], labels: NDArray[np.int32], overlap: Overlap, resamples: Resamples
) -> Iterator[tuple[NDArray[np.intp], Measured]]:
    """Accuracy, upper mark and gains of the best subset of each size, and of all backbones."""
    count, n = right.shape
    accuracy, sizes = class_accuracy(right, labels)
    chosen = [np.arange(count)]
    if count <= MOST_BACKBONES:
        every_size = [members(subset, count) for subset in best_subsets(subset_hits(right))]
        chosen = every_size[1:] or chosen
    best = overlap.right[:, int(overlap.hits().argmax())]
    found = np.stack([best, *(overlap.any_of(subset) for subset in chosen)], axis=1)
    values, draws = overlap.mean(found), resamples.means(found)
    for column, subset in enumerate(chosen, 1):
        yield subset, _share("acc1", int(overlap.counts @ found[:, column]), n)
        mark = Score(independent_oracle(accuracy[subset], sizes), n)
        yield subset, Measured("acc1_independent", mark, None)
        gain = Score(float(values[column] - values[0]), n)
        yield subset, Measured("gain", gain, _interval(draws[:, column] - draws[:, 0]))
        relative = Score(float(_relative(values[[column]], values[[0]])[0]), n)
        ratios = _relative(draws[:, column], draws[:, 0])
        interval = _interval(ratios[np.isfinite(ratios)])
        yield subset, Measured("gain_relative", relative, interval)


def _class_oracle(right: NDArray[np.bool_], labels: NDArray[np.int32]) -> Iterator[Measured]:
    for end, left_out in (("", False), ("_left_out", True)):
        yield from _over_best(class_choice(right, labels, left_out=left_out), right, end)


def _over_best(
    found: NDArray[np.bool_], right: NDArray[np.bool_], end: str = ""
) -> Iterator[Measured]:
    """Accuracy of what is found (sample,), and its gain over the best single backbone."""
    n = len(found)
    yield _share(f"acc1{end}", int(np.count_nonzero(found)), n)
    best = right[right.sum(axis=1).argmax()]
    gain = Score(float(found.mean() - best.mean()) if n else float("nan"), n)
    yield Measured(f"gain{end}", gain, bootstrap_difference(found, best))


def _weight_oracle(group: Predicted, right: NDArray[np.bool_]) -> Iterator[Measured]:
    found = np.asarray(right.any(axis=0))
    rows = np.flatnonzero(scored(group.predictions, group.labels))  # of the counted samples
    for places, logits in _logits(group, rows[~found]):
        at = np.searchsorted(rows, places)
        found[at] = reachable(logits, group.labels[places])
    yield from _over_best(found, right)


def _logits(
    group: Predicted, rows: NDArray[np.intp]
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.float32]]]:
    """Logits (backbone, row, class) of some rows, ascending, a block of the store at a time."""
    size = Blocks(len(group.labels), group.store.chunk_rows).rows
    for number in np.unique(rows // size):
        span = range(number * size, min((number + 1) * size, len(group.labels)))
        part = rows[rows // size == number]
        blocks = [group.store.logits(key, group.prompts, span) for key in group.keys]
        yield part, np.stack([block[part - span.start] for block in blocks])


def _samples(group: Predicted) -> pl.DataFrame:
    labels, classes = group.labels, group.samples.class_names
    counted = scored(group.predictions, labels)
    columns = [
        *_where(group, len(labels)),
        pl.Series("id", group.samples.ids, pl.String),
        *_named("label", "class", labels, labels >= 0, classes),
    ]
    right = group.predictions == labels
    columns.append(_nullable("right", right.sum(axis=0).astype(np.int32), counted))
    for name, predictions, hits in zip(group.backbones, group.predictions, right, strict=True):
        there = predictions != NO_PREDICTION
        named = there & (predictions != NO_CLASS)
        label, text = _named(f"{name} label", name, predictions, named, classes)
        columns += [text, label, _nullable(f"{name} right", hits, there & (labels >= 0))]
    return pl.DataFrame(columns)


def _named(
    label: str,
    text: str,
    values: NDArray[np.uint16] | NDArray[np.int32],
    known: NDArray[np.bool_],
    classes: tuple[str, ...],
) -> tuple[pl.Series, pl.Series]:
    """Class indices as a column, and their names as another."""
    index = _nullable(label, values.astype(np.int32), known)
    names = pl.Series(classes, dtype=pl.String)
    return index, names.gather(index.cast(pl.UInt32)).alias(text)


def _nullable(name: str, values: NDArray[np.generic], known: NDArray[np.bool_]) -> pl.Series:
    table = pl.DataFrame({name: values, "known": known})
    return table.select(pl.when(pl.col("known")).then(pl.col(name)).alias(name)).to_series()


def _subsets(group: Predicted) -> pl.DataFrame:
    count = len(group.keys)
    if count > MOST_BACKBONES:
        raise UsageError(
            f"{group.samples.name} has {count} backbones, too many "
            f"for all their subsets: choose up to {MOST_BACKBONES} with backbones=…"
        )
    right = correctness(group.predictions, group.labels)
    hits, n = subset_hits(right), right.shape[1]
    accuracy = hits / n if n else np.full(len(hits), np.nan)
    subsets = np.arange(len(hits), dtype=np.uint32)
    table = pl.DataFrame(
        [
            *_where(group, len(hits)),
            pl.Series("size", subset_sizes(count)),
            pl.Series("hits", hits),
            pl.Series("acc1", accuracy),
            pl.Series("gain", accuracy - accuracy[1 << np.arange(count)].max()),
            pl.Series("n", [n], pl.Int64).new_from_index(0, len(hits)),
            *(pl.Series(name, subsets >> b & 1 == 1) for b, name in enumerate(group.backbones)),
        ]
    )
    return table[1:]


def _where(group: Predicted, length: int) -> Iterable[pl.Series]:
    samples = group.samples
    values = (samples.dataset, samples.split, group.perturbation, group.prompts)
    for name, value in zip(_WHERE, values, strict=True):
        yield pl.Series(name, [value]).new_from_index(0, length)


def _share(metric: str, hits: int, n: int) -> Measured:
    return Measured(metric, Score(hits / n if n else float("nan"), n), wilson_interval(hits, n))


def _relative(values: NDArray[np.float64], base: NDArray[np.float64]) -> NDArray[np.float64]:
    """``(values - base) / base``, NaN where the base is 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(base > 0, (values - base) / base, np.nan)


def _interval(draws: NDArray[np.float64]) -> Interval:
    return percentiles(draws) if len(draws) else UNKNOWN
