"""What the stages of a recipe would do, told without loading weights, downloading or writing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipsyn.extract.plan import Cost, Plan
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
    plan: Plan | None = None  # of an extraction
    cost: Cost | None = None


@dataclass
class Made:
    """The cells that earlier stages of a recipe would make, and under which prompts."""

    prompts: dict[FeatureKey, set[str]] = field(default_factory=dict)

    def add(self, plan: Plan, prompts: str) -> None:
        for key in plan.keys:
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


def joined(plans: Sequence[Plan]) -> Plan:
    """One plan with the backbones and splits of several, each once."""
    backbones = dict.fromkeys(backbone for one in plans for backbone in one.backbones)
    splits = dict.fromkeys(split for one in plans for split in one.splits)
    return replace(plans[0], backbones=[*backbones], splits=[*splits])


def planned_extraction(store: Path, settings: ExtractSettings, made: Made) -> Planned:
    from clipsyn.extract.job import plan_job

    plan = plan_job(store, settings)
    every = plan.keys
    stored = every.intersection(plan.done)
    answered = every & made.under_others(settings.prompts)
    answered |= _without_answers(store, stored - {*made.prompts}, settings.prompts)
    plan = replace(plan, done={*plan.done, *made.prompts})
    answers = plan.cost_of_answers(answered)
    made.add(plan, settings.prompts)
    what = plan.summary()
    if answered:
        what += f"; {len(answered):,} get answers of these prompts: {answers.storage}"
    cost = Cost.sum([plan.cost(), answers])
    is_there = every <= {*plan.done} and not answered
    return Planned("extract", what, is_there, plan, cost)


def _without_answers(store: Path, keys: set[FeatureKey], prompts: str) -> set[FeatureKey]:
    """The stored cells that have no predictions of a prompt set; `auto` may be any of them."""
    from clipsyn.catalog.texts import NAMED
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
