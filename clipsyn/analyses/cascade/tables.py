"""Tables of cascades: what backbones cost, accuracy against mean cost, the Pareto front."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from clipsyn.analyses.cascade import GIVEN, WITHIN, Candidate, CascadeSettings
from clipsyn.analyses.cascade.measures import most_accurate, pareto_front
from clipsyn.evaluation.results.frame import Row
from clipsyn.evaluation.results.view import WHERE, Numbers, named_parts, numbers_by, singles
from clipsyn.show.table import Cell, Table, Tables, interval_cell
from clipsyn.show.tables import ShortNames, interval_of, shortened, table_of
from clipsyn.show.titles import mean_over, title, where

RUN, LEFT_OUT = Cell("\N{BLACK CIRCLE}", True), Cell("\N{MIDDLE DOT}", False)
_COSTS = {  # metric: what stands above its column
    "mean_gflops": "GFLOPs",
    "image_params_m": "parameters\nM",
    "encode_ms": "ms",
    "peak_memory_mb": "peak\nmemory MB",
    "process_memory_mb": "process\nmemory MB",
}
_MEMORY = {
    "peak_memory_mb": "peak memory: of the image tower and a batch, on the GPU that extracted it.",
    "process_memory_mb": "process memory: the most that the process that extracted it, on a CPU, "
    "had held by then, so that it is no sum:\nextract a backbone alone to see its own.",
}
_NOTES = {
    "costs": "GFLOPs: of the image tower for one image, 2 per multiply-add. parameters: of the "
    "image tower. ms: busy with\none image when it was extracted, in batches.",
    "curve": "An image leaves at the first stage whose calibrated confidence reaches the threshold "
    "(θ); within-X: θ chosen\non the support to lose at most X points there. GFLOPs: mean of an "
    "image, and in % of all stages. vs all: points\nover the ensemble of all backbones. vs best: "
    "over the backbone that was best on the support. leave at\nstage: share of images, in %.",
    "fixed": "Without leaving early: each backbone, and ensembles of the first k in order of the "
    "cascade.",
    "front": "The Pareto front: what no other choice beats in both accuracy and cost on the "
    "support. Both are measured here on\nother images; support: accuracy there, of ensembles on "
    "images held out of their fit. With a threshold (θ) it is a\ncascade, of all backbones.",
    "chosen": "Cascades with the threshold (θ) that was chosen on the support of each dataset. "
    "GFLOPs: mean of an image, and in\n% of all stages. vs all: points over the ensemble of all "
    "backbones. vs best: over the single backbone named,\nthe best on the support.",
}


def tables(frame: pl.DataFrame, settings: CascadeSettings) -> dict[str, Tables]:
    """Tables of what `clipsyn.analyses.cascade.measure` returns, by name.

    "costs" of the backbones; "curve", accuracy against mean cost at each threshold; "fixed", what
    does not leave early; "front". With several groups of dataset, split, perturbation and prompt
    set these are means over them, "chosen" has a line for each, and with `details` there are also
    the tables of each group, its name behind a comma ("curve, birds/test, clean, own").
    """
    groups = {name: _Group.of(part) for name, part in named_parts(frame).items()}
    if not groups:
        return {}
    names = shortened(list(dict.fromkeys(it for group in groups.values() for it in group.order)))
    every = _Tables(list(groups.values()), names, settings)
    shown = {"costs": _costs(frame, names)}
    if len(groups) > 1:
        keys = ["dataset", *(key for key in WHERE[1:] if frame[key].n_unique() > 1)]
        shown["chosen"] = every.chosen(keys)
        shown |= every.shown(title(mean_over(frame, WHERE), names.phrase))
    for name, group in groups.items() if settings.details or len(groups) == 1 else ():
        best = f"best on support {names.short[group.best]}"
        about = title(*where(group.row, [*WHERE, "n"]), names.phrase, best)
        for kind, table in replace(every, groups=[group]).shown(about).items():
            shown[kind if len(groups) == 1 else f"{kind}, {name}"] = table
    return {name: (table,) for name, table in shown.items()}


def _costs(frame: pl.DataFrame, names: ShortNames) -> Table:
    """A line for each backbone, and their sum: means over cells, but of memory the largest."""
    largest = pl.col("metric").is_in(list(_MEMORY))
    over_cells = (
        singles(frame)
        .group_by("backbone", "metric")
        .agg(mean=pl.col("value").mean(), most=pl.col("value").max())
        .with_columns(value=pl.when(largest).then("most").otherwise("mean"))
    )
    known = numbers_by(over_cells, "backbone")
    columns: dict[str, list[float | None]] = {
        metric: [known[name].get(metric, {}).get("value") for name in names.short]
        for metric in _COSTS
        if metric in over_cells["metric"]
    }
    for metric, values in columns.items():
        is_sum = metric != "process_memory_mb" and None not in values
        values.append(math.fsum(filter(None, values)) if is_sum else None)
    cells = [*map(names.cell, names.short), Cell("all", "all")]
    rows = [
        {"backbone": cell} | {metric: values[row] for metric, values in columns.items()}
        for row, cell in enumerate(cells)
    ]
    notes = [_NOTES["costs"], *(note for metric, note in _MEMORY.items() if metric in columns)]
    return table_of(rows, headers=_COSTS, notes="\n".join(notes))


@dataclass(frozen=True)
class _Group:
    """One dataset, split, perturbation and prompt set."""

    row: Row  # one of its rows
    order: tuple[str, ...]  # backbones as a cascade runs them
    candidates: list[Candidate]  # backbones on their own first, in that order
    numbers: dict[tuple[Any, ...], Numbers]  # by candidate and stage

    @classmethod
    def of(cls, part: pl.DataFrame) -> _Group:
        numbers = numbers_by(part, *Candidate._fields, "stage")
        candidates = [Candidate(*about) for *about, stage in numbers if stage is None]
        order = next(candidate.backbones for candidate in candidates if candidate.rule)
        alone = [Candidate.single(name) for name in order]
        candidates = list(dict.fromkeys([*alone, *candidates]))
        return cls(part.row(0, named=True), order, candidates, numbers)

    def value(self, candidate: Candidate, metric: str, stage: int | None = None) -> float:
        return float(self.numbers[*candidate, stage][metric]["value"])

    def of_singles(self, metric: str) -> dict[str, float]:
        """A metric of each backbone on its own."""
        return {name: self.value(Candidate.single(name), metric) for name in self.order}

    @property
    def best(self) -> str:
        """The backbone that was best on the support."""
        return most_accurate(self.of_singles("support_acc1"), self.of_singles("mean_gflops"))


@dataclass(frozen=True)
class _Line:
    """One candidate in each of several groups."""

    pairs: Sequence[tuple[_Group, Candidate]]

    @property
    def group(self) -> _Group:
        """The first of them, or the only one."""
        return self.pairs[0][0]

    @property
    def first(self) -> Candidate:
        return self.pairs[0][1]

    def mean(self, metric: str) -> float:
        """Over the groups."""
        return _mean(group.value(candidate, metric) for group, candidate in self.pairs)

    def cells(self, column: str, metric: str) -> dict[str, float | Cell]:
        """The mean over the groups; for a single group with its interval beside it."""
        row = self.group.numbers[*self.first, None][metric]
        beside = {interval_of(column): interval_cell(row)}
        return {column: self.mean(metric), **(beside if len(self.pairs) == 1 else {})}

    def cost(self) -> dict[str, float]:
        """GFLOPs, and their share of those of all stages."""
        shares = []
        for group, candidate in self.pairs:
            whole = math.fsum(group.of_singles("mean_gflops").values())
            shares.append(group.value(candidate, "mean_gflops") / whole if whole else math.nan)
        return {"GFLOPs": self.mean("mean_gflops"), "%": _mean(shares)}

    def exits(self, stage: int) -> float:
        """Mean share of images that leave at a stage; 0 for a group whose cascade is shorter."""
        return _mean(
            group.value(candidate, "exit", stage) if stage <= len(group.order) else 0.0
            for group, candidate in self.pairs
        )


@dataclass(frozen=True)
class _Tables:
    """Tables of means over some groups."""

    groups: Sequence[_Group]
    names: ShortNames
    settings: CascadeSettings

    def shown(self, about: str) -> dict[str, Table]:
        """All tables but "costs" and "chosen", below what they are about."""
        shown = {"curve": self.curve(), "fixed": self.fixed(), "front": self.front()}
        return {kind: replace(table, title=about) for kind, table in shown.items()}

    def chosen(self, keys: Sequence[str]) -> Table:
        """A line for each group and ensemble: its cascade with the threshold that was chosen."""
        candidates = ((group, it) for group in self.groups for it in group.candidates)
        lines = [_Line([pair]) for pair in candidates if pair[1].rule == WITHIN]
        rows = [
            {key: line.group.row[key] for key in keys}
            | {"ensemble": line.first.ensemble, "θ": line.first.threshold}
            | line.cost()
            | {"top-1": line.mean("acc1")}
            | line.cells("vs all", "gain_over_full")
            | line.cells("vs best", "gain_over_chosen")
            | {"best": self.names.cell(line.group.best)}
            for line in lines
        ]
        return self._table("chosen", rows)

    def curve(self) -> Table:
        """A line for each ensemble and threshold."""
        stages = range(1, 1 + max(len(group.order) for group in self.groups))
        rows = [
            {"ensemble": line.first.ensemble, "θ": self._theta(line.first)}
            | line.cost()
            | line.cells("top-1", "acc1")
            | {"vs all": line.mean("gain_over_full")}
            | line.cells("vs best", "gain_over_chosen")
            | {"exits": " ".join(f"{100 * line.exits(stage):3.0f}" for stage in stages)}
            for line in self._lines(lambda _, it: _rule(it) if it.rule else None)
        ]
        head = "leave at stage, %\n" + " ".join(f"{stage:3}" for stage in stages)
        return self._table("curve", rows, {"exits": head})

    def fixed(self) -> Table:
        """A line for each backbone, and for each ensemble of the first k."""
        rows = []
        for line in self._lines(_stage):
            first = line.first
            cells = {self._cell(it) for _, it in line.pairs}
            place = f"stage {line.group.order.index(first.backbones[0]) + 1} alone"
            choice: Row = {"choice": cells.pop() if len(cells) == 1 else place}
            size = {"backbones": len(first.backbones)}
            rows.append(choice | size | line.cost() | line.cells("top-1", "acc1"))
        return self._table("fixed", rows)

    def front(self) -> Table:
        """A line for each candidate in front by its means over the supports of all groups."""
        lines = list(self._lines(lambda _, it: (_rule(it), frozenset(it.backbones))))
        costs = np.array([line.mean("support_mean_gflops") for line in lines])
        accuracies = np.array([line.mean("support_acc1") for line in lines])
        rows = []
        for place in np.flatnonzero(pareto_front(costs, accuracies)):
            line, first = lines[place], lines[place].first
            choice: Row = {"ensemble": first.ensemble, "θ": self._theta(first)}
            run = {
                column: RUN if name in first.backbones else LEFT_OUT
                for name, column in self.names.columns.items()
            }
            measured = line.cost() | line.cells("top-1", "acc1")
            rows.append(choice | measured | {"support": accuracies[place]} | run)
        rows.sort(key=lambda row: row["GFLOPs"])
        return self._table("front", rows, self.names.heads, [self.names.legend.lstrip()])

    def _lines(self, key: Callable[[_Group, Candidate], Any]) -> Iterator[_Line]:
        """The candidates that all groups have, in order of the first.

        key: function (group, candidate) -> what tells the lines apart; None leaves it out.
        """
        by_key = [{key(group, it): (group, it) for it in group.candidates} for group in self.groups]
        for name in by_key[0]:
            if name is not None and all(name in pairs for pairs in by_key):
                yield _Line([pairs[name] for pairs in by_key])

    def _cell(self, candidate: Candidate) -> Cell:
        if candidate.ensemble:
            return Cell(candidate.ensemble, candidate.ensemble)
        return self.names.cell(candidate.backbones[0])

    def _theta(self, candidate: Candidate) -> str | None:
        """How the threshold of a cascade is shown."""
        if candidate.rule == WITHIN:
            return f"within-{self.settings.within_points:g}"
        return None if candidate.threshold is None else f"{candidate.threshold:g}"

    def _table(
        self,
        kind: str,
        rows: Sequence[Row],
        heads: Mapping[str, str] | None = None,
        below: Sequence[str] = (),
    ) -> Table:
        return table_of(
            rows,
            percent=["%", "top-1", "vs all", "vs best", "support"],
            headers=heads,
            labels={"%": "% of all stages"} | self.names.labels,
            right=["θ"],
            below=below,
            notes=_NOTES[kind],
        )


def _rule(candidate: Candidate) -> tuple[str | None, str | None, float | None]:
    """What all groups share of a cascade: a threshold that is not given is chosen in each."""
    given = candidate.threshold if candidate.rule == GIVEN else None
    return candidate.ensemble, candidate.rule, given


def _stage(group: _Group, candidate: Candidate) -> Any:
    """The place of a backbone on its own, the size of an ensemble of the first k."""
    names = candidate.backbones
    if candidate.ensemble is None:
        return group.order.index(names[0])
    is_stage = not candidate.rule and names == group.order[: len(names)]
    return (candidate.ensemble, len(names)) if is_stage else None


def _mean(values: Iterable[float]) -> float:
    """NaN where one of them is."""
    every = list(values)
    return math.fsum(every) / len(every)
