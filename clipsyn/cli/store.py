"""`clipsyn ls`, `verify`, `rm` and `gc`: what a store holds, whether it is whole, and what goes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from clipsyn.cli.options import (
    STORE,
    YES,
    cell_filters,
    command,
    flag,
    json_option,
    option,
    output_option,
)
from clipsyn.cli.output import JSON, Output, say, say_lines
from clipsyn.errors import DamagedStore, UsageError
from clipsyn.names import Location
from clipsyn.text import advised, counted, printable

if TYPE_CHECKING:
    from polars import DataFrame

    from clipsyn.show.table import Tables
    from clipsyn.store.inventory import Leftover

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
    from clipsyn.store.inventory import find_groups, left_over
    from clipsyn.store.schema import KINDS
    from clipsyn.store.verify import Stale, debris, refused

    opened = FeatureStore.open(store)
    damaged: list[str] = []
    groups = find_groups(opened, {}, lambda error: damaged.append(str(error)))
    damaged += debris(opened, groups)
    readers = list(refused(opened, groups))
    stale = [problem for problem in readers if isinstance(problem, Stale)]
    damaged = damaged or [problem for problem in readers if problem not in stale]
    finished = {kind: sum(group.kind == kind for group in groups) for kind in KINDS}
    lying = left_over(store)
    drafts = [one for one in lying if one.target]
    left = len(lying) - len(drafts)
    problems: dict[str, Sequence[str]] = {"damaged": damaged, "stale": stale}
    shown = [{"target": d.target, "done": d.done, "blocks": d.total} for d in drafts]
    if not output.json({"finished": finished, **problems, "unfinished": shown, "leftovers": left}):
        say_lines(f"finished: {by_kind(finished)}")
        for what, found in problems.items():
            for problem in found:
                say(f"{what}: {problem}")
        for draft in drafts:
            say(f"unfinished: {draft.target}, {draft.done} of {draft.total} blocks done")
        if drafts or left:
            say(f"leftovers in .wip of commands that were killed, or are running: {left}")
            again = "the command that began an unfinished group goes on with it if it is run again"
            say(f"{again}; `{advised('gc', store)}` drops all that if it was killed long ago")
    if damaged or stale:
        raise DamagedStore(
            f"parts of {store} are lost, stale or may not be read: "
            f"`{advised('verify', store)}` reads it all"
        )


def by_kind(groups: Mapping[str, int]) -> str:
    """Numbers of groups by kind, in words."""
    return ", ".join(f"{_COUNTED[kind]} {count:,}" for kind, count in groups.items())


@command(
    "ls",
    [
        STORE,
        flag(["--status"], help="What is finished, unfinished, lost or stale."),
        flag(["--copies"], help="Images that equal, or look like, an earlier one."),
        output_option(),
    ],
)
def ls(store: Path, status: bool, copies: bool, output: Output) -> None:
    """List the cells of STORE: a line for each dataset, split and perturbation.

    With --status: what is finished, what an interrupted command left to do, and what readers
    refuse. The exit status is 4 if a part of a group is missing or may not be read, or if a cell
    was made from others than are there now; `verify` also reads the rest.

    With --copies: each image with the content of an earlier one of its dataset, or that looks like
    it (difference hashes of 64 bits, at most 4 of them other; different pictures of one simple
    shape do, too). Near copies of imported images are not known.

    \b
    clipsyn ls store
    clipsyn ls store --status
    clipsyn ls store --copies -o copies.csv
    """
    if status and copies:
        raise UsageError("give one of --status and --copies")
    if status:
        if other := [file for file in output.files if not file.name.lower().endswith(JSON)]:
            raise UsageError(f"--status writes JSON alone: leave out --output {other[0]}")
        _say_status(store, output)
        return
    if copies:
        output.show(_copies(store), _copies_tables)
        return
    from clipsyn.store.features import FeatureStore
    from clipsyn.store.inventory import cell_rows

    rows = cell_rows(FeatureStore.open(store))
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


@command(
    "verify",
    [STORE, json_option, flag(["--deep"], help="Also compute logits and predictions again.")],
)
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
            f"`{advised('push', 'STORE', store, '--replace')}` sends them again from a whole store"
            if isinstance(opened.path, Location)
            else "remove the damaged groups with "
            f"`{advised('rm', store, '--dataset', '…', '--backbones', '…')}` and make them again"
        )
        raise DamagedStore(f"damage found in {store} (see above, {len(problems)} in all): {mend}")


_AGES = {"m": 60, "h": 3_600, "d": 86_400}  # seconds, by the letter of a unit


def _seconds(_context: click.Context, _parameter: click.Parameter, age: str) -> int:
    match = re.fullmatch(r"([0-9]{1,6})([mhd])", age)
    if match is None and age != "0":
        raise UsageError(f"--older-than '{age}' is no age: write 30m, 12h, 7d or 0")
    return int(match[1]) * _AGES[match[2]] if match else 0


@command(
    "gc",
    [
        STORE,
        option(
            ["--older-than"],
            callback=_seconds,
            default="1d",
            show_default=True,
            metavar="AGE",
            help="Only what nobody has written to for so long: 30m, 12h, 7d; 0 is any age.",
        ),
        flag(["--dry-run"], help="Say what would be removed, and stop."),
        YES,
    ],
)
def gc(store: Path, older_than: int, dry_run: bool, yes: bool) -> None:
    """Remove from STORE what jobs that were killed have left, having listed it and asked.

    A group that is not finished could be completed by the command that began it. A job that runs
    writes to its groups again and again, so it loses nothing as long as a block takes it less
    than --older-than.

    At the URL of a bucket, or in a folder that was pushed to, these are groups that the index does
    not name: sent by a push that was killed, or replaced. A push that runs loses nothing as long as
    it takes less than --older-than; who still reads a group that was replaced is told so.

    \b
    clipsyn gc store --dry-run
    clipsyn gc store --older-than 0  all that is unfinished, where no job is running
    clipsyn gc s3://lab/clip --dry-run
    """
    found, collect = _left_over(store)
    dead = [one for one in found if one.age >= older_than]
    for one in dead:
        say(f"{one.what}: {one.bytes / 1e6:,.1f} MB, last written to {_ago(one.age)}")
    if young := len(found) - len(dead):
        say(f"{young:,} more were last written to less than {_ago(older_than)}: they stay")
    if not dead:
        say(f"nothing to remove from {store}")
    elif not dry_run:
        what = counted(len(dead), "unfinished group or leftover", "unfinished groups and leftovers")
        _confirm(what, store, yes)
        say(f"removed {collect(dead):,} of {what} from {store}")


def _confirm(what: str, place: Path, yes: bool) -> None:
    if not yes:
        click.confirm(f"Remove {what} from {place}?", abort=True)


def _left_over(store: Path) -> tuple[list[Leftover], Callable[[list[Leftover]], int]]:
    """What lies in a store that nobody needs, and what removes it."""
    from clipsyn.store import inventory
    from clipsyn.store.features import FeatureStore
    from clipsyn.store.files import is_store, place_of

    place = place_of(store)
    if isinstance(store, Location) and not is_store(place):
        place = store  # a first push to it may have been killed
    if isinstance(place, Location):
        from clipsyn.remote.push import collect, left_over

        return left_over(place), partial(collect, place)
    path = FeatureStore.open(place).path
    return inventory.left_over(path), partial(inventory.collect, path)


def _ago(seconds: float) -> str:
    for unit, length in (("day", _AGES["d"]), ("hour", _AGES["h"]), ("minute", _AGES["m"])):
        if (count := int(seconds // length)) > 0:
            return f"{counted(count, unit)} ago"
    return "moments ago"


@command("rm", [STORE, *cell_filters(prompts=True), YES])
def rm(store: Path, yes: bool, **filters: tuple[str, ...] | None) -> None:
    """Remove from STORE what every given filter matches, having listed it and asked.

    \b
    clipsyn rm store --backbones tiny-RN/zoo         its features, logits and class embeddings
    clipsyn rm store --dataset emoji-food            everything of that dataset
    """
    from clipsyn.store.features import FeatureStore
    from clipsyn.store.inventory import find_groups, remove
    from clipsyn.store.select import names_meant, nothing_matches

    opened = FeatureStore.open(store)
    opened.check_writable()
    if not any(filters.values()):
        raise UsageError("rm needs a filter, for instance --dataset or --backbones; see --help")
    places = [group.place for group in find_groups(opened, {})]
    groups = find_groups(opened, names_meant(places, filters, str(store)))
    if not groups:
        raise nothing_matches(str(store))
    for group in groups:
        say(str(group.path.relative_to(store)))
    what = counted(len(groups), "group")
    _confirm(what, store, yes)
    remove(opened, groups)
    say(f"removed {what} from {store}")
