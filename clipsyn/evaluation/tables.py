"""Tables that compare ensembles, by dataset and by number of shots, and methods pair by pair.

Gains are over `BEST_SINGLE`, the backbone that is best on the support, which needs no combination.
Rows that know the labels of the test images stand below: the backbone that is best on them, the
oracle, and the oracle of independent errors.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

import polars as pl

from clipsyn.evaluation.results.frame import (
    ALONE,
    OVER_BEST_ON_TEST,
    Numbers,
    Row,
    about_line,
    in_order,
    mean_of_rows,
)
from clipsyn.methods.ensembles import BEST_SINGLE, CHOSEN, TRANSDUCTIVE, is_transductive, place_of
from clipsyn.names import CLEAN
from clipsyn.settings import SINGLE, UNFITTED
from clipsyn.show.table import (
    Cell,
    Table,
    Tables,
    interval_cell,
    p_cell,
    paragraph,
    percent_cell,
    points_cell,
    shots_text,
)
from clipsyn.show.tables import Measure, interval_of, measures_table, notes_beside
from clipsyn.show.titles import WIDTH, common, fitted_on, mean_over, title, where
from clipsyn.stats.images import copies_note
from clipsyn.text import counted

BEST = "best on test"
INDEPENDENT = "independent"
_KNOW_TEST = (BEST, "oracle", INDEPENDENT)
PLACE = ("split", "perturbation", "prompts", "classes")
_SHOTS = pl.when(pl.col("shots") != UNFITTED).then("shots")
_NOTES = notes_beside(__file__)
_OVER = {"gain": "gain", "over it": OVER_BEST_ON_TEST}
_MEAN = Measure("mean", "mean", best="most")
_GAINS = (
    Measure("gain", "gain", interval="known", optional=True),
    Measure("over it", "over it", "over best\non test", optional=True),
)
_OF_CHOICE = (
    Measure("top-1", "acc1", interval=True),
    Measure("gain", "gain", interval=True),
    Measure(
        "over zero-shot", "gain_over_zero_shot", "over zero-\nshot", interval="known", optional=True
    ),
)


def methods(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows of ensembles and oracles, whose name is in a column `method`.

    Among them is `BEST`, on each draw the backbone that is best on test, the first of equals.
    """
    keys = ["head", *PLACE, "dataset", "shots", "seed"]
    singles = rows.filter(ALONE).sort("value", descending=True, nulls_last=True)
    best = singles.group_by(keys, maintain_order=True).first().with_columns(method=pl.lit(BEST))
    others = rows.filter(pl.col("ensemble") != SINGLE).with_columns(method="ensemble")
    return pl.concat([others, best.select(others.columns)])


def method_frame(tidy: pl.DataFrame, metric: str = "acc1") -> pl.DataFrame:
    """A row for each method and dataset: mean over seeds of a metric, and its spread.

    tidy: what `evaluate` returns. Columns: head, split, perturbation, prompts, classes,
    dataset, method, shots ("full" is the whole support, null where nothing is learned),
    value, sd (over seeds), ci_low, ci_high (means of the intervals over samples), seeds, n.
    Among the methods are `BEST`, the backbone that is best on test, and for accuracies
    `INDEPENDENT`, the oracle of independent errors.
    """
    marked = tidy.filter(metric=f"{metric}_independent").with_columns(ensemble=pl.lit(INDEPENDENT))
    rows = methods(pl.concat([tidy.filter(metric=metric), marked])).with_columns(shots=_SHOTS)
    return rows.group_by("head", *PLACE, "dataset", "shots", "method", maintain_order=True).agg(
        pl.col("value").mean(),
        pl.col("value").std().alias("sd"),
        pl.col("ci_low").mean(),
        pl.col("ci_high").mean(),
        pl.len().alias("seeds"),
        pl.col("n").first(),
    )


def chosen_tables(tidy: pl.DataFrame) -> Tables:
    """A line for each dataset and number of shots: what the support chose, and what that gains."""
    rows = tidy.filter(head=CHOSEN)
    if rows.is_empty():
        return ()
    by = ["split", "perturbation", "prompts", "dataset", "shots"]
    shared = common(rows, ("split", "perturbation", "prompts"))
    numbers = [
        (it.metric, method_frame(rows, it.metric).rows_by_key(by, named=True, unique=True))
        for it in _OF_CHOICE
    ]
    places = rows.filter(metric="acc1").with_columns(shots=_SHOTS).group_by(by, maintain_order=True)
    lines = []
    for key, part in places:
        told = about_line(part, by, shared) | {"chosen": _most(part["choice"].to_list())}
        lines.append((told, {metric: of[key] for metric, of in numbers if key in of}))
    about = title("chosen on the support", *where(shared, list(shared)))
    return (measures_table(lines, _OF_CHOICE, title=about, notes=_NOTES["chosen"]),)


def _most(choices: Sequence[str]) -> str:
    """The most frequent, and by how many draws where they differ."""
    (most, times), *others = Counter(choices).most_common()
    return f"{most} ({times} of {len(choices)})" if others else most


def tables(tidy: pl.DataFrame) -> dict[str, Tables]:
    """What was chosen; for each head, split, prompt set and set of classes accuracy; a note.

    Names are "by dataset", "by shots" or "by perturbation", followed by head, split, prompt set and
    classes. The first two are of clean images, or of the first perturbation where none are clean.
    """
    chosen = chosen_tables(tidy)
    shown: dict[str, Tables] = {CHOSEN: chosen} if chosen else {}
    columns = ["head", "split", "prompts", "classes"]
    tidy = tidy.filter(pl.col("head") != CHOSEN)
    gains = {name: method_frame(tidy, metric) for name, metric in _OVER.items()}
    for keys, every in method_frame(tidy).group_by(columns, maintain_order=True):
        labels = every["perturbation"].unique(maintain_order=True).to_list()
        one = CLEAN.label if CLEAN.label in labels else labels[0]
        part = every.filter(perturbation=one)
        head, split, prompts, classes = keys
        about = {"head": head, "split": split, "perturbation": one, "prompts": prompts}
        about["classes"] = None if classes == "all" else f"{classes} classes"
        name, text = ", ".join(map(str, keys)), title(*where(about, list(about)))
        of_part = dict(zip(columns, keys, strict=True)) | {"perturbation": one}
        of_gains = {name: gain.filter(**of_part) for name, gain in gains.items()}
        shown[f"by dataset, {name}"] = (by_dataset(part, of_gains, text),)
        if len(_shots(part)) > 1:
            shown[f"by shots, {name}"] = by_shots(part, text)
        if len(labels) > 1:
            text = title(*where(about, columns))
            shown[f"by perturbation, {name}"] = (by_perturbation(every, labels, text),)
    if not shown:
        return {"": (paragraph("no ensemble to show"),)}
    notes = [_NOTES["tables"]]
    if any(map(is_transductive, tidy["ensemble"].unique())):
        notes.append(_NOTES["transductive"])
    return shown | {"what they mean": (paragraph("\n".join(notes)),)}


def by_dataset(frame: pl.DataFrame, gains: Mapping[str, pl.DataFrame], about: str) -> Table:
    """A line a method, a column a dataset at its most shots, and means over all of them.

    The cells of datasets have the ends of their intervals over images. gains: measured ones, by
    the name of their column, of which the means have intervals.
    """
    last = at_most_shots(frame)
    datasets = last["dataset"].unique(maintain_order=True).to_list()
    rows: dict[str, dict[str, Row]] = {}
    for row in last.rows(named=True):
        rows.setdefault(row["method"], {})[row["dataset"]] = row
    for name, part in {"mean": last, **gains}.items():
        for (method,), of in at_most_shots(part).group_by("method"):
            mean = mean_of_rows(of)
            if mean and mean.datasets == len(datasets):
                ends = {} if name == "mean" else {"ci_low": mean.low, "ci_high": mean.high}
                rows[str(method)][name] = {"value": mean.value} | ends
    columns = [Measure(name, name, best="most", cell=_with_ends) for name in datasets]
    columns += [_MEAN] * (len(datasets) > 1)
    return _table(rows, [*columns, *_GAINS], title(about, *map(shots_text, _shots(frame)[-1:])))


def _with_ends(row: Mapping[str, Any]) -> Cell:
    """An accuracy; tables of text have no room for its interval, others have."""
    interval = interval_cell(row)
    return percent_cell(row.get("value"))._replace(low=interval.low, high=interval.high)


def by_shots(frame: pl.DataFrame, about: str) -> Tables:
    """A line a method, a column a number of shots: means over the datasets that have all of them.

    Datasets that have the same numbers of shots share a table.
    """
    kinds: dict[tuple[str, ...], list[str]] = {}
    for (dataset,), part in frame.group_by("dataset", maintain_order=True):
        kinds.setdefault(tuple(_shots(part)), []).append(str(dataset))
    tables = []
    for shots, datasets in kinds.items():
        part = frame.filter(pl.col("dataset").is_in(datasets))
        over = mean_over(part, ["dataset"])
        text = title(about, "by shots", over)
        if len(kinds) > 1:
            names = fill(f"{'mean over ' if over else ''}{', '.join(datasets)}", WIDTH)
            text = f"{title(about, 'by shots')}\n{names}"
        tables.append(_means({name: _at(part, name) for name in shots}, text))
    return tuple(tables)


def by_perturbation(frame: pl.DataFrame, labels: Sequence[str], about: str) -> Table:
    """A line a method, a column a perturbation: means over datasets, at the most shots."""
    last = at_most_shots(frame)
    phrases = "by perturbation", *map(shots_text, _shots(frame)[-1:]), mean_over(frame, ["dataset"])
    columns = {label: last.filter(perturbation=label) for label in labels}
    return _means(columns, title(about, *phrases))


def _means(columns: Mapping[str, pl.DataFrame], title: str) -> Table:
    """A line a method, and for each column the mean of its rows over datasets."""
    rows: dict[str, dict[str, Row]] = {}
    for name, part in columns.items():
        for row in part.group_by("method").agg(pl.col("value").mean()).rows(named=True):
            rows.setdefault(row["method"], {})[name] = row
    return _table(rows, [Measure(name, name, best="most") for name in columns], title)


def _table(rows: Mapping[str, Numbers], columns: Sequence[Measure], title: str) -> Table:
    """The reference first, then methods in the order of the registry; below them transductive ones,
    and last what knows the test labels. The best are marked among the first two.
    """

    def place(method: str) -> tuple[int, int, str]:
        if method in _KNOW_TEST:
            return 3, _KNOW_TEST.index(method), method
        section = 2 if is_transductive(method) else int(method != BEST_SINGLE)
        return section, place_of(method), method

    lines = [({"method": flagged(method)}, rows[method]) for method in sorted(rows, key=place)]
    fair = sum(place(method)[0] < 2 for method in rows)
    return measures_table(lines, columns, fair, title=title)


def flagged(method: str) -> str:
    """The name of a method, which says so where it is transductive."""
    return f"{method} ({TRANSDUCTIVE.lower()})" if is_transductive(method) else method


def at_most_shots(frame: pl.DataFrame) -> pl.DataFrame:
    """Methods at the most shots there are of each dataset."""
    parts = [
        _at(part, shots[-1] if (shots := _shots(part)) else None)
        for _, part in frame.group_by("dataset", maintain_order=True)
    ]
    return pl.concat(parts) if parts else frame


def _at(frame: pl.DataFrame, shots: str | None) -> pl.DataFrame:
    """Methods at this number of shots, and those that learn nothing."""
    return frame.filter(pl.col("shots").is_null() | pl.col("shots").eq_missing(shots))


def _shots(frame: pl.DataFrame) -> list[str]:
    return sorted(set(frame["shots"].drop_nulls()), key=in_order)


# methods in pairs


def pair_tables(frame: pl.DataFrame) -> dict[str, Tables]:
    """The tables by name, and what they mean; of several pairs those of the mean, if any."""
    shown: dict[str, Tables] = {}
    if frame.select("first", "second").n_unique() == 1:
        for keys, part in frame.group_by("split", "prompts", "classes", maintain_order=True):
            own = ["dataset", *["perturbation"] * (part["perturbation"].n_unique() > 1)]
            shown[", ".join(map(str, keys))] = (_pair_table(part, own),)
    else:
        is_mean = pl.col("dataset").is_null()
        above = frame.filter(is_mean | ~is_mean.any().over(PLACE))
        for keys, part in above.group_by("dataset", *PLACE, maintain_order=True):
            name = ", ".join(str(key or "mean") for key in keys)
            ranked = part.sort("first", "second_acc1", descending=[False, True])
            shown[f"pairs, {name}"] = (_pair_table(ranked, ["first", "second"]),)
    return shown | {"what they mean": (paragraph(_pair_note(frame)),)}


def _pair_note(frame: pl.DataFrame) -> str:
    place = pl.concat_str("dataset", "split", separator="/")
    sets = frame.drop_nulls("dataset").select(place, "n", "distinct")
    counts = sorted({*frame["comparisons"]}) or [0]
    count = " to ".join(map(str, dict.fromkeys([counts[0], counts[-1]])))
    notes = [
        _NOTES["pairs"].format(comparisons=f"{count} comparison{'s' * (counts[-1] != 1)}"),
        _NOTES["luck"] if BEST in [*frame["first"], *frame["second"]] else "",
        _NOTES["one_draw"] if 1 in frame["draws"] else "",
        copies_note(sets.iter_rows()),
    ]
    return "\n".join(filter(None, notes))


def _pair_table(part: pl.DataFrame, own: Sequence[str]) -> Table:
    """A line for each row, which begins with its own columns."""
    names = (part["first"][0], part["second"][0]) if "first" not in own else ("first", "second")
    lines = []
    for row in part.iter_rows(named=True):
        about = {name: row[name] or f"mean over {row['datasets']}" for name in own}
        both = {"ci_low": row["both_low"], "ci_high": row["both_high"]}
        numbers = {name: {"value": row[name]} for name in row} | {"difference": row, "both": both}
        lines.append((about | {"n": row["n"]}, numbers))
    first, second = names
    counts: dict[str, Any] = {"percent": False, "digits": 1, "optional": True}
    columns = (
        Measure("first top-1", "first_acc1", f"{first}\ntop-1"),
        Measure("second top-1", "second_acc1", f"{second}\ntop-1"),
        Measure("difference", "difference", cell=_lead),
        Measure(interval_of("difference"), "difference", "95 % over\nimages", cell=interval_cell),
        Measure("both", "both", "95 % over draws\nand images", cell=interval_cell),
        Measure("only_first", "only_first", f"only\n{first}", **counts),
        Measure("only_second", "only_second", f"only\n{second}", **counts),
        Measure("mcnemar", "mcnemar", "McNemar", cell=_p, optional=True),
        Measure("p", "p", cell=_p),
        Measure("holm", "p_holm", "p (Holm)", cell=_p),
    )
    return measures_table(lines, columns, title=title(f"{first} less {second}", _about(part, own)))


def _p(row: Mapping[str, Any]) -> Cell:
    return p_cell(row["value"])


def _lead(row: Mapping[str, Any]) -> Cell:
    """ "+1.2=" for a tie, else "+1.2 ", so that the digits are in line."""
    return points_cell(row["difference"], "=" if row["tie"] else " ")


def _about(part: pl.DataFrame, without: Sequence[str]) -> str:
    """What all lines of a table are about."""
    row = part.row(0, named=True)
    over = "" if row["dataset"] or "dataset" in without else f"mean over {row['datasets']} datasets"
    row["classes"] = None if row["classes"] == "all" else f"{row['classes']} classes"
    columns = [name for name in ("dataset", *PLACE, "head") if name not in without]
    draws = max(part["draws"].to_list())
    drawn = counted(draws, "draw") if draws else ""
    return title(over, *where(row, columns), fitted_on(part), drawn)
