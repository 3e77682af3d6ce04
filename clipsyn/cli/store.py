"""`clipsyn ls` and `verify`: what a store holds, how far work on it is, and if it is whole."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from clipsyn.cli.options import json_option, output_option, store_argument
from clipsyn.cli.output import (
    JSON,
    STDOUT,
    Output,
    say,
    say_document,
    say_lines,
    say_over,
)
from clipsyn.errors import DamagedStore, StoreError, UsageError
from clipsyn.names import Location
from clipsyn.text import advised, counted, printable

if TYPE_CHECKING:
    from polars import DataFrame

    from clipsyn.show.table import Tables
    from clipsyn.store.unfinished import StoreProgress, Unfinished

_EVERY = 2.0  # seconds
_SHOWN = 30  # copies; a file has them all
_COUNTED = {
    "samples": "sample tables",
    "classes": "class embeddings",
    "features": "image embeddings",
    "logits": "logits",
    "predictions": "predictions without logits",
}


def _say_status(store: Path, output: Output) -> None:
    """Say what is finished, unfinished and refused; raises DamagedStore if anything is refused."""
    from clipsyn.store.features import FeatureStore
    from clipsyn.store.folders import KINDS
    from clipsyn.store.inventory import find_groups
    from clipsyn.store.unfinished import leftovers, unfinished
    from clipsyn.store.verify import Stale, debris, refused

    opened = FeatureStore.open(store)
    damaged: list[str] = []
    groups = find_groups(opened, {}, lambda error: damaged.append(str(error)))
    damaged += debris(opened, groups)
    readers = list(refused(opened, groups))
    stale = [problem for problem in readers if isinstance(problem, Stale)]
    damaged = damaged or [problem for problem in readers if problem not in stale]
    finished = {kind: sum(group.kind == kind for group in groups) for kind in KINDS}
    drafts, left = unfinished(store), len(leftovers(store))
    problems: dict[str, Sequence[str]] = {"damaged": damaged, "stale": stale}
    shown = [{"target": d.target, "done": d.done, "blocks": d.total} for d in drafts]
    if not output.json({"finished": finished, **problems, "unfinished": shown, "leftovers": left}):
        say_lines(f"finished: {by_kind(finished)}")
        for what, found in problems.items():
            for problem in found:
                say(f"{what}: {problem}")
        _say_unfinished(store, drafts, left)
    if damaged or stale:
        raise DamagedStore(
            f"parts of {store} are lost, stale or may not be read: "
            f"`{advised('verify', store)}` reads it all"
        )


def _say_unfinished(store: Path, drafts: list[Unfinished], left: int) -> None:
    for draft in drafts:
        say(f"unfinished: {draft.target}, {draft.done} of {draft.total} blocks done")
    if drafts:
        say("the command that started them goes on with them if it is run again;")
        say(f"`{advised('gc', store)}` drops them if it was killed long ago")
    if left:
        say(
            f"leftovers in .wip of commands that were killed, or are running: {left}; gc drops "
            "them too"
        )


def by_kind(groups: Mapping[str, int]) -> str:
    """Numbers of groups by kind, in words."""
    return ", ".join(f"{_COUNTED[kind]} {count:,}" for kind, count in groups.items())


def _watch(store: Path, output: Output) -> None:
    """Say what there is whenever it has changed, until Ctrl-C; on a terminal, in one line."""
    from clipsyn.store.features import FeatureStore
    from clipsyn.store.marker import is_vacant
    from clipsyn.store.unfinished import Watch

    if not is_vacant(store):
        FeatureStore.open(store)  # raises where it is something else
    elif not store.absolute().parent.is_dir():
        raise StoreError(f"{store} cannot be made by any job: there is no folder {store.parent}")
    watched, before = Watch(store), None
    with suppress(KeyboardInterrupt):
        while True:
            seen = watched.look(time.monotonic())
            if STDOUT in output.files:
                say_document(json.dumps(asdict(seen)))
            elif (line := describe(seen)) != before:
                (say_over if sys.stdout.isatty() else say)(line)
                before = line
            time.sleep(_EVERY)
    if sys.stdout.isatty():
        say("")


def describe(seen: StoreProgress) -> str:
    """One line."""
    cells = f"{counted(seen.cells, 'cell')} finished"
    if not seen.groups:
        return f"{cells}; nothing is being written"
    groups = f"{counted(seen.groups, 'group')} unfinished"
    line = f"{cells}; {groups}, {seen.done:,} of {seen.blocks:,} blocks done"
    if seen.left is None:
        return line
    left = timedelta(seconds=round(seen.left))
    return f"{line}, {60 * seen.rate:,.0f} a minute, {left} left for these"


@click.command()
@store_argument
@click.option("--status", is_flag=True, help="What is finished, unfinished, lost or stale.")
@click.option("--watch", is_flag=True, help="How the work of all jobs goes on, until Ctrl-C.")
@click.option("--copies", is_flag=True, help="Images that equal, or look like, an earlier one.")
@output_option()
def ls(store: Path, status: bool, watch: bool, copies: bool, output: Output) -> None:
    """List the cells of STORE: a line for each dataset, split and perturbation.

    With --status: what is finished, what an interrupted command left to do, and what readers
    refuse. The exit status is 4 if a part of a group is missing or may not be read, or if a cell
    was made from others than are there now; `verify` also reads the rest.

    With --watch: again and again how many blocks all jobs have done, and how long the rest of what
    they have begun takes.

    With --copies: each image with the content of an earlier one of its dataset, or that looks like
    it (difference hashes of 64 bits, at most 4 of them other; different pictures of one simple
    shape do, too). Near copies of imported images are not known.

    \b
    clipsyn ls store
    clipsyn ls store --status
    clipsyn ls store --copies -o copies.csv
    """
    if status + watch + copies > 1:
        raise UsageError("give one of --status, --watch and --copies")
    if status or watch:
        if other := [file for file in output.files if not file.name.lower().endswith(JSON)]:
            raise UsageError(
                f"--status and --watch write JSON alone: leave out --output {other[0]}"
            )
        (_say_status if status else _watch)(store, output)
        return
    if copies:
        output.show(_copies(store), _copies_tables)
        return
    rows = _cell_rows(store)
    if rows or output.files:
        output.show(rows, _tables)
    else:
        say(f"{store} is empty: fill it with `{advised('extract', store, '…')}`")


def _copies(store: Path) -> DataFrame:
    """A row for each image that is a copy of an earlier one of its dataset."""
    import polars as pl

    from clipsyn.store.features import FeatureStore
    from clipsyn.store.overlap import COPY, copies

    opened, splits = FeatureStore.open(store), dict[str, list[str]]()
    for (dataset, split), _ in opened.groups("samples"):
        splits.setdefault(dataset, []).append(split)
    found = [
        copies([opened.samples(dataset, split) for split in sorted(names, reverse=True)])
        for dataset, names in splits.items()
    ]
    rows = [row for of_dataset in found for row in of_dataset]
    return pl.DataFrame(rows, schema=dict.fromkeys(COPY, pl.String), orient="row")


def _copies_tables(frame: DataFrame) -> dict[str, Tables]:
    """The first rows, and how many there are."""
    from clipsyn.show.tables import table_of

    counts = frame["copy"].value_counts(sort=True).rows()
    said = ", ".join(f"{count:,} {kind}" for kind, count in counts) or "none"
    return {"": (table_of(frame.head(_SHOWN), below=(f"copies: {said}",)),)}


def _cell_rows(store: Path) -> list[dict[str, Any]]:
    if isinstance(store, Location) and not store.is_folder:
        from clipsyn.remote.cache import rows_at

        return rows_at(store)
    from clipsyn.store.features import FeatureStore
    from clipsyn.store.inventory import cell_rows

    return cell_rows(FeatureStore.open(store))


def _tables(rows: list[dict[str, Any]]) -> dict[str, Tables]:
    """A line for each dataset, split and perturbation; the backbones below."""
    from clipsyn.show.tables import table_of

    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["dataset"], row["split"], row["perturbation"]), []).append(row)
    lines = [_group_line(names, cells) for names, cells in groups.items()]
    return {"": (table_of(lines, below=_backbone_lines(rows)),)}


def _group_line(names: tuple[str, ...], cells: list[dict[str, Any]]) -> dict[str, Any]:
    dataset, split, perturbation = names
    prompts = {id(cell["prompts"]): cell["prompts"] for cell in cells}  # many share one list
    return {
        "dataset": dataset,
        "split": split,
        "perturbation": perturbation,
        "images": max(cell["images"] for cell in cells),
        "bad": max(cell["bad"] for cell in cells),
        "backbones": len({cell["backbone"] for cell in cells}),
        "prompts": ", ".join(sorted({name for some in prompts.values() for name in some})),
        "MB": sum(cell["bytes"] for cell in cells) / 1e6,
    }


def _backbone_lines(rows: list[dict[str, Any]]) -> Iterator[str]:
    names = sorted({row["backbone"] for row in rows})
    yield f"cells: {len(rows):,}; backbones: {', '.join(map(printable, names))}"
    for kind in sorted({row["imported"] for row in rows if row["imported"]}):
        imported = sorted({row["backbone"] for row in rows if row["imported"] == kind})
        yield f"imported {kind}: {', '.join(map(printable, imported))}"


@click.command()
@store_argument
@json_option
@click.option("--deep", is_flag=True, help="Also compute logits and predictions again.")
def verify(store: Path, output: Output, deep: bool) -> None:
    """Re-read every chunk of STORE, and whether each group is whole and where it belongs.

    Exit status 4 if anything is not as it was written.
    """
    from clipsyn.show.progress import progress
    from clipsyn.store.features import FeatureStore
    from clipsyn.store.inventory import find_groups
    from clipsyn.store.verify import damage, debris

    opened = FeatureStore.open(store)
    problems: list[str] = []
    groups = find_groups(opened, {}, lambda error: problems.append(str(error)))
    problems += debris(opened, groups)
    with progress("groups") as counters:
        counter = counters.add("verifying", len(groups))
        for group in groups:
            problems += damage(opened, group, deep=deep)
            counters.advance(counter, 1)
    problems = list(dict.fromkeys(problems))
    if output.json({"groups": len(groups), "problems": problems}):
        pass
    elif problems:
        for problem in problems:
            say(problem)
    else:
        one, several = f"group of {store} is as it was", f"groups of {store} are as they were"
        say(f"{counted(len(groups), one, several)} written")
    if problems:
        mend = (
            f"`{advised('push', 'STORE', store)}` sends them again from a store that is whole"
            if isinstance(opened.path, Location)
            else "remove the damaged groups with "
            f"`{advised('rm', store, '--dataset', '…', '--backbones', '…')}` and make them again"
        )
        raise DamagedStore(f"damage found in {store} (see above, {len(problems)} in all): {mend}")
