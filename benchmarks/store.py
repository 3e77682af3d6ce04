"""The store's arrays against numpy files, raw files and zarr-python's own reader.

    python benchmarks/store.py

Everything is warm: what was just written is still in the page cache.
"""

from __future__ import annotations

import os
import shutil
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from unittest.mock import patch

import click
import numpy as np
from common import Measured, interleaved, ratio, report, spread, start, workplace
from numpy.typing import NDArray

from clipsyn.methods.numerics.logits import CHUNK_ROWS
from clipsyn.store import arrays
from clipsyn.store.arrays import Blocks, Layout
from clipsyn.store.drafts import Draft
from clipsyn.store.features import FeatureStore

Embeddings = NDArray[np.float16]


def random_embeddings(rows: int, width: int) -> Embeddings:
    rng = np.random.default_rng(rows)
    values = rng.standard_normal((rows, width), dtype=np.float32)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    return values.astype(np.float16)


def draft_of(store: FeatureStore, rows: int, width: int) -> Draft:
    target = store.at("features", "random", "test", "clean", f"width-{width}")
    sizes = {"sample": rows, "embed": width}
    return Draft(store.path, target, "features", {"rows": rows}, sizes, CHUNK_ROWS)


def write_cell(store: FeatureStore, embeddings: Embeddings) -> Path:
    """A finished feature cell; returns where it is."""
    draft = draft_of(store, *embeddings.shape)
    for block in draft.pending():
        rows = draft.blocks.range(block)
        part = embeddings[rows.start : rows.stop]
        draft.write(block, {"image_embedding": part, "valid": np.ones(len(part), bool)}, {})
    draft.publish(lambda _: {}, replace=True)
    return draft.target


def read_seconds(folder: Path, embeddings: Embeddings, rounds: int) -> dict[str, list[float]]:
    import zarr

    store = FeatureStore.create(folder / "store")
    cell = write_cell(store, embeddings)
    listed = store.group(cell).arrays["image_embedding"]
    file, array = folder / "embeddings.npy", cell / "image_embedding"
    np.save(file, embeddings)
    sides: dict[str, Callable[[], object]] = {
        "clipsyn": lambda: arrays.read(array, listed),
        "np.load": lambda: np.load(file),
        "zarr-python": lambda: zarr.open_array(array, mode="r")[:],
    }
    for read in sides.values():
        np.testing.assert_array_equal(read(), embeddings)
    assert arrays.damage(array, listed) == []
    sides["verify"] = lambda: arrays.damage(array, listed)
    return interleaved(sides, rounds)


def reading(folder: Path, embeddings: Embeddings, rounds: int) -> list[Measured]:
    times = read_seconds(folder, embeddings, rounds)
    rate = {name: embeddings.nbytes / 1e9 / statistics.median(t) for name, t in times.items()}
    detail = f"{rate['clipsyn']:.2f} against {rate['np.load']:.2f} GB/s; "
    other = f"{rate['zarr-python']:.2f} GB/s; "
    return [
        Measured(
            "read: time over np.load",
            ratio(times["clipsyn"], times["np.load"]),
            detail + spread(times["clipsyn"], times["np.load"]),
            ceiling=1.3,
        ),
        Measured(
            "verify reads and compares: time over np.load",
            ratio(times["verify"], times["np.load"]),
            f"{rate['verify']:.2f} GB/s; " + spread(times["verify"], times["np.load"]),
            ceiling=1 / 0.6,
        ),
        Measured(
            "zarr-python reads the same array: time over np.load",
            ratio(times["zarr-python"], times["np.load"]),
            other + spread(times["zarr-python"], times["np.load"]),
        ),
    ]


def write_raw(folder: Path, embeddings: Embeddings) -> None:
    """The chunks as files: written under another name, synced, renamed, the folder synced."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for number, first in enumerate(range(0, len(embeddings), CHUNK_ROWS)):
        partial_file = folder / f"{number}.partial"
        descriptor = os.open(partial_file, os.O_WRONLY | os.O_CREAT)
        os.write(descriptor, embeddings[first : first + CHUNK_ROWS].data)
        os.fsync(descriptor)
        os.close(descriptor)
        partial_file.replace(folder / str(number))
        sync_folder(folder)


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def write_array(array: Path, embeddings: Embeddings) -> None:
    """Every block of an empty array of the store."""
    for chunk in array.glob("c.*"):
        chunk.unlink()
    rows = Blocks(len(embeddings), CHUNK_ROWS).rows
    layout = Layout(embeddings.shape, "float16", rows)
    for block in range(layout.blocks.count):
        arrays.write_block(array, layout, block, layout.part(embeddings, block))


def replace_cell(store: FeatureStore, embeddings: Embeddings) -> None:
    """The whole cell: arrays made, blocks with their notes written, checked in, published."""
    shutil.rmtree(draft_of(store, *embeddings.shape).target, ignore_errors=True)
    write_cell(store, embeddings)


def writing(folder: Path, embeddings: Embeddings, rounds: int) -> list[Measured]:
    store = FeatureStore.create(folder / "written")
    array = write_cell(store, embeddings) / "image_embedding"
    spare = FeatureStore.create(folder / "published")
    sides: dict[str, Callable[[], object]] = {
        "raw": partial(write_raw, folder / "raw", embeddings),
        "array": partial(write_array, array, embeddings),
        "cell": partial(replace_cell, spare, embeddings),
    }
    synced = interleaved(sides, rounds)
    with patch("os.fsync", lambda _: None):
        unsynced = interleaved(sides, rounds)
    results = []
    for durability, times in (("with fsync", synced), ("without fsync", unsynced)):
        raw = f"raw {embeddings.nbytes / 1e6 / statistics.median(times['raw']):,.0f} MB/s; "
        for side, target in (("array", 2.5), ("cell", None)):
            what = "blocks of the array" if side == "array" else "cell with notes, published"
            shown = raw + spread(times[side], times["raw"])
            over = ratio(times[side], times["raw"])
            results.append(
                Measured(f"write, {durability}: {what} over raw", over, shown, ceiling=target)
            )
    return results


def size(folder: Path, rows: int, width: int) -> Measured:
    """Bytes of the embeddings in the store over those of a float32 .npy."""
    store = FeatureStore.create(folder / f"size-{rows}-{width}")
    cell = write_cell(store, random_embeddings(rows, width))
    array, whole = bytes_under(cell / "image_embedding"), bytes_under(cell)
    npy = 128 + 4 * rows * width
    detail = f"{array / 1e6:.3f} MB; the whole cell {100 * whole / npy:.2f} %"
    what = f"size of {rows:,} x {width} embeddings over float32 .npy"
    return Measured(what, 100 * array / npy, detail, ceiling=52, unit="%")


def bytes_under(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def sizes(folder: Path, rows: Sequence[int]) -> list[Measured]:
    return [size(folder, n, width) for n in rows for width in (768, 512)]


@click.command()
@click.option("--rows", default=50_000, show_default=True)
@click.option("--width", default=768, show_default=True)
@click.option("--rounds", default=15, show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), help="Where to write, and keep it.")
def main(rows: int, width: int, rounds: int, folder: Path | None) -> None:
    """Reading, writing and size of embeddings in the store."""
    start(f"Store: {rows:,} x {width} float16 embeddings")
    embeddings = random_embeddings(rows, width)
    with workplace(folder) as place:
        results = reading(Path(place), embeddings, rounds)
        results += writing(Path(place), embeddings, rounds)
        results += sizes(Path(place), [100, 1_025, 5_000, rows])
    report(results)


if __name__ == "__main__":
    main()
