"""Which cells of a store a command is about, and which groups: filters by names and patterns."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from clipsyn.errors import MissingCell, UnknownName, UsageError
from clipsyn.names import FeatureKey, by_severity, parse_perturbation
from clipsyn.registry import unknown_name
from clipsyn.store.cell import Cell, with_prompt_sets
from clipsyn.store.features import FeatureStore
from clipsyn.store.files import ANSWERS, CELLS, KINDS, PROMPTS, Place
from clipsyn.text import LOG, advised, few, running

Names = str | Collection[str] | None


def select(store: FeatureStore, **filters: Names) -> list[FeatureKey]:
    """The store's cells that pass the filters: FeatureKey field -> names, patterns or None."""
    keys = chosen_keys(store, **filters)
    store.tree.expect((path for key in keys for path in _read_of(store, key)), columns=True)
    return keys


def chosen_keys(store: FeatureStore, **filters: Names) -> list[FeatureKey]:
    """What `select` does, of cells of which nothing will be read."""
    if datasets := datasets_meant(store, filters):
        with suppress(MissingCell, UnknownName):  # what other datasets have tells what is missing
            return _chosen(store, store.keys(dataset=datasets), filters)
    return _chosen(store, store.keys(), filters)


def _chosen(
    store: FeatureStore, every: list[FeatureKey], filters: Mapping[str, Names]
) -> list[FeatureKey]:
    if not every:
        line = advised("extract", store.made_in, "--backbones", "…", "--dataset", "…")
        raise MissingCell(f"{store.path} holds no features yet: run `{line}`")
    cells = [("features", *key.names) for key in every]
    hint = f"Looked for in {store.path}; `clipsyn extract` adds more."
    meant = _meant(cells, filters, hint)
    names = _names(meant)
    keys = [key for key in every if all(getattr(key, field) in names[field] for field in names)]
    _refuse_gaps(store, every, keys, meant)
    return keys


def datasets_meant(store: FeatureStore, filters: Mapping[str, Names]) -> set[str] | None:
    """The datasets that a filter may mean, whose groups are listed; None where all have to be."""
    if (wanted := filters.get("dataset")) is None:
        return None
    known = store.datasets()
    found = [matching(term, known) for term in terms_of("dataset", wanted)]
    return set().union(*found) if all(found) else None


def _read_of(store: FeatureStore, key: FeatureKey) -> Iterator[Path]:
    """The folders of all that is read of a cell."""
    yield store.at("samples", key.dataset, key.split)
    for kind in CELLS:
        yield store.at(kind, *key.names)
    for prompts in store.names_in(store.at("classes", key.dataset)):
        yield store.at("classes", key.dataset, prompts, key.backbone)


def only(store: FeatureStore, field: Literal["dataset", "split"], **filters: Names) -> str:
    """The dataset, or split, of a store that has one among the cells that pass the filters.

    Raises UsageError that asks which, and what `select` does.
    """
    names: list[str] = sorted({getattr(key, field) for key in select(store, **filters)})
    if len(names) > 1:
        line = " ".join([running() or "clipsyn …", f"--{field}", shlex.quote(names[0])])
        raise UsageError(
            f"which {field} of {store.path}? there are {few(names, 9)}: name one, as in `{line}`"
        )
    return names[0]


def _refuse_gaps(
    store: FeatureStore,
    every: list[FeatureKey],
    keys: list[FeatureKey],
    meant: dict[str, list[list[str]]],
) -> None:
    """Raise MissingCell for a wanted name without a cell that passes the other filters."""
    for field, terms in meant.items():
        for term in terms:
            if any(getattr(key, field) in term for key in keys):
                continue
            names = {other: others[0][0] for other, others in (meant | {field: [term]}).items()}
            # names without a filter are taken from a cell of that kind
            like = next(key for key in every if getattr(key, field) == names[field])
            missing = FeatureKey(**(vars(like) | names))
            raise MissingCell(f"{store.path} has no {missing}: run `{store.extract_line(missing)}`")


def terms_of(field: str, names: str | Collection[str]) -> tuple[str, ...]:
    terms = (names,) if isinstance(names, str) else tuple(names)
    if not terms:
        raise UsageError(f"no {field} is asked for: name some, or leave the list away for all")
    if field == "perturbation":  # "jpeg:3" is called jpeg-3 in the store
        return tuple(parse_perturbation(t).label if ":" in t else t for t in terms)
    return terms


def _meant(
    places: Iterable[Place], filters: Mapping[str, Names], hint: str
) -> dict[str, list[list[str]]]:
    """By dimension, of each name or pattern the names that it means: a known one itself alone.

    None is no filter. Raises UnknownName, with near matches, for what means nothing.
    """
    known: dict[str, set[str]] = {dimension: set() for dimension in filters}
    for place in places:
        for dimension, name in _named(place):
            if dimension in known:
                known[dimension].add(name)
    return {
        dimension: [
            _meaning(dimension, term, known[dimension], hint) for term in terms_of(dimension, names)
        ]
        for dimension, names in filters.items()
        if names is not None
    }


def _meaning(kind: str, term: str, known: Collection[str], hint: str) -> list[str]:
    """The known names that a name or pattern means; raises UnknownName, with near matches."""
    found = [term] if term in known else matching(term, known)
    if not found:
        raise unknown_name(kind, term, known, hint)
    return found


def _names(meant: Mapping[str, list[list[str]]]) -> dict[str, set[str]]:
    return {dimension: set().union(*terms) for dimension, terms in meant.items()}


def chosen_names(
    kind: str, terms: Collection[str] | None, known: Collection[str], where: str
) -> list[str]:
    """The known names that terms mean, all without any; UnknownName for a term of none."""
    if terms is None:
        return [*known]
    kept = {it for term in terms_of(kind, terms) for it in _meaning(kind, term, known, where)}
    return [name for name in known if name in kept]


def matching(term: str, names: Iterable[str]) -> list[str]:
    return sorted(name for name in names if name == term or fnmatchcase(name, term))


def groups(
    store: FeatureStore, cells: Iterable[FeatureKey], prompts: Names, *, without_text: bool = False
) -> list[tuple[tuple[str, str], list[FeatureKey]]]:
    """The cells of one dataset and split by (perturbation, prompt set), clean images first.

    Cells of embeddings without class embeddings predict nothing: they are left out with a
    note, unless there are no others. With `without_text` they stand beside those of every prompt
    set.
    """
    groups: dict[tuple[str, str], list[FeatureKey]] = {}
    every = [store.cell(key) for key in cells]
    bare = [cell.key for cell in every if without_text and not cell.has_predictions]
    predicting = _predicting([cell for cell in every if cell.key not in bare])
    for cell, there in with_prompt_sets(predicting):
        for prompt_set in prompt_sets(cell, prompts, there):
            groups.setdefault((cell.key.perturbation, prompt_set), []).append(cell.key)
    for key in bare:
        beside = [where for where in groups if where[0] == key.perturbation]
        for where in beside or [(key.perturbation, PROMPTS)]:
            groups.setdefault(where, []).append(key)
    return sorted(groups.items(), key=lambda item: (by_severity(item[0][0]), item[0]))


def _predicting(cells: Sequence[Cell]) -> Sequence[Cell]:
    predicting = [cell for cell in cells if cell.has_predictions]
    if not predicting:
        return cells
    for name in sorted({cell.key.backbone for cell in cells if not cell.has_predictions}):
        LOG.info(f"left out: {name}, of which there are embeddings alone")
    return predicting


def check_prompts(store: FeatureStore, keys: Sequence[FeatureKey], prompts: Names) -> None:
    """Raise UnknownName, with near matches, for a term that no prompt set of the cells fits."""
    if prompts is None:
        return
    each = with_prompt_sets(map(store.cell, keys))
    known = {name for _, there in each for name in there}
    for term in terms_of("prompts", prompts):
        if not matching(term, known):
            hint = f"To add it: `{store.extract_line(keys[0], '--prompts', term)}`"
            raise unknown_name("prompt set", term, known, hint)


def prompt_sets(cell: Cell, prompts: Names, there: Sequence[str]) -> Sequence[str]:
    """Those of `there`, a cell's, that pass; raises MissingCell or UnknownName if there is none."""
    store, key = cell.store, cell.key
    if not cell.has_predictions:
        cell.holding("prediction")  # says what is missing
    if not there:
        raise MissingCell(
            f"{store.path} has no class embeddings of {key.dataset} for {key.backbone}: run "
            f"`{store.extract_line(key)}`"
        )
    if prompts is None:
        return there
    terms = terms_of("prompts", prompts)
    chosen = [name for name in there if any(matching(term, [name]) for term in terms)]
    if not chosen:
        hint = f"To add it: `{store.extract_line(key, '--prompts', terms[0])}`"
        raise unknown_name("prompt set", terms[0], there, hint)
    return chosen


Filters = Mapping[str, Names]  # dimension of KINDS -> names or patterns
Meant = Mapping[str, Collection[str]]  # the names that stand for them


def choose(
    places: Collection[Place], filters: Filters, where: str, *, sources: bool = True
) -> list[Place]:
    """The places that pass every filter, with what they are made from (`with_sources`).

    where: the store, as messages name it. sources: False for those alone that have a name in each
    filtered dimension. Raises MissingCell where nothing passes.
    """
    meant = names_meant(places, filters, where)
    if sources:
        chosen = with_sources(places, meant)
    else:
        chosen = {place for place in places if _is_about(place, meant) and _passes(place, meant)}
    if not chosen:
        raise nothing_matches(where)
    return [place for place in places if place in chosen]


def nothing_matches(where: str) -> MissingCell:
    """The error for filters that nothing in a store passes together."""
    return MissingCell(f"nothing in {where} matches; `{advised('ls', where)}` shows what is there")


def names_meant(places: Collection[Place], filters: Filters, where: str) -> dict[str, set[str]]:
    """The names that the filters mean: those of groups, or else what fits them as a pattern.

    None is no filter. Raises UnknownName, with near matches, for what stands nowhere.
    """
    return _names(_meant(places, filters, f"`{advised('ls', where)}` lists all."))


def with_sources(places: Collection[Place], meant: Meant) -> set[Place]:
    """The places that pass every filter, with the samples, captions and texts that go with them.

    A filter passes what it says nothing of, but these come only with a cell, or where all filters
    are about them.
    """
    embedded = {place[1:] for place in places if place[0] == "features"}
    passing = {place for place in places if _passes(place, meant, embedded)}
    cells = {place for place in passing if place[0] in CELLS}
    about = {place for place in passing - cells if _is_about(place, meant)}
    encoded: set[Place] = {(place[1], place[4]) for place in cells}  # dataset, backbone: of classes
    encoded |= {(place[1], place[2], place[4]) for place in cells}  # and split, of captions
    texts = {
        place
        for place in passing
        if place[0] in ("classes", "texts")
        and (place in about or place[1 :: 2 if place[0] == "classes" else 1] in encoded)
    }
    splits = {place[1:3] for place in cells | texts if place[0] != "classes"}
    bare = {place[1] for place in texts} - {dataset for dataset, _ in splits}
    tables = {
        place
        for place in passing
        if place[0] in ("samples", "captions")
        and (place in about or place[1:3] in splits or place[1] in bare)
    }
    return cells | texts | tables


def _passes(place: Place, meant: Meant, embedded: Collection[Place] | None = None) -> bool:
    """With `embedded`, what was imported without a known prompt set has every set."""
    every = place[0] in ANSWERS and place[5] == PROMPTS and place[1:5] not in (embedded or ())
    return all(
        name in meant.get(dimension, (name,))
        or (every and embedded is not None and dimension == "prompts")
        for dimension, name in _named(place)
    )


def _is_about(place: Place, meant: Meant) -> bool:
    """Whether every filter is about a group of that kind."""
    return set(meant) <= set(KINDS[place[0]])


def _named(place: Place) -> Iterator[tuple[str, str]]:
    return zip(KINDS[place[0]], place[1:], strict=True)
