"""Where methods are right, on the images of one dataset that all of them have predictions for."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from clipsyn.errors import UsageError
from clipsyn.evaluation.paired import PairedSettings
from clipsyn.evaluation.results.files import DAMAGE, shots_asked
from clipsyn.evaluation.results.frame import ALONE, METHOD
from clipsyn.evaluation.results.predictions import scan, subjects
from clipsyn.evaluation.tables import BEST
from clipsyn.methods.ensembles import CHOSEN
from clipsyn.registry import unknown_name
from clipsyn.settings import SINGLE, UNFITTED
from clipsyn.store.select import matching, terms_of
from clipsyn.text import advised

Draws = Mapping[int | None, NDArray[np.bool_]]  # by seed, (sample,); None where nothing is drawn
PLACE: tuple[str, ...] = ("split", "perturbation", "prompts", "classes")


def words_of(path: Path | str) -> tuple[str, ...]:
    """Of the command that adds predictions to the file, which stands beside that of results."""
    results = Path(path).with_stem(Path(path).stem.removesuffix("-predictions"))
    return "evaluate", "STORE", "-o", str(results)


def _line(path: Path | str) -> str:
    return advised(*words_of(path))


class Answered(NamedTuple):
    """The methods on one dataset: where each is right."""

    dataset: str
    right: dict[str, Draws]  # by method
    marks: NDArray[np.uint64]  # (sample,) equal for equal images, 0 for one that is unseen

    @property
    def n(self) -> int:
        return len(self.marks)


class Choice:
    """The methods and places of a file that are compared."""

    def __init__(self, path: Path, settings: PairedSettings, named: Sequence[str]) -> None:
        self.path = path
        self._settings = settings
        self._rows = _rows(path)
        there = _selected(subjects(path), settings, path)
        if settings.head not in there["head"]:
            hint = f"Looked for in {path}."
            raise unknown_name("head", settings.head, there["head"].unique(), hint)
        self.shots = shots_asked({*there["shots"]}, settings.shots, words_of(path))
        there = there.filter(pl.col("shots").is_in([UNFITTED, self.shots]))
        self._there = _labelled(there, settings.head)
        known = [*self._there["method"].unique(maintain_order=True), *self._best]
        for name in named:
            if name not in known:
                hint = f"Looked for in {path}; `{_line(path)}` adds methods."
                raise unknown_name("method", name, known, hint)
        mixed, shown = _mixed(self._there), named if len(named) > 1 else [*named, *self._listed]
        for name in shown:
            if name in mixed:
                raise UsageError(
                    f"{path} has {name} fitted on {mixed[name]}, which one name cannot tell apart: "
                    f"`{_line('OTHER')}` gives each a file"
                )
        self.methods = [*dict.fromkeys([*named, *(it for it in self._listed if it not in mixed)])]

    def is_fitted(self, method: str) -> bool:
        """Whether a method, or its head, has learned from images."""
        of = self._singles if method == BEST else self._there.filter(method=method)
        return (of["shots"] != UNFITTED).any()

    @cached_property
    def _singles(self) -> pl.DataFrame:
        """Backbones on their own, with the head that is asked for."""
        return self._there.filter(ALONE, head=self._settings.head)

    @property
    def _best(self) -> list[str]:
        return [BEST] if self._singles["method"].n_unique() > 1 else []

    @property
    def _listed(self) -> Iterator[str]:
        """The methods that are compared with each other, beside those that are named."""
        if CHOSEN in self._there["method"]:
            yield CHOSEN
        ours = self._there.filter(head=self._settings.head)
        ensembles = ours.filter(pl.col("ensemble") != SINGLE)["method"].unique(maintain_order=True)
        yield from _chosen("ensemble", self._settings.ensembles, ensembles, self.path)
        yield from self._best
        if self._settings.backbones is not None:
            names = self._singles["method"].unique(maintain_order=True)
            yield from _chosen("backbone", self._settings.backbones, names, self.path)

    def places(self) -> Iterator[tuple[dict[str, str], list[Answered]]]:
        """Each split, perturbation, prompt set and set of classes, with its datasets."""
        for keys, part in self._there.group_by(PLACE, maintain_order=True):
            place = dict(zip(PLACE, map(str, keys), strict=True))
            sets = [
                self._answered(str(dataset), of_dataset)
                for (dataset,), of_dataset in part.group_by("dataset", maintain_order=True)
            ]
            yield place, [one for one in sets if one.right and one.n]

    def _answered(self, dataset: str, there: pl.DataFrame) -> Answered:
        needed = {*self.methods, *(self._singles["method"] if BEST in self.methods else ())}
        wanted = there.filter(pl.col("method").is_in(sorted(needed)))
        right, marks = read_right(self._rows, wanted)
        drawn: dict[str, dict[int | None, NDArray[np.bool_]]] = {}
        for row in wanted.iter_rows(named=True):
            drawn.setdefault(row["method"], {})[row["seed"]] = right[row["fingerprint"]]
        names = sorted(drawn.keys() & self.methods)  # resamples depend on their order
        found: dict[str, Draws] = {name: drawn[name] for name in names}
        if BEST in self.methods:
            singles = [drawn[name] for name in sorted({*self._singles["method"]}) if name in drawn]
            found |= {BEST: best_of(singles)} if best_of(singles) else {}
        return Answered(dataset, found, marks)


def _rows(path: Path) -> pl.LazyFrame:
    if not path.exists():
        raise UsageError(f"{path} does not exist: make it with `{_line(path)}`")
    return scan(path)


def _selected(there: pl.DataFrame, settings: PairedSettings, path: Path) -> pl.DataFrame:
    """The rows whose dataset, split, perturbation and prompt set are asked for."""
    if there.is_empty():
        raise UsageError(f"{path} has no predictions yet: `{_line(path)}` adds some")
    for column in ("dataset", "split", "perturbation", "prompts"):
        terms = getattr(settings, column if column == "prompts" else f"{column}s")
        names = _chosen(column, terms, there[column].unique(), path)
        there = there.filter(pl.col(column).is_in(names))
    if there.is_empty():
        raise UsageError(
            f"{path} has no predictions of these datasets, splits, perturbations and prompt sets "
            f"together: leave some out, or `{_line(path)}` adds them"
        )
    return there


def _chosen(
    kind: str, terms: Collection[str] | None, known: Collection[str], path: Path
) -> list[str]:
    """The known names that pass a filter, all without one; UnknownName where none does."""
    if terms is None:
        return [*known]
    kept: list[str] = []
    for term in terms_of(kind, terms):
        if not (there := matching(term, known)):
            raise unknown_name(kind, term, known, f"Looked for in {path}.")
        kept += there
    return [name for name in known if name in kept]


def _labelled(there: pl.DataFrame, head: str) -> pl.DataFrame:
    """With a column `method`: what an ensemble or a backbone is called.

    What the support chose is "chosen". Others stand after another head's name, and where there are
    several sets of backbones on one dataset, before how many these are: "nlc of 3". Sets of one
    size have their names in full.
    """
    members = pl.col("backbones")
    name = METHOD
    other = pl.concat_str("head", pl.lit("+"), name)
    is_alone = pl.col("head").is_in([head, CHOSEN])
    named = there.with_columns(method=pl.when(is_alone).then(name).otherwise(other))
    several = members.n_unique().over("dataset", *PLACE, "method") > 1
    sets = members.n_unique().over("method")
    sizes = members.list.len().n_unique().over("method")
    counted = members.list.len().cast(pl.String)
    of = pl.when(sizes == sets).then(counted).otherwise(members.list.join(", "))
    longer = pl.concat_str("method", pl.lit(" of "), of)
    told = named.with_columns(several=several)
    is_mixed = pl.col("several").any().over("method")
    return told.with_columns(method=pl.when(is_mixed).then(longer).otherwise("method"))


def _mixed(there: pl.DataFrame) -> dict[str, str]:
    """Methods that were fitted on several supports under one name, and on which, in words."""
    same, found = ["dataset", *PLACE, "method", "seed"], dict[str, str]()
    for (*_, method, _), rows in there.group_by(same, maintain_order=True):
        for column in ("support", "support_prompts"):
            if (known := rows[column].unique(maintain_order=True).to_list())[1:]:
                found.setdefault(str(method), f"{known[0]} and on {known[1]} ({column})")
    return found


def read_right(
    every: pl.LazyFrame, wanted: pl.DataFrame
) -> tuple[dict[str, NDArray[np.bool_]], NDArray[np.uint64]]:
    """By fingerprint where a method is right, (sample,), and `SampleTable.marks` of the images.

    every: rows of a file. wanted: subjects of one dataset and place. Samples are those that all of
    them have.
    """
    names = ["dataset", *PLACE]
    where = [pl.col(name) == wanted[name][0] for name in names] if len(wanted) else [pl.lit(False)]
    columns = ["fingerprint", "sample_id", "image", "label", "prediction"]
    found = every.filter(*where, pl.col("fingerprint").is_in(wanted["fingerprint"].to_list()))
    parts = _collected(found.select(columns)).partition_by("fingerprint", as_dict=True)
    first = next(iter(parts.values())) if parts else pl.DataFrame(schema=dict.fromkeys(columns))
    different = [one for one in parts.values() if not one["sample_id"].equals(first["sample_id"])]
    if any(one["sample_id"].is_duplicated().any() for one in (first, *different)):
        raise UsageError(
            f"there are several predictions of {wanted['dataset'][0]} for one image by one method: "
            f"make the file anew with `{_line('FILE')}`"
        )
    if different:
        parts = _on_common(parts)
        first = next(iter(parts.values()))
    for one in parts.values():
        if not one["label"].equals(first["label"]):
            raise UsageError(
                f"there are predictions of {wanted['dataset'][0]} from before and after its labels "
                f"were corrected: make the file anew with `{_line('FILE')}`"
            )
    right = {name: (one["label"] == one["prediction"]).to_numpy() for (name,), one in parts.items()}
    return right, first["image"].fill_null(0).to_numpy().astype(np.uint64)


def _collected(rows: pl.LazyFrame) -> pl.DataFrame:
    """The rows, of which none is without an image, a label or a prediction."""
    try:
        found = rows.collect()
    except (OSError, *DAMAGE) as error:
        said = str(error).partition("\n")[0]
        raise UsageError(
            f"predictions cannot be read, or changed meanwhile: {said}; try again, or make the "
            f"file anew with `{_line('FILE')}`"
        ) from error
    if any(found[name].null_count() for name in ("sample_id", "label", "prediction")):
        raise UsageError(
            "there are predictions without an image, a label or a class: make the file anew with "
            f"`{_line('FILE')}`"
        )
    return found


def _on_common(parts: dict[tuple[str], pl.DataFrame]) -> dict[tuple[str], pl.DataFrame]:
    """The same with the samples that all have, in one order."""
    common = next(iter(parts.values())).select("sample_id")
    for one in parts.values():
        common = common.join(one, on="sample_id", how="semi", maintain_order="left")
    return {
        name: common.join(one, on="sample_id", how="left", maintain_order="left")
        for name, one in parts.items()
    }


def best_of(singles: Sequence[Draws]) -> Draws:
    """For each draw that all have, the one that is right most often; of equals the first."""

    def best(seed: int | None) -> NDArray[np.bool_]:
        return max((one[seed] for one in singles), key=lambda right: int(right.sum()))

    seeds = singles[0] if singles else {}
    return {seed: best(seed) for seed in seeds if all(seed in one for one in singles)}
