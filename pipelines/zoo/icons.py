"""Names, groups and drawing styles of the emoji sets that `@iconify-json/*` publishes.

Every vendor names the same emoji a little differently. A *concept* is the name that `noto` gives;
names of other sets are mapped to it by the sets' own alias tables, so that a concept can be found
in all styles.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PACKAGES: Mapping[str, str] = {
    "noto": "1.2.9",
    "twemoji": "1.2.5",
    "emojione": "1.2.3",
    "noto-v1": "1.2.5",
    "fxemoji": "1.2.2",
    "fluent-emoji": "1.2.7",
    "fluent-emoji-flat": "1.2.6",
}
TRAINING_STYLES = ("noto", "twemoji", "emojione")
# The two Fluent sets share their outlines, so they must be in the same split.
UNSEEN_STYLES_A = ("noto-v1", "fxemoji")
UNSEEN_STYLES_B = ("fluent-emoji", "fluent-emoji-flat")

GROUPS: Mapping[str, str] = {
    "Activities": "activities",
    "Animals & Nature": "animals and nature",
    "Flags": "flags",
    "Food & Drink": "food and drink",
    "Objects": "objects",
    "People & Body": "people and body",
    "Smileys & Emotion": "smileys and emotion",
    "Symbols": "symbols",
    "Travel & Places": "travel and places",
}
# Only these sets have the nine groups of Unicode; the first that has an icon decides its group.
GROUPED_STYLES = ("noto", "twemoji", "fluent-emoji-flat", "noto-v1")
TONES = ("-light", "-medium-light", "-medium", "-medium-dark", "-dark")


@dataclass(frozen=True)
class Icon:
    """One drawing: a style's picture of a concept."""

    style: str
    name: str
    concept: str
    group: str  # one of GROUPS' values, "" where no set says
    svg: str


def read_sets(node_modules: Path) -> dict[str, dict[str, Any]]:
    """icons.json of every pinned package, by style."""
    folder = node_modules / "@iconify-json"
    return {s: json.loads((folder / s / "icons.json").read_text("utf-8")) for s in PACKAGES}


def read_groups(node_modules: Path) -> dict[str, str]:
    """The group of every name in a style that has groups; earlier styles take precedence."""
    groups: dict[str, str] = {}
    for style in GROUPED_STYLES:
        path = node_modules / "@iconify-json" / style / "metadata.json"
        for title, names in json.loads(path.read_text("utf-8"))["categories"].items():
            for name in names:
                groups.setdefault(normalise(name), GROUPS[title])
    return groups


def normalise(name: str) -> str:
    """The name with one spelling: `flag-for-flag-x`, `flag-for-x` and `flag-x` are one flag."""
    return name.replace("flag-for-flag-", "flag-").replace("flag-for-", "flag-")


def concept_names(sets: Mapping[str, Mapping[str, Any]]) -> dict[tuple[str, str], str]:
    """The concept of every (style, name)."""
    known = {normalise(name): normalise(name) for s in TRAINING_STYLES for name in sets[s]["icons"]}
    renamed = {
        normalise(old): normalise(entry["parent"]) for old, entry in sets["noto"]["aliases"].items()
    }
    known |= renamed
    # fxemoji writes names without hyphens (`redapple`), so letters alone are compared last.
    letters = {name.replace("-", ""): concept for name, concept in known.items()}
    return {
        (style, name): _concept(name, content.get("aliases", {}), known, letters)
        for style, content in sets.items()
        for name in content["icons"]
    }


def _concept(
    name: str,
    aliases: Mapping[str, Mapping[str, Any]],
    known: Mapping[str, str],
    letters: Mapping[str, str],
) -> str:
    own = normalise(name)
    other_names = [normalise(old) for old, entry in aliases.items() if entry["parent"] == name]
    for candidate in (own, *other_names):
        if candidate in known:
            return known[candidate]
    return letters.get(own.replace("-", ""), own)


def is_skin_tone(name: str, names: Sequence[str] | Mapping[str, Any]) -> bool:
    """Whether the icon only repeats another one in another skin tone."""
    if "skin-tone" in name:
        return True
    bases = [name.removesuffix(tone) for tone in TONES if name.endswith(tone)]
    # `police-car-light` is an emoji of its own: a tone is one only where its siblings exist.
    return any(base + "-medium-dark" in names for base in bases)


def iter_icons(node_modules: Path) -> Iterator[Icon]:
    """One icon per style and concept, no skin tones; styles as in PACKAGES, names sorted."""
    sets = read_sets(node_modules)
    groups, concepts = read_groups(node_modules), concept_names(sets)
    seen: set[tuple[str, str]] = set()
    for style, content in sets.items():
        for name in sorted(content["icons"]):
            concept = concepts[style, name]
            if (style, concept) in seen or is_skin_tone(name, content["icons"]):
                continue
            seen.add((style, concept))
            yield Icon(style, name, concept, groups.get(concept, ""), svg_text(content, name))


def svg_text(content: Mapping[str, Any], name: str) -> str:
    """A whole SVG document from the body that the package stores."""
    icon = content["icons"][name]
    width = icon.get("width", content.get("width", 16))
    height = icon.get("height", content.get("height", 16))
    box = f"{icon.get('left', 0)} {icon.get('top', 0)} {width} {height}"
    head = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f'{head} width="{width}" height="{height}" viewBox="{box}">{icon["body"]}</svg>'
