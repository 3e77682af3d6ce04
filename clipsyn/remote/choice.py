"""Which groups are pushed or pulled: those that filters choose, with what they are made from."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from clipsyn.registry import unknown_name
from clipsyn.store.folders import KINDS, Place
from clipsyn.store.select import matching, terms_of

Filters = Mapping[str, Collection[str]]  # dimension of KINDS -> names or patterns


def choose(places: Collection[Place], filters: Filters, listed_by: str) -> set[Place]:
    """The places that pass every filter, with the samples and classes that they need.

    A filter passes what it says nothing of, but samples and classes come only with a cell, or where
    all filters are about them. listed_by: the command that lists the names, for a name that is
    nowhere.
    """
    terms = {dimension: terms_of(dimension, names) for dimension, names in filters.items()}
    _refuse_unknown(places, terms, listed_by)
    passing = {place for place in places if _passes(place, terms)}
    cells = {place for place in passing if place[0] not in ("samples", "classes")}
    splits = {place[1:3] for place in cells}
    encoders = {(place[1], place[4]) for place in cells}  # dataset, backbone
    classes = {
        place
        for place in passing
        if place[0] == "classes" and (_is_about(place, terms) or place[1::2] in encoders)
    }
    bare = {place[1] for place in classes} - {dataset for dataset, _ in splits}
    samples = {
        place
        for place in passing
        if place[0] == "samples"
        and (_is_about(place, terms) or place[1:3] in splits or place[1] in bare)
    }
    return cells | classes | samples


def _passes(place: Place, terms: Mapping[str, tuple[str, ...]]) -> bool:
    named = dict(_named(place))
    return all(
        any(matching(term, [named[dimension]]) for term in wanted)
        for dimension, wanted in terms.items()
        if dimension in named
    )


def _is_about(place: Place, filters: Filters) -> bool:
    """Whether every filter is about a group of that kind."""
    return set(filters) <= set(KINDS[place[0]])


def _named(place: Place) -> Iterator[tuple[str, str]]:
    return zip(KINDS[place[0]], place[1:], strict=True)


def _refuse_unknown(
    places: Iterable[Place], terms: Mapping[str, tuple[str, ...]], listed_by: str
) -> None:
    """Raise UnknownName, with near matches, for a name or pattern that stands nowhere."""
    known: dict[str, set[str]] = {dimension: set() for dimension in terms}
    for place in places:
        for dimension, name in _named(place):
            if dimension in known:
                known[dimension].add(name)
    for dimension, wanted in terms.items():
        for term in wanted:
            if not matching(term, known[dimension]):
                hint = f"`{listed_by}` lists all."
                raise unknown_name(dimension, term, known[dimension], hint)
