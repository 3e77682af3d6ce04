"""Tables of selective prediction: what withholding gains, by method, by score, from a threshold."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from textwrap import fill
from typing import Any

import polars as pl

from clipsyn.analyses.selective import SelectiveSettings
from clipsyn.evaluation.results.frame import (
    METHOD,
    WHERE,
    Numbers,
    Row,
    backbones,
    named_parts,
    numbers_by,
    singles,
)
from clipsyn.settings import FULL, SINGLE
from clipsyn.show.table import Cell, Table, Tables, number_cell, percent_cell, shots_text
from clipsyn.show.tables import Line, Measure, measures_table
from clipsyn.show.titles import (
    WIDTH,
    ShortNames,
    common,
    fitted_on,
    mean_over,
    shortened,
    title,
    where,
)

_AREAS = (
    Measure("AURC", "aurc", digits=2, best="least"),
    Measure("E-AURC", "e_aurc", digits=2),
    Measure("AUGRC", "augrc", digits=2),
)
_AT = tuple(  # accuracy at these coverages
    Measure(f"{100 * at:.0f} %", f"acc1 at {at}") for at in (1.0, 0.9, 0.8, 0.5)
)
_SUPPORT = (
    Measure("support coverage", "support_coverage", head="support:\ncoverage"),
    Measure("support accuracy", "support_acc1", head="support:\naccuracy"),
)
_HERE = (Measure("coverage", "coverage"), Measure("accuracy", "acc1"))
_ABOUT = ("metric", "score", "wished", "foreign")  # what a number is about, within a group
_NOTES = {  # filled
    "methods": """\
AURC: mean error over all coverages, in %. E-AURC: how much of it the best order of confidence would
save. AUGRC: mean over all coverages of the share of images that are answered wrongly, in %. To the
right the accuracy of the most confident answers, in %, at these coverages.""",
    "scores": """\
AURC in %, by score. By agreement many answers are equal, and their order is left to chance.""",
    "star": """
*: another AURC than by max-softmax (the 95 % interval of the difference leaves 0 out).""",
    "thresholds": """\
Images are answered from a threshold of confidence on: the smallest at which the lower bound (95 %,
one-sided) of the accuracy on the support is what is wished, over 20 answers or more. Without a
threshold none reaches that, and nothing is answered. coverage: share of images that are answered,
accuracy: of these answers; on the support, and here. All in %.""",
    "reached": """
Means over those where anything is answered; reached: in how many the accuracy here is what was
wished.""",
    "foreign": """\
How well confidence tells the own images of a dataset from foreign ones. AUROC: chance that an own
image has more of it than a foreign one, in %; 50 is a guess. FPR: share of the foreign images, in
%, that are answered where 95 % of the own ones are.""",
    "others": "\nMeans over those to which they are foreign.",
    "datasets": "AURC in %: mean error over all coverages.",
}


@dataclass(frozen=True)
class _Groups:
    """One group of dataset, split, perturbation and prompt set, or several to take means over."""

    frame: pl.DataFrame
    short: ShortNames

    @cached_property
    def count(self) -> int:
        return len(named_parts(self.frame))

    @property
    def is_one(self) -> bool:
        return self.count == 1

    @cached_property
    def means(self) -> pl.DataFrame:
        """Means over groups: a row for each method and what it is about; of one group intervals.

        What a group lacks is left out, but for foreign images: its own are none to a group.
        """
        known = pl.col("value").is_not_null() & pl.col("value").is_not_nan()
        at = pl.format("{} at {}", "metric", "coverage")
        means = (
            self.frame.with_columns(
                method=METHOD,
                metric=pl.when(pl.col("coverage").is_null()).then("metric").otherwise(at),
            )
            .group_by("ensemble", "method", *_ABOUT, maintain_order=True)
            .agg(
                pl.col("value").filter(known),
                pl.col("ci_low", "ci_high", "threshold").first(),
                reached=(known & (pl.col("value") >= pl.col("wished"))).sum(),
                groups=pl.len(),
            )
            .filter((pl.col("groups") == self.count) | pl.col("foreign").is_not_null())
        )
        values = [math.fsum(of) / len(of) if len(of) else None for of in means["value"]]
        return means.with_columns(pl.Series("value", values, pl.Float64))

    def numbers(self, *columns: str) -> dict[tuple[Any, ...], Numbers]:
        """Of what is about these columns and no others, by method and their values."""
        about = [pl.col(name).is_not_null() == (name in columns) for name in _ABOUT[1:]]
        return numbers_by(self.means.filter(*about), "ensemble", "method", *columns)

    def by_score(self, score: str | None, *columns: str) -> dict[tuple[Any, ...], Numbers]:
        """`numbers` by this score, or by the first that a method has; with the score."""
        of_one: dict[tuple[Any, ...], Numbers] = {}
        for (ensemble, method, by, *others), found in self.numbers("score", *columns).items():
            if score in (None, by):
                of_one.setdefault((ensemble, method, *others), {**found, "score": {"value": by}})
        return of_one

    @property
    def title(self) -> str:
        over = mean_over(self.frame, WHERE)
        columns = [*common(self.frame, WHERE)] + ([] if over else ["n"])
        row = self.frame.filter(metric="acc1").row(0, named=True)
        fitted = fitted_on(self.frame.filter(pl.col("wished").is_null()))
        return title(over, *where(row, columns), self.short.phrase, fitted)

    @property
    def chosen_on(self) -> str:
        """ "chosen on train", "chosen on train, 16 shots": where the thresholds are from."""
        row = self.frame.filter(pl.col("wished").is_not_null()).row(0, named=True)
        shots = "" if row["shots"] == FULL else f", {shots_text(row['shots'])}"
        return f"chosen on {row['support']}{shots}"

    def column(self, name: str) -> list[Any]:
        """The values of a column of the means, each once."""
        return self.means[name].drop_nulls().unique(maintain_order=True).to_list()

    def methods(self) -> list[tuple[Any, ...]]:
        return self.means.select("ensemble", "method").unique(maintain_order=True).rows()

    def cell(self, ensemble: str, method: str) -> Cell:
        return Cell(self.short.short[method] if ensemble == SINGLE else ensemble, method)


def tables(frame: pl.DataFrame, settings: SelectiveSettings) -> dict[str, Tables]:
    """Tables of what `clipsyn.analyses.selective.measure` returns, by name.

    "methods", a line a method, by the first score it has; "scores", the same by every score;
    "thresholds", for each wished accuracy; "foreign". Over several groups of dataset, split,
    perturbation and prompt set these are means, and "datasets" has a line a group. With `details`
    "methods" and "thresholds" stand there for each score ("methods, margin"), and everything for
    each group ("foreign, birds/test, clean, own").
    """
    parts = named_parts(frame)
    if not parts:
        return {}
    short = shortened(backbones(frame))
    shown = _tables(_Groups(frame, short), settings)
    if len(parts) > 1:
        shown["datasets"] = _datasets(frame, short)
    for name, part in parts.items() if settings.details and len(parts) > 1 else ():
        of_one = _tables(_Groups(part, short), settings)
        shown |= {f"{kind}, {name}": table for kind, table in of_one.items()}
    return {name: (table,) for name, table in shown.items()}


def notes(frame: pl.DataFrame, settings: SelectiveSettings) -> Iterator[str]:
    """What was asked for and is not there, and why: of all groups, or of those named before it."""
    groups = named_parts(frame)
    said: dict[str, list[str]] = {}
    for name, part in groups.items():
        for sentence in _left_out(part, settings):
            said.setdefault(sentence, []).append(name)
    for sentence, names in said.items():
        yield sentence if len(names) == len(groups) else f"{'; '.join(names)}: {sentence}"


def _left_out(part: pl.DataFrame, settings: SelectiveSettings) -> Iterator[str]:
    if alone := len(backbones(part)) == 1:
        yield "a single backbone: there is no ensemble, and no agreement"
    there = set(part["ensemble"])
    if left_out := [text for text in settings.ensembles if not alone and text not in there]:
        yield f"left out, for want of logits of all backbones: {', '.join(left_out)}"
    if settings.accuracies and part["wished"].null_count() == len(part):
        yield f"no threshold is chosen: there is no {settings.support} split"
    asked = [score for score in settings.scores if not (alone and score == "agreement")]
    without: dict[tuple[str, ...], list[str]] = {}  # backbones by the scores that they have not
    for (name,), rows in singles(part).group_by("backbone", maintain_order=True):
        lacking = tuple(score for score in asked if score not in set(rows["score"]))
        without.setdefault(lacking, []).append(str(name))
    for lacking, names in without.items():
        if lacking:
            yield f"no {', '.join(lacking)} for want of logits: {', '.join(names)}"


def _tables(groups: _Groups, settings: SelectiveSettings) -> dict[str, Table]:
    if groups.means.is_empty():  # the groups have nothing in common
        return {}
    chosen, scores = groups.column("wished"), groups.column("score")
    shown = {"methods": _methods(groups, None)}
    if len(scores) > 1:
        shown["scores"] = _scores(groups)
    if chosen:
        shown["thresholds"] = _thresholds(groups, None)
    for score in scores if settings.details else ():
        shown[f"methods, {score}"] = _methods(groups, score)
        if chosen:
            shown[f"thresholds, {score}"] = _thresholds(groups, score)
    if groups.column("foreign"):
        shown["foreign"] = _foreign(groups)
    return shown


def _methods(groups: _Groups, score: str | None) -> Table:
    """A line a method, by this score or by the first that it has."""
    lines = [
        ({"method": groups.cell(*method)}, found)
        for method, found in groups.by_score(score).items()
    ]
    first = _AREAS[0]._replace(interval=groups.is_one)
    return _table(lines, (first, *_AREAS[1:], *_AT), groups.title, _NOTES["methods"])


def _scores(groups: _Groups) -> Table:
    """AURC: a line a method, a column a score."""
    numbers, scores = groups.numbers("score"), groups.column("score")
    lines = [
        (
            {"method": groups.cell(*method)},
            {score: _area(numbers.get((*method, score), {}), groups.is_one) for score in scores},
        )
        for method in groups.methods()
    ]
    columns = [Measure(score, score, cell=_starred) for score in scores]
    note = _NOTES["scores"] + (_NOTES["star"] if groups.is_one else "")
    return measures_table(lines, columns, title=groups.title, notes=fill(note, WIDTH))


def _area(numbers: Numbers, is_one: bool) -> Row:
    """The row of an AURC, and whether the interval of its difference leaves 0 out."""
    gain = numbers.get("aurc_gain") if is_one else None
    differs = gain is not None and (gain["ci_low"] > 0 or gain["ci_high"] < 0)
    return numbers.get("aurc", {}) | {"differs": differs}


def _starred(row: Mapping[str, Any]) -> Cell:
    cell = percent_cell(row.get("value"), 2)
    return cell._replace(text=cell.text + ("*" if row.get("differs") else " "))


def _thresholds(groups: _Groups, score: str | None) -> Table:
    """A line a wished accuracy and method."""
    numbers, wishes = groups.by_score(score, "wished"), groups.column("wished")
    lines = []
    for ensemble, method, wished in sorted(numbers, key=lambda of: wishes.index(of[2])):
        found = numbers[ensemble, method, wished]
        about: dict[str, Any] = {"wished": percent_cell(wished)}
        about["method"] = groups.cell(ensemble, method)
        if groups.is_one:
            about |= {"threshold": number_cell(found["coverage"]["threshold"], 3)}
        else:
            about |= {"reached": f"{found['acc1']['reached']} of {groups.count}"}
        lines.append((about, found))
    here = (measure._replace(interval=groups.is_one) for measure in _HERE)
    columns: tuple[Measure | str, ...] = ("threshold", *_SUPPORT, *here, "reached")
    note = _NOTES["thresholds"] + ("" if groups.is_one else _NOTES["reached"])
    return _table(lines, columns, title(groups.title, groups.chosen_on), note)


def _foreign(groups: _Groups) -> Table:
    """A line a foreign dataset and method; AUROC and FPR by each score."""
    numbers, scores = groups.numbers("score", "foreign"), groups.column("score")
    columns = [
        Measure(f"{metric} {score}", f"{metric} {score}", f"{text}\n{score}")
        for metric, text in (("auroc", "AUROC"), ("fpr95", "FPR"))
        for score in scores
    ]
    columns[0] = columns[0]._replace(interval=groups.is_one)
    lines = [
        (
            {"foreign": foreign, "method": groups.cell(*method)},
            {
                f"{metric} {score}": row
                for score in scores
                for metric, row in numbers.get((*method, score, foreign), {}).items()
            },
        )
        for foreign in sorted(groups.column("foreign"))
        for method in groups.methods()
    ]
    note = _NOTES["foreign"] + ("" if groups.is_one else _NOTES["others"])
    return _table(lines, columns, groups.title, note)


def _datasets(frame: pl.DataFrame, short: ShortNames) -> Table:
    """AURC by the first score: a line a group, a column a method."""
    shared = common(frame, WHERE)
    methods: dict[Any, str] = {}
    lines, scores = [], set()
    for groups in (_Groups(part, short) for part in named_parts(frame).values()):
        row, found = groups.frame.filter(metric="acc1").row(0, named=True), groups.by_score(None)
        methods |= {method: groups.cell(*method).text for method in groups.methods()}
        scores |= {of["score"]["value"] for of in found.values()}
        about = {name: row[name] for name in (*WHERE, "n") if name not in shared}
        lines.append((about, {method: of["aurc"] for method, of in found.items()}))
    names = ShortNames({str(at): text for at, text in enumerate(methods.values())}, "")
    columns = [
        Measure(column, method, label=method[1], digits=2, best="least of line")
        for method, column in zip(methods, names.columns.values(), strict=True)
    ]
    by = [f"by {scores.pop()}"] if len(scores) == 1 else []
    return measures_table(
        lines,
        columns,
        title=title(*where(frame.row(0, named=True), list(shared)), short.phrase, *by),
        headers=names.heads,
        notes="\n".join(filter(None, [_NOTES["datasets"], names.legend])),
    )


def _table(lines: Sequence[Line], columns: Sequence[Measure | str], about: str, note: str) -> Table:
    """A score that all lines share stands in the title, others in lines."""
    scores = {found["score"]["value"] for _, found in lines if "score" in found}
    if len(scores) == 1:
        about = title(about, f"by {scores.pop()}")
    elif scores:
        lines = [({**cells, "score": found["score"]["value"]}, found) for cells, found in lines]
    return measures_table(
        lines,
        columns,
        title=about,
        right=["wished", "threshold", "reached"],
        notes=fill(note, WIDTH),
    )
