"""Fitted routers: what was learned and from what, kept in a folder, applied to other images.

fit         settings, store and method in, `FittedRouter` out, which predicts from pools
artefact    it as a folder, and back
predict     class, probability and weights for every image of a store's split
"""

from __future__ import annotations

from clipsyn.evaluation import allow_overlap, backbones, seed, support
from clipsyn.methods.ensembles import CHOSEN
from clipsyn.names import MOST
from clipsyn.settings import FULL, NAMES, SHOTS, TEXT, Settings, Shots, setting

_METHOD = "NAME or NAME:parameter=value:…"


class FitSettings(Settings):
    """What a router is fitted on, and how."""

    dataset: str | None = setting(
        None, TEXT, "A dataset of the store.", instead_of_none="the only one"
    )
    ensemble: str = setting(
        CHOSEN, TEXT, f"{_METHOD}: the combiner; chosen by cross-validation on the support."
    )
    head: str | None = setting(
        None,
        TEXT,
        f"{_METHOD}: what makes the logits that are combined.",
        instead_of_none="chosen with the ensemble; beside one that is named zero-shot",
    )
    shots: Shots | None = setting(
        FULL,
        SHOTS,
        "Labelled images of each class to learn from, or full: all there are.",
        least=1,
        most=MOST,
        instead_of_none=FULL,
    )
    seed: int = seed()
    support: str = support()
    allow_overlap: bool = allow_overlap()
    backbones: tuple[str, ...] | None = backbones()
    prompts: str | None = setting(
        None, TEXT, "A prompt set of the store.", instead_of_none="the only one"
    )
    views: tuple[str, ...] = setting(
        (),
        NAMES,
        "Perturbations of the store that are augmented views, for heads that use them. "
        "Repeated or with commas.",
    )
