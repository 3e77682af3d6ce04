"""Heads and ensembles by name: which are asked for, and which can work on some cells."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

from clipsyn import __version__
from clipsyn.errors import UsageError
from clipsyn.evaluation.settings import ALL, ProtocolSettings
from clipsyn.methods.ensembles import CHOSEN, ENSEMBLES
from clipsyn.methods.estimator import from_text
from clipsyn.methods.heads import HEADS
from clipsyn.registry import Registry

if TYPE_CHECKING:
    from clipsyn.evaluation.plan import Comparison

ORACLE = "oracle"


def spelled_out(settings: ProtocolSettings) -> ProtocolSettings:
    """The settings with the names of heads and ensembles that are meant, without the choice."""
    ensembles = [name for name in settings.ensembles if name != CHOSEN]
    return _with_methods(settings, _spread(settings.heads, HEADS), _spread(ensembles, ENSEMBLES))


def _spread(texts: Iterable[str], registry: Registry) -> list[str]:
    """Each name once; "all" stands for all of the registry."""
    names = (name for text in texts for name in (registry if text == ALL else [text]))
    return list(dict.fromkeys(names))


def _with_methods(
    settings: ProtocolSettings, heads: Iterable[str], ensembles: Iterable[str]
) -> ProtocolSettings:
    return settings.replaced(heads=tuple(heads), ensembles=tuple(ensembles), compare=())


def learning(settings: ProtocolSettings) -> set[str]:
    """The heads and ensembles that need labelled samples to learn from."""
    return _heads(settings, "learns") | _ensembles(settings.ensembles, "learns")


def _heads(settings: ProtocolSettings, attribute: str) -> set[str]:
    """The heads whose attribute is true."""
    return {name for name in settings.heads if getattr(from_text(HEADS, name), attribute)}


def _ensembles(names: Iterable[str], attribute: str) -> set[str]:
    return {name for name in names if getattr(from_text(ENSEMBLES, name), attribute)}


def check(settings: ProtocolSettings, by_name: Collection[str]) -> None:
    """Refuse names and combinations that cannot work before anything is read."""
    if not settings.heads:
        raise UsageError("no head is asked for: name some, such as zero-shot")
    bound = _heads(settings, "learns") | _ensembles(settings.ensembles, "knows_classes")
    asked = [name for name in (*settings.heads, *settings.ensembles) if name in bound & {*by_name}]
    asked += {CHOSEN} & {*by_name}
    if settings.base_to_new and asked:
        raise UsageError(
            f"base-to-new cannot use {asked[0]}, which learns the classes: leave it out"
        )


def usable(
    settings: ProtocolSettings, by_name: Collection[str], cells: Comparison
) -> tuple[ProtocolSettings, list[str]]:
    """The settings without the methods that cannot work, and a note for each reason.

    by_name: heads and ensembles that were asked for by name, which stay and are refused later.
    Raises UsageError where cells of predictions alone leave nothing to do.
    """
    notes, kept = [], settings
    for why, names in _reasons(settings, {*by_name}, cells).items():
        if out := [name for name in (*kept.heads, *kept.ensembles) if name in names]:
            notes.append(f"{', '.join(out)} left out: {why}")
        left = [[it for it in of if it not in names] for of in (kept.heads, kept.ensembles)]
        kept = _with_methods(kept, *left)
    has_lost_all = not kept.heads or (settings.ensembles and not kept.ensembles)
    if cells.silent and (settings.base_to_new or has_lost_all):
        needing = _ensembles(ENSEMBLES, "needs_logits")
        needing |= _ensembles(ENSEMBLES, "needs_confidences") if cells.unsure else set()
        raise UsageError(
            f"of {', '.join(cells.silent)} on {cells.dataset} there are predictions alone: they "
            "can be compared and combined by "
            f"{', '.join(name for name in ENSEMBLES if name not in needing)}, on the zero-shot "
            "head, and nothing else; import logits, or choose other cells with backbones=…"
        )
    return kept, notes


def _reasons(
    settings: ProtocolSettings, by_name: set[str], cells: Comparison
) -> dict[str, set[str]]:
    """Why methods cannot work: their names by reason."""
    heads, ensembles = _heads(settings, "learns"), settings.ensembles
    reasons: dict[str, set[str]] = {}
    if settings.base_to_new:
        why = "base-to-new cannot use what learns the classes"
        reasons[why] = (heads | _ensembles(ensembles, "knows_classes")) - by_name
    if cells.lacking:
        why = f"there are no embeddings of {', '.join(cells.lacking)}"
        reasons[why] = (heads | _ensembles(ensembles, "needs_embeddings")) - by_name
    if not cells.has_text:
        reasons["there are no class embeddings"] = _heads(settings, "needs_text") - by_name
    if cells.support_split is None:
        reasons["there are no labelled images to learn from (support=…)"] = learning(settings)
    if cells.unsure:
        why = f"there are no confidences of {', '.join(cells.unsure)}"
        reasons[why] = _ensembles(ensembles, "needs_confidences")
    if cells.silent:
        why = f"there are predictions alone of {', '.join(cells.silent)}"
        reasons[why] = heads | _ensembles(ensembles, "needs_logits")
    return reasons


@cache
def versions(head: str, ensemble: str | None) -> list[str]:
    """Versions of clipsyn, and of other packages that the head or the ensemble come from."""
    names = (
        (registry, text.partition(":")[0])
        for registry, text in ((HEADS, head), (ENSEMBLES, ensemble or ORACLE))
    )
    return [__version__, *filter(None, (registry.package(name) for registry, name in names))]


@cache
def learns(head: str, name: str | None) -> bool:
    """Whether a method learns from labelled samples."""
    return head == CHOSEN or any(estimator.learns for estimator in _parts(head, name))


@cache
def is_random(head: str, name: str | None) -> bool:
    """Whether a seed changes a method that is fitted on the whole support."""
    if head == CHOSEN:
        return True
    pairs = zip(_parts(head, name, 0), _parts(head, name, 1), strict=True)
    return any(one.get_params() != other.get_params() for one, other in pairs)


def _parts(head: str, name: str | None, seed: int | None = None) -> Iterator[Any]:
    yield from_text(HEADS, head, seed)
    if name is not None and name != ORACLE:
        yield from_text(ENSEMBLES, name, seed)
