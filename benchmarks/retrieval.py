"""Retrieval of COCO's size by nine backbones, its time over bare products, and others' ways.

    python benchmarks/retrieval.py
    python benchmarks/retrieval.py --only-ranks --images 100000

Random embeddings of half precision, captions near their image. All of `clipsyn retrieval` reads a
store that has train pairs and a bank of a fifth of the size; the ranks of one backbone are compared
with what others do: CLIP_benchmark's recall, a sort of the whole matrix, a flat index of faiss.
"""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
from common import Measured, interleaved, ratio, report, spread, start
from numpy.typing import NDArray

from clipsyn import FeatureStore, SampleTable, retrieval
from clipsyn.analyses.retrieval.measures import Search, alone, best_ranks, ranks
from clipsyn.methods.numerics.blocks import side_by_side

RECALLS = (1, 5, 10)
CAPTIONS = 5  # of an image
_BATCH = 64  # of CLIP_benchmark
Floats = NDArray[Any]


class Made(NamedTuple):
    """Images and captions of one backbone, and which image each caption is of."""

    images: Floats
    texts: Floats
    of: NDArray[np.intp]

    @classmethod
    def of_size(cls, images: int, width: int, seed: int) -> Made:
        rng, of = np.random.default_rng(seed), np.repeat(np.arange(images), CAPTIONS)
        shown = _unit(rng.standard_normal((images, width), np.float32))
        texts = np.empty((len(of), width), np.float16)
        for first in range(0, len(of), 1 << 16):
            part = slice(first, first + (1 << 16))
            noise = _unit(rng.standard_normal((len(of[part]), width), np.float32))
            texts[part] = _unit(0.2 * shown[of[part]] + noise)
        return cls(shown.astype(np.float16), texts, of)

    @property
    def searches(self) -> tuple[Search, Search]:
        pairs = np.arange(len(self.of))
        by_text = Search([self.texts], [self.images], [1.0], pairs, self.of)
        return by_text, Search([self.images], [self.texts], [1.0], self.of, pairs)


def _unit(values: Floats) -> Floats:
    return np.asarray(values / np.linalg.norm(values, axis=1, keepdims=True))


def fill(path: Path, images: int, width: int, backbones: int) -> FeatureStore:
    """A store with a test split, and a train split of a fifth."""
    store = FeatureStore.create(path)
    for split, count in (("test", images), ("train", images // 5)):
        samples = SampleTable.of("random", split, [f"{split}-{i}" for i in range(count)])
        texts = [[f"{i}, {j}" for j in range(CAPTIONS)] for i in range(count)]
        for number in range(backbones):
            made = Made.of_size(count, width, number)
            with store.writer(samples, f"backbone-{number}") as cell:
                cell.embeddings(made.images)
                cell.captions(texts, made.texts, 100.0)
    return store


def _product(search: Search, rows: slice) -> None:
    search.similarities(rows)


def bare_products(images: int, width: int, backbones: int) -> float:
    """Processor time of all products: queries and gallery, both directions, and the bank."""
    made = Made.of_size(images, width, 0)
    bank = Made.of_size(images // 5, width, 1)
    searches = [*made.searches]
    searches += [
        Search([queries], [gallery], [1.0], searches[0].query, searches[0].item)
        for queries, gallery in ((bank.texts, made.images), (bank.images, made.texts))
    ]
    begin = time.process_time()
    for search in searches:
        side_by_side(partial(_product, search), search.blocks())
    return backbones * (time.process_time() - begin)


def whole(images: int, width: int, backbones: int) -> list[Measured]:
    with tempfile.TemporaryDirectory(prefix="clipsyn-benchmark-") as folder:
        store = fill(Path(folder) / "store", images, width, backbones)
        products = bare_products(images, width, backbones)
        begin, busy = time.perf_counter(), time.process_time()
        retrieval(store)
        took, busy = time.perf_counter() - begin, time.process_time() - busy
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    what = f"clipsyn retrieval, {images:,} x {CAPTIONS * images:,} x {backbones}"
    return [
        Measured(what, took, f"{busy:.1f} s of processor time", ceiling=60, unit="s"),
        Measured(
            f"{what}: processor time over that of its bare products",
            busy / products,
            f"{products:.1f} s",
            ceiling=2,
        ),
        Measured("peak memory of the process", peak, ceiling=2, unit="GB"),
    ]


def clip_benchmark(made: Made) -> list[float]:
    import torch
    from clip_benchmark.metrics.zeroshot_retrieval import batchify, recall_at_k

    scores = torch.from_numpy(made.texts.astype(np.float32)) @ torch.from_numpy(
        made.images.astype(np.float32).T
    )
    positive = torch.zeros_like(scores, dtype=torch.bool)
    positive[torch.arange(len(scores)), torch.from_numpy(made.of)] = True
    found = [batchify(recall_at_k, scores, positive, _BATCH, "cpu", k=k) > 0 for k in RECALLS]
    return [float(of.float().mean()) for of in found]


def sorting(made: Made) -> list[float]:
    scores = made.texts.astype(np.float32) @ made.images.astype(np.float32).T
    first = np.argsort(-scores, axis=1, kind="stable")[:, : max(RECALLS)]
    hits = first == made.of[:, None]
    return [float(hits[:, :k].any(axis=1).mean()) for k in RECALLS]


def flat_index(made: Made) -> list[float]:
    import faiss

    index = faiss.IndexFlatIP(made.images.shape[1])
    index.add(made.images.astype(np.float32))
    _, first = index.search(made.texts.astype(np.float32), max(RECALLS))
    hits = first == made.of[:, None]
    return [float(hits[:, :k].any(axis=1).mean()) for k in RECALLS]


def ours(made: Made) -> list[float]:
    search, _ = made.searches
    best = best_ranks(search, ranks(search, [alone(0)])[0])
    return [float((best <= k).mean()) for k in RECALLS]


def peers(images: int, width: int, rounds: int) -> list[Measured]:
    made = Made.of_size(images, width, 0)
    ways: dict[str, Callable[[Made], list[float]]] = {
        "ours": ours,
        "a sort of the whole matrix": sorting,
        "CLIP_benchmark": clip_benchmark,
        "faiss, flat": flat_index,
    }
    for name, way in ways.items():
        assert np.allclose(way(made), ours(made), atol=3 / len(made.of)), name
    times = interleaved({name: partial(way, made) for name, way in ways.items()}, rounds)
    about = f"{CAPTIONS * images:,} captions to {images:,} images"
    return [
        Measured(
            f"recall of {about}: {name} over ours",
            ratio(times[name], times["ours"]),
            f"{np.median(times['ours']):.1f} s; {spread(times[name], times['ours'])}",
        )
        for name in [*ways][1:]
    ]


def large(images: int, width: int) -> list[Measured]:
    made = Made.of_size(images, width, 0)
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    begin = time.perf_counter()
    ours(made)
    took = time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    about = f"{CAPTIONS * images:,} captions to {images:,} images, width {width}"
    return [
        Measured(f"ranks of {about}", took, unit="s"),
        Measured("memory at its peak above the embeddings", peak - held, unit="GB"),
    ]


@click.command()
@click.option("--images", default=5_000, show_default=True, help="Of five captions each.")
@click.option("--width", default=512, show_default=True)
@click.option("--backbones", default=9, show_default=True)
@click.option("--rounds", default=3, show_default=True)
@click.option("--only-ranks", is_flag=True, help="Ranks of one backbone, text to image, alone.")
def main(images: int, width: int, backbones: int, rounds: int, only_ranks: bool) -> None:
    """Retrieval of captioned images."""
    start(f"Retrieval: {images:,} images, {CAPTIONS} captions each, width {width}")
    if only_ranks:
        report(large(images, width))
    else:
        report(whole(images, width, backbones) + peers(images, width, rounds))


if __name__ == "__main__":
    main()
