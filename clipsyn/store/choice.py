"""Which groups are pushed, pulled, merged or removed: filters by names and patterns."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from clipsyn.errors import MissingCell
from clipsyn.registry import unknown_name
from clipsyn.store.folders import ANSWERS, KINDS, PROMPTS, Place
from clipsyn.store.select import matching, terms_of
from clipsyn.text import advised

Filters = Mapping[str, Collection[str] | None]  # dimension of KINDS -> names or patterns
Meant = Mapping[str, Collection[str]]  # the names that stand for them


def choose(places: Collection[Place], filters: Filters, where: str) -> set[Place]:
    """The places that pass every filter, with what they are made from (`with_sources`).

    where: the store, as messages name it. Raises MissingCell where nothing passes.
    """
    chosen = with_sources(places, names_meant(places, filters, where))
    if not chosen:
        raise nothing_matches(where)
    return chosen


def nothing_matches(where: str) -> MissingCell:
    """The error for filters that nothing in a store passes together."""
    return MissingCell(f"nothing in {where} matches; `{advised('ls', where)}` shows what is there")


def names_meant(places: Collection[Place], filters: Filters, where: str) -> dict[str, set[str]]:
    """The names that the filters mean: those of groups, or else what fits them as a pattern.

    None is no filter. Raises UnknownName, with near matches, for what stands nowhere.
    """
    wanted = {
        dimension: terms_of(dimension, names)
        for dimension, names in filters.items()
        if names is not None
    }
    known: dict[str, set[str]] = {dimension: set() for dimension in wanted}
    for place in places:
        for dimension, name in _named(place):
            if dimension in known:
                known[dimension].add(name)
    return {
        dimension: {
            name for term in terms for name in _meant(dimension, term, known[dimension], where)
        }
        for dimension, terms in wanted.items()
    }


def _meant(dimension: str, term: str, known: Collection[str], where: str) -> Iterable[str]:
    names = [term] if term in known else matching(term, known)
    if not names:
        raise unknown_name(dimension, term, known, f"`{advised('ls', where)}` lists all.")
    return names


def with_sources(places: Collection[Place], meant: Meant) -> set[Place]:
    """The places that pass every filter, with the samples and classes that they need.

    A filter passes what it says nothing of, but samples and classes come only with a cell, or where
    all filters are about them.
    """
    embedded = {place[1:] for place in places if place[0] == "features"}
    passing = {place for place in places if _passes(place, meant, embedded)}
    cells = {place for place in passing if place[0] not in ("samples", "classes")}
    splits = {place[1:3] for place in cells}
    encoders = {(place[1], place[4]) for place in cells}  # dataset, backbone
    classes = {
        place
        for place in passing
        if place[0] == "classes" and (_is_about(place, meant) or place[1::2] in encoders)
    }
    bare = {place[1] for place in classes} - {dataset for dataset, _ in splits}
    samples = {
        place
        for place in passing
        if place[0] == "samples"
        and (_is_about(place, meant) or place[1:3] in splits or place[1] in bare)
    }
    return cells | classes | samples


def _passes(place: Place, meant: Meant, embedded: Collection[Place]) -> bool:
    """What was imported without a known prompt set stands beside those of every set."""
    of_no_set = place[0] in ANSWERS and place[5] == PROMPTS and place[1:5] not in embedded
    return all(
        name in meant.get(dimension, (name,)) or (of_no_set and dimension == "prompts")
        for dimension, name in _named(place)
    )


def _is_about(place: Place, meant: Meant) -> bool:
    """Whether every filter is about a group of that kind."""
    return set(meant) <= set(KINDS[place[0]])


def _named(place: Place) -> Iterator[tuple[str, str]]:
    return zip(KINDS[place[0]], place[1:], strict=True)
