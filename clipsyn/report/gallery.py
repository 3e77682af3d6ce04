"""Images to look at: some of those that a backbone gets wrong, with what each says of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from clipsyn.analyses.predicted import Predicted
from clipsyn.evaluation.results.frame import SHOTS_IN_ORDER
from clipsyn.evaluation.results.predictions import scan
from clipsyn.evaluation.results.view import WHERE, singles
from clipsyn.methods.ensembles import CHOSEN
from clipsyn.methods.numerics.logits import NO_CLASS, NONE_OF_THEM
from clipsyn.methods.numerics.metrics import judge, scored
from clipsyn.names import FeatureKey
from clipsyn.report.standings import main_part
from clipsyn.show.table import Table, percent
from clipsyn.show.tables import interval_of, table_of
from clipsyn.show.titles import common, shortened, title, where
from clipsyn.store.pools import PoolReader

Answers = Mapping[str, tuple[int, float | None]]  # by id of an image: a class, and a confidence


class Said(NamedTuple):
    """What a backbone, or the chosen method, says of an image."""

    who: str
    answer: str
    is_right: bool
    confidence: float | None


class Example(NamedTuple):
    """An image that some backbone or the chosen method gets wrong."""

    dataset: str
    split: str
    id: str
    content: bytes  # SHA-256; zeros where nobody has read it
    truth: str
    said: tuple[Said, ...]


def unique_table(oracle: pl.DataFrame) -> Table | None:
    """How many images only one backbone gets right: a line a dataset, a column a backbone."""
    part = singles(main_part(oracle)).filter(pl.col("value").is_not_nan())
    images = part.filter(metric="unique_correct")
    if images["backbone"].n_unique() < 2:
        return None
    names = shortened(images["backbone"].unique(maintain_order=True).to_list())
    keys = [name for name in WHERE if name not in common(images, WHERE)] or ["dataset"]
    lines = []
    best: dict[tuple[int, str], tuple[()]] = {}
    for at, (_, group) in enumerate(images.group_by(WHERE, maintain_order=True)):
        row = group.row(0, named=True)
        found = dict(group.select("backbone", "value").iter_rows())
        line: dict[str, Any] = {"dataset": title(*where(row, keys)), "images": row["n"]}
        for name, text in names.short.items():
            share = found.get(name)
            line[text] = None if share is None else round(share * row["n"])
            line[interval_of(text)] = None if share is None else f"{percent(share)} %"
            if share and share == max(found.values()):
                best[at, text] = ()
        lines.append(line)
    guess = max(part.filter(metric="unique_correct_floor")["value"], default=None)
    note = f"A backbone that guesses would have at most {percent(guess)} % of a dataset's images."
    caption = title("Images that only this backbone gets right", names.phrase)
    return table_of(lines, title=caption, best=best, notes=note)


def examples(group: Predicted, most: int, chosen: Answers) -> list[Example]:
    """Up to `most` images of a group, drawn with a fixed seed; none where all are right.

    As many as there are of each kind: what one backbone alone gets right, what none, two or more
    do, and what the chosen method gets wrong. chosen: its answers; empty where nobody knows them.
    """
    labels, predictions = group.labels, group.predictions
    right = predictions == labels
    hits = right.sum(axis=0)
    answers = [chosen.get(id, (NO_CLASS, None)) for id in group.samples.ids]
    missed = bool(chosen) & (np.array([answer for answer, _ in answers]) != labels)
    kinds = 2 * np.where(hits == 1, right.argmax(axis=0), -hits - 1) + missed
    shown = scored(predictions, labels) & ((hits < len(right)) | missed)
    rows = np.random.default_rng(0).permutation(np.flatnonzero(shown))
    before: Counter[int] = Counter()
    turns = []
    for kind in kinds[rows].tolist():
        turns.append(before[kind])
        before[kind] += 1
    kept = np.sort(rows[np.argsort(turns, kind="stable")[:most]])
    sure = [_confidences(group, key, kept) for key in group.keys]
    return [
        _example(group, int(row), [given[at] for given in sure], answers[row] if chosen else None)
        for at, row in enumerate(kept)
    ]


def _example(
    group: Predicted,
    row: int,
    sure: list[float | None],
    chosen: tuple[int, float | None] | None,
) -> Example:
    samples, label = group.samples, int(group.labels[row])
    said = list(zip(group.backbones, group.predictions[:, row].tolist(), sure, strict=True))
    said += [(CHOSEN, *chosen)] if chosen else []
    names = samples.class_names
    return Example(
        samples.dataset,
        samples.split,
        samples.ids[row],
        samples.content[row].tobytes(),
        names[label],
        tuple(
            Said(who, NONE_OF_THEM if it == NO_CLASS else names[it], it == label, confidence)
            for who, it, confidence in said
        ),
    )


def _confidences(
    group: Predicted, key: FeatureKey, rows: NDArray[np.intp]
) -> Sequence[float | None]:
    """Of one backbone; None where it has answers alone, or answers of several conditions."""
    if group.has_logits(key):
        reader = PoolReader(
            group.store,
            key.dataset,
            key.split,
            perturbation=key.perturbation,
            backbones=key.backbone,
            prompts=group.prompts,
        )
        pool = reader.read(rows, embeddings=False)
        return [*map(float, judge(pool.logits[:, 0], pool.labels).confidence)]
    if key.perturbation == group.perturbation and group.store.cell(key).has_confidences:
        return [*map(float, group.store.confidences(key, group.prompts)[rows])]
    return [None] * len(rows)


def chosen_answers(path: Path | None, group: Predicted) -> Answers:
    """Of the method that the support chooses, at the most shots and the first draw."""
    if path is None:
        return {}
    about = {
        "dataset": group.samples.dataset,
        "split": group.samples.split,
        "perturbation": group.perturbation,
        "prompts": group.prompts,
        "ensemble": CHOSEN,
    }
    order = SHOTS_IN_ORDER
    rows = (
        scan(path)
        .filter(**about)
        .filter(order == order.max())
        .filter(pl.col("seed").eq_missing(pl.col("seed").min()))
        .select("sample_id", "prediction", "confidence")
        .collect()
    )
    return {id: (answer, confidence) for id, answer, confidence in rows.iter_rows()}
