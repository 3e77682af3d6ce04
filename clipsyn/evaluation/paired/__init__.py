"""Methods compared on the same images: who is better, and how sure is that?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipsyn.evaluation.selection import (
    Selection,
    details,
    head_of_results,
    shots_of_results,
    splits,
)
from clipsyn.settings import NAMES, Shots, setting, takes

if TYPE_CHECKING:
    from polars import DataFrame


class PairedSettings(Selection):
    """What `clipsyn compare` is asked for."""

    splits: tuple[str, ...] | None = splits(None)
    backbones: tuple[str, ...] | None = setting(
        None, NAMES, "Backbones that are compared, too.", letter="-b", instead_of_none="none"
    )
    ensembles: tuple[str, ...] | None = setting(
        None, NAMES, "Ensembles that are compared.", instead_of_none="all"
    )
    head: str = head_of_results("that are compared")
    shots: Shots | None = shots_of_results("that are compared")
    details: bool = details("A line for each pair, and tables of each dataset.")


@takes(PairedSettings)
def compare_methods(
    path: Path | str, first: str | None = None, second: str | None = None, **settings: Any
) -> DataFrame:
    """Compare methods on the images of results that `clipsyn evaluate -o` has written to a file.

    first, second: an ensemble, a backbone, "best on test", the backbone that is best on these very
    images, or, of another head, ``HEAD+NAME``; without `second`, `first` against every other;
    without both, what the support chose ("chosen") against every other, or all with all where
    nothing was chosen. p_holm is corrected for all pairs of methods, whichever are shown,
    so that a pair has one everywhere. settings: those of
    `clipsyn.evaluation.paired.PairedSettings`.

    Returns a row for each pair and dataset, and of means over datasets with `dataset` null;
    docs/evaluating.md explains the columns. Raises UsageError, and UnknownName with near matches.

    >>> import clipsyn
    >>> store = clipsyn.FeatureStore.open("store")
    >>> frame = clipsyn.evaluate(store, ensembles=["log-avg"], output="results.parquet")
    >>> pair = clipsyn.compare_methods("results.parquet", "log-avg", "fake/one")
    >>> pair.select("first", "second", "n", "draws").rows()
    [('log-avg', 'fake/one', 20, 0)]
    """
    from clipsyn.evaluation.paired.measure import measure

    return measure(Path(path), PairedSettings(**settings), first, second)
