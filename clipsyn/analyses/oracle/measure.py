"""The oracle of a store's backbones and of the best subsets of them, and what each adds to it.

Reads predictions and labels; logits for the weight oracle alone. All numbers are over the samples
that have a label and a prediction of every backbone. docs/analysis.md lists the metrics. Beyond
`MOST_BACKBONES` backbones there is the oracle of all, and none of smaller subsets.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl
from numpy.typing import NDArray

from clipsyn.analyses.oracle import OracleSettings
from clipsyn.analyses.oracle.measures import (
    MOST_BACKBONES,
    Overlap,
    best_subsets,
    class_choice,
    members,
    reachable,
    subset_hits,
)
from clipsyn.analyses.predicted import Predicted, predicted
from clipsyn.errors import UsageError
from clipsyn.evaluation.results.frame import (
    OVER_BEST_ON_TEST,
    WHERE,
    Measured,
    estimate,
    frame,
    gain,
    oracle_numbers,
    relative_gain,
    share,
)
from clipsyn.methods.numerics import Floats, Labels, Mask, Rows
from clipsyn.methods.numerics.logits import NO_CLASS, NO_PREDICTION
from clipsyn.methods.numerics.metrics import Score, correctness
from clipsyn.show.files import check_place
from clipsyn.show.frames import write
from clipsyn.stats.differences import difference_interval
from clipsyn.stats.images import Images
from clipsyn.store.features import FeatureStore
from clipsyn.text import LOG

MOST_REGIONS = 1000  # of one group in the frame: all there can be of nine backbones
_About = tuple[tuple[str, ...], str | None, Measured]  # backbones, ensemble, their number


def measure(store: FeatureStore, settings: OracleSettings) -> pl.DataFrame:
    """A tidy frame with the columns of `RESULT`.

    Raises MissingCell with the extract line that helps, UnknownName with near matches, DatasetError
    where nothing has labels, and UsageError for weights of pooled predictions, which have no
    logits.
    """
    groups = predicted(store, settings, pooled=settings.pooled)
    if settings.pooled and settings.weights:
        raise UsageError("logits are not pooled: ask for weights without pooling")
    if (path := settings.samples) is not None:
        check_place(path)
        table = sample_table(store, settings)
        write(table, **{path.suffix.removeprefix("."): path})
        LOG.info("%s rows written to %s", f"{len(table):,}", path)
    return frame(
        group.row(measured, names, ensemble)
        for group in groups
        for names, ensemble, measured in numbers(group, settings.weights)
    )


def sample_table(store: FeatureStore, settings: OracleSettings) -> pl.DataFrame:
    """What every backbone predicts for every image, so that one can go and look.

    A row a sample, in the order of the store. Columns: dataset, split, perturbation, prompts, id,
    label, class (null without a label), right (how many backbones are; null where the sample does
    not count); and for each backbone NAME "NAME predicts" (a class), "NAME label" (its index) and
    "NAME right", null where it has no prediction, or no label is known. Errors are those of
    `measure`.
    """
    groups = predicted(store, settings, pooled=settings.pooled)
    return pl.concat(map(_samples, groups), how="diagonal")


def numbers(group: Predicted, weights: bool) -> Iterator[_About]:
    """Everything that is measured of one dataset, split, perturbation and prompt set."""
    every, right = group.backbones, correctness(group.predictions, group.labels)
    labels, images = group.labels[group.counted], group.images
    overlap = Overlap.of(right)
    for name, measured in _singles(group, overlap):
        yield (name,), None, measured
    for subset, measured in _oracles(right, labels, overlap, images):
        yield tuple(every[b] for b in subset), "oracle", measured
    for end, left_out in (("", False), ("_left_out", True)):
        chosen = class_choice(right, labels, left_out=left_out)
        for it in (
            share(f"acc1{end}", chosen, images),
            gain(f"{OVER_BEST_ON_TEST}{end}", chosen, right, images),
        ):  # without intervals: another choice on other images
            yield every, "class-oracle", it._replace(interval=None)
    yield every, "oracle", share("none_correct", ~right.any(axis=0), images)
    yield every, "oracle", share("all_correct", right.all(axis=0), images)
    if weights:
        reached = _reached(group, right)
        lead = reached.sum() - right.sum(axis=1).max(initial=0)
        yield every, "weight-oracle", share("acc1", reached, images)
        yield every, "weight-oracle", share(OVER_BEST_ON_TEST, lead, images)
    for region, count in zip(overlap.right[:MOST_REGIONS], overlap.counts, strict=False):
        names = tuple(every[b] for b in np.flatnonzero(region))
        yield names, "oracle", share("region", count, images)


def _singles(group: Predicted, overlap: Overlap) -> Iterator[tuple[str, Measured]]:
    credit = overlap.credit()
    values = overlap.mean(credit)
    floors = {
        "unique_correct_floor": overlap.mean(overlap.guessed(group.n_classes)),
        "shapley_floor": overlap.mean(overlap.guessed_credit(group.n_classes)),
    }
    for b, name in enumerate(group.backbones):
        yield name, share("acc1", overlap.hits()[b], group.images)
        yield name, share("unique_correct", overlap.only()[b], group.images)
        interval = difference_interval([credit[overlap.places, b]], [group.images])
        yield name, Measured("shapley", Score(float(values[b]), overlap.n), interval)
        for metric, floor in floors.items():
            yield name, estimate(metric, floor[b], overlap.n)


def _oracles(
    right: Mask, labels: Labels, overlap: Overlap, images: Images
) -> Iterator[tuple[Rows, Measured]]:
    """Accuracy, upper mark and gains of the best subset of each size, and of all backbones."""
    count = len(right)
    subsets = [np.arange(count)]
    if 1 < count <= MOST_BACKBONES:
        subsets = [members(subset, count) for subset in best_subsets(subset_hits(right))[1:]]
    best = int(overlap.hits().argmax())
    for subset in subsets:
        correct = np.asarray(right[subset].any(axis=0))
        numbers = [*oracle_numbers(right[subset], labels, images)]
        if best not in subset:
            numbers[-1] = gain(OVER_BEST_ON_TEST, correct, right[[best]], images)
        for measured in (*numbers, relative_gain(correct, right[best], images)):
            yield subset, measured


def _reached(group: Predicted, right: Mask) -> Mask:
    """(counted sample,): whether some weights make the sum of logits right."""
    reached = np.asarray(right.any(axis=0))
    rows = np.flatnonzero(group.counted)
    for places, logits in _logits(group, rows[~reached]):
        reached[np.searchsorted(rows, places)] = reachable(logits, group.labels[places])
    return reached


def _logits(group: Predicted, rows: Rows) -> Iterator[tuple[Rows, Floats]]:
    """Logits (backbone, row, class) of some rows, ascending, a block of the store at a time."""
    size = group.store.product_rows(len(group.labels))
    for number in np.unique(rows // size):
        span = range(number * size, min((number + 1) * size, len(group.labels)))
        part = rows[rows // size == number]
        blocks = [group.store.cell(key).logits(group.prompts, span) for key in group.keys]
        yield part, np.stack([block[part - span.start] for block in blocks])


def _samples(group: Predicted) -> pl.DataFrame:
    names, labels = pl.Series(group.samples.class_names, dtype=pl.String), group.labels
    right = group.predictions == labels
    label = _nullable(labels, labels >= 0)
    columns = {
        "id": pl.Series(list(group.samples.ids), dtype=pl.String),
        "label": label,
        "class": names.gather(label),
        "right": _nullable(right.sum(axis=0).astype(np.int32), group.counted),
    }
    for name, predictions, hits in zip(group.backbones, group.predictions, right, strict=True):
        there = predictions != NO_PREDICTION
        index = _nullable(predictions.astype(np.int32), there & (predictions != NO_CLASS))
        columns |= {
            f"{name} predicts": names.gather(index),
            f"{name} label": index,
            f"{name} right": _nullable(hits, there & (labels >= 0)),
        }
    where = (group.samples.dataset, group.samples.split, group.perturbation, group.prompts)
    return pl.DataFrame(dict(zip(WHERE, where, strict=True)) | columns)


def _nullable(values: NDArray[np.generic], known: Mask) -> pl.Series:
    return pl.select(pl.when(pl.Series(known)).then(pl.Series(values))).to_series()
