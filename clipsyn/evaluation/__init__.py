"""Settings of several commands: which cells, which support and which results; of the few-shot
protocol, of comparisons of its methods, and with published numbers.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipsyn.methods.ensembles import CHOSEN, USUAL_ENSEMBLES
from clipsyn.methods.heads import USUAL_HEADS
from clipsyn.names import HELP as SHARD_HELP
from clipsyn.names import MOST, MOST_SEEDS, MOST_WORKERS
from clipsyn.settings import (
    CURVE,
    FLAG,
    FULL,
    NAMES,
    NUMBER,
    OUTPUT,
    PATH,
    SHOTS,
    SOURCE,
    TEXT,
    WHOLE,
    Settings,
    Shots,
    defaults,
    images_of,
    setting,
)

if TYPE_CHECKING:
    from clipsyn.names import FeatureKey
    from clipsyn.store.features import FeatureStore

ALL = "all"  # stands for every head, or every ensemble
_PATTERNS = "Names or patterns such as '{}', repeated or with commas."
_MOST_SHOTS = 1_000_000  # more images than any class has


def perturbations(default: tuple[str, ...] | None) -> Any:
    """The setting `perturbations`; its default depends on the analysis."""
    help = _PATTERNS.format("jpeg-*")
    return setting(default, NAMES, help, instead_of_none="all")


def splits(default: tuple[str, ...] | None) -> Any:
    """The setting `splits`; its default depends on what is measured."""
    help = "Measured on; repeated or with commas."
    return setting(default, NAMES, help, instead_of_none="all")


def backbones() -> Any:
    return setting(None, NAMES, _PATTERNS.format("*/openai"), instead_of_none="all")


class Cells(Settings):
    """The cells of a store that are measured: names or patterns with ``*``; None takes all."""

    datasets: tuple[str, ...] | None = setting(
        None, NAMES, _PATTERNS.format("emoji-*"), instead_of_none="all"
    )
    splits: tuple[str, ...] | None = splits(("test",))
    perturbations: tuple[str, ...] | None = perturbations(None)
    backbones: tuple[str, ...] | None = backbones()

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
    help = "Of the images drawn to fit on, and of ensembles with a random start."
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


def predictions_of(results: Path) -> Path:
    """The file of predictions that stands beside a file of results; itself where it has no name."""
    return results.with_stem(f"{results.stem}-predictions") if results.name else results


class ProtocolSettings(Selection):
    """What `clipsyn evaluate` is asked for."""

    perturbations: tuple[str, ...] | None = perturbations(("clean",))
    heads: tuple[str, ...] = setting(USUAL_HEADS, NAMES, "Heads, or all: see above.")
    ensembles: tuple[str, ...] = setting(
        (*USUAL_ENSEMBLES, CHOSEN),
        NAMES,
        "Ensembles, transductive for these, or all for all others: see above. chosen: what "
        "cross-validation on the support chooses of the heads and ensembles that are asked for.",
    )
    shots: tuple[Shots, ...] = setting(
        (1, 2, 4, 8, 16, FULL),
        CURVE,
        "Labelled images a class; full takes the whole support split.",
        least=1,
        most=_MOST_SHOTS,
    )
    seeds: int = setting(
        3,
        WHOLE,
        "Draws of the shots: seeds 0 to N-1, with --coop its 1 to N.",
        least=1,
        most=MOST_SEEDS,
    )
    support: str | None = setting(
        None, TEXT, "Split that is fitted on.", instead_of_none="train, if it is needed"
    )
    allow_overlap: bool = allow_overlap()
    support_prompts: str | None = setting(
        None,
        TEXT,
        "Prompt set that is fitted on, if another (prompt transfer).",
        instead_of_none="the one measured on",
    )
    views: tuple[str, ...] = setting(
        (),
        NAMES,
        "Perturbations that are augmented views: of the support for tip-adapter, of what is "
        "measured for zero:views=true.",
    )
    base_to_new: bool = setting(False, FLAG, "Fit on half of the classes, measure on each half.")
    coop: Path | None = setting(
        None,
        PATH,
        "Folder with CoOp's draws, shot_K-seed_S.json, instead of drawing the shots.",
        metavar="DIRECTORY",
    )
    output: Path | None = setting(
        None, OUTPUT, "Parquet file to add the results to.", endings=(".parquet",)
    )
    predictions: bool = setting(
        True,
        FLAG,
        "Keep what every method predicts for each image, beside the results, for clipsyn compare.",
    )
    budget: float = setting(
        10.0,
        NUMBER,
        "Minutes that a fit may take; all leaves out what took longer on fewer images.",
        least=0,
    )
    workers: int = setting(1, WHOLE, "Processes.", least=1, most=MOST_WORKERS)
    shard: str | None = setting(
        None, TEXT, SHARD_HELP.format("file of results"), instead_of_none="all of the work"
    )

    @property
    def chooses(self) -> bool:
        """Whether a head and an ensemble are chosen on the support, too."""
        return CHOSEN in self.ensembles

    @property
    def by_name(self) -> set[str]:
        """Heads and ensembles that are no default: refused where they cannot work."""
        usual = defaults(ProtocolSettings)
        given = {"heads": self.heads, "ensembles": self.ensembles}
        return {name for what, names in given.items() if names != usual[what] for name in names}

    @property
    def images(self) -> tuple[int | None, ...]:
        """The numbers of shots; None is the whole support split."""
        return tuple(map(images_of, self.shots))

    @property
    def draws(self) -> range:
        """The seeds: CoOp numbers its files from 1."""
        first = 1 if self.coop else 0
        return range(first, first + self.seeds)

    @property
    def predictions_file(self) -> Path | None:
        """Where predictions are kept, if they are."""
        return predictions_of(self.output) if self.predictions and self.output else None


class CompareSettings(Settings):
    """What `clipsyn compare --reference` is asked for."""

    reference: str = setting(
        "openai-zeroshot",
        SOURCE,
        "Published numbers: openai-zeroshot (OpenAI's nine backbones on 27 datasets, by OpenCLIP), "
        "openai-retrieval (their recall on Flickr30k and COCO), coop-fewshot (heads on CoOp's "
        "splits), or a CSV file with the columns dataset, backbone, accuracy, source.",
        metavar="NAME|FILE",
    )
    tolerance: float = setting(
        0.5, NUMBER, "Points beyond which a difference is flagged.", least=0, most=100
    )


class PairedSettings(Selection):
    """What `clipsyn compare` is asked for."""

    splits: tuple[str, ...] | None = splits(None)
    head: str = head_of_results("that are compared")
    shots: Shots | None = shots_of_results("that are compared")
