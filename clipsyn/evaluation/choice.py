"""Which methods and cells are compared: what is asked for, and what the store has."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from clipsyn.errors import UsageError
from clipsyn.evaluation.settings import ALL, ProtocolSettings
from clipsyn.methods.ensembles import CHOSEN, ENSEMBLES
from clipsyn.methods.estimator import from_text
from clipsyn.methods.heads import HEADS
from clipsyn.names import FeatureKey
from clipsyn.registry import Registry
from clipsyn.store.features import FeatureStore
from clipsyn.store.select import groups

_LOG = logging.getLogger("clipsyn")
Place = tuple[str, str]  # split, perturbation


def spelled_out(settings: ProtocolSettings) -> ProtocolSettings:
    """The settings with the names of heads and ensembles that are meant, without the choice."""
    ensembles = [name for name in settings.ensembles if name != CHOSEN]
    heads = _spread(settings.heads, HEADS)
    return _with_methods(settings, heads, _spread(ensembles, ENSEMBLES))


def _with_methods(
    settings: ProtocolSettings, heads: Sequence[str], ensembles: Sequence[str]
) -> ProtocolSettings:
    return settings.replaced(heads=tuple(heads), ensembles=tuple(ensembles), compare=())


def _spread(texts: Sequence[str], registry: Registry) -> tuple[str, ...]:
    """Each name once; "all" stands for all of the registry."""
    names = (name for text in texts for name in (registry if text == ALL else [text]))
    return tuple(dict.fromkeys(names))


class DatasetCells(NamedTuple):
    """The cells of one dataset and prompt set, which are measured together."""

    dataset: str
    places: tuple[Place, ...]
    backbones: tuple[str, ...]
    prompts: str
    support: str | None  # the split that is fitted on, if any
    lacking: tuple[str, ...]  # backbones without embeddings
    silent: tuple[str, ...]  # backbones with predictions alone
    unsure: tuple[str, ...]  # those of them without confidences
    has_text: bool  # whether any backbone has class embeddings, or imported predictions


def learning(settings: ProtocolSettings) -> set[str]:
    """The heads and ensembles that need labelled samples to learn from."""
    return {
        text
        for texts, registry in ((settings.heads, HEADS), (settings.ensembles, ENSEMBLES))
        for text in texts
        if from_text(registry, text).learns
    }


def usable(
    settings: ProtocolSettings, by_name: Collection[str], cells: DatasetCells
) -> tuple[ProtocolSettings, list[str]]:
    """The settings without the methods that cannot work, and a note for each reason.

    by_name: heads and ensembles that were asked for by name, which stay and are refused later.
    Raises UsageError where cells of predictions alone leave nothing to do.
    """
    notes, kept = [], settings
    for why, texts in _reasons(settings, set(by_name), cells).items():
        if out := [text for text in (*kept.heads, *kept.ensembles) if text in texts]:
            notes.append(f"{', '.join(out)} left out: {why}")
        heads = [text for text in kept.heads if text not in texts]
        kept = _with_methods(kept, heads, [text for text in kept.ensembles if text not in texts])
    if cells.silent:
        _check_silent(cells, settings, kept)
    return kept, notes


def _reasons(
    settings: ProtocolSettings, by_name: set[str], cells: DatasetCells
) -> dict[str, set[str]]:
    """Why methods cannot work: their names by reason."""
    heads = {text for text in settings.heads if from_text(HEADS, text).learns}
    reasons: dict[str, set[str]] = {}
    if settings.base_to_new:
        why = "base-to-new cannot use what learns the classes"
        reasons[why] = (heads | _those(settings.ensembles, "knows_classes")) - by_name
    if cells.lacking:
        why = f"there are no embeddings of {', '.join(cells.lacking)}"
        reasons[why] = (heads | _those(settings.ensembles, "needs_embeddings")) - by_name
    if not cells.has_text:
        bound = {text for text in settings.heads if from_text(HEADS, text).needs_text}
        reasons["there are no class embeddings"] = bound - by_name
    if cells.support is None:
        reasons["there are no labelled images to learn from (support=…)"] = learning(settings)
    if cells.unsure:
        why = f"there are no confidences of {', '.join(cells.unsure)}"
        reasons[why] = _those(settings.ensembles, "needs_confidences")
    if cells.silent:
        why = f"there are predictions alone of {', '.join(cells.silent)}"
        reasons[why] = heads | _those(settings.ensembles, "needs_logits")
    return reasons


def _those(ensembles: Iterable[str], attribute: str) -> set[str]:
    """The ensembles whose attribute is true."""
    return {name for name in ensembles if getattr(from_text(ENSEMBLES, name), attribute)}


def _check_silent(cells: DatasetCells, asked: ProtocolSettings, kept: ProtocolSettings) -> None:
    """Raise UsageError where predictions alone leave nothing to do."""
    needing = _those(ENSEMBLES, "needs_logits")
    if cells.unsure:
        needing |= _those(ENSEMBLES, "needs_confidences")
    votes = [name for name in ENSEMBLES if name not in needing]
    if asked.base_to_new or not kept.heads or (asked.ensembles and not kept.ensembles):
        raise UsageError(
            f"of {', '.join(cells.silent)} on {cells.dataset} there are predictions alone: they "
            f"can be compared and combined by {', '.join(votes)}, on the zero-shot head, and "
            "nothing else; import logits, or choose other cells with backbones=…"
        )


def check(settings: ProtocolSettings, by_name: Collection[str]) -> None:
    """Refuse names and combinations that cannot work before anything is read."""
    if not settings.heads:
        raise UsageError("no head is asked for: name some, such as zero-shot")
    bound = {text for text in settings.heads if from_text(HEADS, text).learns}
    bound |= _those(settings.ensembles, "knows_classes")
    asked = [text for text in (*settings.heads, *settings.ensembles) if text in bound & {*by_name}]
    asked += {CHOSEN} & {*by_name}
    if settings.base_to_new and asked:
        raise UsageError(
            f"base-to-new cannot use {asked[0]}, which learns the classes: leave it out"
        )


def cells_by_dataset(
    store: FeatureStore, settings: ProtocolSettings, support: str | None, *, optional: bool
) -> Iterator[DatasetCells]:
    """The cells that the settings select, of each dataset that has labels and each prompt set.

    support: the split to learn from, None where nothing learns. optional: whether methods that
    learn may be left out where no dataset has that split.
    """
    cells, support = _labelled(store, settings, support, optional)
    needing = {text for text in spelled_out(settings).heads if from_text(HEADS, text).needs_text}
    for dataset, keys_of_dataset in groupby(cells, key=lambda key: key.dataset):
        of_dataset = list(keys_of_dataset)
        has_text = any(store.cell(key).has_predictions for key in of_dataset)
        without_text = not needing or (not has_text and needing.isdisjoint(settings.by_name))
        places: dict[str, list[Place]] = {}  # by prompt set
        keys_by_backbone: dict[str, FeatureKey] = {}
        for split, of_split in groupby(of_dataset, key=lambda key: key.split):
            found = groups(store, of_split, settings.prompts, without_text=without_text)
            for (perturbation, prompt_set), keys in found:
                places.setdefault(prompt_set, []).append((split, perturbation))
                keys_by_backbone |= {key.backbone: key for key in keys}
        names = tuple(sorted(keys_by_backbone))
        each = [store.cell(keys_by_backbone[name]) for name in names]
        lacking = tuple(cell.key.backbone for cell in each if not cell.has_embeddings)
        voting = [cell for cell in each if cell.has_predictions]
        silent = tuple(cell.key.backbone for cell in voting if not cell.has_logits)
        unsure = tuple(cell.key.backbone for cell in voting if not cell.has_confidences)
        for prompts in sorted(places):
            yield DatasetCells(
                dataset=dataset,
                places=tuple(places[prompts]),
                backbones=names,
                prompts=prompts,
                support=support,
                lacking=lacking,
                silent=silent,
                unsure=unsure,
                has_text=has_text,
            )


def _labelled(
    store: FeatureStore, settings: ProtocolSettings, support: str | None, optional: bool
) -> tuple[list[FeatureKey], str | None]:
    """The cells whose split, and whose support if there is one, has labels; and the support."""
    keys = settings.keys(store)
    bare = _bare(store, ((key.dataset, key.split) for key in keys))
    left = [key for key in keys if (key.dataset, key.split) not in bare]
    if support is not None and optional:
        places = {(key.dataset, support) for key in left}
        there = {place for place in places if store.tree.exists(store.samples_path(*place))}
        support = support if there - _bare(store, there) else None
    if support is not None:
        bare |= _bare(store, ((key.dataset, support) for key in left))
        left = [key for key in left if (key.dataset, support) not in bare]
    names = ", ".join("/".join(place) for place in sorted(bare))
    if bare and (settings.datasets is not None or not left):
        raise store.no_labels(*sorted(bare))
    if bare:
        _LOG.info("note: %s left out: no labels", names)
    return left, support


def _bare(store: FeatureStore, places: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
    """The datasets and splits that have no label."""
    return {place for place in set(places) if not (store.samples(*place).labels >= 0).any()}
