"""The numbers that a page is made of: measured here, or read from files."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from clipsyn.analyses import ANALYSES, Analysis
from clipsyn.analyses.cascade.measure import cell_cost
from clipsyn.analyses.predicted import ALL
from clipsyn.errors import InputError, LeakError, MissingCell, UnknownName, UsageError
from clipsyn.evaluation import PairedSettings, predictions_of
from clipsyn.evaluation.paired import measure as compare
from clipsyn.evaluation.results.data import agreeing, check_data
from clipsyn.evaluation.results.frame import gain_metric
from clipsyn.evaluation.selection import Selection
from clipsyn.methods.ensembles import BEST_SINGLE
from clipsyn.names import CLEAN, FeatureKey
from clipsyn.report import ReportSettings
from clipsyn.report.plot import read_frame, selected
from clipsyn.settings import declared
from clipsyn.store.features import FeatureStore
from clipsyn.store.overlap import sharing
from clipsyn.store.samples import SampleTable

EVALUATE = "evaluate"
PAIRED = "compare"
MEASURED = ("zeroshot", "oracle", "diversity", "robustness")  # from predictions, in seconds
_LACKING = (UsageError, InputError, LeakError, MissingCell)  # a store that is not complete has them


@dataclass(frozen=True)
class ShownSplit:
    """One dataset and split, and the cells of it that are shown."""

    samples: SampleTable
    keys: tuple[FeatureKey, ...]
    masked: int  # images that some backbone has no answer for
    imported: frozenset[str]  # backbones

    @property
    def labelled(self) -> int:
        return int((self.samples.labels >= 0).sum())

    @property
    def backbones(self) -> list[str]:
        return list(dict.fromkeys(key.backbone for key in self.keys))

    @property
    def perturbations(self) -> list[str]:
        return list(dict.fromkeys(key.perturbation for key in self.keys))


@dataclass(frozen=True)
class Evidence:
    """What a page may show.

    frames: results by where they come from: an analysis, or evaluate. lacking: why an analysis
    has none. gflops: of an image, by backbone, where it is known. sharing: by dataset the others
    that hold an image of it.
    """

    store: FeatureStore
    settings: ReportSettings
    keys: tuple[FeatureKey, ...]
    frames: Mapping[str, pl.DataFrame]
    lacking: Mapping[str, str]
    gflops: Mapping[str, float]
    sharing: Mapping[str, frozenset[str]]

    @property
    def has_support(self) -> bool:
        """Whether a backbone was chosen by labels that nothing is measured on."""
        results = self.frames.get(EVALUATE)
        return results is not None and gain_metric(results) == "gain"

    @property
    def main_settings(self) -> ReportSettings:
        """The settings of what the answer is about: clean images, where there are any."""
        return _about("zeroshot", self.keys, self.settings)

    @cached_property
    def splits(self) -> list[ShownSplit]:
        """Every dataset and split that is shown, in order."""
        cells: dict[tuple[str, str], list[FeatureKey]] = defaultdict(list)
        for key in self.keys:
            cells[key.dataset, key.split].append(key)
        return [_shown_split(self.store, where, keys) for where, keys in cells.items()]

    @cached_property
    def prompts(self) -> dict[tuple[str, str], list[str]]:
        """The prompt sets that numbers are of, by dataset and split."""
        sets: dict[tuple[str, str], list[str]] = defaultdict(list)
        if (frame := self.frames.get("zeroshot")) is not None:
            every = frame.select("dataset", "split", "prompts").unique().sort("prompts")
            for dataset, split, prompts in every.rows():
                sets[dataset, split].append(prompts)
        return sets


def gather(store: FeatureStore, settings: ReportSettings) -> Evidence:
    """Measure and read.

    What a store that is not complete cannot give is left out. Raises MissingCell where it has no
    cell at all, UnknownName for a name that nothing has, UsageError for a file that holds no
    results.
    """
    keys = tuple(settings.keys(store))
    frames = _given(store, settings)
    lacking = dict(_without_means(frames))
    for name in lacking:
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
    return Evidence(store, settings, keys, frames, lacking, gflops, _sharing(store, keys))


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
    frames = {name: selected(read_frame(path, name), given, name) for name, path in files.items()}
    for name, frame in frames.items():
        check_data(store, frame, files[name])
    if frames:
        agreeing([(files[name], frame) for name, frame in frames.items()])
    return frames


def _without_means(frames: Mapping[str, pl.DataFrame]) -> Iterator[tuple[str, str]]:
    """What a file has no means of, for the perturbations that were chosen out of it."""
    name = "robustness"
    parts = frames[name].partition_by("dataset", "split", "prompts") if name in frames else []
    if any(part.filter(perturbation=ALL).is_empty() for part in parts):
        yield name, f"the file of {name} has means over other perturbations than these"


def _about(name: str, keys: Iterable[FeatureKey], settings: ReportSettings) -> ReportSettings:
    """Clean images are measured where there are any; robustness is about all perturbations."""
    asked = settings.perturbations is not None or settings.pooled or name == "robustness"
    if asked or all(key.perturbation != CLEAN.label for key in keys):
        return settings
    return settings.replaced(perturbations=(CLEAN.label,))


def _measure(store: FeatureStore, name: str, settings: ReportSettings) -> pl.DataFrame:
    """What an analysis measures; without the results of ensembles where they do not fit it."""
    analysis: Analysis = ANALYSES.load(name)
    asked = settings_of(analysis, settings)
    if getattr(asked, "results", None):
        try:
            return analysis.measure(store, asked)
        except UsageError:
            asked = asked.replaced(results=None)
    return analysis.measure(store, asked)


def settings_of(analysis: Analysis, settings: ReportSettings) -> Any:
    """The settings of an analysis, those that the page has too as they are there."""
    shared = declared(analysis.settings).keys() & declared(ReportSettings).keys()
    return analysis.settings(**{name: getattr(settings, name) for name in shared})


def _paired(results: Path, settings: ReportSettings) -> pl.DataFrame:
    """Every method against the backbone that is best on the support; all pairs without it."""
    names = ("datasets", "splits", "perturbations", "prompts")
    asked = PairedSettings(**{name: getattr(settings, name) for name in names})
    try:
        return compare(results, asked, BEST_SINGLE)
    except UnknownName:
        return compare(results, asked)


def _gflops(store: FeatureStore, keys: Iterable[FeatureKey]) -> Iterator[tuple[str, float]]:
    """GFLOPs of an image by backbone, where they were recorded or are known."""
    for key in {key.backbone: key for key in keys}.values():
        try:
            yield key.backbone, cell_cost(store, key, {}).gflops
        except UsageError:
            continue


def _sharing(store: FeatureStore, keys: Iterable[FeatureKey]) -> dict[str, frozenset[str]]:
    places = dict.fromkeys((key.dataset, key.split) for key in keys)
    return sharing([store.samples(*place) for place in places])


def _shown_split(
    store: FeatureStore, where: tuple[str, str], keys: Iterable[FeatureKey]
) -> ShownSplit:
    every = [store.cell(key) for key in keys]
    masked = max(cell.facts.get("bad", 0) for cell in every)
    imported = frozenset(cell.key.backbone for cell in every if cell.imported_as)
    return ShownSplit(store.samples(*where), tuple(cell.key for cell in every), masked, imported)
