"""A figure by name, of a store or of files of results.

A file is what an analysis or `clipsyn evaluate` has written by ``-o``. A store is
measured by the analysis of the figure, with that analysis's defaults: what needs other settings is
measured by its command first, and drawn from the file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from clipsyn.analyses import ANALYSES
from clipsyn.errors import UsageError
from clipsyn.evaluation.figures import ORACLES
from clipsyn.evaluation.results.data import agreeing, check_data
from clipsyn.evaluation.results.files import all_rows
from clipsyn.evaluation.results.frame import RESULT
from clipsyn.names import CLEAN
from clipsyn.registry import unknown_name
from clipsyn.report import FIGURES, Drawn
from clipsyn.settings import SINGLE, takes
from clipsyn.show.figure import Figure
from clipsyn.store.features import FeatureStore
from clipsyn.store.files import is_published
from clipsyn.store.select import matching, terms_of
from clipsyn.text import advised

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LINES = {  # that write what a store alone has not
    "evaluate": "clipsyn evaluate STORE -o FILE.parquet",
    "predict": "clipsyn predict ROUTER STORE -o FILE.parquet",
}
Source = FeatureStore | pl.DataFrame | Path | str
_OF_RESULTS = ("heads", "ensembles")  # a store has none
_COLUMNS = {  # of the frame, by setting
    "datasets": "dataset",
    "splits": "split",
    "perturbations": "perturbation",
    "backbones": "backbones",
    "prompts": "prompts",
    "heads": "head",
    "ensembles": "ensemble",
}


@takes(Drawn)
def plot(
    name: str,
    source: Source | Sequence[Source],
    **selection: Any,
) -> Axes:
    """Draw a figure of a store, a tidy frame, or files of results.

    name: one that `clipsyn plot` lists. source: one, or several whose numbers stand in one figure.
    Returns matplotlib's axes, which a notebook shows. Raises UsageError that says what is lacking,
    UnknownName with near matches.

    >>> import clipsyn
    >>> ax = clipsyn.plot("accuracy-matrix", "store", perturbations="clean")
    >>> ax.figure.savefig("accuracy.pdf")
    """
    figure: Figure = FIGURES.load(name)
    return figure(figure.data(frame_of(figure, source, Drawn(**selection))))


def frame_of(
    figure: Figure, source: Source | Sequence[Source], drawn: Drawn | None = None
) -> pl.DataFrame:
    """The frame that a figure shows: of several sources, the rows of all."""
    given = (drawn or Drawn()).given
    frames = [(one, *_frame(figure, one, given)) for one in _several(source)]
    if not frames:
        raise UsageError(f"there is nothing to draw {figure.name} of: give a store or results")
    if len(frames) == 1 or not figure.tidy:
        return pl.concat([frame for *_, frame in frames], how="diagonal_relaxed")
    for store in (store for _, store, _ in frames if store):
        for name, _, frame in frames:
            check_data(store, frame, name, held=True)
    return agreeing([(name, frame) for name, _, frame in frames])


def _several(source: Source | Sequence[Source]) -> list[Source]:
    if isinstance(source, str | Path | FeatureStore | pl.DataFrame):
        return [source]
    return list(source)


def _frame(
    figure: Figure, source: Source, given: Mapping[str, Any]
) -> tuple[FeatureStore | None, pl.DataFrame]:
    """The store that a source is, if it is one, and its rows."""
    if isinstance(source, str | Path):
        path = Path(source)
        is_results = path.is_file() or any(path.glob("*.parquet")) or not path.is_dir()
        source = (
            FeatureStore.open(source)
            if is_published(source) or not is_results
            else read_frame(path, figure.source, tidy=figure.tidy)
        )
    if isinstance(source, pl.DataFrame):
        return None, selected(source, given, figure.source)
    if figure.source not in ANALYSES:
        raise UsageError(
            f"{figure.name} is not drawn of a store: run `{_LINES[figure.source]}` and draw FILE"
        )
    analysis = ANALYSES.load(figure.source)
    ours = {name: terms for name, terms in given.items() if name not in _OF_RESULTS}
    return source, analysis.measure(source, analysis.settings(**ours))


def selected(frame: pl.DataFrame, given: Mapping[str, Sequence[str]], source: str) -> pl.DataFrame:
    """The rows of a frame that pass filters by name or pattern; UnknownName where none does.

    given: terms by the name of a setting of `Drawn`. source: the command that wrote the frame.
    Ensembles leave rows of backbones and oracles as they are; perturbations leave what `robustness`
    compares them with.
    """
    for setting, terms in given.items():
        column = _COLUMNS[setting]
        if column not in frame.columns:
            raise UsageError(f"these numbers are not told apart by {setting}=…: leave it away")
        listed = pl.col(column) if column == "backbones" else pl.concat_list(column)
        known = frame.select(listed.explode()).to_series().drop_nulls().unique().to_list()
        if column == "ensemble" and not (
            known := [it for it in known if it not in (SINGLE, *ORACLES)]
        ):
            continue
        kept: set[str] = set()
        for term in terms_of(column, terms):
            if not (there := matching(term, known)):
                raise unknown_name(column, term, known, "Looked for in the results.")
            kept |= {*there}
        if column == "perturbation" and source == "robustness":
            # clean images, which all is compared with, stay; means are over what was measured
            of_one = pl.lit(kept.issuperset(known)) | pl.col("severity").is_not_null()
            frame = frame.filter(pl.col(column).is_in({*kept, CLEAN.label}) & of_one)
        elif column == "ensemble":
            of_others = pl.col(column).is_null() | pl.col(column).is_in([SINGLE, *ORACLES])
            frame = frame.filter(pl.col(column).is_in(kept) | of_others)
        else:
            frame = frame.filter(listed.list.set_difference(sorted(kept)).list.len() == 0)
    return frame


def read_frame(path: Path, source: str, *, tidy: bool = True) -> pl.DataFrame:
    """The rows of a file that a command has written; UsageError says what else it is.

    source: the command, for messages. tidy: whether they have the columns of results.
    """
    if not path.exists():
        raise UsageError(f"{path} does not exist: give a store, or a Parquet file of results")
    frame = all_rows(path)
    lacking = ", ".join(name for name in RESULT if name not in frame.columns)
    if tidy and lacking:
        raise UsageError(
            f"{path} holds no results, for want of {lacking}: give a file that "
            f"`{advised(source)}` wrote"
        )
    return frame
