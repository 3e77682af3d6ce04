"""Recipes: a validated YAML file whose stages run in order, skipping what is already there."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Union

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from clipsyn.catalog import recipes_dir
from clipsyn.errors import UsageError
from clipsyn.names import Location, is_url
from clipsyn.registry import unknown_name
from clipsyn.run.analyses import ANALYSIS_STAGES, AnalysisStage
from clipsyn.run.report import REPORT_STAGES, ReportStage
from clipsyn.run.stages import (
    OTHER_STAGES,
    ExtractStage,
    ImportStage,
    Jobs,
    Outcome,
    ProtocolStage,
)
from clipsyn.text import parse_yaml, read_text

STAGES: dict[str, type[BaseModel]] = {**OTHER_STAGES, **ANALYSIS_STAGES, **REPORT_STAGES}
if TYPE_CHECKING:
    Stage = ExtractStage | ImportStage | ProtocolStage | AnalysisStage | ReportStage
else:
    Stage = Annotated[Union[tuple(STAGES.values())], Field(discriminator="stage")]  # noqa: UP007


def _of_url(value: Any) -> Any:
    return Location.of(value) if isinstance(value, str) and is_url(value) else value


class Recipe(BaseModel):
    """A recipe file: one store, and the stages that fill and read it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    description: str = ""
    # relative paths start at the folder that the command is run in
    store: Annotated[Path, BeforeValidator(_of_url)]
    stages: Sequence[Stage] = Field(min_length=1)


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
        return recipe.model_copy(update={"stages": [_without_document(s) for s in recipe.stages]})
    ours = {str(Path(name).parent) for name in shipped}
    if str(path.parent) in ours and not (path.suffix or text.startswith(".")):
        raise unknown_name("recipe", text, shipped, "Or give a file, such as ./recipe.yaml.")
    return read_recipe(path)


def _without_document(stage: Stage) -> Stage:
    documented = getattr(stage, "document", None) is not None
    return stage.model_copy(update={"document": None}) if documented else stage


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
        return Recipe.model_validate(content)
    except ValidationError as error:
        raise UsageError(f"{path}: {_problem(error)}") from None


def _problem(error: ValidationError) -> str:
    """The first thing that is wrong, with its place: ``stage 1 (extract): max_bad …``."""
    errors = error.errors()  # a misspelt field is also a missing one: say the former
    first = next((e for e in errors if e["type"] == "extra_forbidden"), errors[0])
    place = [*first["loc"]]  # field, or: stages, position, kind of stage, field
    where, model = "", Recipe if len(place) < 3 else STAGES[str(place[2])]
    if len(place) > 1:
        kind = f" ({place[2]})" if len(place) > 2 else ""
        where, place = f"stage {int(place[1]) + 1}{kind}: ", place[3:]
    field = ".".join(map(str, place))
    if first["type"] == "extra_forbidden":
        return where + str(unknown_name("field", field, model.model_fields))
    text = _WORDS.get(first["type"], first["msg"])
    return f"{where}{field}: {text}" if field else where + text


_STAGE_WORDS = f"write stage: {' or stage: '.join(STAGES)}"
_WORDS = {  # for pydantic's types of error, in a recipe's terms
    "missing": "is missing",
    "model_attributes_type": _STAGE_WORDS,
    "tuple_type": "is no list: write one, such as [train, test]",
    "sequence_str": "is a single text: write a list, such as [train, test]",
    "is_instance_of": "is not a list",
    "too_short": "is empty: it takes at least one stage",
    "union_tag_invalid": f"unknown stage, {_STAGE_WORDS}",
    "union_tag_not_found": _STAGE_WORDS,
}


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
        if jobs and isinstance(stage, ExtractStage | ProtocolStage):
            outcome = stage.run_by(jobs, recipe.store)
        else:
            outcome = stage.run(recipe.store)
        outcomes.append(replace(outcome, seconds=time.monotonic() - start))
    return outcomes
