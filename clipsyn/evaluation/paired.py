"""Methods compared pair by pair on the same images: who is better, and how sure is that?

The difference of a pair is that of accuracies over the same images and the same draws. Several
datasets also have rows of means over them, with `dataset` null; an image that stands in several is
one piece of evidence in all of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from clipsyn.errors import UsageError
from clipsyn.evaluation import PairedSettings, predictions_of
from clipsyn.evaluation.results.files import ask, collect, shots_asked
from clipsyn.evaluation.results.frame import (
    ALONE,
    IS_TRANSDUCTIVE,
    METHOD,
    Row,
    backbones,
    in_order,
)
from clipsyn.evaluation.tables import BEST, PLACE
from clipsyn.methods.ensembles import CHOSEN
from clipsyn.methods.numerics import Mask
from clipsyn.registry import unknown_name
from clipsyn.settings import SINGLE, UNFITTED, takes
from clipsyn.stats.differences import crossed, holm, paired
from clipsyn.stats.images import Images, shown_by_all
from clipsyn.store.select import chosen_names
from clipsyn.text import advised

PAIRS: dict[str, Any] = {
    "dataset": pl.String,  # null for the mean over datasets
    "datasets": pl.Int32,  # how many that is over
    **dict.fromkeys(PLACE, pl.String),
    "head": pl.String,
    "first": pl.String,
    "second": pl.String,
    "shots": pl.String,  # "full" for the whole support, "0" where nothing is fitted
    "draws": pl.Int32,  # 0 where nothing is drawn
    "n": pl.Int64,
    "distinct": pl.Int64,  # of these images, the others being copies
    "first_acc1": pl.Float64,
    "second_acc1": pl.Float64,
    "difference": pl.Float64,
    "ci_low": pl.Float64,  # over images
    "ci_high": pl.Float64,
    "both_low": pl.Float64,  # over draws and images; NaN where there is one draw
    "both_high": pl.Float64,
    "only_first": pl.Float64,  # images; means over draws
    "only_second": pl.Float64,
    "mcnemar": pl.Float64,
    "p": pl.Float64,
    "p_holm": pl.Float64,
    "comparisons": pl.Int32,  # that it is corrected for
    "tie": pl.Boolean,  # p_holm is 0.05 or more
}
LEVEL = 0.05
Draws = Mapping[int | None, Mask]  # by seed, (sample,); None where nothing is drawn


@takes(PairedSettings)
def compare_methods(
    path: Path | str, first: str | None = None, second: str | None = None, **settings: Any
) -> pl.DataFrame:
    """Compare methods on the images of results that `clipsyn evaluate -o` has written to a file.

    first, second: an ensemble, a backbone, "best on test", the backbone that is best on these very
    images, or, of another head, ``HEAD+NAME``; without `second`, `first` against every other;
    without both, what the support chose ("chosen") against every other, or all with all where
    nothing was chosen. p_holm is corrected for all pairs of methods, whichever are shown,
    so that a pair has one everywhere. settings: those of
    `clipsyn.evaluation.PairedSettings`.

    Returns a row for each pair and dataset, and of means over datasets with `dataset` null;
    docs/evaluating.md explains the columns. Raises UsageError, and UnknownName with near matches.

    >>> import clipsyn
    >>> store = clipsyn.FeatureStore.open("store")
    >>> frame = clipsyn.evaluate(store, ensembles=["log-avg"], output="results.parquet")
    >>> pair = clipsyn.compare_methods("results.parquet", "log-avg", "fake/one")
    >>> pair.select("first", "second", "n", "draws").rows()
    [('log-avg', 'fake/one', 20, 0)]
    """
    path, asked = Path(path), PairedSettings(**settings)
    named = [name for name in (first, second) if name is not None]
    if len(named) > len({*named}):
        raise UsageError(f"{first} is compared with itself: name another method")
    there = _fitted(path, asked)
    methods = _compared_methods(there, path, asked, named)
    if first is None and CHOSEN in methods:
        first = CHOSEN
    shots = max(there["shots"], key=in_order)
    learned = there.filter(pl.col("shots") != UNFITTED)
    fitted = {*learned["method"], *[BEST] * len(_singles(learned, asked))}
    rows: list[Row] = []
    for keys, part in there.group_by(PLACE, maintain_order=True):
        of_datasets = part.partition_by("dataset", maintain_order=True)
        sets = [_answered(it, asked, methods, predictions_of(path)) for it in of_datasets]
        images = Images.of_sets([marks for *_, marks in sets])
        for pair in combinations(methods, 2):
            about = dict(zip(PLACE, keys, strict=True)) | {"head": asked.head}
            about["shots"] = shots if fitted & {*pair} else UNFITTED
            rows += [about | row for row in _differences(sets, images, *pair)]
    _adjust(rows)
    shown = [
        row for row in rows if first in (None, row["first"]) and second in (None, row["second"])
    ]
    if not shown:
        names = ", ".join(named if len(named) > 1 else methods)
        raise UsageError(
            f"{path} has no two of {names} on the same images and draws: add some with "
            f"`{_line(path)}`"
        )
    return pl.DataFrame(shown, schema=PAIRS)


def _line(path: Path) -> str:
    return advised("evaluate", "STORE", "-o", path)


# which methods are compared


def _fitted(path: Path, settings: PairedSettings) -> pl.DataFrame:
    """What there are predictions of, a row for each fingerprint, with its name as `method`.

    Methods stand after the name of another head than that of the settings, but for what the support
    chose.
    """
    rows = collect(path).filter(metric="acc1")
    every = pl.col("fingerprint").unique()
    kept = ask(predictions_of(path), lambda it: it.select(every).collect(engine="streaming"))
    there = rows.join(kept, on="fingerprint", how="semi")
    for column in ("dataset", "split", "perturbation", "prompts"):
        terms = getattr(settings, column if column == "prompts" else f"{column}s")
        names = chosen_names(column, terms, there[column].unique(), f"Looked for in {path}.")
        there = there.filter(pl.col(column).is_in(names))
    members = chosen_names(
        "backbone", settings.backbones, backbones(there), f"Looked for in {path}."
    )
    there = there.filter(pl.col("backbones").list.set_difference(members).list.len() == 0)
    if there.is_empty():
        raise UsageError(
            f"{path} has no predictions of these datasets, splits, perturbations, prompt sets and "
            f"backbones together: leave some out, or `{_line(path)}` adds them"
        )
    if settings.head not in there["head"]:
        raise unknown_name("head", settings.head, there["head"].unique(), f"Looked for in {path}.")
    shots = shots_asked({*there["shots"]}, settings.shots, ("evaluate", "STORE", "-o", path))
    is_alone = pl.col("head").is_in([settings.head, CHOSEN])
    method = pl.when(is_alone).then(METHOD).otherwise(pl.concat_str("head", pl.lit("+"), METHOD))
    return there.filter(pl.col("shots").is_in([UNFITTED, shots])).with_columns(method=method)


def _singles(there: pl.DataFrame, settings: PairedSettings) -> list[str]:
    """Backbones on their own, with the head that is asked for."""
    rows = there.filter(ALONE, head=settings.head)
    return rows["method"].unique(maintain_order=True).to_list()


def _compared_methods(
    there: pl.DataFrame, path: Path, settings: PairedSettings, named: Sequence[str]
) -> list[str]:
    """The methods that are named, and ensembles that are compared with each other beside them,
    none of them transductive.

    Raises UsageError for a name of several fits on the same draw, which differ in their backbones,
    support or prompts.
    """
    best = [BEST] if len(_singles(there, settings)) > 1 else []
    known = [*there["method"].unique(maintain_order=True), *best]
    for name in named:
        if name not in known:
            hint = f"Looked for in {path}; `{_line(path)}` adds methods."
            raise unknown_name("method", name, known, hint)
    ranked = there.filter(~IS_TRANSDUCTIVE)
    of_head = ranked.filter(pl.col("ensemble") != SINGLE, head=settings.head)
    chosen = [CHOSEN] if CHOSEN in known else []
    listed = [*chosen, *of_head["method"].unique(maintain_order=True), *best]
    same = ["dataset", *PLACE, "method", "seed"]
    mixed = {*there.filter(pl.len().over(same) > 1)["method"]}
    if several := mixed.intersection(named if len(named) > 1 else [*named, *listed]):
        raise UsageError(
            f"{path} has {min(several)} of several sets of backbones, supports or prompt sets, "
            "which one name cannot tell apart: choose with backbones=…, or give each a file by "
            f"`{_line(Path('OTHER'))}`"
        )
    return [*dict.fromkeys([*named, *(name for name in listed if name not in mixed)])]


# where methods are right


# a dataset, where each method is right on it, and `SampleTable.marks` of its images
Answered = tuple[str, dict[str, Draws], NDArray[np.uint64]]


def _answered(
    there: pl.DataFrame, settings: PairedSettings, methods: Sequence[str], path: Path
) -> Answered:
    singles = sorted(_singles(there, settings)) if BEST in methods else []
    wanted = there.filter(pl.col("method").is_in([*methods, *singles]))
    right, marks = read_right(path, there["dataset"][0], [*wanted["fingerprint"]])
    drawn: dict[str, dict[int | None, Mask]] = {}
    for row in wanted.iter_rows(named=True):
        drawn.setdefault(row["method"], {})[row["seed"]] = right[row["fingerprint"]]
    found: dict[str, Draws] = {name: drawn[name] for name in methods if name in drawn}
    if singles:  # on each draw that all have, the one that is right most often, the first of equals
        every_draw = [drawn[name] for name in singles]
        found[BEST] = {
            seed: max((one[seed] for one in every_draw), key=lambda right: int(right.sum()))
            for seed in every_draw[0]
            if all(seed in one for one in every_draw)
        }
    return there["dataset"][0], found, marks


def read_right(
    path: Path, dataset: str, fingerprints: Sequence[str]
) -> tuple[dict[str, Mask], NDArray[np.uint64]]:
    """By fingerprint where a method is right, (sample,), and `SampleTable.marks` of the images.

    Samples are those that all of the fingerprints have.
    """
    of_these = pl.col("fingerprint").is_in(fingerprints)
    rows = ask(path, lambda it: it.filter(of_these, dataset=dataset).drop("confidence").collect())
    parts = {str(name): one for (name,), one in rows.group_by("fingerprint", maintain_order=True)}
    first = next(iter(parts.values()), rows)
    if any(not one["sample_id"].equals(first["sample_id"]) for one in parts.values()):
        common = first.select("sample_id")
        for one in parts.values():
            common = common.join(one, on="sample_id", how="semi", maintain_order="left")
        for name, one in parts.items():
            parts[name] = common.join(one, on="sample_id", how="left", maintain_order="left")
        first = next(iter(parts.values()))
    is_broken = rows.drop("image").null_count().sum_horizontal().item() > 0
    is_broken |= first["sample_id"].is_duplicated().any()
    if is_broken or any(not one["label"].equals(first["label"]) for one in parts.values()):
        raise UsageError(
            f"predictions of {dataset} are damaged, or its labels were corrected in between: make "
            f"the file anew with `{_line(Path('FILE.parquet'))}`"
        )
    right = {name: (one["label"] == one["prediction"]).to_numpy() for name, one in parts.items()}
    return right, first["image"].fill_null(0).to_numpy().astype(np.uint64)


# how they differ


def _differences(
    sets: Sequence[Answered], images: Sequence[Images], first: str, second: str
) -> Iterator[Row]:
    """Rows of a pair at one place: of each dataset that has both, and of their mean."""
    both: list[tuple[Sides, Images]] = []
    names: Row = {"first": first, "second": second}
    for (dataset, right, _), shown in zip(sets, images, strict=True):
        sides = Sides.of(right.get(first, {}), right.get(second, {}))
        if sides and len(shown):
            both.append((sides, shown))
            yield names | {"dataset": dataset} | difference([sides], [shown])
    if len(both) > 1:
        yield names | {"dataset": None} | difference(*zip(*both, strict=True))


class Sides(NamedTuple):
    """Two methods on one dataset: where each is right, (draw, sample), the same draws of both."""

    first: Mask
    second: Mask
    drawn: bool  # False where nothing of either is drawn

    @classmethod
    def of(cls, first: Draws, second: Draws) -> Sides | None:
        """The draws that both have, beside all of which what is not drawn stands; None without."""
        seeds: list[int | None] = [seed for seed in {**first, **second} if seed is not None]
        pairs = [
            (first.get(seed, first.get(None)), second.get(seed, second.get(None)))
            for seed in seeds or [None]
        ]
        whole = [(one, other) for one, other in pairs if one is not None and other is not None]
        if not whole:
            return None
        one, other = (np.stack(side) for side in zip(*whole, strict=True))
        return cls(one, other, bool(seeds))

    @property
    def draws(self) -> int:
        return len(self.first) if self.drawn else 0

    @property
    def lead(self) -> NDArray[np.int8]:
        """(draw, sample): 1 where the first alone is right, -1 where the second alone is."""
        return self.first.astype(np.int8) - self.second


def difference(sides: Sequence[Sides], images: Sequence[Images]) -> Row:
    """How much more often the first of two methods is right: the mean over datasets, as in `PAIRS`.

    images: as `clipsyn.stats.differences.crossed` takes them. Where nothing is drawn, and where
    there is one draw, p is over images alone: McNemar's of one dataset, for which the draws and
    copies of an image go together. With several draws it is over draws and images, and no smaller
    than McNemar's.
    """
    lead, is_mean = [one.lead for one in sides], len(sides) > 1
    several = crossed(lead, images, [one.drawn for one in sides])
    alone = crossed(lead, images, [False] * len(sides))
    if is_mean:  # few images cannot say more than if all of them agreed
        differing = [of.number[one.any(axis=0)] for one, of in zip(lead, images, strict=True)]
        fewest = 2.0 ** min(0, 1 - len(np.unique(np.concatenate(differing))))
        p_value = max(alone.p_value(), fewest)
    else:
        p_value = paired(images[0].sums(lead[0].T).sum(axis=1).astype(np.int64))
    draws = max(one.draws for one in sides)
    together = several.p_value() if draws else math.nan
    only = [np.count_nonzero(lead[0] == sign) / len(lead[0]) for sign in (1, -1)]
    first = float(np.mean([one.first.mean() for one in sides]))
    second = float(np.mean([one.second.mean() for one in sides]))
    return {
        "datasets": len(sides),
        "draws": draws,
        "n": sum(map(len, images)),
        "distinct": shown_by_all(images),
        "first_acc1": first,
        "second_acc1": second,
        "difference": first - second,
        **dict(zip(("ci_low", "ci_high"), alone.interval(), strict=True)),
        **dict(zip(("both_low", "both_high"), several.interval(), strict=True)),
        **dict(zip(("only_first", "only_second"), only, strict=True)),
        "mcnemar": p_value,
        "p": p_value if math.isnan(together) else max(together, p_value),
        **dict.fromkeys(("only_first", "only_second", "mcnemar") if is_mean else ()),
    }


def _adjust(rows: Sequence[Row]) -> None:
    """Give rows `p_holm`, `comparisons` and `tie`.

    A family is all pairs of methods on one dataset, or in the mean, whichever of them are shown.
    """
    families: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        families.setdefault(tuple(row[name] for name in ("dataset", *PLACE)), []).append(row)
    for members in families.values():
        adjusted = holm(np.array([row["p"] for row in members]))
        count = int(np.count_nonzero(~np.isnan(adjusted)))
        for row, p_value in zip(members, adjusted.tolist(), strict=True):
            row |= {"p_holm": p_value, "comparisons": count, "tie": not p_value < LEVEL}
