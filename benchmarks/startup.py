"""Start-up time of commands, and which heavy packages each imports.

python benchmarks/startup.py
"""

from __future__ import annotations

import json
import statistics
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import click
from common import Measured, fresh_python, interleaved, report, start, workplace

HEAVY = ("torch", "open_clip", "torchvision", "timm", "sklearn", "scipy", "zarr", "polars", "PIL")
FORBIDDEN = frozenset(HEAVY[:5])  # in commands that read a store
INSPECTING = ("ls", "ls --status", "info", "verify", "zeroshot")
ANALYSING = ("oracle", "diversity", "representation", "cascade")

# Runs a command as the console script does, then says what of HEAVY was imported.
_PROBE = f"""
import atexit, json, sys
names = {HEAVY!r}
atexit.register(lambda: print("\\n" + json.dumps([n for n in names if n in sys.modules])))
from clipsyn.cli import main
main(sys.argv[1:], prog_name="clipsyn")
"""


def make_store(folder: Path) -> Path:
    """A real one: the zoo's first two backbones over a shipped set."""
    from subjects import zoo

    store = folder / "store"
    backbones = [f"{backbone.name}={backbone.source}" for backbone in zoo(folder)[:2]]
    names = [argument for backbone in backbones for argument in ("-b", backbone)]
    silently(clipsyn("extract", str(store), *names, "-d", "emoji-animals", "-s", "train,test"))
    return store


def clipsyn(*arguments: str) -> list[str]:
    return fresh_python("-m", "clipsyn", *arguments)


def silently(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True)


def imported(arguments: list[str]) -> list[str]:
    """Which of HEAVY a command has imported when it ends."""
    command = fresh_python("-c", _PROBE, *arguments)
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    names: list[str] = json.loads(output.strip().splitlines()[-1])
    return names


def startup(rounds: int) -> Measured:
    sides: dict[str, Callable[[], object]] = {
        "help": partial(silently, clipsyn("--help")),
        "click": partial(silently, fresh_python("-c", "import click")),
    }
    times = interleaved(sides, rounds)
    above = [a - b for a, b in zip(times["help"], times["click"], strict=True)]
    medians = {name: statistics.median(taken) for name, taken in times.items()}
    detail = f"{medians['help']:.3f} against {medians['click']:.3f} s; {min(above):.3f} at least"
    return Measured(
        'clipsyn --help above python -c "import click"',
        statistics.median(above),
        detail,
        ceiling=0.15,
        unit="s",
    )


def commands(store: Path, rounds: int) -> list[Measured]:
    """Seconds of every command that reads a store, and how many banned packages it imports."""
    lines = {name: [*name.split(), str(store)] for name in INSPECTING + ANALYSING}
    lines |= {f"catalog {kind}": ["catalog", kind] for kind in ("datasets", "backbones")}
    times = interleaved({k: partial(silently, clipsyn(*v)) for k, v in lines.items()}, rounds)
    results = []
    for name, arguments in lines.items():
        found = imported(arguments)
        took = f"{statistics.median(times[name]):.2f} s; imports {', '.join(found) or 'none'}"
        banned = float(len(FORBIDDEN.intersection(found)))
        what = f"clipsyn {name}: torch, open_clip, torchvision, timm, sklearn imported"
        results.append(Measured(what, banned, took, ceiling=0, unit="packages"))
    return results


@click.command()
@click.option("--rounds", default=15, show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), help="Keep store and models there.")
def main(rounds: int, folder: Path | None) -> None:
    """Start of the command line, and what commands import."""
    start("Start-up of commands")
    with workplace(folder) as place:
        store = make_store(Path(place))
        results = [startup(rounds), *commands(store, max(3, rounds // 3))]
    report(results)


if __name__ == "__main__":
    main()
