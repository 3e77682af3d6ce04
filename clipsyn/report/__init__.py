"""What people look at, figures by name, the page and images found, and what they are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clipsyn.analyses import ANALYSES
from clipsyn.errors import UsageError
from clipsyn.evaluation import Selection, backbones, pooled
from clipsyn.names import MOST
from clipsyn.registry import Registry, unknown_name
from clipsyn.settings import (
    FILES,
    NAMES,
    OUTPUT,
    PATH,
    REQUIRED,
    TEXT,
    WHOLE,
    Settings,
    declared,
    setting,
)

PAGE = ".html"
FIGURES = Registry(
    "figure",
    {
        "accuracy-matrix": "clipsyn.analyses.accuracy.view:accuracy_matrix",
        "upset": "clipsyn.analyses.oracle.view:upset",
        "venn": "clipsyn.analyses.oracle.view:venn",
        "chosen": "clipsyn.evaluation.figures:choices",
        "gains": "clipsyn.evaluation.figures:gains",
        "few-shot": "clipsyn.evaluation.figures:few_shot",
        "reliability": "clipsyn.analyses.representation.view:reliability",
        "router-weights": "clipsyn.router.predict:router_weights",
        "error-consistency": "clipsyn.analyses.diversity.view:error_consistency",
        "cka": "clipsyn.analyses.representation.view:cka",
        "severity": "clipsyn.analyses.robustness.view:severity",
        "corruptions": "clipsyn.analyses.robustness.view:corruptions",
        "pareto": "clipsyn.analyses.cascade.view:pareto",
        "coverage": "clipsyn.analyses.selective.view:coverage",
        "recall": "clipsyn.analyses.retrieval.view:recall",
    },
)


_IMAGES = "Folder, tar or manifest of the images, or the folder of several datasets"


class ReportSettings(Selection):
    """What `clipsyn report` is asked for."""

    output: Path = setting(
        REQUIRED, OUTPUT, "The page to write.", metavar="FILE.html", endings=(PAGE,)
    )
    title: str | None = setting(
        None, TEXT, "What stands above the page.", instead_of_none="what was run"
    )
    pooled: bool = pooled()
    results: Path | None = setting(
        None,
        PATH,
        "Results of `clipsyn evaluate -o`: which combination of backbones is best, how surely.",
    )
    measured: Mapping[str, str] = setting(
        {},
        FILES,
        "What the command of an analysis has written as Parquet, such as "
        "cascade=cascade.parquet; repeated or with commas.",
        metavar="ANALYSIS=FILE",
    )
    images: Path | None = setting(
        None, PATH, f"{_IMAGES}: show those that only one backbone gets right."
    )

    def _check(self) -> None:
        for name in self.measured:
            if name not in ANALYSES:
                raise unknown_name("analysis", name, ANALYSES)


def _part(name: str) -> Any:
    return setting(None, NAMES, declared(Selection)[name].help, instead_of_none="as measured")


def _of_results(what: str) -> Any:
    return setting(None, NAMES, f"{what} in results of evaluate.", instead_of_none="all")


class Drawn(Settings):
    """The numbers that a figure shows: names or patterns with ``*``; None takes all."""

    datasets: tuple[str, ...] | None = _part("datasets")
    splits: tuple[str, ...] | None = _part("splits")
    perturbations: tuple[str, ...] | None = _part("perturbations")
    backbones: tuple[str, ...] | None = _part("backbones")
    prompts: tuple[str, ...] | None = _part("prompts")
    heads: tuple[str, ...] | None = _of_results("Heads")
    ensembles: tuple[str, ...] | None = _of_results("Ensembles")

    @property
    def given(self) -> dict[str, tuple[str, ...]]:
        """Those that are not None."""
        return {name: terms for name, terms in vars(self).items() if terms is not None}


class SearchSettings(Settings):
    """What `clipsyn search` looks for, and where."""

    text: str | None = setting(None, TEXT, "What the images show.")
    like: str | None = setting(None, TEXT, "The id of an image.")
    image: Path | None = setting(None, PATH, "An image file.")
    dataset: str | None = setting(None, TEXT, "Where to look.", instead_of_none="the only one")
    split: str | None = setting(None, TEXT, "Which part of it.", instead_of_none="the only one")
    backbones: tuple[str, ...] | None = backbones()
    most: int = setting(10, WHOLE, "How many images.", least=1, most=MOST)
    images: Path | None = setting(None, PATH, f"{_IMAGES}, for a page.", about="output")
    output: Path | None = setting(None, OUTPUT, "A page.", endings=(PAGE,), about="images")

    def _check(self) -> None:
        given = [it for it in (self.text, self.like, self.image) if it is not None]
        if len(given) != 1 or not str(given[0]).strip():
            raise UsageError("say what to look for: one of a text, like=… and image=…")
