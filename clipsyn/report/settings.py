"""What a figure is drawn of: the same words for a store and for files of results."""

from __future__ import annotations

from typing import Any

from clipsyn.evaluation.selection import Selection
from clipsyn.settings import NAMES, Settings, declared, setting


def _part(name: str) -> Any:
    like = declared(Selection)[name]
    about = {"flag": like.flag, "letter": like.letter, "instead_of_none": "see above"}
    return setting(None, NAMES, like.help, **about)


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
