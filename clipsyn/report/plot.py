"""A figure by name, of a store or of a file of results.

The file is what an analysis has written by ``--parquet``, or `clipsyn evaluate` by ``-o``. A store
is measured by the analysis of the figure, with that analysis's defaults: what needs other settings
is measured by its command first, and drawn from the file.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from clipsyn.analyses import ANALYSES
from clipsyn.errors import UsageError
from clipsyn.registry import unknown_name
from clipsyn.report import FIGURES
from clipsyn.results.frame import RESULT
from clipsyn.show.figure import Figure
from clipsyn.store.features import FeatureStore
from clipsyn.store.select import matching, terms_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Source = FeatureStore | pl.DataFrame | Path | str
_COLUMNS = {  # of the frame, by setting
    "datasets": "dataset",
    "splits": "split",
    "perturbations": "perturbation",
    "backbones": "backbones",
    "prompts": "prompts",
}


def plot(name: str, source: Source, *, ax: Axes | None = None, **selection: Any) -> Axes:
    """Draw a figure of a store, a tidy frame, or a file of results.

    name: one of `clipsyn plot --list`. ax: matplotlib's Axes to draw on; without, on axes of their
    own. selection: `datasets`, `splits`, `perturbations`, `backbones` and `prompts`, names or
    patterns with ``*``. Returns the axes. Raises UsageError that says what is lacking, UnknownName
    with near matches.

    >>> import clipsyn
    >>> ax = clipsyn.plot("accuracy-matrix", "store", perturbations="clean")
    >>> ax.figure.savefig("accuracy.pdf")
    """
    figure = FIGURES.load(name)
    return figure(figure.data(frame_of(figure, source, **selection)), ax)  # type: ignore[no-any-return]


def frame_of(figure: Figure, source: Source, **selection: Any) -> pl.DataFrame:
    """The frame that a figure shows."""
    if isinstance(source, pl.DataFrame):
        return selected(source, **selection)
    if isinstance(source, str | Path):
        path = Path(source)
        if not path.is_dir():
            return selected(_read(path), **selection)
        source = FeatureStore.open(path)
    if figure.source not in ANALYSES:
        raise UsageError(
            f"{figure.name} shows results of `clipsyn {figure.source}`, not a store: run `clipsyn "
            f"{figure.source} {source.path} -o results.parquet` and draw that file"
        )
    analysis = ANALYSES.load(figure.source)
    return analysis.measure(source, analysis.settings(**selection))  # type: ignore[no-any-return]


def selected(frame: pl.DataFrame, **selection: Any) -> pl.DataFrame:
    """The rows of a frame that pass filters by name or pattern; UnknownName where none does."""
    for name, terms in selection.items():
        if terms is None:
            continue
        column = _COLUMNS[name]
        in_list = column == "backbones"
        known = (frame[column].explode() if in_list else frame[column]).drop_nulls().unique()
        kept: set[str] = set()
        for term in terms_of(column, terms):
            if not (there := matching(term, known)):
                raise unknown_name(column, term, known, "Looked for in the results.")
            kept |= {*there}
        listed = pl.col(column) if in_list else pl.concat_list(column)
        frame = frame.filter(listed.list.set_difference(sorted(kept)).list.len() == 0)
    return frame


def _read(path: Path) -> pl.DataFrame:
    if not path.exists():
        raise UsageError(f"{path} does not exist: give a store, or a Parquet file of results")
    try:
        frame = pl.read_parquet(path, glob=False)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise UsageError(
            f"{path} cannot be read as results: {error}; figures are drawn of a store, or of the "
            "Parquet file that a command has written by --parquet"
        ) from error
    if lacking := ", ".join(sorted(RESULT.keys() - {*frame.columns})):
        raise UsageError(
            f"{path} holds no results, for want of {lacking}: give a file that a command of "
            "clipsyn has written by --parquet"
        )
    return frame
