"""What was run, on what, with which weights, and what to keep in mind of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import polars as pl

from clipsyn.evaluation.results.frame import UNFITTED
from clipsyn.exchange.origins.made import portable
from clipsyn.names import CLEAN, FeatureKey
from clipsyn.report.evidence import EVALUATE, Evidence, without_folders
from clipsyn.report.html import Html, paragraphs
from clipsyn.report.standings import main_part
from clipsyn.show.table import Table
from clipsyn.show.tables import table_of
from clipsyn.store.alike import alike_notes
from clipsyn.store.inventory import describe
from clipsyn.store.overlap import image_notes, sample_tables
from clipsyn.store.samples import SampleTable
from clipsyn.text import counted

_FEW = 100  # labelled images, below which an interval spans ten points and more
_DIGITS = 12  # of a digest, enough to tell two apart


@dataclass(frozen=True)
class Place:
    """One dataset and split, and the cells of it that are shown."""

    samples: SampleTable
    keys: tuple[FeatureKey, ...]
    masked: int  # images that some backbone has no answer for
    imported: frozenset[str]  # backbones

    @property
    def labelled(self) -> int:
        return int((self.samples.labels >= 0).sum())

    @property
    def backbones(self) -> list[str]:
        return list(dict.fromkeys(key.backbone for key in self.keys))

    @property
    def perturbations(self) -> list[str]:
        return list(dict.fromkeys(key.perturbation for key in self.keys))


def places(evidence: Evidence) -> list[Place]:
    """Every dataset and split that is shown, in order."""
    cells: dict[tuple[str, str], list[FeatureKey]] = defaultdict(list)
    for key in evidence.keys:
        cells[key.dataset, key.split].append(key)
    return [_place(evidence, where, keys) for where, keys in cells.items()]


def _place(evidence: Evidence, where: tuple[str, str], keys: Iterable[FeatureKey]) -> Place:
    store = evidence.store
    every = [store.cell(key) for key in keys]
    masked = max(cell.counts()[1] for cell in every)
    imported = frozenset(cell.key.backbone for cell in every if cell.imported_as)
    return Place(store.samples(*where), tuple(cell.key for cell in every), masked, imported)


def title(shown: Iterable[Place]) -> str:
    """ "9 backbones on 21 datasets", with the name of what there is one of."""
    places = list(shown)
    names = list(dict.fromkeys(name for place in places for name in place.backbones))
    datasets = list(dict.fromkeys(place.samples.name for place in places))
    one, other = names[0], datasets[0]
    backbones = one if len(names) == 1 else f"{len(names)} backbones"
    return f"{backbones} on {other if len(datasets) == 1 else f'{len(datasets)} datasets'}"


def summary(shown: Iterable[Place]) -> str:
    """One line: how many images, and in which conditions."""
    places = list(shown)
    images = sum(len(place.samples) for place in places)
    labels = {label for place in places for label in place.perturbations}
    others = len(labels - {CLEAN.label})
    clean = "clean" if CLEAN.label in labels else ""
    under = f"under {counted(others, 'perturbation')}" if others else ""
    return f"{counted(images, 'image')}, {' and '.join(filter(None, [clean, under]))}"


def tables(evidence: Evidence, shown: Iterable[Place]) -> list[Table]:
    return [backbone_table(evidence), dataset_table(shown, prompts_of(evidence))]


def dataset_table(shown: Iterable[Place], prompts: Mapping[tuple[str, str], list[str]]) -> Table:
    """A line for each dataset and split."""
    lines = [
        {
            "dataset": place.samples.name,
            "images": len(place.samples),
            "labelled": place.labelled,
            "classes": len(place.samples.class_names),
            "prompts": prompts.get((place.samples.dataset, place.samples.split)),
            "conditions": len(place.perturbations),
            "backbones": len(place.backbones),
            "masked": place.masked,
            "licence of the images": place.samples.licence or None,
        }
        for place in shown
    ]
    note = (
        "masked: images that some backbone could not read, or has no answer for. They keep their "
        "row and do not count."
    )
    return table_of(lines, title="Datasets", notes=note)


def backbone_table(evidence: Evidence) -> Table:
    """A line for each backbone: where its weights come from, and what they are."""
    about = describe(evidence.store)
    lines = [
        _weights(name, about, evidence.gflops.get(name))
        for name in dict.fromkeys(key.backbone for key in evidence.keys)
    ]
    digits = {"GFLOPs": 2, "parameters, M": 2}
    return table_of(lines, title="Backbones and their weights", digits=digits)


def _weights(name: str, about: Mapping[str, Any], gflops: float | None) -> dict[str, Any]:
    known = about["backbones"].get(name, {})
    kinds = about["imports"].get(name, {}).get("kinds", [])
    source = portable(str(known.get("source", ""))) if known else f"imported {', '.join(kinds)}"
    parameters = known.get("image_parameters")
    return {
        "backbone": name,
        "weights from": source or None,
        "SHA-256 of the weights": str(known.get("weights", ""))[:_DIGITS] or None,
        "precision": known.get("precision"),
        "input": _side(known.get("preprocess")),
        "GFLOPs": gflops,
        "parameters, M": parameters / 1e6 if parameters else None,
        "run on": known.get("device"),
    }


def _side(preprocess: Any) -> int | None:
    """Pixels of the side of an input image."""
    size = preprocess.get("size") if isinstance(preprocess, dict) else None
    side = size[0] if isinstance(size, list) and size else size
    return side if isinstance(side, int) else None


def prompts_of(evidence: Evidence) -> dict[tuple[str, str], list[str]]:
    """The prompt sets that numbers are of, by dataset and split."""
    frame = evidence.frames.get("zeroshot")
    if frame is None:
        return {}
    sets: dict[tuple[str, str], list[str]] = defaultdict(list)
    for dataset, split, prompts in (
        frame.select("dataset", "split", "prompts").unique().sort("prompts").rows()
    ):
        sets[dataset, split].append(prompts)
    return sets


def caveats(evidence: Evidence, shown: list[Place]) -> list[Html]:
    """Sentences, each about one thing that makes numbers weaker than they look."""
    holes = list(_missing(evidence, shown))
    masked = [f"{place.samples.name} ({place.masked:,})" for place in shown if place.masked]
    small = [place for place in shown if 0 < place.labelled < _FEW]
    frame = evidence.frames.get("zeroshot", pl.DataFrame({"prompts": []}))
    results = evidence.frames.get(EVALUATE)
    notes = [*_alike(evidence, shown), *_shared(evidence)]
    told = partial(without_folders, store=evidence.store)
    return paragraphs(
        "caveats.html",
        unlabelled=[place.samples.name for place in shown if not place.labelled],
        small=[f"{place.samples.name} ({place.labelled})" for place in small],
        masked=masked,
        holes=holes,
        cells=len(holes) + len(set(evidence.keys)),
        first_line=told(evidence.store.extract_line(holes[0])) if holes else "",
        imported=sorted({name for place in shown for name in place.imported}),
        prompts=_sets(frame).sort().to_list(),
        main_prompts=_sets(main_part(frame)).to_list() if len(frame) else [],
        notes=[_sentence(note) for note in notes],
        has_support=evidence.has_support,
        has_no_curve=results is not None and _has_no_curve(results),
        lacking={name: told(why) for name, why in evidence.lacking.items()},
    )


def _sets(frame: pl.DataFrame) -> pl.Series:
    return frame["prompts"].unique(maintain_order=True).drop_nulls()


def _missing(evidence: Evidence, shown: Iterable[Place]) -> Iterator[FeatureKey]:
    """Cells that some backbone lacks and another has."""
    there = dict.fromkeys(evidence.keys)
    names = dict.fromkeys(key.backbone for key in there)
    for place in shown:
        for label in place.perturbations:
            for name in names:
                key = FeatureKey(place.samples.dataset, place.samples.split, label, name)
                if key not in there:
                    yield key


def _alike(evidence: Evidence, shown: Iterable[Place]) -> Iterable[str]:
    sets = prompts_of(evidence)
    return dict.fromkeys(
        note
        for place in shown
        for prompts in sets.get((place.samples.dataset, place.samples.split), [])
        for note in alike_notes(evidence.store, place.samples.dataset, prompts, place.backbones)
    )


def _shared(evidence: Evidence) -> list[str]:
    frame = evidence.frames.get("zeroshot", pl.DataFrame())
    return [] if frame.is_empty() else image_notes(sample_tables(evidence.store, frame))


def _sentence(note: str) -> str:
    """A note of the command line as the beginning of a sentence."""
    text = note.removeprefix("note: ")
    return text[:1].upper() + text[1:]


def _has_no_curve(results: pl.DataFrame) -> bool:
    """Whether there is no figure by number of labelled images."""
    if results.is_empty():
        return False
    learned = main_part(results).filter(pl.col("shots") != UNFITTED, metric="acc1")
    numbers = learned.group_by("dataset").agg(pl.col("shots").n_unique())["shots"]
    return numbers.max() == 1
