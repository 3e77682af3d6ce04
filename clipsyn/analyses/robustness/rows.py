"""The rows of `robustness` about one dataset, or a mean over several, found by what they are."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import polars as pl

from clipsyn.analyses.predicted import ALL
from clipsyn.analyses.robustness.measures import families
from clipsyn.evaluation.results.frame import Row, backbones, singles
from clipsyn.methods.ensembles import place_of
from clipsyn.names import CLEAN
from clipsyn.settings import SINGLE
from clipsyn.show.frames import is_nan
from clipsyn.show.titles import ShortNames, shortened, title, where

_REFERENCE = "reference"
_TRIAL = ("dataset", "split", "prompts")


class Predictor(NamedTuple):
    """What has an accuracy: a backbone on its own, or an ensemble of all."""

    name: str
    is_ensemble: bool = False


ORACLE = Predictor("oracle", is_ensemble=True)


@dataclass(frozen=True, eq=False)
class TrialRows:
    """One dataset, split and prompt set; or, if `datasets` > 1, the mean over so many datasets."""

    frame: pl.DataFrame
    datasets: int = 1

    @cached_property
    def about(self) -> Row:
        """The columns `dataset`, `split` and `prompts`, and `n`."""
        return self.frame.row(0, named=True) | {"n": self.frame["n"].max()}

    @property
    def is_mean(self) -> bool:
        return self.about["dataset"] is None

    @property
    def title(self) -> str:
        about = where(self.about, (*_TRIAL, "n"))
        if self.is_mean:
            about[:1] = f"mean over {self.datasets} datasets", f"split {about[0]}"
        return title(*about, self.names.phrase)

    @property
    def label(self) -> str:
        """What tells it apart from others, behind the name of a table."""
        text = "mean, {split}, {prompts}" if self.is_mean else "{dataset}/{split}, {prompts}"
        return text.format(**self.about)

    @cached_property
    def names(self) -> ShortNames:
        """Of all backbones, in order."""
        return shortened(backbones(singles(self.frame).filter(metric="acc1")))

    @property
    def backbones(self) -> tuple[str, ...]:
        return tuple(self.names.short)

    @cached_property
    def ensembles(self) -> tuple[str, ...]:
        """In the order of the registry, whatever came first into the file of results."""
        known = set(self.frame["ensemble"].drop_nulls()) - {SINGLE, ORACLE.name, _REFERENCE}
        return tuple(sorted(known, key=lambda name: (place_of(name), name)))

    @property
    def has_oracle(self) -> bool:
        return len(self.backbones) > 1

    @property
    def predictors(self) -> dict[Predictor, str]:
        """Backbones, the oracle and ensembles, with the text that stands for each."""
        predictors = {Predictor(name): text for name, text in self.names.short.items()}
        predictors |= {ORACLE: ORACLE.name} if self.has_oracle else {}
        return predictors | {Predictor(name, is_ensemble=True): name for name in self.ensembles}

    @property
    def reference(self) -> str:
        return str(self.frame.filter(ensemble=_REFERENCE)["backbones"][0][0])

    @cached_property
    def severities(self) -> dict[str, dict[int, str]]:
        """For every perturbation: severity -> label."""
        conditions = self.frame.select("perturbation", "severity").unique(maintain_order=True)
        known = {label: severity for label, severity in conditions.iter_rows() if severity}
        return {
            name: {known[label]: label for label in labels}
            for name, labels in families(known).items()
        }

    def row(self, metric: str, condition: str, predictor: Predictor | None = None) -> Row:
        """The row about a predictor, or {}; of an ensemble with several seeds their mean.

        Without a predictor that of a metric that each condition has once: lead and switch name the
        backbone that is best there; kendall_tau is about all.
        """
        rows = self._rows.get((metric, condition), {})
        return rows.get(predictor, {}) if predictor else next(iter(rows.values()), {})

    def numbers(self, predictor: Predictor) -> dict[str, Row]:
        """Every row about a predictor by its metric and condition: "acc1 clean"."""
        return {
            f"{metric} {condition}": rows[predictor]
            for (metric, condition), rows in self._rows.items()
            if predictor in rows
        }

    @cached_property
    def _rows(self) -> dict[tuple[str, str], dict[Predictor, Row]]:
        seeds: dict[tuple[str, str], dict[Predictor, list[Row]]] = {}
        for row in self.frame.iter_rows(named=True):
            alone = row["ensemble"] in (None, SINGLE)
            name = row["backbones"][0] if alone else row["ensemble"]
            predictor = Predictor(name, is_ensemble=not alone)
            predictors = seeds.setdefault((row["metric"], row["perturbation"]), {})
            predictors.setdefault(predictor, []).append(row)
        return {
            key: {predictor: _mean(rows) for predictor, rows in predictors.items()}
            for key, predictors in seeds.items()
        }


def trial_rows(frame: pl.DataFrame) -> tuple[list[TrialRows], list[TrialRows]]:
    """Every dataset, split and prompt set; and what is shown of all: means, and what is in none."""
    every = [TrialRows(part) for part in frame.partition_by(_TRIAL, maintain_order=True)]
    single = [trial for trial in every if not trial.is_mean]
    means, left = [], list(single)
    for mean in every:
        if mean.is_mean:
            members = [trial for trial in single if _kind(trial) == _kind(mean)]
            left = [trial for trial in left if trial not in members]
            means.append(TrialRows(mean.frame, len(members)))
    return single, means + left


def _kind(trial: TrialRows) -> tuple[object, ...]:
    """What datasets and a mean over them have in common."""
    return trial.about["split"], trial.about["prompts"], trial.backbones, trial.severities


def _mean(rows: list[Row]) -> Row:
    """The mean over seeds, without an interval; a single row as it is."""
    if len(rows) == 1:
        return rows[0]
    values = [row["value"] for row in rows if not is_nan(row["value"])]
    mean = sum(values) / len(values) if values else float("nan")
    return rows[0] | {"value": mean, "ci_low": None, "ci_high": None}


def labelled(trials: Sequence[TrialRows]) -> Iterator[tuple[str, TrialRows]]:
    """Each with what its tables have behind their names, which is nothing if there is only one."""
    for trial in trials:
        yield f", {trial.label}" if len(trials) > 1 else "", trial


def under(frame: pl.DataFrame, chosen: Collection[str]) -> pl.DataFrame:
    """The rows about chosen perturbations and means over chosen ones alone, beside clean images.

    chosen: "jpeg-3", or "jpeg" for each of its severities. Clean images stay, as `measure` takes
    them, wherever there are chosen perturbations.
    """
    parts, label = [frame.clear()], pl.col("perturbation")
    for part in frame.partition_by(_TRIAL, maintain_order=True):
        severities = TrialRows(part).severities
        labels = {
            label
            for name, of_name in severities.items()
            for label in of_name.values()
            if not {label, name, ALL}.isdisjoint(chosen)
        }
        means = {
            name for name, of_name in severities.items() if labels.issuperset(of_name.values())
        }
        kept = {CLEAN.label} | labels | means | ({ALL} if len(means) == len(severities) else set())
        parts += [part.filter(label.is_null() | label.is_in(kept))] if labels else []
    return pl.concat(parts)
