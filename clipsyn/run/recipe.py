"""Recipes: a checked YAML file whose stages run in order, skipping what is already there."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from clipsyn.catalog import recipes_dir
from clipsyn.errors import UsageError
from clipsyn.extract import Cost, Plan
from clipsyn.names import Location, is_url
from clipsyn.registry import unknown_name
from clipsyn.run.stages import STAGES, Jobs, Made, Outcome, Planned, Stage
from clipsyn.settings import declared
from clipsyn.text import parse_yaml, read_text

FIELDS = ("description", "store", "stages")


@dataclass(frozen=True)
class Recipe:
    """A recipe: one store, and the stages that fill and read it."""

    store: Path  # relative paths start at the folder that the command is run in
    stages: Sequence[Stage]
    description: str = ""

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Recipe:
        """What a file says; raises UsageError that names the field, or the stage and its field."""
        for name in content:
            if name not in FIELDS:
                raise unknown_name("field", str(name), FIELDS)
        store, stages = (_field(content, name) for name in ("store", "stages"))
        description = content.get("description", "")
        if not (isinstance(store, str | Path) and isinstance(description, str)):
            raise UsageError("store and description are texts")
        if not isinstance(stages, list) or not stages:
            raise UsageError("stages is no list of at least one stage: write - stage: ...")
        place = Location.of(store) if isinstance(store, str) and is_url(store) else Path(store)
        every = [_stage(number, it) for number, it in enumerate(stages, 1)]
        return cls(place, every, description)


def _field(content: Mapping[str, Any], name: str) -> Any:
    if name not in content:
        raise UsageError(f"{name} is missing")
    return content[name]


def _stage(number: int, content: Any) -> Stage:
    """A stage; raises UsageError that says which it is: ``stage 1 (extract): max_bad …``."""
    name = content.get("stage") if isinstance(content, Mapping) else None
    if not isinstance(name, str) or name not in STAGES:
        known = " or stage: ".join(STAGES)
        unknown = f"unknown stage '{name}', " if isinstance(name, str) else ""
        raise UsageError(f"stage {number}: {unknown}write stage: {known}")
    fields = {str(field): value for field, value in content.items() if field != "stage"}
    try:
        for field in fields:
            if field not in declared(STAGES[name]):
                raise unknown_name("field", field, declared(STAGES[name]))
        return STAGES[name](**fields)
    except UsageError as error:
        said = str(error).replace("=…", "")  # how Python writes an argument
        raise UsageError(f"stage {number} ({name}): {said}") from None


def shipped_recipes() -> dict[str, Path]:
    """The files of the recipes that come with clipsyn, by name, such as ``paper/cascade``."""
    folder = recipes_dir()
    paths = sorted([*folder.glob("*.yaml"), *folder.glob("*/*.yaml")])
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in paths}


def find_recipe(text: str) -> Recipe:
    """The recipe that ships under the name `text`, or the one in the file `text`.

    A word without a suffix, or one in a folder of ours, is a name: write ``./NAME`` for a file
    called like that. By name a recipe renews no document, since its documents are pages of
    clipsyn's own checkout.
    Raises UnknownName for a name with near matches, UsageError as `read_recipe` does.
    """
    shipped, path = shipped_recipes(), Path(text)
    if text in shipped:
        recipe = read_recipe(shipped[text])
        return replace(recipe, stages=[*map(_without_document, recipe.stages)])
    ours = {str(Path(name).parent) for name in shipped}
    if str(path.parent) in ours and not (path.suffix or text.startswith(".")):
        raise unknown_name("recipe", text, shipped, "Or give a file, such as ./recipe.yaml.")
    return read_recipe(path)


def _without_document(stage: Stage) -> Stage:
    return stage.replaced(document=None) if "document" in declared(type(stage)) else stage


def read_recipe(path: Path) -> Recipe:
    """Read and check a recipe; raises UsageError that names the line or the field."""
    try:
        content = parse_yaml(read_text(path))
    except OSError as error:
        raise UsageError(f"recipe {path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(f"{path} is not YAML: {error}") from None
    if not isinstance(content, dict):
        raise UsageError(f"{path} is no recipe: write store: and stages:, see docs/recipes.md")
    try:
        return Recipe.of(content)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None


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


def run_recipe(
    recipe: Recipe, started: Callable[[int, str], None], jobs: Jobs | None = None
) -> list[Outcome]:
    """Run every stage in order; `started` is told number and name of each before it runs.

    jobs: does the work of the stages that can be shared, if not this process.
    """
    outcomes = []
    for number, stage in enumerate(recipe.stages, 1):
        started(number, stage.stage)
        start = time.monotonic()
        outcome = stage.run(recipe.store, jobs)
        outcomes.append(replace(outcome, seconds=time.monotonic() - start))
    return outcomes
