"""Which cells of a store, which support and which results: settings that several commands have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from clipsyn.names import MOST
from clipsyn.settings import FLAG, FULL, NAMES, PATH, SHOTS, TEXT, WHOLE, Settings, Shots, setting

if TYPE_CHECKING:
    from clipsyn.names import FeatureKey
    from clipsyn.store.features import FeatureStore


_PATTERNS = "Names or patterns such as '{}', repeated or with commas."


def perturbations(default: tuple[str, ...] | None) -> Any:
    """The setting `perturbations`; its default depends on the analysis."""
    help = _PATTERNS.format("jpeg-*")
    return setting(default, NAMES, help, flag="--perturb", letter="-p", instead_of_none="all")


def splits(default: tuple[str, ...] | None) -> Any:
    """The setting `splits`; its default depends on what is measured."""
    help = "Measured on; repeated or with commas."
    return setting(default, NAMES, help, flag="--split", letter="-s", instead_of_none="all")


class Cells(Settings):
    """The cells of a store that are measured: names or patterns with ``*``; None takes all."""

    datasets: tuple[str, ...] | None = setting(
        None,
        NAMES,
        _PATTERNS.format("emoji-*"),
        flag="--dataset",
        letter="-d",
        instead_of_none="all",
    )
    splits: tuple[str, ...] | None = splits(("test",))
    perturbations: tuple[str, ...] | None = perturbations(None)
    backbones: tuple[str, ...] | None = setting(
        None, NAMES, _PATTERNS.format("*/openai"), letter="-b", instead_of_none="all"
    )

    def keys(self, store: FeatureStore) -> list[FeatureKey]:
        """The selected cells; raises what `clipsyn.store.select.select` does."""
        from clipsyn.store.select import select

        return select(
            store,
            dataset=self.datasets,
            split=self.splits,
            perturbation=self.perturbations,
            backbone=self.backbones,
        )


class Selection(Cells):
    """Cells whose logits are measured."""

    prompts: tuple[str, ...] | None = setting(None, NAMES, "Prompt sets.", instead_of_none="all")

    def keys(self, store: FeatureStore) -> list[FeatureKey]:
        """The selected cells, of any prompt set; raises UnknownName for a prompt set, too."""
        from clipsyn.store.select import check_prompts

        keys = super().keys(store)
        check_prompts(store, keys, self.prompts)
        return keys


def pooled() -> Any:
    return setting(
        False,
        FLAG,
        "All perturbations of a dataset together, where each image was shown under one.",
    )


def allow_overlap() -> Any:
    help = "Go on where over 5 % of what is measured on is in the support; it is left out there."
    return setting(False, FLAG, help)


def support() -> Any:
    return setting("train", TEXT, "Split to fit and choose on.", metavar="SPLIT")


def seed() -> Any:
    help = "Of the images drawn by --shots, and of ensembles with a random start."
    return setting(0, WHOLE, help, least=0, most=MOST)


class Learning(Selection):
    """The cells that are measured, and the support that something is fitted and chosen on."""

    perturbations: tuple[str, ...] | None = perturbations(("clean",))
    support: str = support()
    shots: Shots = setting(
        FULL, SHOTS, "Images of each class to fit on, or full for all.", least=1, most=MOST
    )
    seed: int = seed()
    allow_overlap: bool = allow_overlap()


def results(help: str) -> Any:
    return setting(None, PATH, help, instead_of_none="none")


def head_of_results(what: str) -> Any:
    return setting("zero-shot", TEXT, f"Head of those {what}.", about="results")


def shots_of_results(what: str) -> Any:
    return setting(
        None,
        SHOTS,
        f"Images a class of those {what}, or full for the whole support.",
        least=1,
        most=MOST,
        instead_of_none="the most",
        about="results",
    )
