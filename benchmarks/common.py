"""What all benchmarks share: the machine in words, paired timing, a table of ratios and targets."""

from __future__ import annotations

import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import polars as pl

from clipsyn.methods.numerics.blocks import usable_cores
from clipsyn.show.tables import show

PACKAGES = ("torch", "open_clip_torch", "timm", "pillow", "numpy", "zarr", "polars", "clipsyn")


@dataclass(frozen=True)
class Measured:
    """One number against its target: at least (`floor`) or at most (`ceiling`) so much."""

    what: str
    value: float
    detail: str = ""
    floor: float | None = None
    ceiling: float | None = None
    unit: str = "x"

    @property
    def passed(self) -> bool | None:
        """None where there is no target."""
        if self.floor is not None:
            return self.value >= self.floor
        return None if self.ceiling is None else self.value <= self.ceiling

    def row(self) -> dict[str, str]:
        bound = self.ceiling if self.floor is None else self.floor
        sign = "≤" if self.floor is None else "≥"
        verdict = {True: "pass", False: "MISS", None: ""}[self.passed]
        return {
            "what": self.what,
            "measured": f"{self.value:.3g} {self.unit}",
            "target": "" if bound is None else f"{sign} {bound:g} {self.unit}",
            "": verdict,
            "detail": self.detail,
        }


def start(title: str) -> None:
    """Say what is measured, where and when."""
    click.echo(f"{title}\n{machine()}\n")


def report(results: Sequence[Measured]) -> None:
    """Print the table; the exit status stays 0 whatever it says: a benchmark is no test."""
    click.echo(show(pl.DataFrame([result.row() for result in results])))


def machine() -> str:
    """Processor, cores, load, versions and date, on three lines."""
    cores = usable_cores()
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    versions = [f"{name} {found}" for name in PACKAGES if (found := _version(name))]
    return (
        f"{_processor()}, {cores} cores{load}, {time.strftime('%Y-%m-%d %H:%M')}\n"
        f"{platform.platform()}, Python {platform.python_version()}\n{', '.join(versions)}"
    )


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def seconds(function: Callable[[], object]) -> float:
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def interleaved(sides: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of every side, `rounds` times in turn, after a first round that does not count.

    Every other round goes backwards, so that no side always follows the same other.
    """
    for function in sides.values():
        function()
    times: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        for name in list(sides)[:: 1 if number % 2 else -1]:
            times[name].append(seconds(sides[name]))
            _show_round(number, rounds, name, times[name][-1])
    return times


def _show_round(number: int, rounds: int, name: str, took: float) -> None:
    if took > 1:  # a sign of life where rounds are long
        click.echo(f"  round {number + 1}/{rounds}: {name} {took:.1f} s", err=True)


def ratio(numerator: Sequence[float], denominator: Sequence[float]) -> float:
    """Median over the rounds of the ratio within each: what drifts over time cancels."""
    return statistics.median(a / b for a, b in zip(numerator, denominator, strict=True))


def spread(numerator: Sequence[float], denominator: Sequence[float]) -> str:
    """Smallest and largest of the ratios within rounds."""
    ratios = [a / b for a, b in zip(numerator, denominator, strict=True)]
    return f"{min(ratios):.2f}-{max(ratios):.2f}"


def best_of(*sides: Sequence[float]) -> list[float]:
    """In every round the fastest of several ways."""
    return [min(times) for times in zip(*sides, strict=True)]


def workplace(folder: Path | None) -> AbstractContextManager[str]:
    """A folder to write in: the given one, which is kept, or a temporary one."""
    if folder is None:
        return TemporaryDirectory(prefix="clipsyn-benchmark-")
    folder.mkdir(parents=True, exist_ok=True)
    return nullcontext(str(folder))


def fresh_python(*arguments: str) -> list[str]:
    """The command line of a new interpreter like this one."""
    return [sys.executable, *arguments]
