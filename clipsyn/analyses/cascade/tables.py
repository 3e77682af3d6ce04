"""Tables of cascades: what backbones cost, accuracy against mean cost, the Pareto front."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from clipsyn.analyses.cascade import CascadeSettings
from clipsyn.analyses.cascade.measures import pareto_front
from clipsyn.show.numbers import interval_text
from clipsyn.show.tables import column_heads, legend, shortened, show

_WHERE = ["dataset", "split", "perturbation", "prompts"]
_Rows = dict[str, Any]  # of one choice, by metric
_Choice = tuple[str, tuple[str, ...]]  # ensemble, backbones in order of the cascade
_CASCADE = "cascade:"
_WITHIN = "within-"
RUN, LEFT_OUT = "\N{BLACK CIRCLE}", "\N{MIDDLE DOT}"

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
    groups = {
        ", ".join([f"{dataset}/{split}", *rest]): _read(part)
        for (dataset, split, *rest), part in frame.group_by(_WHERE, maintain_order=True)
    }
    if not groups:
        return {}
    parts = list(groups.values())
    short, pattern = shortened(list(dict.fromkeys(name for part in parts for name in part.order)))
    said = f" · backbones {pattern}" if pattern else ""
    found = {"costs": _costs(frame, short, terminal)}
    if len(parts) > 1:
        found["chosen"] = _chosen(frame, parts, short, terminal)
        found |= _of_parts(parts, f"{_mean_over(frame, len(parts))}{said}", short, terminal)
    for name, part in groups.items() if settings.details or len(parts) == 1 else ():
        title = f"{_name(part)}{said} · best on support {short[part.best]}"
        of_one = _of_parts([part], title, short, terminal)
        end = f", {name}" if len(parts) > 1 else ""
        found |= {f"{kind}{end}": text for kind, text in of_one.items()}
    return found


@dataclass(frozen=True)
class _Part:
    """One dataset, split, perturbation and prompt set; rows are by metric."""

    where: dict[str, Any]
    singles: dict[str, _Rows]  # by backbone, in order of the cascade
    others: dict[_Choice, _Rows]

    @property
    def order(self) -> tuple[str, ...]:
        return tuple(self.singles)

    @property
    def whole(self) -> float:
        """GFLOPs of all stages."""
        return math.fsum(of["mean_gflops"]["value"] for of in self.singles.values())

    @property
    def best(self) -> str:
        """The backbone that was best on the support, the cheapest of equals."""
        return max(
            self.singles,
            key=lambda name: (
                self.singles[name]["support_acc1"]["value"],
                -self.singles[name]["mean_gflops"]["value"],
            ),
        )

    def cascades(self) -> dict[str, _Rows]:
        """By ensemble@threshold."""
        return {
            name.removeprefix(_CASCADE): rows
            for (name, _), rows in self.others.items()
            if name.startswith(_CASCADE)
        }

    def fixed(self) -> dict[tuple[str, int], _Rows]:
        """Backbones on their own, by "" and place in the order, and ensembles of the first k."""
        found = {("", place): rows for place, rows in enumerate(self.singles.values())}
        for (ensemble, names), rows in self.others.items():
            if not ensemble.startswith(_CASCADE) and names == self.order[: len(names)]:
                found[ensemble, len(names)] = rows
        return found

    def choices(self) -> dict[tuple[str, frozenset[str]], _Rows]:
        """Everything there is, by ensemble and backbones whatever their order."""
        found = {("", frozenset([name])): rows for name, rows in self.singles.items()}
        return found | {(of, frozenset(names)): rows for (of, names), rows in self.others.items()}


def _read(part: pl.DataFrame) -> _Part:
    measured = part.filter(pl.col("ensemble").is_null(), pl.col("metric") == "acc1")
    singles: dict[str, _Rows] = {name: {} for name in measured["backbones"].list.first()}
    others: dict[_Choice, _Rows] = {}
    for row in part.iter_rows(named=True):
        if row["ensemble"] is None:
            singles[row["backbones"][0]][row["metric"]] = row
        else:
            names = tuple(row["backbones"])
            others.setdefault((row["ensemble"], names), {})[row["metric"]] = row
    return _Part({key: part[key][0] for key in [*_WHERE, "n"]}, singles, others)


def _of_parts(
    parts: Sequence[_Part], title: str, short: Mapping[str, str], terminal: bool | None
) -> dict[str, str]:
    return {
        "curve": f"{title}\n{_curve(parts, terminal)}\n\n{_NOTES['curve']}",
        "fixed": f"{title}\n{_fixed(parts, short, terminal)}\n\n{_NOTES['fixed']}",
        "front": f"{title}\n{_front(parts, short, terminal)}\n\n{_NOTES['front']}",
    }


def _name(part: _Part) -> str:
    dataset, split, perturbation, prompts = (part.where[key] for key in _WHERE)
    return f"{dataset}/{split} · {perturbation} · prompts {prompts} · n {part.where['n']:,}"


def _mean_over(frame: pl.DataFrame, count: int) -> str:
    kinds = [key for key in _WHERE if frame[key].n_unique() > 1]
    if len(kinds) == 1:
        return f"mean over {count} {'prompt set' if kinds == ['prompts'] else kinds[0]}s"
    return f"mean over {count} combinations of {', '.join(kinds)}"


def _costs(frame: pl.DataFrame, short: Mapping[str, str], terminal: bool | None) -> str:
    """A line a backbone, and their sum. Seconds are means over cells, memory is the largest."""
    singles = frame.filter(pl.col("ensemble").is_null()).group_by("backbones", "metric")
    found = {
        (name, metric): {"mean": mean, "max": largest}
        for (name,), metric, mean, largest in singles.agg(
            pl.col("value").mean().alias("mean"), pl.col("value").max().alias("max")
        ).iter_rows()
    }
    columns: dict[str, list[float | None]] = {
        column: [found.get((name, metric), {}).get(kind) for name in short]
        for column, (metric, kind) in _COSTS.items()
    }
    known = {name: values for name, values in columns.items() if any(v is not None for v in values)}
    sums = {
        name: None if name == "process MB" or None in values else math.fsum(filter(None, values))
        for name, values in known.items()
    }
    table = pl.DataFrame(
        {"backbone": [*short.values(), "all"]}
        | {name: [*values, sums[name]] for name, values in known.items()}
    )
    text = show(table, headers=_COST_HEADS, terminal=terminal)
    notes = [_NOTES["costs"], *(note for name, note in _MEMORY.items() if name in known)]
    return f"{text}\n\n" + "\n".join(notes)


def _chosen(
    frame: pl.DataFrame, parts: Sequence[_Part], short: Mapping[str, str], terminal: bool | None
) -> str:
    """A line a group and ensemble: its cascade with the threshold that was chosen."""
    keys = ["dataset", *(key for key in _WHERE[1:] if frame[key].n_unique() > 1)]
    rows = []
    for part in parts:
        for name, of in part.cascades().items():
            ensemble, _, threshold = name.rpartition("@")
            if threshold.startswith(_WITHIN):
                rows.append(
                    {key: part.where[key] for key in keys}
                    | {"ensemble": ensemble, "θ": of["threshold"]["value"]}
                    | _measured([of], [part])
                    | _gain([of], "vs all", "gain_over_full", "95 %")
                    | _gain([of], "vs best", "gain_over_chosen", "95 % ")
                    | {"best": short[part.best]}
                )
    return f"{_show(rows, terminal)}\n\n{_NOTES['chosen']}"


def _curve(parts: Sequence[_Part], terminal: bool | None) -> str:
    """A line an ensemble and threshold."""
    stages = range(1, 1 + max(len(part.order) for part in parts))
    rows = []
    for name, of in _shared([part.cascades() for part in parts]):
        ensemble, _, threshold = name.rpartition("@")
        rows.append(
            {"ensemble": ensemble, "θ": threshold}
            | _measured(of, parts, "95 %")
            | _gain(of, "vs all", "gain_over_full")
            | _gain(of, "vs best", "gain_over_chosen", "95 % " if len(parts) == 1 else "")
            | {"exits": " ".join(f"{100 * _exits(of, stage):3.0f}" for stage in stages)}
        )
    head = "leave at stage, %\n" + " ".join(f"{stage:3}" for stage in stages)
    return _show(rows, terminal, {"exits": head})


def _fixed(parts: Sequence[_Part], short: Mapping[str, str], terminal: bool | None) -> str:
    rows = []
    for (ensemble, place), of in _shared([part.fixed() for part in parts]):
        names = {ensemble or short[part.order[place]] for part in parts}
        rows.append(
            {
                "choice": names.pop() if len(names) == 1 else f"stage {place + 1} alone",
                "backbones": place if ensemble else 1,
                **_measured(of, parts, "95 %"),
            }
        )
    return _show(rows, terminal)


def _front(parts: Sequence[_Part], short: Mapping[str, str], terminal: bool | None) -> str:
    """A line a choice in front, by cost: chosen by means over the support of all parts."""
    shared = list(_shared([part.choices() for part in parts]))
    costs, accuracies = (
        np.array([_mean(rows[metric]["value"] for rows in of) for _, of in shared])
        for metric in ("support_mean_gflops", "support_acc1")
    )
    rows = []
    for place in np.flatnonzero(pareto_front(costs, accuracies)):
        (ensemble, names), of = shared[place]
        rows.append(
            {
                **_named(ensemble),
                **_measured(of, parts, "95 %"),
                "support": accuracies[place],
                **{name: RUN if name in names else LEFT_OUT for name in short},
            }
        )
    table = _show(sorted(rows, key=lambda row: row["GFLOPs"]), terminal, column_heads(short))
    return f"{table}{legend(short)}"


def _named(ensemble: str) -> dict[str, str | None]:
    """Ensemble and threshold of ``cascade:log-avg@0.5``; what is no cascade has no threshold."""
    if ensemble.startswith(_CASCADE):
        name, _, threshold = ensemble.removeprefix(_CASCADE).rpartition("@")
        return {"ensemble": name, "θ": threshold}
    return {"ensemble": ensemble or None, "θ": None}


def _show(
    rows: Sequence[Mapping[str, Any]], terminal: bool | None, heads: Mapping[str, str] | None = None
) -> str:
    return show(
        pl.DataFrame(rows, infer_schema_length=None),
        percent=["%", "top-1", "vs all", "vs best", "support"],
        headers=heads,
        right=["θ", "95 %", "95 % "],
        terminal=terminal,
    )


def _measured(of: Sequence[_Rows], parts: Sequence[_Part], interval: str = "") -> dict[str, Any]:
    """Mean cost and accuracy over parts; of one part its interval, under that name."""
    pairs = [
        (rows["mean_gflops"]["value"], part.whole) for rows, part in zip(of, parts, strict=True)
    ]
    found = {
        "GFLOPs": _mean(cost for cost, _ in pairs),
        "%": _mean(cost / whole if whole else math.nan for cost, whole in pairs),
        "top-1": _mean(rows["acc1"]["value"] for rows in of),
    }
    return found | ({interval: _interval(of[0]["acc1"])} if interval and len(of) == 1 else {})


def _gain(of: Sequence[_Rows], column: str, metric: str, interval: str = "") -> dict[str, Any]:
    found = {column: _mean(rows[metric]["value"] for rows in of)}
    return found | ({interval: _interval(of[0][metric])} if interval else {})


def _exits(of: Sequence[_Rows], stage: int) -> float:
    """Mean share that leaves there; nobody does at a stage that a shorter cascade has not."""
    return _mean(rows[f"exit_{stage}"]["value"] if f"exit_{stage}" in rows else 0.0 for rows in of)


def _shared(
    found: Sequence[Mapping[Any, _Rows]],
) -> Iterator[tuple[Any, list[_Rows]]]:
    """What all parts have, with the rows of each part, in order of the first."""
    for key in found[0]:
        if all(key in of for of in found):
            yield key, [of[key] for of in found]


def _interval(row: dict[str, Any]) -> str:
    return interval_text(row["ci_low"], row["ci_high"])


def _mean(values: Iterable[float]) -> float:
    """NaN where one of them is."""
    found = list(values)
    return math.fsum(found) / len(found)
