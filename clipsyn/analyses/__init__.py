"""Analyses of a feature store: each has a folder that declares one `Analysis`, and a line here.

From its settings, the function that measures and the function that shows, the command, the stage of
a recipe, the Python function and the table of its settings in the documentation are made.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from inspect import Signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipsyn.registry import Registry
from clipsyn.settings import Settings, help_of, signature_of

if TYPE_CHECKING:
    from polars import DataFrame

    from clipsyn.show.table import Shown
    from clipsyn.store.features import FeatureStore


@dataclass(eq=False, repr=False)
class Analysis:
    """One analysis of a store.

    The docstring of the package that declares its settings is its help: behind the text there are
    command lines, then an example in Python. There ``measure.measure(store, settings)`` returns a
    tidy frame, ``view.tables(frame, settings)`` by name a table, or a tuple of them.
    ``view.notes(frame, settings)``, if there is one, yields sentences to show beside the tables.
    """

    name: str  # of the command, of the stage of a recipe, and of the Python function
    short: str  # what the list of commands says
    settings: type[Settings]
    over_datasets: bool = True  # whether tables have means or correlations over datasets
    lacking: str = "labels"  # what a dataset that is not shown lacks; empty: none is left out

    def __post_init__(self) -> None:
        text = import_module(self.settings.__module__).__doc__ or ""
        self.help, mark, example = text.partition("\n\n>>>")
        about = self.help.partition("\n\n\b")[0]
        self.__name__ = self.name  # as functions have
        self.__doc__ = help_of(f"{about}{mark}{example}", self.settings)

    def __call__(self, store: FeatureStore | Path | str, **settings: Any) -> DataFrame:
        """Measure `store` and return the tidy frame; write the files that settings name, too.

        store: an open one, or its path or URL, as everywhere.

        Raises UsageError for a setting that is not known or not allowed.
        """
        from clipsyn.store.features import opened

        return self.measure(opened(store), self.settings(**settings))

    def measure(self, store: FeatureStore, settings: Any) -> DataFrame:
        """A tidy frame, with at least the columns of `clipsyn.evaluation.results.frame.RESULT`."""
        from clipsyn.evaluation.results.data import with_data

        return with_data(store, self._module("measure").measure(store, settings))

    def tables(self, frame: DataFrame, settings: Any) -> Shown:
        """The tables that show the frame, by name; see `clipsyn.show.formats.written`."""
        from clipsyn.show.table import Shown

        shown = self._module("view").tables(frame, settings).items()
        return Shown({name: of if isinstance(of, tuple) else (of,) for name, of in shown})

    def notes(self, store: FeatureStore, frame: DataFrame, settings: Any) -> Iterator[str]:
        """Sentences to show beside the tables."""
        from clipsyn.store.overlap import image_notes, sample_tables

        yield from image_notes(sample_tables(store, frame), shared=self.over_datasets)
        own = getattr(self._module("view"), "notes", None)
        yield from own(frame, settings) if own else ()
        if self.lacking and settings.datasets is None:
            there = {key.dataset for key in store.keys(split=set(frame["split"]))}
            if missing := ", ".join(sorted(there - set(frame["dataset"]))):
                yield f"not shown, for want of {self.lacking} or such cells: {missing}"

    def _module(self, name: str) -> Any:
        return import_module(f"{self.settings.__module__}.{name}")

    @property
    def __signature__(self) -> Signature:
        return signature_of(self.__call__, self.settings)


ANALYSES = Registry(
    "analysis",
    {
        "zeroshot": "clipsyn.analyses.accuracy:zeroshot",
        "oracle": "clipsyn.analyses.oracle:oracle",
        "diversity": "clipsyn.analyses.diversity:diversity",
        "representation": "clipsyn.analyses.representation:representation",
        "robustness": "clipsyn.analyses.robustness:robustness",
        "cascade": "clipsyn.analyses.cascade:cascade",
        "selective": "clipsyn.analyses.selective:selective",
        "selection": "clipsyn.analyses.selection:selection",
        "retrieval": "clipsyn.analyses.retrieval:retrieval",
    },
)
