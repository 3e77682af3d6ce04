"""Tables of cascades: what backbones cost, accuracy against mean cost, the Pareto front."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from clipsyn.analyses.cascade import GIVEN, WITHIN, Candidate, CascadeSettings
from clipsyn.analyses.cascade.measures import most_accurate, pareto_front
from clipsyn.results.frame import Row
from clipsyn.results.view import WHERE, Numbers, named_parts, numbers_by, singles
from clipsyn.show.numbers import interval
from clipsyn.show.tables import column_heads, interval_of, legend, shortened, show
from clipsyn.show.titles import mean_over, title, where

RUN, LEFT_OUT = "\N{BLACK CIRCLE}", "\N{MIDDLE DOT}"
_PERCENT = ("%", "top-1", "vs all", "vs best", "support")
_COSTS = {  # column: metric, and what is shown of it
    "GFLOPs": ("mean_gflops", "mean"),
    "image M": ("image_params_m", "mean"),
    "ms": ("encode_ms", "mean"),
    "memory MB": ("peak_memory_mb", "max"),
    "process MB": ("process_memory_mb", "max"),
}
_COST_HEADS = {
    "image M": "parameters\nM",
    "memory MB": "peak\nmemory MB",
    "process MB": "process\nmemory MB",
}
_MEMORY = {
    "memory MB": "peak memory: of the image tower and a batch, on the GPU that extracted it.",
    "process MB": (
        "process memory: the most that the process that extracted it, on a CPU, had held by then, "
        "so that it is no sum:\nextract a backbone alone to see its own."
    ),
}
_NOTES = {
    "costs": (
        "GFLOPs: of the image tower for one image, 2 per multiply-add. parameters: of the image "
        "tower. ms: busy with\none image when it was extracted, in batches."
    ),
    "curve": (
        "An image leaves at the first stage whose calibrated confidence reaches the threshold "
        "(θ); within-X: θ chosen\non the support to lose at most X points there. GFLOPs: mean of "
        "an image, and in % of all stages. vs all: points\nover the ensemble of all backbones. vs "
        "best: over the backbone that was best on the support. leave at\n"
        "stage: share of images, in %."
    ),
    "fixed": "Without leaving early: each backbone, and ensembles of the first k in order of the "
    "cascade.",
    "front": (
        "The Pareto front: what no other choice beats in both accuracy and cost on the support. "
        "Both are measured here on\nother images; support: accuracy there, of ensembles on images "
        "held out of their fit. With a threshold (θ) it is a\ncascade, of all backbones."
    ),
    "chosen": (
        "Cascades with the threshold (θ) that was chosen on the support of each dataset. GFLOPs: "
        "mean of an image, and in\n% of all stages. vs all: points over the ensemble of all "
        "backbones. vs best: over the single backbone named,\nthe best on the support."
    ),
}


def tables(
    frame: pl.DataFrame, settings: CascadeSettings, *, terminal: bool | None = None
) -> dict[str, str]:
    """Tables of what `clipsyn.analyses.cascade.measure` returns, by name.

    "costs" of the backbones; "curve", accuracy against mean cost at each threshold; "fixed", what
    does not leave early; "front". With several groups of dataset, split, perturbation and prompt
    set these are means over them, "chosen" has a line for each, and with `details` there are also
    the tables of each group, its name behind a comma ("curve, birds/test, clean, own").
    """
    groups = {name: _Group.of(part) for name, part in named_parts(frame).items()}
    if not groups:
        return {}
    every = list(groups.values())
    names = shortened(list(dict.fromkeys(name for group in every for name in group.order)))
    texts = {"costs": _costs(frame, names.short, terminal)}
    if len(every) > 1:
        about = title(mean_over(frame, WHERE), names.phrase)
        texts["chosen"] = _chosen(frame, every, names.short, terminal)
        texts |= _of_groups(every, about, names.short, settings, terminal)
    for name, group in groups.items() if settings.details or len(every) == 1 else ():
        best = f"best on support {names.short[group.best]}"
        about = title(*where(group.row, [*WHERE, "n"]), names.phrase, best)
        end = f", {name}" if len(every) > 1 else ""
        own = _of_groups([group], about, names.short, settings, terminal)
        texts |= {f"{kind}{end}": text for kind, text in own.items()}
    return texts


@dataclass(frozen=True)
class _Group:
    """One dataset, split, perturbation and prompt set."""

    row: Row  # one of its rows
    order: tuple[str, ...]  # backbones as a cascade runs them
    numbers: dict[Candidate, Numbers]  # backbones on their own first, in that order
    exits: dict[tuple[Any, ...], Numbers]  # of cascades: by candidate and stage

    @classmethod
    def of(cls, part: pl.DataFrame) -> _Group:
        by_stage = pl.col("stage").is_not_null()
        numbers = {
            Candidate(*about): rows
            for about, rows in numbers_by(part.filter(~by_stage), *Candidate._fields).items()
        }
        exits = numbers_by(part.filter(by_stage), *Candidate._fields, "stage")
        order = next(candidate.backbones for candidate in numbers if candidate.rule)
        alone = [Candidate(None, (name,)) for name in order]
        return cls(
            part.row(0, named=True), order, {it: numbers[it] for it in [*alone, *numbers]}, exits
        )

    def of_singles(self, metric: str) -> dict[str, float]:
        """A metric of each backbone on its own."""
        return {
            name: self.numbers[Candidate(None, (name,))][metric]["value"] for name in self.order
        }

    @property
    def whole(self) -> float:
        """GFLOPs of all stages."""
        return math.fsum(self.of_singles("mean_gflops").values())

    @property
    def best(self) -> str:
        """The backbone that was best on the support."""
        return most_accurate(self.of_singles("support_acc1"), self.of_singles("mean_gflops"))


@dataclass(frozen=True)
class _Line:
    """What a line of a table is about: a candidate as each of several groups has it."""

    groups: Sequence[_Group]
    candidates: Sequence[Candidate]  # of each group

    @property
    def first(self) -> Candidate:
        return self.candidates[0]

    @property
    def numbers(self) -> list[Numbers]:
        """Of each group."""
        both = zip(self.groups, self.candidates, strict=True)
        return [group.numbers[candidate] for group, candidate in both]

    def mean(self, metric: str) -> float:
        """Over the groups; NaN where it is NaN in one of them."""
        return _mean(numbers[metric]["value"] for numbers in self.numbers)

    def interval(self, column: str, metric: str) -> dict[str, str]:
        """The cell beside a column; none for a mean over several groups."""
        several = len(self.groups) > 1
        return {} if several else {interval_of(column): interval(self.numbers[0][metric])}

    def measured(self) -> dict[str, float]:
        """Mean cost, also as a share of that of all stages, and accuracy."""
        shares = (
            numbers["mean_gflops"]["value"] / group.whole if group.whole else math.nan
            for group, numbers in zip(self.groups, self.numbers, strict=True)
        )
        return {"GFLOPs": self.mean("mean_gflops"), "%": _mean(shares), "top-1": self.mean("acc1")}

    def exits(self, stage: int) -> float:
        """Mean share that leaves at a stage; 0 in a group whose cascades have fewer stages."""
        return _mean(
            group.exits[*candidate, stage]["exit"]["value"] if stage <= len(group.order) else 0.0
            for group, candidate in zip(self.groups, self.candidates, strict=True)
        )


def _lines(groups: Sequence[_Group], key: Callable[[_Group, Candidate], Any]) -> Iterator[_Line]:
    """The candidates that all groups have, in order of the first.

    key: function (group, candidate) -> what is the same in all groups, None for no line.
    """
    by_key = [{key(group, it): it for it in group.numbers} for group in groups]
    for name in by_key[0]:
        if name is not None and all(name in candidates for candidates in by_key):
            yield _Line(groups, [candidates[name] for candidates in by_key])


def _rule(candidate: Candidate) -> tuple[str | None, str | None, float | None]:
    """What is the same of a cascade in all groups: a threshold within reach is chosen in each."""
    given = candidate.threshold if candidate.rule == GIVEN else None
    return candidate.ensemble, candidate.rule, given


def _cascade(group: _Group, candidate: Candidate) -> Any:
    return _rule(candidate) if candidate.rule else None


def _stage(group: _Group, candidate: Candidate) -> Any:
    """The ensemble of a stage and its size; of a backbone on its own its place in the order."""
    names = candidate.backbones
    if candidate.ensemble is None:
        return None, group.order.index(names[0])
    return (
        (candidate.ensemble, len(names))
        if not candidate.rule and names == group.order[: len(names)]
        else None
    )


def _choice(group: _Group, candidate: Candidate) -> Any:
    return _rule(candidate), frozenset(candidate.backbones)


def _of_groups(
    groups: Sequence[_Group],
    about: str,
    short: Mapping[str, str],
    settings: CascadeSettings,
    terminal: bool | None,
) -> dict[str, str]:
    shown = {
        "curve": _curve(groups, settings, terminal),
        "fixed": _fixed(groups, short, terminal),
        "front": _front(groups, short, settings, terminal),
    }
    return {kind: f"{about}\n{text}\n\n{_NOTES[kind]}" for kind, text in shown.items()}


def _costs(frame: pl.DataFrame, short: Mapping[str, str], terminal: bool | None) -> str:
    """A line a backbone, and their sum. Seconds are means over cells, memory is the largest."""
    value = pl.col("value")
    over_cells = (
        singles(frame).group_by("backbone", "metric").agg(mean=value.mean(), max=value.max())
    )
    known = {(row["backbone"], row["metric"]): row for row in over_cells.iter_rows(named=True)}
    columns: dict[str, list[float | None]] = {
        column: [known.get((name, metric), {}).get(kind) for name in short]
        for column, (metric, kind) in _COSTS.items()
        if metric in over_cells["metric"]
    }
    for name, values in columns.items():
        summed = name != "process MB" and None not in values
        values.append(math.fsum(filter(None, values)) if summed else None)
    table = pl.DataFrame({"backbone": [*short.values(), "all"]} | columns)
    text = show(table, headers=_COST_HEADS, terminal=terminal)
    notes = [_NOTES["costs"], *(note for name, note in _MEMORY.items() if name in columns)]
    return f"{text}\n\n" + "\n".join(notes)


def _chosen(
    frame: pl.DataFrame, groups: Sequence[_Group], short: Mapping[str, str], terminal: bool | None
) -> str:
    """A line a group and ensemble: its cascade with the threshold that was chosen."""
    keys = ["dataset", *(key for key in WHERE[1:] if frame[key].n_unique() > 1)]
    rows = []
    for group in groups:
        for candidate in group.numbers:
            if candidate.rule == WITHIN:
                line = _Line([group], [candidate])
                rows.append(
                    {key: group.row[key] for key in keys}
                    | {"ensemble": candidate.ensemble, "θ": candidate.threshold}
                    | line.measured()
                    | {"vs all": line.mean("gain_over_full")}
                    | line.interval("vs all", "gain_over_full")
                    | {"vs best": line.mean("gain_over_chosen")}
                    | line.interval("vs best", "gain_over_chosen")
                    | {"best": short[group.best]}
                )
    return f"{_show(rows, terminal)}\n\n{_NOTES['chosen']}"


def _curve(groups: Sequence[_Group], settings: CascadeSettings, terminal: bool | None) -> str:
    """A line an ensemble and threshold."""
    stages = range(1, 1 + max(len(group.order) for group in groups))
    rows = [
        {"ensemble": line.first.ensemble, "θ": _theta(line.first, settings)}
        | line.measured()
        | line.interval("top-1", "acc1")
        | {"vs all": line.mean("gain_over_full"), "vs best": line.mean("gain_over_chosen")}
        | line.interval("vs best", "gain_over_chosen")
        | {"exits": " ".join(f"{100 * line.exits(stage):3.0f}" for stage in stages)}
        for line in _lines(groups, _cascade)
    ]
    head = "leave at stage, %\n" + " ".join(f"{stage:3}" for stage in stages)
    return _show(rows, terminal, {"exits": head})


def _fixed(groups: Sequence[_Group], short: Mapping[str, str], terminal: bool | None) -> str:
    rows = []
    for line in _lines(groups, _stage):
        names = {it.ensemble or short[it.backbones[0]] for it in line.candidates}
        place = groups[0].order.index(line.first.backbones[-1]) + 1
        rows.append(
            {
                "choice": names.pop() if len(names) == 1 else f"stage {place} alone",
                "backbones": len(line.first.backbones),
                **line.measured(),
                **line.interval("top-1", "acc1"),
            }
        )
    return _show(rows, terminal)


def _front(
    groups: Sequence[_Group],
    short: Mapping[str, str],
    settings: CascadeSettings,
    terminal: bool | None,
) -> str:
    """A line a choice in front, by cost: chosen by means over the support of all groups."""
    lines = list(_lines(groups, _choice))
    costs, accuracies = (
        np.array([line.mean(metric) for line in lines])
        for metric in ("support_mean_gflops", "support_acc1")
    )
    rows = [
        {
            "ensemble": lines[place].first.ensemble,
            "θ": _theta(lines[place].first, settings),
            **lines[place].measured(),
            **lines[place].interval("top-1", "acc1"),
            "support": accuracies[place],
            **{name: RUN if name in lines[place].first.backbones else LEFT_OUT for name in short},
        }
        for place in np.flatnonzero(pareto_front(costs, accuracies))
    ]
    table = _show(sorted(rows, key=lambda row: row["GFLOPs"]), terminal, column_heads(short))
    return f"{table}{legend(short)}"


def _theta(candidate: Candidate, settings: CascadeSettings) -> str | None:
    """How the threshold of a cascade is shown."""
    if candidate.rule == WITHIN:
        return f"within-{settings.within_points:g}"
    return None if candidate.threshold is None else f"{candidate.threshold:g}"


def _show(
    rows: Sequence[Row], terminal: bool | None, heads: Mapping[str, str] | None = None
) -> str:
    return show(rows, percent=_PERCENT, headers=heads, right=["θ"], terminal=terminal)


def _mean(values: Iterable[float]) -> float:
    """NaN where one of them is."""
    every = list(values)
    return math.fsum(every) / len(every)
