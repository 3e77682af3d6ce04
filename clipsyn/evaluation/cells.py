"""The cells that are measured: a comparison for each dataset and prompt set."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import groupby

from clipsyn.evaluation.methods import check, learning, spelled_out, usable
from clipsyn.evaluation.plan import Comparison
from clipsyn.evaluation.settings import ProtocolSettings
from clipsyn.methods.ensembles import CHOSEN
from clipsyn.methods.estimator import from_text
from clipsyn.methods.heads import HEADS
from clipsyn.names import FeatureKey
from clipsyn.store.features import FeatureStore
from clipsyn.store.overlap import alike_notes
from clipsyn.store.select import groups

_LOG = logging.getLogger("clipsyn")


def comparisons(
    store: FeatureStore, settings: ProtocolSettings
) -> tuple[list[Comparison], list[str]]:
    """The datasets and prompt sets with what can work there, and notes to say before."""
    every, by_name = spelled_out(settings), settings.by_name
    check(every, by_name)
    learners = learning(every)
    optional = settings.support is None and by_name.isdisjoint({*learners, CHOSEN})
    split = (settings.support or "train") if learners or settings.chooses else None
    found, notes = [], []
    keys, split = _labelled(store, settings, split, optional)
    for cells in _by_dataset(store, keys, every, split, by_name):
        asked, left_out = usable(every, by_name, cells)
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
