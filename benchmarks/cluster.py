"""Two worker processes against one, each with one core, and what the engine adds.

    python benchmarks/cluster.py

An extraction of photographs through a backbone so small that decoding is nearly all, and an
evaluation of several datasets. All sides are `clipsyn … --jobs`, which gives a process cores of
its own, except the plain command that the engine is compared with: it is pinned to one core, too.
"""

from __future__ import annotations

import itertools
import os
import shutil
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

import click
import processes
from common import Measured, fresh_python, interleaved, ratio, report, spread, start, workplace
from shapes import Set
from stores import make_store
from subjects import write_photographs

SETS = [Set(f"set-{number}", 40, 3_000, 0.5, 0.8, narrower=8) for number in range(12)]
METHODS = ["--ensembles", "super-learner,nlc", "--shots", "4,16", "--seeds", "5"]
LONG = 600  # seconds of the job of which the engine may take a twentieth
TIMEOUT = 1800


def clipsyn(*words: object, cores: int = 1) -> None:
    """Run a command to its end, pinned to so many cores; raises if it fails."""
    every = sorted(os.sched_getaffinity(0))[:cores]
    pin = ["taskset", "--cpu-list", ",".join(map(str, every))]
    command = [*pin, *fresh_python("-m", "clipsyn", "-q", *map(str, words))]
    ran = processes.run(command, TIMEOUT)
    if not ran.worked:
        raise click.ClickException(ran.error)


def sides(words: Callable[[], Sequence[object]]) -> dict[str, Callable[[], None]]:
    """The command by one process and by two, with one core each, and without the engine."""
    return {
        "two": lambda: clipsyn(*words(), "--jobs", 2, cores=2),
        "one": lambda: clipsyn(*words(), "--jobs", 1),
        "plain": lambda: clipsyn(*words()),
    }


def extraction(folder: Path, photographs: int) -> Callable[[], Sequence[object]]:
    images = write_photographs(folder, photographs)
    numbers = itertools.count()

    def words() -> Sequence[object]:
        store = folder / f"extracted-{next(numbers)}"
        shutil.rmtree(store, ignore_errors=True)
        return ["extract", store, "-b", "tiny-RN/zoo", "-d", f"photographs={images}"]

    return words


def evaluation(folder: Path) -> Callable[[], Sequence[object]]:
    store = make_store(folder / "store", SETS)
    numbers = itertools.count()

    def words() -> Sequence[object]:
        results = folder / f"results-{next(numbers)}.parquet"
        results.unlink(missing_ok=True)
        return ["evaluate", store.path, "-o", results, *METHODS]

    return words


def measure(name: str, run: dict[str, Callable[[], None]], rounds: int) -> list[Measured]:
    times = interleaved(run, rounds)
    one, two, plain = times["one"], times["two"], times["plain"]
    detail = f"{statistics.median(one):.1f} s by one ({spread(one, two)})"
    added = statistics.median(a - b for a, b in zip(one, plain, strict=True))
    about = f"{added:+.2f} s, which do not grow with the job: over {LONG} s"
    return [
        Measured(f"{name}: one process over two", ratio(one, two), detail, floor=1.6),
        Measured(f"{name}: what the engine adds", 100 * added / LONG, about, ceiling=5, unit="%"),
    ]


@click.command()
@click.option("--rounds", default=3, show_default=True)
@click.option("--photographs", default=20_000, show_default=True, help="JPEGs of 500 x 375.")
@click.option("--folder", type=click.Path(path_type=Path), help="Keep what is made here.")
def main(rounds: int, photographs: int, folder: Path | None) -> None:
    start("Worker processes, one core each")
    with workplace(folder) as place:
        here = Path(place)
        measured = [
            *measure("extract", sides(extraction(here, photographs)), rounds),
            *measure("evaluate", sides(evaluation(here)), rounds),
        ]
    report(measured)


if __name__ == "__main__":
    main()
