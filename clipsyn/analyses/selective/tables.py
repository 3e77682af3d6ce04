"""Tables of selective prediction: what withholding gains, by method, by score, from a threshold."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from textwrap import fill
from typing import Any, NamedTuple

import polars as pl

from clipsyn.analyses.selective import SelectiveSettings
from clipsyn.evaluation.results.frame import Row
from clipsyn.evaluation.results.view import WHERE, backbones, named_parts, singles
from clipsyn.show.frames import is_nan
from clipsyn.show.numbers import number, shots_text
from clipsyn.show.table import Cell, Table, Tables, interval_cell
from clipsyn.show.tables import (
    WIDTH,
    ShortNames,
    best_of_columns,
    best_of_rows,
    interval_of,
    shortened,
    table_of,
)
from clipsyn.show.titles import common, fitted_on, mean_over, title, where

_AT = {"100 %": 1.0, "90 %": 0.9, "80 %": 0.8, "50 %": 0.5}  # accuracy at these coverages
_AREAS = ("AURC", "E-AURC", "AUGRC")
_SHARES = (*_AT, "wished", "support coverage", "support accuracy", "coverage", "accuracy")
_HEADS = {
    "support coverage": "support:\ncoverage",
    "support accuracy": "support:\naccuracy",
}
_NOTES = {
    "methods": (
        "AURC: mean error over all coverages, in %. E-AURC: how much of it the best order of "
        "confidence would save. AUGRC: mean over all coverages of the share of images that are "
        "answered wrongly, in %. To the right the accuracy of the most confident answers, in %, at "
        "these coverages."
    ),
    "scores": (
        "AURC in %, by score. By agreement many answers are equal, and their order is left to "
        "chance."
    ),
    "star": (
        " *: another AURC than by max-softmax (the 95 % interval of the difference leaves 0 out)."
    ),
    "thresholds": (
        "Images are answered from a threshold of confidence on: the smallest that reaches the "
        "wished accuracy on the support. coverage: share of images that are answered, accuracy: of "
        "these answers; on the support, and here. All in %."
    ),
    "reached": (
        " Means over those where anything is answered; reached: in how many the accuracy here is "
        "what was wished."
    ),
    "foreign": (
        "How well confidence tells the own images of a dataset from foreign ones. AUROC: chance "
        "that an own image has more of it than a foreign one, in %; 50 is a guess. FPR: share of "
        "the foreign images, in %, that are answered where 95 % of the own ones are."
    ),
    "others": " Means over those to which they are foreign.",
    "datasets": "AURC in %: mean error over all coverages.",
}


class _Method(NamedTuple):
    ensemble: str | None
    backbone: str | None  # None for an ensemble

    @property
    def name(self) -> str:
        return self.ensemble or self.backbone or ""


class _Key(NamedTuple):
    """What a number is about, within a group."""

    method: _Method
    metric: str
    score: str | None = None
    coverage: float | None = None
    wished: float | None = None
    foreign: str | None = None


@dataclass(frozen=True)
class _Groups:
    """One group of dataset, split, perturbation and prompt set, or several to take means over."""

    frame: pl.DataFrame
    short: ShortNames

    @cached_property
    def rows(self) -> list[dict[_Key, Row]]:
        """Of each group."""
        return [
            {_key(row): row for row in part.iter_rows(named=True)}
            for part in named_parts(self.frame).values()
        ]

    @cached_property
    def keys(self) -> list[_Key]:
        """What every group has a number of."""
        first, *others = self.rows
        return [key for key in first if all(key in rows for rows in others)]

    @property
    def foreign(self) -> list[str]:
        """Every foreign dataset, sorted; no group has itself."""
        return sorted({key.foreign for rows in self.rows for key in rows if key.foreign})

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
        shots = "" if row["shots"] is None else f", {shots_text(row['shots'])}"
        return f"chosen on {row['support']}{shots}"

    @property
    def is_one(self) -> bool:
        return len(self.rows) == 1

    @property
    def methods(self) -> list[_Method]:
        return list(dict.fromkeys(key.method for key in self.keys))

    @property
    def scores(self) -> list[str]:
        """Every one that there is, in order."""
        there = (key.score for key in self.keys if key.metric == "aurc")
        return list(dict.fromkeys(filter(None, there)))

    def name(self, method: _Method) -> str:
        return method.ensemble or self.short.short[method.backbone or ""]

    def cell(self, method: _Method) -> Cell:
        return Cell(self.name(method), method.name)

    def by(self, score: str | None) -> Iterator[tuple[_Method, str]]:
        """Each method that has this score, or the first that each of them has."""
        scores: dict[_Method, list[str]] = {}
        for key in self.keys:
            if key.metric == "aurc" and key.score:
                scores.setdefault(key.method, []).append(key.score)
        for method, there in scores.items():
            if score is None or score in there:
                yield method, score or there[0]

    def values(self, key: _Key) -> list[float | None]:
        return [rows[key]["value"] for rows in self.rows if key in rows]

    def mean(self, key: _Key) -> float | None:
        """Over the groups in which there is a number; None where there is none."""
        known = [value for value in self.values(key) if value is not None and not is_nan(value)]
        return math.fsum(known) / len(known) if known else None

    def areas(self, keys: Mapping[str, _Key]) -> dict[str, float | None]:
        """Cells in percent, with two decimals: differences are small."""
        means = {name: self.mean(key) for name, key in keys.items()}
        return {name: None if mean is None else 100 * mean for name, mean in means.items()}

    def with_interval(self, column: str, key: _Key) -> dict[str, Cell]:
        """The cell beside a column, of a single group: means over several have no interval."""
        row = self.rows[0].get(key, {})
        return {interval_of(column): interval_cell(row)} if self.is_one else {}

    def leaves_out_0(self, key: _Key) -> bool:
        """Whether the interval of a single group's number does."""
        row = self.rows[0].get(key) if self.is_one else None
        return row is not None and (row["ci_low"] > 0 or row["ci_high"] < 0)


def _key(row: Row) -> _Key:
    backbone = None if row["ensemble"] else row["backbones"][0]
    about = (row[name] for name in ("metric", "score", "coverage", "wished", "foreign"))
    return _Key(_Method(row["ensemble"], backbone), *about)


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
    if not groups.keys:  # the groups have nothing in common
        return {}
    chosen = any(key.metric == "coverage" for key in groups.keys)
    shown = {"methods": _methods(groups, None)}
    if len(groups.scores) > 1:
        shown["scores"] = _scores(groups)
    if chosen:
        shown["thresholds"] = _thresholds(groups, None)
    for score in groups.scores if settings.details else ():
        shown[f"methods, {score}"] = _methods(groups, score)
        if chosen:
            shown[f"thresholds, {score}"] = _thresholds(groups, score)
    if groups.foreign:
        shown["foreign"] = _foreign(groups)
    return shown


def _methods(groups: _Groups, score: str | None) -> Table:
    """A line a method, by this score or by the first that it has."""
    lines = []
    for method, by in groups.by(score):
        aurc = _Key(method, "aurc", by)
        lines.append(
            {"method": groups.cell(method), "score": by}
            | groups.areas({"AURC": aurc})
            | groups.with_interval("AURC", aurc)
            | groups.areas({"E-AURC": aurc._replace(metric="e_aurc")})
            | groups.areas({"AUGRC": aurc._replace(metric="augrc")})
            | {head: groups.mean(_Key(method, "acc1", by, at)) for head, at in _AT.items()}
        )
    return _table(lines, groups.title, _NOTES["methods"], least=["AURC"])


def _scores(groups: _Groups) -> Table:
    """AURC: a line a method, a column a score."""
    lines = []
    for method in groups.methods:
        line: dict[str, Any] = {"method": groups.cell(method)}
        for score in groups.scores:
            area = groups.areas({"AURC": _Key(method, "aurc", score)})["AURC"]
            star = "*" if groups.leaves_out_0(_Key(method, "aurc_gain", score)) else ""
            line[score] = Cell(f"{number(area)}{star:1}", area)
        lines.append(line)
    note = _NOTES["scores"] + (_NOTES["star"] if groups.is_one else "")
    return table_of(lines, title=groups.title, right=groups.scores, notes=fill(note, WIDTH))


def _thresholds(groups: _Groups, score: str | None) -> Table:
    """A line a wished accuracy and method."""
    lines = []
    wishes = list(dict.fromkeys(key.wished for key in groups.keys if key.wished is not None))
    for wished in wishes:
        for method, by in groups.by(score):
            coverage = _Key(method, "coverage", by, wished=wished)
            if coverage not in groups.keys:
                continue
            accuracy = coverage._replace(metric="acc1")
            line = {"wished": wished, "method": groups.cell(method), "score": by}
            if groups.is_one:
                line["threshold"] = groups.rows[0][coverage]["threshold"]
            for head, key in (("coverage", coverage), ("accuracy", accuracy)):
                line[f"support {head}"] = groups.mean(key._replace(metric=f"support_{key.metric}"))
            for head, key in (("coverage", coverage), ("accuracy", accuracy)):
                line[head] = groups.mean(key)
                line |= groups.with_interval(head, key)
            if not groups.is_one:
                known = [value for value in groups.values(accuracy) if not is_nan(value)]
                reached = sum(value >= wished for value in known if value is not None)
                line["reached"] = f"{reached} of {len(groups.rows)}"
            lines.append(line)
    note = _NOTES["thresholds"] + ("" if groups.is_one else _NOTES["reached"])
    return _table(lines, title(groups.title, groups.chosen_on), note)


def _foreign(groups: _Groups) -> Table:
    """A line a foreign dataset and method; AUROC and FPR by each score."""
    every = groups.scores
    lines = []
    for foreign in groups.foreign:
        for method in groups.methods:
            line: dict[str, Any] = {"foreign": foreign, "method": groups.cell(method)}
            for metric in ("auroc", "fpr95"):
                for score in every:
                    key = _Key(method, metric, score, foreign=foreign)
                    line[f"{metric} {score}"] = groups.mean(key)
                    if metric == "auroc" and score == every[0]:
                        line |= groups.with_interval(f"{metric} {score}", key)
            lines.append(line)
    heads = {
        f"{metric} {score}": f"{text}\n{score}"
        for metric, text in (("auroc", "AUROC"), ("fpr95", "FPR"))
        for score in every
    }
    note = _NOTES["foreign"] + ("" if groups.is_one else _NOTES["others"])
    return _table(lines, groups.title, note, heads=heads)


def _datasets(frame: pl.DataFrame, short: ShortNames) -> Table:
    """AURC by the first score: a line a group, a column a method."""
    shared = common(frame, WHERE)
    groups = [_Groups(part, short) for part in named_parts(frame).values()]
    methods = list(dict.fromkeys(method for of in groups for method in of.methods))
    names = ShortNames({str(n): groups[0].name(of) for n, of in enumerate(methods)}, "")
    columns = dict(zip(methods, names.columns.values(), strict=True))
    lines = []
    for of in groups:
        row = of.frame.filter(metric="acc1").row(0, named=True)
        line = {name: row[name] for name in (*WHERE, "n") if name not in shared}
        best = dict(of.by(None))
        for method, column in columns.items():
            value = of.mean(_Key(method, "aurc", best.get(method)))
            line[column] = None if value is None else 100 * value
        lines.append(line)
    scores = {score for of in groups for _, score in of.by(None)}
    by = [f"by {scores.pop()}"] if len(scores) == 1 else []
    return table_of(
        lines,
        title=title(*where(frame.row(0, named=True), list(shared)), short.phrase, *by),
        digits=dict.fromkeys(columns.values(), 2),
        headers=names.heads,
        labels={column: method.name for method, column in columns.items()},
        best=best_of_rows(lines, list(columns.values()), least=True),
        notes=f"{_NOTES['datasets']}{names.legend}",
    )


def _table(
    lines: list[dict[str, Any]],
    about: str,
    note: str,
    *,
    least: Sequence[str] = (),
    heads: Mapping[str, str] | None = None,
) -> Table:
    scores = {line["score"] for line in lines if "score" in line}
    if len(scores) == 1:  # for the title
        about = title(about, f"by {scores.pop()}")
        lines = [{name: cell for name, cell in line.items() if name != "score"} for line in lines]
    columns = list(lines[0]) if lines else []
    return table_of(
        lines,
        title=about,
        percent=[name for name in columns if name in _SHARES or name in (heads or {})],
        digits=dict.fromkeys(_AREAS, 2) | {"threshold": 3},
        headers=_HEADS | dict(heads or {}),
        right=["reached"],
        best=best_of_columns(lines, least, least=True),
        notes=fill(note, WIDTH),
    )
