"""Every row beside what the support chooses and the mean of logits, as tables in Markdown.

    python pipelines/rivals.py FOLDER

FOLDER is where `clipsyn run pipelines/rivals.yaml` writes its results. A row is an ensemble on
zero-shot logits (on `lda` where there is no text), or HEAD+ENSEMBLE. Each is compared with `chosen`
and with `log-avg` on the same images and draws; p-values over draws and images are corrected by
Holm for all rows of a column, + and - mark those below 0.05. Prints all tables, of which
docs/rivals.md shows some.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from clipsyn.evaluation import predictions_of
from clipsyn.evaluation.paired import LEVEL, Draws, Sides, difference, read_right
from clipsyn.evaluation.results.files import collect
from clipsyn.evaluation.results.frame import in_order
from clipsyn.methods.ensembles import CHOSEN, ORACLE, PLAIN, is_transductive
from clipsyn.settings import SINGLE, UNFITTED
from clipsyn.stats.differences import holm
from clipsyn.stats.images import Images

POOLS = {
    "five": "five tiny CLIPs, of which one is best on every set",
    "four": "without that one",
    "caltech101": "RN50 and ViT-B/32 on Caltech-101, on lda",
    "aircraft": "ViT-B/32 and ViT-B/16 on FGVC-Aircraft, on lda",
}
REFERENCES = (CHOSEN, PLAIN)


class Column(NamedTuple):
    """Rows with so many labelled images, on one kind of images: of each set where they are right.

    seconds: of a fit, a mean over sets and draws, by row.
    """

    shots: str
    perturbation: str
    right: Mapping[str, Mapping[str, Draws]]  # by set and row
    images: Mapping[str, Images]
    seconds: Mapping[str, float]

    def rows(self, *, transductive: bool = False) -> list[str]:
        """Those that every set has, either inductive or transductive."""
        first, *others = self.right.values()
        shared = [name for name in first if all(name in it for it in others)]
        return [name for name in shared if is_transductive(name) == transductive]

    def against(self, row: str, other: str, sets: list[str] | None = None) -> dict[str, Any]:
        """As `clipsyn.evaluation.paired.difference`."""
        there = sets or [*self.right]
        sides = [Sides.of(self.right[it][row], self.right[it][other]) for it in there]
        return difference([it for it in sides if it], [self.images[it] for it in there])


def columns(path: Path) -> Iterator[Column]:
    """Of each number of shots with which something was chosen, and each perturbation."""
    frame = collect(path).filter(pl.col("ensemble") != SINGLE, pl.col("ensemble") != ORACLE)
    frame = frame.with_columns(row=_row(frame))
    accuracy = frame.filter(metric="acc1", classes="all")
    chosen = accuracy.filter(row=CHOSEN)
    for shots in sorted(chosen["shots"].unique(), key=in_order):
        for perturbation in chosen["perturbation"].unique(maintain_order=True):
            of = {"perturbation": perturbation}
            sets = chosen.filter(shots=shots, **of)["dataset"].unique(maintain_order=True)
            here = accuracy.filter(
                pl.col("dataset").is_in(sets.to_list()),
                pl.col("shots").is_in([UNFITTED, shots]),
                **of,
            )
            fits = frame.filter(pl.col("shots") == shots, metric="fit_seconds", **of)
            seconds = dict(fits.group_by("row").agg(pl.col("value").mean()).iter_rows())
            yield _column(here, path, shots, perturbation, seconds)


def _row(frame: pl.DataFrame) -> pl.Expr:
    heads = [it for it in ("zero-shot", "lda") if it in frame["head"]][:1]
    is_plain = pl.col("head").is_in([*heads, CHOSEN])
    return pl.when(is_plain).then("ensemble").otherwise(pl.format("{}+{}", "head", "ensemble"))


def _column(
    frame: pl.DataFrame, path: Path, shots: str, label: str, seconds: Mapping[str, float]
) -> Column:
    right: dict[str, dict[str, Draws]] = {}
    marks = []
    for (dataset,), part in frame.group_by("dataset", maintain_order=True):
        name = str(dataset)
        found, images = read_right(predictions_of(path), name, [*part["fingerprint"]])
        drawn: dict[str, dict[int | None, Any]] = {}
        for row in part.iter_rows(named=True):
            drawn.setdefault(row["row"], {})[row["seed"]] = found[row["fingerprint"]]
        right[name] = dict(drawn)
        marks.append(images)
    images_of = dict(zip(right, Images.of_sets(marks), strict=True))
    return Column(shots, label, right, images_of, seconds)


def compared(column: Column, rows: list[str], other: str) -> dict[str, dict[str, Any]]:
    """Each row minus another, with `mark`, and on how many sets it won and lost."""
    found = {row: column.against(row, other) for row in rows if row != other}
    adjusted = holm(np.array([it["p"] for it in found.values()]))
    for (row, it), p_value in zip(found.items(), adjusted, strict=True):
        it["mark"] = "" if not p_value < LEVEL else "+" if it["difference"] > 0 else "-"
        ends = [_interval(column.against(row, other, [name])) for name in column.right]
        it["won"] = sum(low > 0 for low, _ in ends)
        it["lost"] = sum(high < 0 for _, high in ends)
    return found


def _interval(row: Mapping[str, Any]) -> tuple[float, float]:
    """Over draws and images, or over images where nothing is drawn."""
    wide = row["both_low"], row["both_high"]
    return (row["ci_low"], row["ci_high"]) if np.isnan(wide).any() else wide


def text_of(row: Mapping[str, Any]) -> str:
    low, high = _interval(row)
    return f"{100 * row['difference']:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def rows_table(column: Column) -> Iterator[str]:
    """A line a row, the most accurate first; those that are transductive below, by themselves."""
    yield (
        "| row | top-1 in % | minus chosen, points | won / lost | minus log-avg, points "
        "| won / lost | seconds of a fit |"
    )
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    for transductive in (False, True):
        rows = column.rows(transductive=transductive)
        yield from _lines(column, {other: compared(column, rows, other) for other in REFERENCES})


def _lines(column: Column, found: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    means = {row: it["first_acc1"] for of in found.values() for row, it in of.items()}
    for row in sorted(means, key=means.__getitem__, reverse=True):
        cells = [f"{100 * means[row]:.1f}"]
        for of in found.values():
            it = of.get(row)
            counts = f"{it['won']} / {it['lost']}" if it else ""
            cells += [f"{text_of(it)} {it['mark']}".strip() if it else "", counts]
        name = f"{row} (transductive)" if is_transductive(row) else row
        yield f"| {name} | {' | '.join(cells)} | {column.seconds.get(row, 0.0):.2f} |"


def regret_table(of_pool: list[Column]) -> Iterator[str]:
    """A line a number of shots: what the best row in hindsight has over `chosen`.

    One row for all sets, which has an interval, and the best of each set, which flatters itself: it
    is the largest of many numbers with noise.
    """
    yield "| images a class | on | sets | best row | over chosen, points | best row of each set |"
    yield "| --- | --- | ---: | --- | ---: | ---: |"
    for column in of_pool:
        rows = [it for it in column.rows() if it != CHOSEN]
        found = {row: column.against(row, CHOSEN) for row in rows}
        best = max(rows, key=lambda row: float(found[row]["difference"]))
        each = [
            max(column.against(row, CHOSEN, [name])["difference"] for row in rows)
            for name in column.right
        ]
        about = f"| {column.shots} | {column.perturbation} | {len(column.right)}"
        yield f"{about} | {best} | {text_of(found[best])} | {100 * np.mean(each):+.1f} |"


def main() -> None:
    folder = Path(sys.argv[1])
    for name, about in POOLS.items():
        if not (path := folder / f"{name}.parquet").exists():
            sys.stdout.write(f"\n{path} is not there: {about} left out\n")
            continue
        of_pool = [*columns(path)]
        for column in of_pool:
            where = (
                f"{column.shots} images a class, {column.perturbation}, {len(column.right)} sets"
            )
            sys.stdout.write(f"\n**{about}: {where}**\n\n" + "\n".join(rows_table(column)) + "\n")
        sys.stdout.write(f"\n**Regret, {about}**\n\n" + "\n".join(regret_table(of_pool)) + "\n")


if __name__ == "__main__":
    main()
