"""What is measured: cells of a store, and the heads and ensembles that can work on them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import groupby

from clipsyn.errors import UsageError
from clipsyn.evaluation.plan import Comparison
from clipsyn.evaluation.settings import ALL, ProtocolSettings
from clipsyn.methods.ensembles import CHOSEN, ENSEMBLES
from clipsyn.methods.estimator import Estimator, from_text
from clipsyn.methods.heads import HEADS
from clipsyn.names import FeatureKey
from clipsyn.registry import Registry
from clipsyn.store.features import FeatureStore
from clipsyn.store.overlap import alike_notes
from clipsyn.store.select import groups

_LOG = logging.getLogger("clipsyn")


def comparisons(
    store: FeatureStore, settings: ProtocolSettings
) -> tuple[list[Comparison], list[str]]:
    """The datasets and prompt sets with what can work there, and notes to say before."""
    every, by_name = spelled_out(settings), settings.by_name
    _check(every, by_name)
    learners = learning(every)
    optional = settings.support is None and by_name.isdisjoint({*learners, CHOSEN})
    split = (settings.support or "train") if learners or settings.chooses else None
    found, notes = [], []
    keys, split = _labelled(store, settings, split, optional)
    for cells in _by_dataset(store, keys, every, split, by_name):
        asked, left_out = _usable(every, by_name, cells)
        notes += [*left_out, *alike_notes(store, cells.dataset, cells.prompts, cells.backbones)]
        can_choose = split is not None and not cells.silent and not settings.base_to_new
        chooses = settings.chooses and can_choose
        support = split if chooses or learning(asked) else None
        found.append(replace(cells, settings=asked, support_split=support, chooses=chooses))
    return found, notes


def _by_dataset(
    store: FeatureStore,
    keys: Iterable[FeatureKey],
    settings: ProtocolSettings,
    support: str | None,
    by_name: set[str],
) -> Iterator[Comparison]:
    """The cells of each dataset and prompt set."""
    needing = {name for name in settings.heads if from_text(HEADS, name).needs_text}
    for dataset, keys_of_dataset in groupby(keys, key=lambda key: key.dataset):
        of_dataset = list(keys_of_dataset)
        has_text = any(store.cell(key).has_predictions for key in of_dataset)
        without_text = not needing or (not has_text and needing.isdisjoint(by_name))
        places: dict[str, list[tuple[str, str]]] = {}  # by prompt set
        of_backbone: dict[str, FeatureKey] = {}
        for split, of_split in groupby(of_dataset, key=lambda key: key.split):
            found = groups(store, of_split, settings.prompts, without_text=without_text)
            for (perturbation, prompts), cells in found:
                places.setdefault(prompts, []).append((split, perturbation))
                of_backbone |= {key.backbone: key for key in cells}
        each = {name: store.cell(of_backbone[name]) for name in sorted(of_backbone)}
        voting = {name: cell for name, cell in each.items() if cell.has_predictions}
        for prompts in sorted(places):
            yield Comparison(
                store.path,
                settings,
                dataset,
                prompts,
                tuple(places[prompts]),
                backbones=tuple(each),
                support_split=support,
                lacking=tuple(name for name, cell in each.items() if not cell.has_embeddings),
                silent=tuple(name for name, cell in voting.items() if not cell.has_logits),
                unsure=tuple(name for name, cell in voting.items() if not cell.has_confidences),
                has_text=has_text,
            )


def _labelled(
    store: FeatureStore, settings: ProtocolSettings, support: str | None, optional: bool
) -> tuple[list[FeatureKey], str | None]:
    """The cells whose split, and whose support if there is one, has labels; and the support.

    support: the split to learn from, None where nothing learns. optional: whether methods that
    learn may be left out where no dataset has that split.
    """
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
    if bare and (settings.datasets is not None or not left):
        raise store.no_labels(*sorted(bare))
    if bare:
        names = ", ".join("/".join(place) for place in sorted(bare))
        _LOG.info("note: %s left out: no labels", names)
    return left, support


def _bare(store: FeatureStore, places: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
    """The datasets and splits that have no label."""
    return {place for place in set(places) if not (store.samples(*place).labels >= 0).any()}


def spelled_out(settings: ProtocolSettings) -> ProtocolSettings:
    """The settings with the names of heads and ensembles that are meant, without the choice."""
    ensembles = [name for name in settings.ensembles if name != CHOSEN]
    heads, ensembles = _spread(settings.heads, HEADS), _spread(ensembles, ENSEMBLES)
    return settings.replaced(heads=heads, ensembles=ensembles)


def _spread(texts: Iterable[str], registry: Registry) -> list[str]:
    """Each name once; "all" stands for all of the registry."""
    names = (name for text in texts for name in (registry if text == ALL else [text]))
    return list(dict.fromkeys(names))


def learning(settings: ProtocolSettings) -> set[str]:
    """The heads and ensembles that need labelled samples to learn from."""
    return {name for name, method in _methods(settings).items() if method.learns}


def _methods(settings: ProtocolSettings) -> dict[str, Estimator]:
    of_heads = {name: from_text(HEADS, name) for name in settings.heads}
    return of_heads | {name: from_text(ENSEMBLES, name) for name in settings.ensembles}


def _check(settings: ProtocolSettings, by_name: set[str]) -> None:
    """Refuse names and combinations that cannot work before anything is read."""
    if not settings.heads:
        raise UsageError("no head is asked for: name some, such as zero-shot")
    methods = _methods(settings)
    asked = [name for name in methods if name in by_name and methods[name].knows_classes]
    asked += {CHOSEN} & by_name
    if settings.base_to_new and asked:
        raise UsageError(
            f"base-to-new cannot use {asked[0]}, which learns the classes: leave it out"
        )


def _usable(
    settings: ProtocolSettings, by_name: set[str], cells: Comparison
) -> tuple[ProtocolSettings, list[str]]:
    """The settings without the methods that cannot work, and a note for each reason.

    by_name: heads and ensembles that were asked for by name, which stay and are refused later.
    Raises UsageError where cells of predictions alone leave nothing to do.
    """
    methods, notes = _methods(settings), list[str]()
    for why, flag, spared in _lacking(settings, cells, by_name):
        of = settings.heads if flag == "needs_text" else methods
        there = [name for name in of if name in methods and name not in spared]
        if out := [name for name in there if getattr(methods[name], flag)]:
            notes.append(f"{', '.join(out)} left out: {why}")
            methods = {name: it for name, it in methods.items() if name not in out}
    heads, ensembles = (
        [it for it in of if it in methods] for of in (settings.heads, settings.ensembles)
    )
    if cells.silent and (
        settings.base_to_new or not heads or (settings.ensembles and not ensembles)
    ):
        needing = ["needs_logits", *["needs_confidences"] * bool(cells.unsure)]
        usable = [it for it in ENSEMBLES if not any(getattr(_plain(it), of) for of in needing)]
        raise UsageError(
            f"of {', '.join(cells.silent)} on {cells.dataset} there are predictions alone: they "
            f"can be compared and combined by {', '.join(usable)}, on the zero-shot head, and "
            "nothing else; import logits, or choose other cells with backbones=…"
        )
    return settings.replaced(heads=heads, ensembles=ensembles), notes


def _plain(name: str) -> Estimator:
    made: Estimator = from_text(ENSEMBLES, name)
    return made


def _lacking(
    settings: ProtocolSettings, cells: Comparison, by_name: set[str]
) -> Iterator[tuple[str, str, set[str]]]:
    """Why methods cannot work: a sentence, the flag of those, and which of them stay."""
    if settings.base_to_new:
        yield "base-to-new cannot use what learns the classes", "knows_classes", by_name
    if cells.lacking:
        lacking = ", ".join(cells.lacking)
        yield f"there are no embeddings of {lacking}", "needs_embeddings", by_name
    if not cells.has_text:
        yield "there are no class embeddings", "needs_text", by_name
    if cells.support_split is None:
        yield "there are no labelled images to learn from (support=…)", "learns", set()
    if cells.unsure:
        unsure = ", ".join(cells.unsure)
        yield f"there are no confidences of {unsure}", "needs_confidences", set()
    if cells.silent:
        silent = ", ".join(cells.silent)
        yield f"there are predictions alone of {silent}", "needs_logits", set()
