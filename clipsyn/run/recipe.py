"""Recipes: a checked YAML file whose stages run in order, skipping what is already there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from clipsyn.analyses import ANALYSES
from clipsyn.catalog import recipes_dir
from clipsyn.errors import UsageError
from clipsyn.evaluation import ProtocolSettings
from clipsyn.exchange import ImportSettings
from clipsyn.extract import ExtractSettings
from clipsyn.names import Location, is_url
from clipsyn.registry import unknown_name
from clipsyn.report import ReportSettings
from clipsyn.settings import OUTPUT, PATH, PATHS, REQUIRED, TEXT, Kind, Settings, declared, setting
from clipsyn.text import parse_yaml, read_text

if TYPE_CHECKING:
    from clipsyn.show.table import Tables


class Stage(Settings):
    """A stage: a field for each setting of what it runs, and those of its own."""

    stage: ClassVar[str]
    declares: ClassVar[type[Settings]]
    suffixes: ClassVar[tuple[str, ...]]  # of the files that it writes
    output: Path

    def _check(self) -> None:
        if self.suffixes and not self.output.name:
            raise UsageError(
                f"output '{self.output}' names no file: write a path such as runs/results"
            )
        self.settings()

    def settings(self) -> Any:
        """The settings that the fields hold."""
        values = {name: getattr(self, name) for name in declared(self.declares)}
        if self.declares is ProtocolSettings:
            values["output"] = self.beside(".parquet")
        return self.declares(**values)

    def beside(self, suffix: str) -> Path:
        """The file whose name is that of the output, and a suffix."""
        return self.output.with_name(self.output.name + suffix)

    def written(self) -> list[Path]:
        """The files that it makes."""
        kinds = {name: it.kind for name, it in declared(self.declares).items() if name != "output"}
        named = [getattr(self, name) for name, kind in kinds.items() if kind is OUTPUT]
        return [*map(self.beside, self.suffixes), *filter(None, named)]

    def renew(self, shown: Mapping[str, Tables], section: str | None) -> None:
        """Renew the tables of the document, whose marks begin with the section."""
        from clipsyn.show.formats import renew

        document = vars(self)["document"]
        if document:
            start = f"{section}: " if section else ""
            renew(document, {start + name: it for name, it in shown.items()})


_TABLES = {  # fields of stages that write numbers to files, and tables into a document
    "output": setting(REQUIRED, PATH, "What the names of its files begin with."),
    "document": setting(None, PATH, "Markdown whose tables are renewed."),
    "section": setting(
        None,
        TEXT,
        "With which the marks in the document begin.",
        instead_of_none="the stage; of evaluate, nothing",
    ),
}


def _stage(
    name: str, settings: type[Settings], suffixes: tuple[str, ...] = (), **own: Any
) -> type[Stage]:
    """The class of ``stage: NAME``, with a field for each setting, and its own."""
    about = {"declares": settings, "stage": name, "suffixes": suffixes}
    return type(f"{name.title()}Stage", (Stage,), {**declared(settings), **own, **about})


_NUMBERS = (".csv", ".parquet")
STAGES: dict[str, type[Stage]] = {
    "extract": _stage("extract", ExtractSettings),
    "import": _stage("import", ImportSettings, files=setting(REQUIRED, PATHS, "What is imported.")),
    "evaluate": _stage("evaluate", ProtocolSettings, (".parquet",), **_TABLES),
    "report": _stage(
        "report", ReportSettings, ("",), output=setting(REQUIRED, OUTPUT, "The page to write.")
    ),
    **{name: _stage(name, ANALYSES.load(name).settings, _NUMBERS, **_TABLES) for name in ANALYSES},
}


# Reading


def _read_store(value: Any) -> Path:
    is_of_url = isinstance(value, str) and is_url(value)
    path: Path = Location.of(value) if is_of_url else PATH.read(value)
    return path


def _read_stages(value: Any) -> tuple[Stage, ...]:
    if not isinstance(value, list | tuple) or not value:
        raise ValueError
    return tuple(_read_stage(number, it) for number, it in enumerate(value, 1))


class Recipe(Settings):
    """A recipe: one store, and the stages that fill and read it.

    Raises UsageError that names the field, or the stage and its field. Relative paths start at the
    folder that the command is run in.
    """

    store: Path = setting(REQUIRED, Kind("a path or a URL", _read_store, ""), "What is filled.")
    stages: tuple[Stage, ...] = setting(
        REQUIRED, Kind("a list of at least one stage, - stage: ...", _read_stages, ""), "What runs."
    )
    description: str = setting("", TEXT, "What the list of recipes says.")


def _read_stage(number: int, content: Any) -> Stage:
    """A stage; raises UsageError that says which it is: ``stage 1 (extract): max_bad …``."""
    if isinstance(content, Stage):
        return content
    name = content.get("stage") if isinstance(content, Mapping) else None
    if not isinstance(name, str) or name not in STAGES:
        known = " or stage: ".join(STAGES)
        unknown = f"unknown stage '{name}', " if isinstance(name, str) else ""
        raise UsageError(f"stage {number}: {unknown}write stage: {known}")
    fields = {str(field): value for field, value in content.items() if field != "stage"}
    try:
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

    By name a recipe renews no document, since its documents are pages of clipsyn's own checkout.
    Raises UnknownName for a name with near matches, UsageError as `read_recipe` does.
    """
    shipped, path = shipped_recipes(), Path(text)
    if text in shipped:
        recipe = read_recipe(shipped[text])
        stages = (
            stage.replaced(document=None) if "document" in vars(stage) else stage
            for stage in recipe.stages
        )
        return recipe.replaced(stages=[*stages])
    if not (path.suffix or path.exists()):
        raise unknown_name("recipe", text, shipped, "Or give a file, such as ./recipe.yaml.")
    return read_recipe(path)


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
        return Recipe(**{str(field): value for field, value in content.items()})
    except UsageError as error:
        raise UsageError(f"{path}: {error}".replace("=…", "")) from None
