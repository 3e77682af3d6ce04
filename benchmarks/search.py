"""`clipsyn search --like` over 50,000 images and nine backbones of OpenAI's widths, as a process.

    python benchmarks/search.py

Everything is warm: the store was just written. The peer reads plain npy files of the same numbers.
"""

from __future__ import annotations

import resource
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import click
import numpy as np
from common import Measured, fresh_python, interleaved, ratio, report, spread, start, workplace
from shapes import OPENAI
from store import random_embeddings

from clipsyn import FeatureStore, SampleTable

QUERY = "000777.jpg"
PLAIN = f"""
import sys
from pathlib import Path
import numpy as np
ids = Path("ids.txt").read_text().split()
row = ids.index({QUERY!r})
total = 0
for path in sorted(Path().glob("*.npy")):
    embedding = np.load(path).astype(np.float32)
    total = total + embedding @ embedding[row]
print([ids[row] for row in np.argsort(-total)[1:11]])
"""


def fill(folder: Path, images: int) -> None:
    """The store, and the same embeddings as plain files."""
    ids = [f"{row:06d}.jpg" for row in range(images)]
    samples = SampleTable.of("photos", "test", ids)
    store, plain = FeatureStore.create(folder / "store"), folder / "plain"
    plain.mkdir(exist_ok=True)
    (plain / "ids.txt").write_text("\n".join(ids))
    for made in OPENAI:
        embeddings = random_embeddings(images, made.width)
        np.save(plain / f"{made.name.replace('/', '--')}.npy", embeddings)
        with store.writer(samples, made.name) as cell:
            cell.embeddings(embeddings)


def seconds_of_processor(command: list[str], folder: Path, taken: list[float]) -> None:
    """Run a command; what it takes of all cores is added to `taken`."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, capture_output=True, cwd=folder)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    taken.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


@click.command()
@click.option("--images", default=50_000, show_default=True)
@click.option("--rounds", default=9, show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), help="Keep the store there.")
def main(images: int, rounds: int, folder: Path | None) -> None:
    """Time of the whole command."""
    start("Search")
    with workplace(folder) as place:
        fill(Path(place), images)
        lines = {
            "clipsyn": (fresh_python("-m", "clipsyn", "search", "../store", "--like", QUERY)),
            "numpy": fresh_python("-c", PLAIN),
        }
        cpu: dict[str, list[float]] = {name: [] for name in lines}
        sides: dict[str, Callable[[], object]] = {
            name: partial(seconds_of_processor, line, Path(place) / "plain", cpu[name])
            for name, line in lines.items()
        }
        times = interleaved(sides, rounds)
    what = f"search --like, {images:,} images, nine backbones"
    report(
        [
            _seconds(f"{what}: time of the whole command", times["clipsyn"], ceiling=1),
            _seconds("its processor time", cpu["clipsyn"][1:], ceiling=1),
            Measured(
                "numpy over npy files, a whole process: time over ours",
                ratio(times["numpy"], times["clipsyn"]),
                spread(times["numpy"], times["clipsyn"]),
            ),
        ]
    )


def _seconds(what: str, times: list[float], ceiling: float) -> Measured:
    detail = f"{min(times):.2f}-{max(times):.2f} s"
    return Measured(what, float(np.median(times)), detail, ceiling=ceiling, unit="s")


if __name__ == "__main__":
    main()
