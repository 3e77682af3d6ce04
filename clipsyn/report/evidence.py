"""The numbers that figures and pages are made of: measured here, or read from files.

A file is what an analysis or `clipsyn evaluate` has written by ``-o``. For a figure a store is
measured by the analysis of the figure, with that analysis's defaults: what needs other settings is
measured by its command first, and drawn from the file.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from clipsyn.analyses import ANALYSES, Analysis
from clipsyn.analyses.cascade.measure import cell_cost
from clipsyn.analyses.predicted import Predicted
from clipsyn.errors import InputError, LeakError, MissingCell, UnknownName, UsageError
from clipsyn.evaluation import Selection, predictions_of
from clipsyn.evaluation.figures import ORACLES
from clipsyn.evaluation.paired import compare_methods
from clipsyn.evaluation.results.data import agreeing, check_data
from clipsyn.evaluation.results.files import all_rows, ask, read_results
from clipsyn.evaluation.results.frame import ALL, SHOTS_IN_ORDER, gain_metric
from clipsyn.methods.ensembles import BEST_SINGLE, CHOSEN
from clipsyn.names import CLEAN, FeatureKey
from clipsyn.report import FIGURES, Drawn, ReportSettings
from clipsyn.settings import SINGLE, declared, takes
from clipsyn.show.figure import Figure
from clipsyn.store.cell import Cell
from clipsyn.store.features import FeatureStore
from clipsyn.store.files import is_published
from clipsyn.store.samples import SampleTable
from clipsyn.store.select import chosen_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes

EVALUATE = "evaluate"
PAIRED = "compare"
MEASURED = ("zeroshot", "oracle", "diversity", "robustness")  # from predictions, in seconds
Answers = Mapping[str, tuple[int, float | None]]  # class and confidence, by id of an image
_LACKING = (UsageError, InputError, LeakError, MissingCell)  # a store that is not complete has them


@dataclass(frozen=True)
class ShownSplit:
    """One dataset and split, and the cells of it that are shown."""

    samples: SampleTable
    cells: list[Cell]

    @property
    def labelled(self) -> int:
        return int((self.samples.labels >= 0).sum())

    @property
    def masked(self) -> int:
        """Images that some backbone has no answer for."""
        return max(int(cell.facts.get("bad", 0)) for cell in self.cells)

    @property
    def backbones(self) -> list[str]:
        return list(dict.fromkeys(cell.key.backbone for cell in self.cells))

    @property
    def perturbations(self) -> list[str]:
        return list(dict.fromkeys(cell.key.perturbation for cell in self.cells))


@dataclass(frozen=True)
class Evidence:
    """What a page may show.

    frames: results by where they come from: an analysis, or evaluate. lacking: why an analysis
    has none. gflops: of an image, by backbone, where it is known.
    """

    store: FeatureStore
    settings: ReportSettings
    keys: tuple[FeatureKey, ...]
    frames: Mapping[str, pl.DataFrame]
    lacking: Mapping[str, str]
    gflops: Mapping[str, float]

    @property
    def has_support(self) -> bool:
        """Whether a backbone was chosen by labels that nothing is measured on."""
        results = self.frames.get(EVALUATE)
        return results is not None and gain_metric(results) == "gain"

    def chosen(self, group: Predicted) -> Answers:
        """Of the method chosen at the most shots and the first draw; none where none are kept."""
        path, results = self.settings.results, self.frames.get(EVALUATE)
        if path is None or results is None or not predictions_of(path).exists():
            return {}
        fits = results.filter(
            dataset=group.samples.dataset,
            split=group.samples.split,
            perturbation=group.perturbation,
            prompts=group.prompts,
            classes="all",
            ensemble=CHOSEN,
        ).sort(-SHOTS_IN_ORDER, "seed")
        first = pl.col("fingerprint").is_in(fits["fingerprint"][:1])
        columns = "sample_id", "prediction", "confidence"
        rows = ask(predictions_of(path), lambda it: it.filter(first).select(columns).collect())
        return {id: (answer, confidence) for id, answer, confidence in rows.iter_rows()}

    @property
    def main_settings(self) -> ReportSettings:
        """The settings of what the answer is about: clean images, where there are any."""
        return _about("zeroshot", self.keys, self.settings)

    @cached_property
    def splits(self) -> list[ShownSplit]:
        """Every dataset and split that is shown, in order."""
        cells: dict[tuple[str, str], list[Cell]] = defaultdict(list)
        for key in self.keys:
            cells[key.dataset, key.split].append(self.store.cell(key))
        return [ShownSplit(self.store.samples(*where), some) for where, some in cells.items()]


def gather(store: FeatureStore, settings: ReportSettings) -> Evidence:
    """Measure and read.

    What a store that is not complete cannot give is left out. Raises MissingCell where it has no
    cell at all, UnknownName for a name that nothing has, UsageError for a file that holds no
    results.
    """
    keys = tuple(settings.keys(store))
    frames = _given(store, settings)
    lacking, name = {}, "robustness"
    parts = frames[name].partition_by("dataset", "split", "prompts") if name in frames else []
    if any(part.filter(perturbation=ALL).is_empty() for part in parts):
        lacking[name] = f"the file of {name} has means over other perturbations than these"
        del frames[name]
    for name in MEASURED:
        if name in frames or name in lacking:
            continue
        try:
            frames[name] = _measure(store, name, _about(name, keys, settings))
        except _LACKING as error:
            lacking[name] = str(error)
    if settings.results and predictions_of(settings.results).exists():
        frames[PAIRED] = _paired(settings.results, settings)
    gflops = dict(_gflops(store, keys))
    return Evidence(store, settings, keys, frames, lacking, gflops)


_FOLDERS = re.compile(r"(?<![^\s=:'\"`])/(?!/)[^\s'\"`]*/")


def without_folders(text: str, store: FeatureStore) -> str:
    """A sentence or a command without the folders of this machine, since a page is for others."""
    path = rf"(?<![\w./-]){re.escape(str(store.path))}(?![\w-])"
    return _FOLDERS.sub("…/", re.sub(path, "STORE", text))


def _given(store: FeatureStore, settings: ReportSettings) -> dict[str, pl.DataFrame]:
    """The frames of files, their rows those of the datasets and backbones that are asked for.

    Raises UsageError where they are not about what the store holds, or contradict each other.
    """
    files = {name: Path(path) for name, path in settings.measured.items()}
    if settings.results:
        files[EVALUATE] = settings.results
    wanted = {name: getattr(settings, name) for name in declared(Selection)}
    given = {name: terms for name, terms in wanted.items() if terms is not None}
    frames = {name: selected(read_results(path), given, name) for name, path in files.items()}
    for name, frame in frames.items():
        check_data(store, frame, files[name])
    if frames:
        agreeing([(files[name], frame) for name, frame in frames.items()])
    return frames


def _about(name: str, keys: Iterable[FeatureKey], settings: ReportSettings) -> ReportSettings:
    """Clean images are measured where there are any; robustness is about all perturbations."""
    asked = settings.perturbations is not None or settings.pooled or name == "robustness"
    if asked or all(key.perturbation != CLEAN.label for key in keys):
        return settings
    return settings.replaced(perturbations=(CLEAN.label,))


def _measure(store: FeatureStore, name: str, settings: ReportSettings) -> pl.DataFrame:
    """What an analysis measures; without the results of ensembles where they do not fit it."""
    analysis: Analysis = ANALYSES.load(name)
    shared = declared(analysis.settings).keys() & declared(ReportSettings).keys()
    asked = analysis.settings(**{name: getattr(settings, name) for name in shared})
    if getattr(asked, "results", None):
        try:
            return analysis.measure(store, asked)
        except UsageError:
            asked = asked.replaced(results=None)
    return analysis.measure(store, asked)


def _paired(results: Path, settings: ReportSettings) -> pl.DataFrame:
    """Every method against the backbone that is best on the support; all pairs without it."""
    names = ("datasets", "splits", "perturbations", "prompts")
    asked = {name: getattr(settings, name) for name in names}
    try:
        return compare_methods(results, BEST_SINGLE, **asked)
    except UnknownName:
        return compare_methods(results, **asked)


def _gflops(store: FeatureStore, keys: Iterable[FeatureKey]) -> Iterator[tuple[str, float]]:
    """GFLOPs of an image by backbone, where they were recorded or are known."""
    for key in {key.backbone: key for key in keys}.values():
        try:
            yield key.backbone, cell_cost(store, key, {}).gflops
        except UsageError:
            continue


# figures by name

_LINES = {  # that write what a store alone has not
    "evaluate": "clipsyn evaluate STORE -o FILE.parquet",
    "predict": "clipsyn predict ROUTER STORE -o FILE.parquet",
}
Source = FeatureStore | pl.DataFrame | Path | str
_OF_RESULTS = ("heads", "ensembles")  # a store has none
_PLURALS = ("backbones", "prompts")  # columns of the frame that are called as their settings


@takes(Drawn)
def plot(
    name: str, source: Source | Sequence[Source], ax: Axes | None = None, **selection: Any
) -> Axes:
    """Draw a figure of a store, a tidy frame, or files of results.

    name: one that `clipsyn plot` lists. source: one, or several whose numbers stand in one figure.
    ax: of matplotlib, to draw on; without, on axes of their own, which a notebook shows. Returns
    the axes. Raises UsageError that says what is lacking, UnknownName with near matches.

    >>> import clipsyn
    >>> ax = clipsyn.plot("accuracy-matrix", "store", perturbations="clean")
    >>> ax.figure.savefig("accuracy.pdf")
    """
    figure: Figure = FIGURES.load(name)
    return figure(figure.data(frame_of(figure, source, Drawn(**selection))), ax)


def frame_of(
    figure: Figure, source: Source | Sequence[Source], drawn: Drawn | None = None
) -> pl.DataFrame:
    """The frame that a figure shows: of several sources, the rows of all."""
    given = (drawn or Drawn()).given
    sources = [source] if isinstance(source, str | Path | FeatureStore | pl.DataFrame) else source
    frames = [(one, *_frame(figure, one, given)) for one in sources]
    if not frames:
        raise UsageError(f"there is nothing to draw {figure.name} of: give a store or results")
    if len(frames) == 1 or not figure.tidy:
        return pl.concat([frame for *_, frame in frames], how="diagonal_relaxed")
    for store in (store for _, store, _ in frames if store):
        for name, _, frame in frames:
            check_data(store, frame, name, held=True)
    return agreeing([(name, frame) for name, _, frame in frames])


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
            else (read_results if figure.tidy else all_rows)(path)
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
        column = setting if setting in _PLURALS else setting.removesuffix("s")
        if column not in frame.columns:
            raise UsageError(f"these numbers are not told apart by {setting}=…: leave it away")
        listed = pl.col(column) if column == "backbones" else pl.concat_list(column)
        known = frame.select(listed.explode()).to_series().drop_nulls().unique().to_list()
        if column == "ensemble" and not (
            known := [it for it in known if it not in (SINGLE, *ORACLES)]
        ):
            continue
        kept = chosen_names(column, terms, known, "Looked for in the results.")
        passes = listed.list.set_difference(kept).list.len() == 0
        if column == "perturbation" and source == "robustness":
            # clean images, which all is compared with, stay; means are over what was measured
            of_one = pl.lit({*kept} == {*known}) | pl.col("severity").is_not_null()
            passes = pl.col(column).is_in({*kept, CLEAN.label}) & of_one
        elif column == "ensemble":
            of_others = pl.col(column).is_null() | pl.col(column).is_in([SINGLE, *ORACLES])
            passes = pl.col(column).is_in(kept) | of_others
        frame = frame.filter(passes)
    return frame
