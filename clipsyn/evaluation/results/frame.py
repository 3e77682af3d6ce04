"""The tidy frame of results: a row is one number, with all that it is about; and finding rows."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import ArrayLike

from clipsyn.errors import UsageError
from clipsyn.methods.ensembles import ENSEMBLES, TRANSDUCTIVE
from clipsyn.methods.numerics import Array, Doubles, Labels, Mask
from clipsyn.methods.numerics.metrics import (
    Score,
    class_accuracy,
    independent_oracle,
    mean_per_class_recall,
    ratio,
)
from clipsyn.names import parse_perturbation
from clipsyn.settings import FULL, SINGLE, UNFITTED
from clipsyn.show.frames import is_nan
from clipsyn.show.table import Mean, mean_of
from clipsyn.stats.differences import difference_interval, ratio_interval
from clipsyn.stats.images import Images
from clipsyn.stats.intervals import (
    Interval,
    mean_per_class_interval,
    mean_share_interval,
    share_interval,
)

Row = dict[str, Any]
DATA = ("labels", "features", "classes", "support_labels", "support_features", "support_classes")
RESULT: dict[str, Any] = {
    "dataset": pl.String,
    "split": pl.String,
    "perturbation": pl.String,  # its label: clean, jpeg-3, jpeg-3-seed1
    "severity": pl.Int32,
    "head": pl.String,
    "ensemble": pl.String,  # "single" is a backbone on its own; "oracle", "chance", …
    "backbones": pl.List(pl.String),
    "prompts": pl.String,
    "classes": pl.String,  # all, or base or new of base-to-new
    "support": pl.String,  # split that is fitted on; null where nothing is fitted
    "support_prompts": pl.String,  # prompt set that is fitted on
    "shots": pl.String,  # a class; "0" where nothing is fitted, "full" for the whole split
    "seed": pl.Int32,  # null where nothing is drawn
    "choice": pl.String,  # the head and the ensemble that were chosen; null but for "chosen"
    "metric": pl.String,
    "value": pl.Float64,  # a fraction, nats or seconds
    "ci_low": pl.Float64,
    "ci_high": pl.Float64,
    "n": pl.Int64,
    "fingerprint": pl.String,  # of everything that decides the value
    "data": pl.Struct(dict.fromkeys(DATA, pl.String)),  # digests of what it was measured on
}
ALL = "all"  # the perturbation of numbers about several perturbations
ALONE = pl.col("ensemble") == SINGLE
METHOD = pl.when(ALONE).then(pl.col("backbones").list.first()).otherwise("ensemble")
_NAME = pl.col("ensemble").str.split(":").list.first()
IS_TRANSDUCTIVE = _NAME.is_in(ENSEMBLES.groups[TRANSDUCTIVE]).fill_null(value=False)
IS_SHOTS = pl.col("shots").str.contains(rf"^([0-9]{{1,9}}|{FULL})$")
SHOTS_IN_ORDER = pl.col("shots").replace(FULL, str(2**31 - 1)).cast(pl.Int32)
OVER_BEST_ON_TEST = "gain_over_best_on_test"  # "gain" is over the best backbone on the support
IF_ALIKE = "correlation_if_alike"  # of gain and error inconsistency, see `Scorer.over_chosen`
NUMBERS = ("choice", "value", "ci_low", "ci_high", "n", "fingerprint", "data")
NAMES = [name for name in RESULT if name not in NUMBERS]  # what tells results apart
ABOUT = [name for name in NAMES if name != "metric"]  # what tells fingerprints apart
# of zero-shot logits over all classes: nothing is fitted
_ZERO_SHOT = {
    "head": "zero-shot",
    "ensemble": None,
    "classes": "all",
    "support": None,
    "support_prompts": None,
    "shots": UNFITTED,
    "seed": None,
    "choice": None,
}


def subject(about: Mapping[str, Any]) -> str:
    """What a row is about: an ensemble, or the backbones."""
    ensemble = about["ensemble"]
    return ensemble if ensemble not in (None, SINGLE) else ", ".join(about["backbones"] or ())


def in_order(shots: str) -> float:
    """The key that sorts shots: the whole support is more than any number."""
    return math.inf if shots == FULL else int(shots)


class Measured(NamedTuple):
    """One number, without what it is about."""

    metric: str
    score: Score
    interval: Interval | None = None


def share(metric: str, some: ArrayLike, images: Images) -> Measured:
    """Of the samples that show some images, with Wilson's interval; NaN without any.

    some: which samples, or how many.
    """
    hits, n = int(np.sum(some)), len(images)
    return Measured(metric, Score(hits / n if n else math.nan, n), share_interval(hits, images))


def mean_share(metric: str, values: Array, images: Images) -> Measured:
    """The mean of numbers from 0 to 1 (sample,) of samples that show some images."""
    return Measured(metric, mean(values), mean_share_interval([values], [images]))


def gain(metric: str, correct: Mask, right: Mask, images: Images) -> Measured:
    """How much more often a choice is correct than another, or than the best of several.

    correct: (sample,); right: (other, sample), of the same samples, which decide which other is the
    best; of equals the first. NaN without samples.
    """
    lead = correct.astype(np.int8) - right[right.sum(axis=1).argmax()]
    return Measured(metric, mean(lead), difference_interval([lead], [images]))


def relative_gain(correct: Mask, other: Mask, images: Images) -> Measured:
    """How much more often a choice is correct than another, over how often that is; (sample,)."""
    relative = float(ratio(mean(correct).value, mean(other).value)) - 1
    low, high = ratio_interval([correct], [other], [images])
    score, interval = Score(relative, len(images)), Interval(low - 1, high - 1)
    return Measured(f"relative_{OVER_BEST_ON_TEST}", score, interval)


def oracle_gain(right: Mask, images: Images) -> Measured:
    """Of the oracle of right (backbone, sample), which is right wherever the best backbone is: a
    share of the images.
    """
    hits = right.sum(axis=1).max(initial=0)
    return share(OVER_BEST_ON_TEST, right.any(axis=0).sum() - hits, images)


def accuracies(
    predictions: Array, labels: Labels, classes: int, images: Images
) -> Iterator[Measured]:
    """acc1 and mean_per_class_recall of samples that count: predictions (sample,), labels."""
    right = predictions == labels
    yield share("acc1", right, images)
    recall = mean_per_class_recall(predictions, labels, classes)
    interval = mean_per_class_interval(right, labels, images)
    yield Measured("mean_per_class_recall", recall, interval)


def oracle_numbers(right: Mask, labels: Labels, images: Images) -> Iterator[Measured]:
    """Of the oracle of right (backbone, sample): accuracy, what it would be if errors were
    independent within each class, and gain.
    """
    yield share("acc1", right.any(axis=0), images)
    mark = independent_oracle(*class_accuracy(right, labels))
    yield estimate("acc1_independent", mark, len(labels))
    yield oracle_gain(right, images)


def mean(values: Array) -> Score:
    """Of values (sample,); NaN without samples."""
    n = len(values)
    return Score(float(values.mean(dtype=np.float64)) if n else math.nan, n)


def estimate(metric: str, value: float | Doubles, n: int) -> Measured:
    """A number without an interval."""
    return Measured(metric, Score(float(value), n), None)


def gain_metric(rows: pl.DataFrame) -> str:
    """The gain that rows have: over the backbone chosen on the support, else over the best on test.

    The second is of backbones without labels to choose on.
    """
    return "gain" if "gain" in rows["metric"] else OVER_BEST_ON_TEST


@cache
def _severity(perturbation: str) -> int | None:
    return None if perturbation == ALL else parse_perturbation(perturbation).severity


def row(measured: Measured, **about: Any) -> Row:
    """A row of results; columns that `about` lacks are those of zero-shot over all classes."""
    interval = measured.interval
    return {
        **_ZERO_SHOT,
        "severity": _severity(about.get("perturbation", ALL)),
        **about,
        "metric": measured.metric,
        "value": measured.score.value,
        "ci_low": interval.low if interval else None,
        "ci_high": interval.high if interval else None,
        "n": measured.score.n,
    }


def frame(rows: Iterable[Row], more: Mapping[str, Any] | None = None) -> pl.DataFrame:
    """Rows as a tidy frame with the columns of `RESULT`, and `more` before the metric.

    A row has null in columns that it lacks.
    """
    names = list(RESULT)
    at = names.index("metric")
    schema = {name: RESULT[name] for name in names[:at]} | dict(more or {})
    schema |= {name: RESULT[name] for name in names[at:]}
    return pl.DataFrame(list(rows), schema=schema)


# rows found by what they are about

WHERE = ("dataset", "split", "perturbation", "prompts")  # what one table, or one line, is about
Numbers = dict[str, Row]  # rows by metric
_SETTINGS = {name: f"{name}s" for name in ("dataset", "split", "perturbation", "head")}
_SETTINGS["prompts"] = "prompts"


def named_parts(frame: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """The rows of each dataset, split, perturbation and prompt set: "birds/test, clean, own"."""
    return {
        ", ".join([f"{dataset}/{split}", *others]): part
        for (dataset, split, *others), part in frame.group_by(WHERE, maintain_order=True)
    }


def numbers(frame: pl.DataFrame) -> Numbers:
    """Rows by metric, of a frame that has each once."""
    return {row["metric"]: row for row in frame.iter_rows(named=True)}


def numbers_by(frame: pl.DataFrame, *columns: str) -> dict[Any, Numbers]:
    """Rows by metric, for each value of a column in order; a list of names as a tuple.

    For several columns, for each tuple of their values.
    """
    by_values: dict[Any, Numbers] = {}
    for row in frame.iter_rows(named=True):
        values = (row[column] for column in columns)
        key = tuple(tuple(value) if isinstance(value, list) else value for value in values)
        by_values.setdefault(key if len(columns) > 1 else key[0], {})[row["metric"]] = row
    return by_values


def singles(frame: pl.DataFrame) -> pl.DataFrame:
    """Rows about a backbone on its own, with its name in a column `backbone`."""
    return frame.filter(ALONE).with_columns(backbone=pl.col("backbones").list.first())


def by_method(frame: pl.DataFrame) -> pl.DataFrame:
    """With the name of a backbone on its own in `backbone`, of others that in `ensemble` alone."""
    first = pl.col("backbones").list.first()
    return frame.with_columns(
        backbone=pl.when(ALONE).then(first), ensemble=pl.when(~ALONE).then("ensemble")
    )


def about_line(part: pl.DataFrame, columns: Iterable[str], shared: Collection[str]) -> Row:
    """What a line of a table is about: columns of its rows, but for what all lines share."""
    return {name: part[name][0] for name in columns if name not in shared}


def best_single(frame: pl.DataFrame) -> Row:
    """The acc1 of the backbone that is best on its own; of equals the first, NaN is below all."""
    accuracies = singles(frame).filter(metric="acc1").iter_rows(named=True)
    return max(accuracies, key=lambda row: -1 if is_nan(row["value"]) else row["value"])


def backbones(frame: pl.DataFrame) -> list[str]:
    """Every backbone that a row is about, in order."""
    return frame["backbones"].explode().drop_nulls().unique(maintain_order=True).to_list()


def having(frame: pl.DataFrame, *columns: str) -> pl.DataFrame:
    """The frame, but without any row where it lacks one of the columns, which are then added."""
    lacking = [name for name in columns if name not in frame.columns]
    if not lacking:
        return frame
    return frame.clear().with_columns(pl.lit(None).alias(name) for name in lacking)


def refuse_several(frame: pl.DataFrame, columns: Sequence[str] = WHERE[1:]) -> None:
    """Raise UsageError where rows have several values in a column, such as the split."""
    for column in columns:
        setting = _SETTINGS.get(column)
        values = frame[column].drop_nulls().unique(maintain_order=True).to_list()
        if len(values) > 1:
            some = ", ".join(map(str, values[:3])) + (", …" if len(values) > 3 else "")
            kinds = "prompt sets" if column == "prompts" else setting or f"values of {column}"
            how = f"name it with {setting}=…" if setting else "give a file of one"
            raise UsageError(f"there are {len(values)} {kinds}, {some}, and this shows one: {how}")


def mean_of_rows(rows: pl.DataFrame) -> Mean | None:
    """`mean_of` their values and intervals."""
    return mean_of(rows.select("value", "ci_low", "ci_high").iter_rows())


def over_datasets(frame: pl.DataFrame, by: Sequence[str]) -> pl.DataFrame:
    """Means over datasets of known values, a row for each combination of the columns `by`.

    Columns: `by`, `dataset` (null for a mean), `value`, `ci_low` and `ci_high` (null for a mean),
    `n` (the sum), and `datasets`, over how many.
    """
    known, alone = pl.col("value").is_not_nan(), pl.col("dataset").n_unique() == 1
    return frame.group_by(by, maintain_order=True).agg(
        pl.when(alone).then(pl.col("dataset").first()).alias("dataset"),
        pl.col("value").filter(known).mean(),
        *(pl.when(alone).then(pl.col(name).first()).alias(name) for name in ("ci_low", "ci_high")),
        pl.col("n").sum(),
        datasets=pl.col("dataset").filter(known).n_unique(),
    )
