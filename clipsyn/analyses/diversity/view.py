"""Tables of diversity: by dataset, by pair of backbones, and against the gains of ensembles."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import polars as pl

from clipsyn.analyses.diversity import DiversitySettings
from clipsyn.evaluation.figures import pair_figure, pair_lines
from clipsyn.evaluation.results.frame import (
    IF_ALIKE,
    WHERE,
    about_line,
    backbones,
    named_parts,
    numbers,
    numbers_by,
    singles,
)
from clipsyn.methods.ensembles import place_of
from clipsyn.show.frames import is_nan
from clipsyn.show.table import (
    NOTHING,
    Cell,
    Table,
    known,
    number_cell,
    p_cell,
    percent,
    percent_cell,
)
from clipsyn.show.tables import Measure, Side, measures_table, notes_beside, pair_matrix
from clipsyn.show.titles import common, fitted_on, mean_over, shortened, title, where

_PAIRS = (
    Measure("inconsistency", "error_inconsistency", "incons.", interval=True),
    Measure("disagreement", "disagreement", "disagree"),
    Measure("double fault", "double_fault", "double\nfault"),
    Measure("Q", "yules_q", percent=False, digits=2),
    Measure("kappa", "error_consistency", percent=False, digits=2, interval=True),
)
_ALL = (
    Measure("Fleiss", "fleiss_kappa", percent=False, digits=2),
    Measure("entropy", "vote_entropy", percent=False, digits=2),
)
_P = Measure("p", "mcnemar_p_holm", cell=lambda row: p_cell(row["value"]))
_MEANS = tuple(  # with the interval of the first alone, to keep it narrow
    it._replace(metric=f"mean_{it.metric}", interval=it is _PAIRS[0]) for it in _PAIRS
)
_NOTES = notes_beside(__file__)
_STARRED = 15  # datasets; over fewer, chance makes half of the intervals leave 0 out


def tables(frame: pl.DataFrame, settings: DiversitySettings) -> dict[str, Table]:
    """Tables of what `clipsyn.analyses.diversity.measure` returns, by name.

    One group of dataset, split, perturbation and prompt set: "means" and "pairs", a line a pair.
    Several: "means", a line a group, and for each split, perturbation and prompt set a matrix of
    pairs, mean over datasets ("pairs, test, clean, own"). "pearson" and "spearman" where the frame
    has correlations with gains that are known: of three datasets and more.
    """
    diversity = frame.filter(pl.col("dataset").is_not_null())
    if diversity.select(WHERE).n_unique() == 1:
        shown = {"means": _means(diversity, "mean"), "pairs": _pairs(diversity)}
    else:
        shown = {"means": _means(diversity, "means")}
        for keys, part in diversity.group_by(WHERE[1:], maintain_order=True):
            shown[f"pairs, {', '.join(map(str, keys))}"] = _matrix(part)
    correlations = _known_correlations(frame)
    for kind in ("pearson", "spearman") if len(correlations) else ():
        shown[kind] = _correlations(correlations, kind)
    return shown


def notes(frame: pl.DataFrame, settings: DiversitySettings) -> Iterator[str]:
    """Why correlations with gains that were asked for are not shown."""
    if settings.results and _known_correlations(frame).is_empty():
        yield "no correlation with gains: it takes three datasets whose diversity and gains differ"


def _known_correlations(frame: pl.DataFrame) -> pl.DataFrame:
    """All correlations over datasets; none where no value is known."""
    correlations = frame.filter(pl.col("dataset").is_null())
    return correlations.clear() if correlations["value"].is_nan().all() else correlations


def _means(frame: pl.DataFrame, note: str) -> Table:
    """A line a group."""
    shared = common(frame, WHERE[1:])
    lines = [
        (about_line(part, (*WHERE, "n"), shared), numbers(part))
        for part in named_parts(frame).values()
    ]
    phrases = where(frame.row(0, named=True), list(shared))
    about = title("diversity of the backbones", *phrases)
    return measures_table(lines, (*_MEANS, *_ALL), title=about, notes=_NOTES[note])


def _pairs(frame: pl.DataFrame) -> Table:
    """A line a pair, those that err most differently first."""
    names = shortened(backbones(singles(frame)))
    rows = frame.filter(pl.col("metric").is_in([it.metric for it in (*_PAIRS, _P)]))
    lines = pair_lines(rows, names, "error_inconsistency")
    about = title(*where(frame.row(0, named=True), (*WHERE, "n")), names.phrase)
    return measures_table(lines, (*_PAIRS, _P), title=about, notes=_NOTES["pairs"])


def _of_each(frame: pl.DataFrame, metric: str) -> dict[str, float | None]:
    """Backbone -> a share of samples, mean over groups."""
    rows = singles(frame).filter(metric=metric).group_by("backbone", maintain_order=True)
    return dict(rows.agg(pl.col("value").fill_nan(None).mean()).iter_rows())


def _matrix(part: pl.DataFrame) -> Table:
    """Kappa above the diagonal, error inconsistency below, unique-correct on it: over datasets."""
    names = shortened(backbones(singles(part)))
    about = where(part.row(0, named=True), WHERE[1:])
    over = mean_over(part, ["dataset"]) or part["dataset"][0]
    guesses = _of_each(part, "unique_correct_floor").values()
    guess = percent(max((share for share in guesses if share is not None), default=None))
    unique = _of_each(part, "unique_correct")
    return pair_matrix(
        part,
        names,
        above=Side("error_consistency", number_cell),
        below=Side("error_inconsistency", percent_cell),
        diagonal={name: percent_cell(share) for name, share in unique.items()},
        title=title(*about, names.phrase, over),
        note=_NOTES["matrix"].format(guess=guess),
    )


def _correlations(frame: pl.DataFrame, kind: str) -> Table:
    """A line a perturbation and ensemble, a column a measure; the first with its interval."""
    columns = [
        it._replace(
            metric=f"{kind}_{it.metric}",
            interval=it is _PAIRS[0],
            percent=False,
            digits=2,
            cell=_starred,
        )
        for it in (*_PAIRS, *_ALL)
    ]
    alike = Measure("if alike", IF_ALIKE, "if\nalike", percent=False, digits=2, optional=True)
    columns.insert(1, alike)
    shared = common(frame, (*WHERE[1:], "n"))
    lines = []
    for part in frame.partition_by(*WHERE[1:], "backbones", maintain_order=True):
        by_ensemble = numbers_by(part, "ensemble")
        for ensemble in sorted(by_ensemble, key=lambda name: (name != "oracle", place_of(name))):
            first = next(iter(by_ensemble[ensemble].values()))
            about = {name: first[name] for name in WHERE[1:] if name not in shared}
            about |= {"ensemble": ensemble} | ({} if "n" in shared else {"datasets": first["n"]})
            lines.append((about, by_ensemble[ensemble]))
    phrases = where(frame.row(0, named=True), [*(name for name in shared if name != "n"), "head"])
    head = title(
        f"{kind.capitalize()}'s r with the gain",
        *phrases,
        fitted_on(frame) or "nothing fitted",
        f"{shared['n']} datasets" if "n" in shared else "",
    )
    return measures_table(lines, columns, title=head, notes=_NOTES["correlations"])


def _starred(row: Mapping[str, Any]) -> Cell:
    """A correlation, with a star where enough datasets have an interval that leaves 0 out."""
    value, low, high = (row[name] for name in ("value", "ci_low", "ci_high"))
    star = "*" if row["n"] >= _STARRED and (low > 0 or high < 0) else " "
    text = f"{NOTHING} " if is_nan(value) else f"{round(value, 2) + 0.0:+.2f}{star}"
    return Cell(text, known(value))


error_consistency = pair_figure(
    "error consistency",
    name="error-consistency",
    short="How alike the errors of every two backbones are.",
    caption=_NOTES["error_consistency"],
    source="diversity",
    metric="error_consistency",
)
