"""What to cite for the cells of a store, and what nothing is known to cite for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from clipsyn.catalog.citations import ENCODERS, METHOD, SOFTWARE, Work, of_perturbation, work
from clipsyn.exchange.origins.made import Made
from clipsyn.names import parse_perturbation
from clipsyn.text import printable


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
    """What to cite for cells: `clipsyn.exchange.origins.made.made` says where they come from."""
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
    names = [parse_perturbation(cell.key.perturbation).name for cell in cells]
    found = [
        *((cell.weights.cited, cell.weights.backbone) for cell in cells),
        *((cell.images.cited, cell.images.dataset) for cell in cells),
        *((of_perturbation(name), name) for name in names),
    ]
    for works, reason in found:
        yield from ((known.key, reason) for known in works)


def _unknown(cells: Sequence[Made]) -> Iterator[str]:
    yield from filter(None, map(_about_weights, cells))
    for cell in cells:
        if not cell.images.cited:
            yield f"no citation is known for the dataset {cell.images.dataset}: see its source"


def _about_weights(cell: Made) -> str | None:
    name, weights = cell.weights.backbone, cell.weights
    if cell.imported:
        what = f"{name} was imported ({cell.imported})"
        if weights.cited:
            return f"{what}: it is cited by its name, which nothing proves"
        return f"{what}: cite who made it, which the store does not know"
    if weights.cited:
        return None
    where = weights.shown or name
    if where.startswith("hf-hub:"):
        page = f"https://huggingface.co/{where.removeprefix('hf-hub:')}"
        return f"no citation is known for the weights {name}: see {page}"
    return f"no citation is known for the weights {name} ({where}): see their source"
