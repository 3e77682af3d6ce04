"""What is measured: cells of a store, and the heads and ensembles that can work on them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby

from clipsyn.errors import UsageError
from clipsyn.evaluation import ALL, ProtocolSettings
from clipsyn.evaluation.plan import Comparison, methods_of
from clipsyn.methods.ensembles import CHOSEN, ENSEMBLES, is_transductive
from clipsyn.methods.heads import HEADS, ZERO_SHOT
from clipsyn.names import FeatureKey
from clipsyn.registry import Registry
from clipsyn.store.cell import Cell
from clipsyn.store.features import FeatureStore
from clipsyn.store.overlap import alike_notes
from clipsyn.store.select import groups
from clipsyn.text import LOG


def comparisons(
    store: FeatureStore, settings: ProtocolSettings
) -> tuple[list[Comparison], list[str]]:
    """The datasets and prompt sets with what can work there, and notes to say before."""
    by_name = settings.by_name
    every = settings.replaced(
        heads=_spread(settings.heads, HEADS),
        ensembles=_spread((it for it in settings.ensembles if it != CHOSEN), ENSEMBLES),
    )
    if not every.heads:
        raise UsageError("no head is asked for: name some, such as zero-shot")
    if settings.base_to_new and CHOSEN in by_name:
        raise UsageError("base-to-new cannot use chosen, which learns the classes: leave it out")
    methods = methods_of(every)
    learners = {name for name, method in methods.items() if method.learns}
    optional = settings.support is None and by_name.isdisjoint({*learners, CHOSEN})
    split = (settings.support or "train") if learners or settings.chooses else None
    keys, split = _labelled(store, settings, split, optional)
    texts = {name for name in every.heads if methods[name].needs_text}
    found, notes = list[Comparison](), list[str]()
    for dataset, of_dataset in groupby(keys, key=lambda key: key.dataset):
        of_all = list(of_dataset)
        answers = [store.cell(key).has_predictions for key in of_all]
        rest = [name for name in every.heads if name not in texts]
        parts = [(every, not texts or (not any(answers) and texts.isdisjoint(by_name)))]
        if texts and rest and any(answers) and not all(answers):  # each head has all that it can
            parts = [(every.replaced(heads=[*texts]), False), (every.replaced(heads=rest), True)]
        for part, without_text in parts:
            chooses = settings.chooses and split is not None and not settings.base_to_new
            chooses = chooses and part is parts[0][0]
            for prompts, (place, cells) in _places(store, part, of_all, without_text).items():
                reasons = _reasons(part, cells, has_text=any(answers), has_support=bool(split))
                asked, left_out = _usable(part, by_name, dataset, reasons)
                notes += [*left_out, *alike_notes(store, dataset, prompts, [*cells])]
                choosing = chooses and not _silent(cells)
                is_fitted = choosing or len(parts) > 1
                is_fitted = is_fitted or any(it.learns for it in methods_of(asked).values())
                about = asked, dataset, prompts, place, tuple(cells), split if is_fitted else None
                found.append(Comparison(store.path, *about, choosing))
    return found, notes


def _places(
    store: FeatureStore, settings: ProtocolSettings, keys: list[FeatureKey], without_text: bool
) -> dict[str, tuple[tuple[tuple[str, str], ...], dict[str, Cell]]]:
    """By prompt set: (split, perturbation) of each group of a dataset; a cell of each backbone."""
    places: dict[str, list[tuple[str, str]]] = {}
    cells: dict[str, Cell] = {}
    for of_split, of_keys in groupby(keys, key=lambda key: key.split):
        there = groups(store, of_keys, settings.prompts, without_text=without_text)
        for (perturbation, prompts), them in there:
            places.setdefault(prompts, []).append((of_split, perturbation))
            cells |= {key.backbone: store.cell(key) for key in them}
    ordered = dict(sorted(cells.items()))
    return {prompts: (tuple(places[prompts]), ordered) for prompts in sorted(places)}


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
        there = {place for place in places if store.tree.exists(store.at("samples", *place))}
        support = support if there - _bare(store, there) else None
    if support is not None:
        bare |= _bare(store, ((key.dataset, support) for key in left))
        left = [key for key in left if (key.dataset, support) not in bare]
    if bare and (settings.datasets is not None or not left):
        raise store.no_labels(*sorted(bare))
    if bare:
        names = ", ".join("/".join(place) for place in sorted(bare))
        LOG.info("note: %s left out: no labels", names)
    return left, support


def _bare(store: FeatureStore, places: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
    """The datasets and splits that have no label."""
    return {place for place in set(places) if not (store.samples(*place).labels >= 0).any()}


def _spread(texts: Iterable[str], registry: Registry) -> list[str]:
    """Each name once; "all" and the group "transductive" stand for theirs."""
    groups = {name.lower(): names for name, names in registry.groups.items()}
    groups[ALL] = [name for name in registry if not is_transductive(name)]
    names = (name for text in texts for name in groups.get(text, [text]))
    return list(dict.fromkeys(names))


def _silent(cells: Mapping[str, Cell]) -> list[str]:
    """Backbones with predictions alone."""
    return [name for name, it in cells.items() if it.has_predictions and not it.has_logits]


def _reasons(
    settings: ProtocolSettings, cells: Mapping[str, Cell], *, has_text: bool, has_support: bool
) -> Iterator[tuple[str, str, bool]]:
    """Why methods cannot work: a sentence, the flag of those, and whether names are refused."""
    lacking = [name for name, cell in cells.items() if not cell.has_embeddings]
    unsure = [name for name, it in cells.items() if it.has_predictions and not it.has_confidences]
    silent = ", ".join(_silent(cells))
    if settings.base_to_new and silent:
        raise UsageError(f"base-to-new needs logits, and there are predictions alone of {silent}")
    if settings.base_to_new:
        yield "base-to-new cannot use what learns the classes", "knows_classes", True
    if lacking:
        yield f"there are no embeddings of {', '.join(lacking)}", "needs_embeddings", True
    if not settings.views or {*settings.heads} != {ZERO_SHOT}:
        yield "votes of views need views=…, and no other head than zero-shot", "needs_views", True
    if not has_text:
        yield "there are no class embeddings", "needs_text", True
    if not has_support:
        yield "there are no labelled images to learn from (support=…)", "learns", False
    if unsure:
        yield f"there are no confidences of {', '.join(unsure)}", "needs_confidences", False
    if silent:
        yield f"there are predictions alone of {silent}", "needs_logits", False


def _usable(
    settings: ProtocolSettings,
    by_name: set[str],
    dataset: str,
    reasons: Iterable[tuple[str, str, bool]],
) -> tuple[ProtocolSettings, list[str]]:
    """The settings without the methods that cannot work, and a note for each reason.

    by_name: heads and ensembles that were asked for by name, which some reasons refuse. Raises
    UsageError for these, and where nothing is left to do.
    """
    methods, notes = methods_of(settings), list[str]()
    for why, flag, is_refused in reasons:
        of = settings.heads if flag == "needs_text" else methods
        out = [name for name in of if name in methods and getattr(methods[name], flag)]
        if is_refused and (named := [name for name in out if name in by_name]):
            raise UsageError(f"{', '.join(named)} on {dataset} cannot be used: {why}")
        if out:
            notes.append(f"{', '.join(out)} left out: {why}")
            methods = {name: it for name, it in methods.items() if name not in out}
    heads, ensembles = (
        [it for it in of if it in methods] for of in (settings.heads, settings.ensembles)
    )
    if not heads or (settings.ensembles and not ensembles):
        raise UsageError(
            f"nothing that is asked for can work on {dataset}: {'; '.join(notes)}; ask for other "
            "heads and ensembles, or choose other cells with backbones=…"
        )
    return settings.replaced(heads=heads, ensembles=ensembles), notes
