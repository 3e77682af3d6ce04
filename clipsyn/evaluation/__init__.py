"""The few-shot protocol, comparisons of its methods, and with published numbers: settings."""

from __future__ import annotations

from pathlib import Path

from clipsyn.evaluation import selection
from clipsyn.methods.ensembles import CHOSEN, USUAL_ENSEMBLES
from clipsyn.methods.heads import USUAL_HEADS
from clipsyn.names import HELP as SHARD_HELP
from clipsyn.names import MOST_SEEDS, MOST_WORKERS
from clipsyn.settings import (
    CURVE,
    FLAG,
    FULL,
    NAMES,
    NUMBER,
    OUTPUT,
    PATH,
    SOURCE,
    TEXT,
    WHOLE,
    Settings,
    Shots,
    defaults,
    images_of,
    setting,
)

ALL = "all"  # stands for every head, or every ensemble
_MOST_SHOTS = 1_000_000  # more images than any class has


def predictions_of(results: Path) -> Path:
    """The file of predictions that stands beside a file of results; itself where it has no name."""
    return results.with_stem(f"{results.stem}-predictions") if results.name else results


class ProtocolSettings(selection.Selection):
    """What `clipsyn evaluate` is asked for."""

    perturbations: tuple[str, ...] | None = selection.perturbations(("clean",))
    heads: tuple[str, ...] = setting(USUAL_HEADS, NAMES, "Heads, or all: see above.")
    ensembles: tuple[str, ...] = setting(
        (*USUAL_ENSEMBLES, CHOSEN),
        NAMES,
        "Ensembles, or all: see above. chosen: what cross-validation on the support chooses of the "
        "heads and ensembles that are asked for.",
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
    allow_overlap: bool = selection.allow_overlap()
    support_prompts: str | None = setting(
        None,
        TEXT,
        "Prompt set that is fitted on, if another (prompt transfer).",
        instead_of_none="the one measured on",
    )
    views: tuple[str, ...] = setting(
        (), NAMES, "Perturbations of the support that are augmented views."
    )
    base_to_new: bool = setting(False, FLAG, "Fit on half of the classes, measure on each half.")
    coop: Path | None = setting(
        None,
        PATH,
        "Folder with CoOp's draws, shot_K-seed_S.json, instead of drawing the shots.",
        metavar="DIRECTORY",
        instead_of_none="none",
    )
    output: Path | None = setting(
        None,
        OUTPUT,
        "Parquet file to add the results to.",
        letter="-o",
        endings=(".parquet",),
        instead_of_none="none",
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
        "openai-retrieval (their recall on Flickr30k and COCO), or a CSV file with the columns "
        "dataset, backbone, accuracy, source.",
        metavar="NAME|FILE",
    )
    tolerance: float = setting(
        0.5, NUMBER, "Points beyond which a difference is flagged.", least=0, most=100
    )


class PairedSettings(selection.Selection):
    """What `clipsyn compare` is asked for."""

    splits: tuple[str, ...] | None = selection.splits(None)
    head: str = selection.head_of_results("that are compared")
    shots: Shots | None = selection.shots_of_results("that are compared")
