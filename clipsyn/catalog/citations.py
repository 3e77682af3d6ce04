"""What to cite for weights, datasets and software, and the terms of weights: `citations.toml`."""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

METHOD, SOFTWARE, ENCODERS = "rodriguezopazo2025synergy", "clipsyn", "ilharco2021openclip"
_ABOUT = ("weights", "datasets", "perturbations")
_SPECIAL = {"&": r"\&", "%": r"\%", "#": r"\#", "_": r"\_"}
_RAW = frozenset({"url", "doi", "eprint"})  # fields that BibTeX styles take as they are


@dataclass(frozen=True)
class Work:
    """A publication or a software, and what it is cited for."""

    key: str
    kind: str
    fields: Mapping[str, str]
    weights: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    perturbations: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """ "Radford et al. 2021", as a sentence has it."""
        first, *others = self.fields["author"].split(" and ")
        name = first.partition(",")[0].strip("{}")
        name += " et al." if len(others) > 1 else f" and {_surname(others[0])}" if others else ""
        return " ".join(filter(None, [name, self.fields.get("year")]))

    @property
    def url(self) -> str:
        return self.fields.get("url", "")

    def bibtex(self) -> str:
        """The entry; ``@misc`` for software, which not every style of BibTeX knows."""
        kind = "misc" if self.kind == "software" else self.kind
        lines = [f"  {name} = {{{_tex(name, text)}}}" for name, text in self.fields.items()]
        return f"@{kind}{{{self.key},\n" + ",\n".join(lines) + "\n}"


@dataclass(frozen=True)
class Terms:
    """The licence of weights, as who publishes them says it, and where."""

    weights: tuple[str, ...]
    licence: str
    url: str = ""


def works() -> tuple[Work, ...]:
    """All that the catalogue knows, in its order."""
    return _read()[0]


def work(key: str) -> Work:
    return next(known for known in works() if known.key == key)


def of_weights(source: str) -> tuple[Work, ...]:
    """What to cite for a backbone: ``ARCHITECTURE/TAG``, or where else its weights came from."""
    return tuple(known for known in works() if _fits(source, known.weights))


def of_dataset(name: str) -> tuple[Work, ...]:
    """What to cite for a dataset by its name in the catalogue."""
    return tuple(known for known in works() if name in known.datasets)


def of_perturbation(name: str) -> tuple[Work, ...]:
    return tuple(known for known in works() if name in known.perturbations)


def terms_of_weights(source: str) -> Terms | None:
    """Under which licence weights are published; None where the catalogue does not know."""
    return next((terms for terms in _read()[1] if _fits(source, terms.weights)), None)


def _fits(source: str, patterns: Collection[str]) -> bool:
    return any(fnmatchcase(source.lower(), pattern.lower()) for pattern in patterns)


@cache
def _read() -> tuple[tuple[Work, ...], tuple[Terms, ...]]:
    text = (Path(__file__).parent / "citations.toml").read_text(encoding="utf-8")
    document = tomllib.loads(text)
    terms = tuple(
        Terms(tuple(entry["weights"]), entry["licence"], entry["url"])
        for entry in document["terms"]
    )
    return tuple(map(_work, document["work"])), terms


def _work(entry: Mapping[str, Any]) -> Work:
    about = {name: tuple(entry.get(name, ())) for name in _ABOUT}
    fields = {name: text for name, text in entry.items() if name not in (*_ABOUT, "key", "kind")}
    return Work(entry["key"], entry["kind"], fields, **about)


def _surname(author: str) -> str:
    return author.partition(",")[0].strip("{}")


def _tex(name: str, text: str) -> str:
    """A field as BibTeX reads it in UTF-8, capitals of a title kept."""
    if name in _RAW:
        return text
    spelt = "".join(_SPECIAL.get(character, character) for character in text)
    return f"{{{spelt}}}" if name == "title" else spelt
