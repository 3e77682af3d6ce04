"""What the stages of a recipe would do, told without loading weights, downloading or writing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipsyn.extract.outline import Cost, Outline
from clipsyn.names import FeatureKey
from clipsyn.text import counted

if TYPE_CHECKING:
    from clipsyn.evaluation.settings import ProtocolSettings
    from clipsyn.extract.settings import ExtractSettings
    from clipsyn.run.recipe import Recipe


@dataclass(frozen=True)
class Planned:
    """What a stage would do."""

    stage: str
    what: str
    is_there: bool = False  # all of it, by its names
    outline: Outline | None = None  # of an extraction
    cost: Cost | None = None


@dataclass
class Made:
    """The cells that earlier stages of a recipe would make, and under which prompts."""

    prompts: dict[FeatureKey, set[str]] = field(default_factory=dict)

    def add(self, outline: Outline, prompts: str) -> None:
        for key in outline.every():
            self.prompts.setdefault(key, set()).add(prompts)

    def under_others(self, prompts: str) -> set[FeatureKey]:
        """Cells that are made, but not under these prompts."""
        return {key for key, names in self.prompts.items() if prompts not in names}


def plan_recipe(recipe: Recipe, made: Made | None = None) -> Iterator[Planned]:
    """What each stage would do after those before it; raises as they would for unknown names.

    made: cells that other recipes make before, to which those of this one are added.
    """
    made = Made() if made is None else made
    for stage in recipe.stages:
        yield stage.planned(recipe.store, made)


def total(stages: Sequence[Planned]) -> Cost:
    """What all extractions together take."""
    return Cost.sum(stage.cost for stage in stages if stage.cost)


def joined(outlines: Sequence[Outline]) -> Outline:
    """One outline with the backbones and splits of several, each once."""
    backbones = dict.fromkeys(backbone for one in outlines for backbone in one.backbones)
    splits = dict.fromkeys(split for one in outlines for split in one.splits)
    return replace(outlines[0], backbones=[*backbones], splits=[*splits])


def planned_extraction(store: Path, settings: ExtractSettings, made: Made) -> Planned:
    from clipsyn.extract.job import outline_job

    outline = outline_job(store, settings)
    every = {*outline.every()}
    stored = every.intersection(outline.stored)
    answered = every & made.under_others(settings.prompts)
    answered |= _without_answers(store, stored - {*made.prompts}, settings.prompts)
    outline = replace(outline, stored={*outline.stored, *made.prompts})
    answers = outline.cost_of_answers(answered)
    made.add(outline, settings.prompts)
    what = outline.summary()
    if answered:
        what += f"; {len(answered):,} get answers of these prompts: {answers.storage}"
    cost = Cost.sum([outline.cost(), answers])
    is_there = every <= {*outline.stored} and not answered
    return Planned("extract", what, is_there, outline, cost)


def _without_answers(store: Path, keys: set[FeatureKey], prompts: str) -> set[FeatureKey]:
    """The stored cells that have no predictions of a prompt set; `auto` may be any of them."""
    from clipsyn.catalog.prompts import NAMED
    from clipsyn.store.features import FeatureStore

    if prompts == "auto" or not keys:
        return set()
    opened, name = FeatureStore.open(store), prompts if prompts in NAMED else Path(prompts).stem
    return {key for key in keys if name not in opened.cell(key).prompt_sets()}


def planned_import(files: list[Path]) -> Planned:
    gone = [str(path) for path in files if not path.exists()]
    lacking = f"; not here: {', '.join(gone)}" if gone else ""
    return Planned("import", f"import {', '.join(map(str, files))}{lacking}")


def planned_evaluation(settings: ProtocolSettings, output: Path) -> Planned:
    from clipsyn.evaluation.choice import learning, spelled_out

    every = spelled_out(settings)
    learning(every)  # knows all names, or raises
    draws = sum(1 if shots is None else len(settings.draws) for shots in settings.images)
    heads, ensembles = len(every.heads), len(every.ensembles)
    methods = counted(ensembles, "ensemble")
    shots = ", ".join(map(str, settings.shots))
    seeds = counted(settings.seeds, "seed")
    return Planned(
        "evaluate",
        f"heads {', '.join(every.heads)}; {methods}; shots {shots}; {seeds}: "
        f"up to {heads * ensembles * draws:,} fits for each dataset and prompt set, "
        f"{written(output)}",
    )


def planned_analysis(stage: str, settings: Any, *outputs: Path) -> Planned:
    results = getattr(settings, "results", None)
    reads = f"reads {results}, " if results else ""
    return Planned(stage, f"{reads}{', '.join(map(written, outputs))}")


def written(path: Path) -> str:
    return f"{'renews' if path.exists() else 'writes'} {path}"
