"""A thousand GPUs and a billion images, on paper: counts, the work list, and how long it takes.

    python benchmarks/fleet.py

Nothing is encoded. The work list is the real one, of a split of a million images in parts. The
sizes of files and of the index are counted from what clipsyn writes. How long many workers take is
simulated: nodes of unequal speed, of which some are taken away now and then.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import click
import numpy as np
from common import Measured, report, seconds, start
from numpy.typing import NDArray

from clipsyn.extract import ExtractSettings
from clipsyn.extract.blocks import Block, Claims
from clipsyn.extract.blocks import blocks as left
from clipsyn.extract.work import Work, load_work
from clipsyn.images.perturb import expand
from clipsyn.names import Backbone
from clipsyn.remote.index import Entry, dump_part
from clipsyn.store.claims import EXPIRES
from clipsyn.store.features import FeatureStore

IMAGES, GPUS, PART = 10**9, 1000, 10**6  # in all; images of a split
GFLOPS, WIDTHS = 1340.72, 6528  # of the paper's nine backbones together, an image
FLOPS = 0.4 * 989e12  # of one H100 in bfloat16, two fifths of its peak: an assumption
IMAGE, CHUNK_ROWS = 110e3, 1024  # bytes of a JPEG, images of a block
SPREAD = 0.1  # of the nodes' speed: the standard deviation of its logarithm
RESTART = 180.0  # seconds until a task that was taken away has loaded its weights again


class Images:
    """As many images as are wanted, none of which is ever read."""

    class_names = ("a", "b")
    templates = ("a photo of {c}.",)
    info, notes, captions = None, (), ()

    def __init__(self, name: str, count: int) -> None:
        self.name, self.split = name, "train"
        self.ids = tuple(f"{row:09d}.jpg" for row in range(count))
        self.labels = np.zeros(count, np.int32)

    def __len__(self) -> int:
        return len(self.ids)

    def digest(self, row: int) -> bytes:
        return hashlib.sha256(row.to_bytes(8)).digest()


def encoder(number: int) -> Any:
    """What the work list needs to know of a backbone."""
    backbone = Backbone(f"backbone/{number}", f"local-dir:{number}")
    identity = {"weights": str(number)}
    known = {"embed_dim": 768, "preprocess_key": "", "tells_classes": True, "classes": None}
    return SimpleNamespace(backbone=backbone, identity=identity, **known)


def plan_of(folder: Path, images: int, backbones: int, perturbations: list[str]) -> Work:
    encoders = [encoder(number) for number in range(backbones)]
    source: Any = Images("part", images)
    quiet: Any = SimpleNamespace(
        add=lambda *_, **__: 0, advance=lambda *_: None, finish=lambda _: None
    )
    job = ExtractSettings(datasets=("part",), logits="none")
    store = FeatureStore(folder, CHUNK_ROWS)
    return load_work(store, job, encoders, [source], expand(perturbations), progress=quiet)


@dataclass(frozen=True)
class Fleet:
    """Workers that share blocks; `lost` is how often a worker is taken away, in seconds."""

    workers: int
    blocks: int
    block: float  # seconds, on a node of middling speed
    lost: float
    load: float = 120.0  # seconds until the first block
    expires: float = EXPIRES  # seconds until others make the block of a worker that is lost
    seed: int = 0

    @property
    def ideal(self) -> float:
        return self.blocks * self.block / self.workers

    def _speeds(self) -> NDArray[np.float64]:
        return np.exp(np.random.default_rng(self.seed).normal(0, SPREAD, self.workers))

    def by_shares(self) -> NDArray[np.float64]:
        """(worker,): when each has done every N-th block; what a lost one was at is done again."""
        rng = np.random.default_rng(self.seed + 1)
        shares = np.full(self.workers, self.blocks // self.workers)
        shares[: self.blocks % self.workers] += 1
        work = shares * self.block / self._speeds()
        losses = rng.poisson(work / self.lost)
        again = rng.uniform(0, self.block, self.workers)
        return np.asarray(self.load + work + losses * (RESTART + again))

    def by_claims(self) -> float:
        """When all is done if whoever is free claims the next block.

        A lost worker begins again; its block is made when the others are, and its claim expired.
        """
        rng = np.random.default_rng(self.seed + 1)
        lasts = self.block / self._speeds()
        lost = rng.exponential(self.lost, self.workers)
        free = [(self.load, worker) for worker in range(self.workers)]
        left, expired, ended = self.blocks, list[float](), 0.0
        while left or expired:
            now, worker = heapq.heappop(free)
            if left:
                left -= 1
            else:
                now = max(now, heapq.heappop(expired))
            done = now + lasts[worker]
            if done > lost[worker] > now:
                heapq.heappush(expired, lost[worker] + self.expires)
                done = lost[worker] + RESTART
            else:
                ended = max(ended, done)
            if lost[worker] <= done:
                lost[worker] = done + rng.exponential(self.lost)
            heapq.heappush(free, (done, worker))
        return float(ended)


def work_list(results: list[Measured]) -> None:
    """The time that a worker needs to find its work."""
    with TemporaryDirectory() as folder:
        plan = plan_of(Path(folder), PART, 9, ["clean"])
        every = sum(1 for _ in left(plan))
        once = seconds(lambda: sum(1 for _ in left(plan)))
        claimed = seconds(lambda: sum(1 for _ in claims(plan)))
        detail = f"{every:,} blocks of nine cells in {once:.2f} s"
        results.append(Measured("work list, a block", 1e6 * once / every, detail, unit="µs"))
        of = "a file for each of nine cells, made and removed on this disk"
        results.append(Measured("claiming a block", 1e3 * claimed / every, of, unit="ms"))
        ids = plan.splits[0].table.ids
        a_name = sum(map(_size_of, ids[:1000])) / 1000
        memory = a_name + 8 + 32 + 4
        results.append(Measured("sample table in memory, an image", memory, unit="B"))


def claims(plan: Work) -> Iterator[Block]:
    with Claims() as claims:
        yield from claims.take(left(plan), [])


def _size_of(text: str) -> int:
    return text.__sizeof__()


def counts(results: list[Measured], rows: int) -> None:
    """Files of a billion images and nine backbones, where a block has so many rows."""
    parts, blocks = IMAGES // PART, math.ceil(PART / rows)
    samples, cell = 3 * blocks + 4, 2 * blocks + 3  # arrays' chunks, and zarr.json of each
    files = parts * (samples + 9 * cell)
    results.append(
        Measured(
            f"files, {rows:,} rows a block",
            files / 1e6,
            f"{parts:,} splits of {blocks:,} blocks; a chunk of 768 numbers is "
            f"{rows * 768 * 2 / 1e6:,.1f} MB",
            unit="M",
        )
    )


def index_size(results: list[Measured]) -> None:
    digest = "0" * 64
    facts = {"images": PART, "bad": 12, "embed": 768}
    places = [
        ("features", "laion", f"train-{part:04d}", "clean", f"ViT-B-32/openai-{number}")
        for part, number in itertools.product(range(IMAGES // PART), range(9))
    ]
    size = len(dump_part(Entry(place, digest, 10**9, digest, digest, facts) for place in places))
    results.append(Measured("the index", size / 1e6, f"{len(places):,} cells", unit="MB"))


def shares(results: list[Measured]) -> None:
    """When the last worker ends, over the mean share, by how many blocks there are."""
    rate = FLOPS / (GFLOPS * 1e9)
    blocks = math.ceil(IMAGES / CHUNK_ROWS)
    fleet = Fleet(GPUS, blocks, CHUNK_ROWS / rate, lost=4 * 3600)
    warned = replace(fleet, expires=0)
    results.append(Measured("images a second of one GPU", rate, "nine backbones", unit="images"))
    results.append(Measured("reading, all GPUs", 1e-9 * GPUS * rate * IMAGE, unit="GB/s"))
    results.append(Measured("an ideal run", fleet.ideal / 60, unit="min"))
    for name, one in (
        ("a billion images", fleet),
        ("the same, nodes are warned, as by SLURM, and give their claims back", warned),
        ("the same, no node taken away", replace(fleet, lost=1e12)),
        ("ten million images", replace(fleet, blocks=blocks // 100)),
        ("the same, no node taken away", replace(fleet, blocks=blocks // 100, lost=1e12)),
    ):
        last, before = one.by_claims(), one.by_shares().max()
        detail = f"{last / 60:.1f} min; by equal shares {before / one.ideal:.2f}"
        results.append(Measured(f"{name}: last over ideal", last / one.ideal, detail))


@click.command()
def main() -> None:
    start("A thousand GPUs and a billion images, on paper")
    results: list[Measured] = []
    work_list(results)
    for rows in (1024, 65_536):
        counts(results, rows)
    index_size(results)
    shares(results)
    report(results)


if __name__ == "__main__":
    main()
