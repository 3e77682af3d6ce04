"""What to cite for the cells of a store, and what nothing is known to cite for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from clipsyn.catalog.citations import ENCODERS, METHOD, SOFTWARE, Work, of_perturbation, work
from clipsyn.origins.made import Made
from clipsyn.printable import printable
from clipsyn.specs import parse_perturbation


@dataclass(frozen=True)
class Citation:
    """A work, and what of the cells it is cited for."""

    work: Work
    reasons: tuple[str, ...]

    def json(self) -> dict[str, Any]:
        about = {"key": self.work.key, "kind": self.work.kind, **self.work.fields}
        return {**about, "for": list(self.reasons)}

    def bibtex(self) -> str:
        """The entry below a line that says what it is for."""
        reasons = printable(", ".join(self.reasons)).replace("@", "(at)")  # @ begins an entry
        return f"% for {reasons}\n{self.work.bibtex()}"


@dataclass(frozen=True)
class Citations:
    """The works in order: the method, the software, weights, datasets, perturbations."""

    works: tuple[Citation, ...]
    unknown: tuple[str, ...]  # sentences: what no work is known for, or by its name alone

    def json(self) -> dict[str, Any]:
        return {"works": [work.json() for work in self.works], "unknown": list(self.unknown)}

    def bibtex(self) -> str:
        return "\n\n".join(citation.bibtex() for citation in self.works)


def citations(cells: Sequence[Made]) -> Citations:
    """What to cite for cells: `clipsyn.origins.made.made` says where they come from."""
    reasons: dict[str, dict[str, None]] = {}
    for key, reason in _cited(cells):
        reasons.setdefault(key, {})[reason] = None
    found = (Citation(work(key), tuple(names)) for key, names in reasons.items())
    return Citations(tuple(found), tuple(dict.fromkeys(_unknown(cells))))


def _cited(cells: Sequence[Made]) -> Iterator[tuple[str, str]]:
    """Key of a work, and a thing that it is cited for."""
    yield METHOD, "the method"
    yield SOFTWARE, "the software"
    if any(cell.imported is None for cell in cells):
        yield ENCODERS, "loading the backbones"
    yield from _each((cell.weights.cited, cell.weights.backbone) for cell in cells)
    yield from _each((cell.images.cited, cell.images.dataset) for cell in cells)
    for cell in cells:
        name = parse_perturbation(cell.key.perturbation).name
        yield from _each([(of_perturbation(name), name)])


def _each(found: Iterable[tuple[tuple[Work, ...], str]]) -> Iterator[tuple[str, str]]:
    for works, reason in found:
        yield from ((known.key, reason) for known in works)


def _unknown(cells: Sequence[Made]) -> Iterator[str]:
    for cell in cells:
        if cell.imported and cell.weights.cited:
            what = f"{cell.key.backbone} was imported ({cell.imported})"
            yield f"{what}: it is cited by its name, which nothing proves"
        elif not cell.weights.cited:
            yield _about_weights(cell)
    for cell in cells:
        if not cell.images.cited:
            yield f"no citation is known for the dataset {cell.images.dataset}: see its source"


def _about_weights(cell: Made) -> str:
    weights = cell.weights
    if cell.imported:
        what = f"{weights.backbone} was imported ({cell.imported})"
        return f"{what}: cite who made it, which the store does not know"
    where = weights.shown or weights.backbone
    if where.startswith("hf-hub:"):
        page = f"https://huggingface.co/{where.removeprefix('hf-hub:')}"
        return f"no citation is known for the weights {weights.backbone}: see {page}"
    return f"no citation is known for the weights {weights.backbone} ({where}): see their source"
