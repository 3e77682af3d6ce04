"""Time and memory of commands on a split of 5,000,000 x 512, and on a store of 20,000 small cells.

    python benchmarks/large.py

It is run before a release. Every command is a process of its own, and so is the plain loop beside
it, which reads one `.npy` file of the same embeddings in blocks. Needs 40 GB below the folder.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import click
import listing
import numpy as np
import polars as pl
from common import fresh_python, start, workplace
from numpy.typing import NDArray

from clipsyn import FeatureStore, SampleTable
from clipsyn.names import FeatureKey
from clipsyn.show.tables import show

WIDTH, CLASSES, SCALE, BLOCK = 512, 100, 100.0, 65_536
LABELLED = 1_000  # of the split that the router is fitted on
SMALL = 40  # datasets of `listing`: 20,000 cells
Row = dict[str, Any]


def unit(values: NDArray[np.float32]) -> NDArray[np.float32]:
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    return values


def classes() -> NDArray[np.float32]:
    return unit(np.random.default_rng(1).standard_normal((CLASSES, WIDTH), np.float32))


def labels(rows: int) -> NDArray[np.int32]:
    return (np.arange(rows) % CLASSES).astype(np.int32)


def make_plain(folder: Path, rows: int) -> Path:
    """The embeddings in one `.npy` file, somewhat near those of their classes."""
    path, texts, rng = folder / "embeddings.npy", classes(), np.random.default_rng(0)
    out = np.lib.format.open_memmap(path, "w+", np.float16, (rows, WIDTH))
    for at in range(0, rows, BLOCK):
        stop = min(at + BLOCK, rows)
        noise = rng.standard_normal((stop - at, WIDTH), np.float32)
        out[at:stop] = unit(texts[labels(rows)[at:stop]] + 0.35 * noise)
    out.flush()
    return path


def fill(folder: Path, rows: int) -> None:
    """The store, without logits; `clipsyn extract --logits none` leaves the same."""
    if (folder / "store").exists():
        return
    path, store = make_plain(folder, rows), FeatureStore.create(folder / "store")
    names = [f"class {number}" for number in range(CLASSES)]
    values = np.load(path, mmap_mode="r")
    for split, count in (("train", LABELLED), ("test", rows)):
        ids = [f"{split}/{row:07}.jpg" for row in range(count)]
        table = SampleTable.of("large", split, ids, labels(count), names)
        with store.writer(table, "model") as cell:
            cell.classes("simple", classes(), SCALE)
            cell.embeddings(values[:count])
    shutil.rmtree(folder / "store" / "logits")


# The plain loops


def blocks(folder: Path, rows: int) -> Iterator[NDArray[np.float16]]:
    with (folder / "embeddings.npy").open("rb") as file:
        np.lib.format.read_magic(file)
        np.lib.format.read_array_header_1_0(file)
        for at in range(0, rows, BLOCK):
            yield np.fromfile(file, np.float16, min(BLOCK, rows - at) * WIDTH).reshape(-1, WIDTH)


def logits(folder: Path, rows: int) -> Iterator[NDArray[np.float32]]:
    weights = np.ascontiguousarray(classes().T)
    for values in blocks(folder, rows):
        yield values.astype(np.float32) @ weights * np.float32(SCALE)


def plain_zeroshot(folder: Path, rows: int) -> None:
    hits = at = top5 = 0
    truth = labels(rows)
    for scores in logits(folder, rows):
        true = truth[at : at + len(scores)]
        hits += int(np.count_nonzero(scores.argmax(axis=1) == true))
        before = scores > scores[np.arange(len(true)), true, None]
        top5 += int(np.count_nonzero(before.sum(axis=1) < 5))
        at += len(scores)
    click.echo(f"{hits / rows} {top5 / rows}", err=True)


def plain_oracle(folder: Path, rows: int) -> None:
    answers = np.concatenate([scores.argmax(axis=1) for scores in logits(folder, rows)])
    click.echo(f"{np.mean(answers == labels(rows))}", err=True)


def plain_predict(folder: Path, rows: int) -> None:
    """As `-o FILE.parquet`: id, class and probability of each image."""
    found, sure = [], []
    for scores in logits(folder, rows):
        powers = np.exp(scores - scores.max(axis=1, keepdims=True))
        found.append(scores.argmax(axis=1).astype(np.int32))
        sure.append(powers.max(axis=1) / powers.sum(axis=1))
    ids = pl.select(pl.format("test/{}.jpg", pl.int_range(rows))).to_series()
    columns = {"id": ids, "class_index": np.concatenate(found), "probability": np.concatenate(sure)}
    pl.DataFrame(columns).write_parquet(folder / "plain.parquet")


def plain_copy(folder: Path, rows: int) -> None:
    """As an export and an import write the numbers: once, synced."""
    with (folder / "copy.npy").open("wb") as file:
        for values in blocks(folder, rows):
            file.write(values.data)
        os.fsync(file.fileno())


def plain_import(folder: Path, rows: int) -> None:
    """As an import also digests the file and the rows, looks at norms, and makes logits."""
    weights, of_file, of_rows = np.ascontiguousarray(classes().T), sha256(), sha256()
    with (folder / "copy.npy").open("wb") as file, (folder / "logits.npy").open("wb") as beside:
        for values in blocks(folder, rows):
            of_file.update(values.data)
            of_rows.update(values.data)
            single = values.astype(np.float32)
            if (abs(np.einsum("ij,ij->i", single, single) - 1) > 0.01).any():
                raise click.ClickException("not of unit norm")
            scores = single @ weights * np.float32(SCALE)
            scores.argmax(axis=1)
            file.write(values.data)
            beside.write(scores.data)
        for written in (file, beside):
            os.fsync(written.fileno())


PLAIN = {
    "zeroshot": plain_zeroshot,
    "oracle": plain_oracle,
    "predict": plain_predict,
    "export": plain_copy,
    "import": plain_copy,
}
ALIKE = {"import": plain_import}  # beside it, what does as much


# Measured


def timed(command: Sequence[str]) -> tuple[float, float]:
    """Seconds of a process, and its peak memory in GB, which is at least that of this one."""
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise click.ClickException(f"{' '.join(command)} ended with {process.returncode}")
    return time.perf_counter() - begin, used.ru_maxrss / 1e6


def commands(folder: Path) -> dict[str, list[str]]:
    """In this order: an import takes what was exported, a pull what was pushed."""
    store, published = f"{folder}/store", f"{folder}/published"
    test = ["-d", "large", "-s", "test"]
    return {
        "ls": ["ls", store],
        "info": ["info", store],
        "verify": ["verify", store],
        "zeroshot": ["zeroshot", store, *test],
        "oracle": ["oracle", store, *test],
        "fit": ["fit", store, "-d", "large", "--shots", "4", "-o", f"{folder}/router"],
        "predict": ["predict", f"{folder}/router", store, *test, "-o", f"{folder}/out.parquet"],
        "export": ["export", store, f"{folder}/exported", *test],
        "import": ["import", f"{folder}/imported", f"{folder}/exported"],
        "push": ["push", store, published],
        "pull": ["pull", published, f"{folder}/pulled"],
    }


def large(folder: Path, rows: int, only: Sequence[str]) -> Iterator[Row]:
    timed(itself("fill", folder, rows))
    for name, words in commands(folder).items():
        if only and name not in only:
            continue
        row = measured(name, words)
        if name in PLAIN:
            seconds, memory = timed(itself(name, folder, rows))
            row |= {"plain s": seconds, "plain GB": memory, "ratio": row["s"] / seconds}
        if name in ALIKE:
            seconds, _ = timed(itself(f"{name} alike", folder, rows))
            row |= {"alike s": seconds, "ratio to it": row["s"] / seconds}
        yield row


def small(folder: Path) -> Iterator[Row]:
    """Small cells, of which all have the numbers of one; `ls` reads them for the first time."""
    store = listing.fill(folder / "small", datasets=SMALL)
    for name, words in commands_on_cells(folder / "small", store.keys()[0]).items():
        yield measured(f"{name} (20,000 cells)", words)


def commands_on_cells(store: Path, cell: FeatureKey) -> dict[str, list[str]]:
    one, published = ["-d", cell.dataset, "-s", cell.split], f"{store}-published"
    return {
        "ls": ["ls", str(store)],
        "ls again": ["ls", str(store)],
        "ls --status": ["ls", str(store), "--status"],
        "info": ["info", str(store)],
        "verify": ["verify", str(store)],
        "zeroshot of one split": ["zeroshot", str(store), *one],
        "zeroshot of half the cells": ["zeroshot", str(store), "-s", cell.split, "-p", "*"],
        "push": ["push", str(store), published],
        "ls of the published": ["ls", published],
        "pull": ["pull", published, f"{store}-pulled"],
    }


def measured(name: str, words: Sequence[str]) -> Row:
    seconds, memory = timed(fresh_python("-m", "clipsyn", *words))
    click.echo(f"  {name}: {seconds:.1f} s, {memory:.2f} GB", err=True)
    return {"command": name, "s": seconds, "GB": memory}


def itself(what: str, folder: Path, rows: int) -> list[str]:
    options = ["--folder", str(folder), "--rows", str(rows), "--child", what]
    return fresh_python(__file__, *options)


@click.command()
@click.option("--rows", default=5_000_000, show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), help="Keep the stores here.")
@click.option("--only", multiple=True, help="Of these commands; repeated. `cells`: of the cells.")
@click.option("--child", hidden=True)
def main(rows: int, folder: Path | None, only: tuple[str, ...], child: str | None) -> None:
    """Time and memory of each command, beside a plain loop where there is one."""
    if child is not None and folder is not None:
        alike = {f"{name} alike": loop for name, loop in ALIKE.items()}
        {"fill": fill, **PLAIN, **alike}[child](folder, rows)
        return
    start(f"a split of {rows:,} x {WIDTH}, and 20,000 small cells")
    with workplace(folder) as place:
        found = [] if only == ("cells",) else [*large(Path(place), rows, only)]
        found += small(Path(place)) if not only or "cells" in only else []
    click.echo(show(pl.DataFrame(found)))


if __name__ == "__main__":
    main()
