"""The rows of `robustness` about one dataset, or a mean over some, by name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import polars as pl

from clipsyn.analyses.robustness.measures import families
from clipsyn.frames import is_nan
from clipsyn.results.view import backbones, singles
from clipsyn.show.tables import shortened

ALL, CLEAN = "all", "clean"
ORACLE = "oracle"
_GROUP = ["dataset", "split", "prompts"]
_REFERENCE = "reference"
_Row = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Part:
    """One dataset, split and prompt set; or their mean over datasets, if `datasets` > 1.

    Methods are backbones, the oracle (None for a single backbone) and ensembles, by their names.
    """

    frame: pl.DataFrame
    datasets: int = 1

    @property
    def dataset(self) -> str:
        name: str | None = self.frame["dataset"][0]
        return name or f"mean over {self.datasets} datasets"

    @property
    def split(self) -> str:
        return str(self.frame["split"][0])

    @property
    def prompts(self) -> str:
        return str(self.frame["prompts"][0])

    @property
    def title(self) -> str:
        where = f"{self.dataset}/{self.split}" if self.datasets == 1 else self.dataset
        said = [where] + ([f"split {self.split}"] if self.datasets > 1 else [])
        said += [f"prompts {self.prompts}", f"n {self.n:,}"]
        pattern = shortened(self.backbones)[1]
        return " · ".join(said + ([f"backbones {pattern}"] if pattern else []))

    @property
    def n(self) -> int:
        return int(self.frame["n"].max())  # type: ignore[arg-type]

    @cached_property
    def backbones(self) -> tuple[str, ...]:
        return tuple(backbones(singles(self.frame).filter(metric="acc1")))

    @cached_property
    def short(self) -> dict[str, str]:
        return shortened(self.backbones)[0]

    @cached_property
    def ensembles(self) -> tuple[str, ...]:
        names = self.frame["ensemble"].drop_nulls().unique(maintain_order=True)
        return tuple(name for name in names if name not in (ORACLE, _REFERENCE))

    @property
    def has_oracle(self) -> bool:
        return len(self.backbones) > 1

    @property
    def reference(self) -> str:
        return str(self.frame.filter(ensemble=_REFERENCE)["backbones"][0][0])

    @cached_property
    def severities(self) -> dict[str, dict[int, str]]:
        """Of every perturbation: severity -> label."""
        settings = self.frame.select("perturbation", "severity").unique(maintain_order=True)
        known = {label: severity for label, severity in settings.iter_rows() if severity}
        return {
            name: {known[label]: label for label in labels}
            for name, labels in families(known).items()
        }

    def row(self, metric: str, perturbation: str, method: str) -> _Row:
        """Of an ensemble the mean over seeds, with an interval if there is one seed."""
        return self._rows.get((metric, perturbation, method), {})

    def value(self, metric: str, perturbation: str, method: str) -> float | None:
        return self.row(metric, perturbation, method).get("value")

    def only(self, metric: str, perturbation: str) -> _Row:
        """Of what there is one of: the backbone that is best there, the order of all."""
        found = self.frame.filter(metric=metric, perturbation=perturbation).to_dicts()
        return found[0] if found else {}

    @cached_property
    def _rows(self) -> dict[tuple[str, str, str], _Row]:
        rows: dict[tuple[str, str, str], list[_Row]] = {}
        for row in self.frame.iter_rows(named=True):
            key = row["metric"], row["perturbation"], row["ensemble"] or row["backbones"][0]
            rows.setdefault(key, []).append(row)
        return {key: _mean(of) for key, of in rows.items()}


def parts(frame: pl.DataFrame) -> tuple[list[Part], list[Part]]:
    """Every dataset, split and prompt set; and what sums them up: means, and what is in none."""
    every = [Part(part) for _, part in frame.group_by(_GROUP, maintain_order=True)]
    single = [part for part in every if part.frame["dataset"][0] is not None]
    over = []
    left = list(single)
    for mean in every:
        if mean.frame["dataset"][0] is None:
            members = [part for part in single if _alike(part, mean)]
            left = [part for part in left if part not in members]
            over.append(Part(mean.frame, len(members)))
    return single, over + left


def names(found: Sequence[Part]) -> Iterator[str]:
    """What tells them apart, behind the name of a table; nothing if there is one."""
    for part in found:
        about = f"{part.dataset}/{part.split}" if part.datasets == 1 else f"mean, {part.split}"
        yield f", {about}, {part.prompts}" if len(found) > 1 else ""


def _alike(part: Part, mean: Part) -> bool:
    """Whether a dataset is one of those that a mean is over."""
    kinds = ((of.split, of.prompts, of.backbones, of.severities) for of in (part, mean))
    return next(kinds) == next(kinds)


def _mean(rows: list[_Row]) -> _Row:
    if len(rows) == 1:
        return rows[0]
    values = [row["value"] for row in rows if not is_nan(row["value"])]
    mean = sum(values) / len(values) if values else float("nan")
    return rows[0] | {"value": mean, "ci_low": None, "ci_high": None}
