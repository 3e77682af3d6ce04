"""The 15 corruptions of ImageNet-C, severities 1 to 5, against corrupt-tta on the same photographs.

    pip install 'clipsyn[parity]'
    python benchmarks/perturb.py

Ours is what an extraction calls for an image, with its random state derived from the image's name.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import click
import corrupt_tta
import cv2
import numpy as np
from common import Measured, best_of, interleaved, ratio, report, spread, start
from numpy.typing import NDArray
from PIL import Image
from skimage import data

from clipsyn.images import perturb
from clipsyn.methods.numerics.blocks import usable_cores
from clipsyn.names import Perturbation

SIDE = 224
PHOTOGRAPHS = ("astronaut", "coffee", "chelsea", "rocket")  # they come with scikit-image
SLOW = ("glass_blur", "zoom_blur")  # corrupt-tta loops over pixels there: compared apart

Task = tuple[str, int, int]  # corruption, severity, photograph


def photograph(name: str) -> NDArray[np.uint8]:
    """The middle of one of scikit-image's photographs, 224 x 224."""
    whole = Image.fromarray(getattr(data, name)())
    side = min(whole.size)
    left, top = (whole.width - side) // 2, (whole.height - side) // 2
    box = (left, top, left + side, top + side)
    return np.asarray(whole.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box))


IMAGES = [photograph(name) for name in PHOTOGRAPHS]  # here, so that worker processes have them
NAMES = perturb.GROUPS["imagenet-c"]
QUICK = [name for name in NAMES if name not in SLOW]
SPECS = {(n, s): Perturbation(n, s) for n in NAMES for s in perturb.SEVERITIES}


def ours(task: Task) -> None:
    name, severity, image = task
    perturb.apply(SPECS[name, severity], IMAGES[image], PHOTOGRAPHS[image])


def theirs(task: Task) -> None:
    name, severity, image = task
    corrupt_tta.corrupt(IMAGES[image], severity, {"jpeg": "jpeg_compression"}.get(name, name))


def tasks(name: str) -> list[Task]:
    return [(name, s, i) for s in perturb.SEVERITIES for i in range(len(IMAGES))]


def in_turn(side: Callable[[Task], None], work: Sequence[Task]) -> Callable[[], None]:
    def run() -> None:
        for task in work:
            side(task)

    return run


def one_thread(rounds: int) -> list[Measured]:
    """A row for each corruption, their sum, and the sum without those where corrupt-tta loops."""
    times = {
        name: interleaved(
            {"ours": in_turn(ours, tasks(name)), "theirs": in_turn(theirs, tasks(name))}, rounds
        )
        for name in NAMES
    }
    return [
        compared(f"without {' and '.join(SLOW)}", [times[name] for name in QUICK], ceiling=0.5),
        compared("all 15", list(times.values())),
        *(compared(name, [found]) for name, found in times.items()),
    ]


def compared(
    what: str, times: Sequence[dict[str, list[float]]], ceiling: float | None = None
) -> Measured:
    """Ours over theirs, and milliseconds an image at one severity, summed over corruptions."""
    us, them = (
        [sum(parts) for parts in zip(*(found[side] for found in times), strict=True)]
        for side in ("ours", "theirs")
    )
    images = len(perturb.SEVERITIES) * len(IMAGES)
    shown = [f"{1e3 * statistics.median(side) / images:.2f}" for side in (us, them)]
    detail = f"{shown[0]} against {shown[1]} ms an image; {spread(us, them)}"
    return Measured(f"{what}: ours over corrupt-tta", ratio(us, them), detail, ceiling=ceiling)


def with_workers(rounds: int) -> list[Measured]:
    """The quick ones on all cores: ours in threads, as in `extract`; theirs in the faster way."""
    cores = usable_cores()
    work = [task for name in QUICK for task in tasks(name)]
    with (
        ProcessPoolExecutor(cores, initializer=cv2.setNumThreads, initargs=(1,)) as processes,
        ThreadPoolExecutor(cores) as threads,
    ):
        sides: dict[str, Callable[[], object]] = {
            "ours": lambda: list(threads.map(ours, work)),
            "ours, one thread": in_turn(ours, work),
            "processes": lambda: list(processes.map(theirs, work, chunksize=5)),
            "threads": lambda: list(threads.map(theirs, work)),
        }
        times = interleaved(sides, rounds)
    best = best_of(times["processes"], times["threads"])
    images = len(perturb.SEVERITIES) * len(IMAGES)
    shown = [f"{1e3 * statistics.median(side) / images:.1f}" for side in (times["ours"], best)]
    return [
        Measured(
            f"the {len(QUICK)} with {cores} workers: ours over corrupt-tta's faster way",
            ratio(times["ours"], best),
            f"{shown[0]} against {shown[1]} ms an image; {spread(times['ours'], best)}",
            ceiling=0.5,
        ),
        Measured(
            f"{cores} threads over one, ours",
            ratio(times["ours, one thread"], times["ours"]),
            spread(times["ours, one thread"], times["ours"]),
        ),
    ]


@click.command()
@click.option("--rounds", default=5, show_default=True)
def main(rounds: int) -> None:
    """Cost an image of every corruption, over five severities and four photographs."""
    cv2.setNumThreads(1)
    start(
        f"Perturbations: {len(NAMES)} corruptions x 5 severities, {SIDE} px, {len(IMAGES)} images"
    )
    report([*one_thread(rounds), *with_workers(min(rounds, 3))])


if __name__ == "__main__":
    main()
