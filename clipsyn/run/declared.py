"""Stages of recipes, made of declared settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, create_model, model_validator
from pydantic_core import PydanticCustomError

from clipsyn.errors import UsageError
from clipsyn.settings import REQUIRED, Settings, declared, defaults


def _named(path: Path) -> Path:
    if not path.name:
        raise UsageError(f"output '{path}' names no file: write a path such as runs/results")
    return path


class SettingsStage(BaseModel):
    """A stage with a field for each setting; docs/recipes.md says what each is."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    declares: ClassVar[type[Settings]]

    stage: str

    @model_validator(mode="after")
    def _check(self) -> Self:
        try:
            self.settings()
        except UsageError as error:
            said = str(error).replace("=…", "")  # how Python writes an argument
            raise PydanticCustomError("setting", "{said}", {"said": said}) from None
        return self

    def settings(self, **others: Any) -> Any:
        """The settings that the fields hold, but for `others`."""
        values = {name: getattr(self, name) for name in declared(self.declares)}
        return self.declares(**{**values, **others})


class DeclaredStage(SettingsStage):
    """A stage that writes numbers to files, and tables into a document."""

    output: Annotated[Path, AfterValidator(_named)]
    document: Path | None = None  # Markdown whose tables are renewed

    def beside(self, suffix: str) -> Path:
        """The file whose name is that of the output, and a suffix."""
        return self.output.with_name(self.output.name + suffix)


Stage = TypeVar("Stage", bound=SettingsStage)


def stage_model(name: str, settings: type[Settings], base: type[Stage]) -> type[Stage]:
    """A subclass of `base` for ``stage: NAME``, with a field for each setting it has not."""
    values = defaults(settings)
    fields: dict[str, Any] = {"stage": (Literal[name], ...)}
    for field, it in declared(settings).items():
        if field not in base.model_fields:
            annotation = it.kind.annotation
            value = ... if values[field] is REQUIRED else values[field]
            fields[field] = (annotation | None if it.instead_of_none else annotation, value)
    model = create_model(f"{name.title()}Stage", __base__=base, **fields)
    model.declares = settings
    return model
