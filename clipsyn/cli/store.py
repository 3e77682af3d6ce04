"""`clipsyn ls`, `verify`, `rm` and `gc`: what a store holds, whether it is whole, and what goes."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from clipsyn.cli.options import STORE, YES, cell_filters, command, flag, option, output_option
from clipsyn.cli.output import Output, say
from clipsyn.errors import DamagedStore, UsageError
from clipsyn.names import Location
from clipsyn.text import advised, counted, printable

if TYPE_CHECKING:
    from polars import DataFrame

    from clipsyn.show.table import Tables
    from clipsyn.store.features import FeatureStore
    from clipsyn.store.inventory import Leftover

Rows = list[dict[str, Any]]
_SHOWN = 30  # copies; a file has them all
_HOUR = 3_600  # seconds


@command(
    "ls",
    STORE,
    flag(["--status"], help="What is finished, unfinished or lost."),
    flag(["--copies"], help="Images that equal, or look like, an earlier one."),
    *cell_filters(),
    output_option(),
)
def ls(
    store: Path, status: bool, copies: bool, output: Output, **filters: tuple[str, ...] | None
) -> None:
    """List the cells of STORE: a line for each dataset, split and perturbation.

    Filters choose cells. At a URL the lists of the chosen datasets alone are fetched.

    With --status: what is finished, what an interrupted command left to do, and what is lost. The
    exit status is 4 if a part of a group is missing; `verify` reads the rest, and says which cells
    were made from others than are there now.

    With --copies: each image with the content of an earlier one of its dataset, or that looks like
    it (difference hashes of 64 bits, at most 4 of them other; different pictures of one simple
    shape do, too). Near copies of imported images are not known.

    \b
    clipsyn ls store
    clipsyn ls store --status
    clipsyn ls store --copies -o copies.csv
    """
    from clipsyn.store.features import FeatureStore
    from clipsyn.store.inventory import cell_rows
    from clipsyn.store.select import chosen_keys

    filtered = any(filters.values())
    if status + copies + filtered > 1:
        raise UsageError("give one of --status, --copies and filters")
    opened = FeatureStore.open(store)
    if status:
        _show_status(opened, output)
    elif copies:
        output.show(_copies(opened), _copies_tables)
    elif rows := cell_rows(opened, chosen_keys(opened, **filters) if filtered else None):
        output.show(rows, _cell_tables)
    elif output.files:
        output.show([], _cell_tables)
    else:
        say(f"{store} is empty: fill it with `{advised('extract', store, '…')}`")


def _cell_tables(rows: Rows) -> dict[str, Tables]:
    """A line for each dataset, split and perturbation; the backbones below."""
    from clipsyn.show.tables import table_of

    groups: dict[tuple[str, str, str], Rows] = {}
    for row in rows:
        groups.setdefault((row["dataset"], row["split"], row["perturbation"]), []).append(row)
    captioned = any(row["captions"] for row in rows)
    lines = [
        {
            **dict(zip(("dataset", "split", "perturbation"), names, strict=True)),
            "images": max(cell["images"] for cell in cells),
            "bad": max(cell["bad"] for cell in cells),
            "backbones": len({cell["backbone"] for cell in cells}),
            "prompts": ", ".join(sorted({name for cell in cells for name in cell["prompts"]})),
            **({"captions": max(cell["captions"] for cell in cells)} if captioned else {}),
            "MB": sum(cell["bytes"] for cell in cells) / 1e6,
        }
        for names, cells in groups.items()
    ]
    below = [f"cells: {len(rows):,}; backbones: {_backbones_of(rows)}"]
    for kind in sorted({row["imported"] for row in rows if row["imported"]}):
        some = [row for row in rows if row["imported"] == kind]
        below.append(f"imported {kind}: {_backbones_of(some)}")
    return {"": (table_of(lines, below=below),)}


def _backbones_of(rows: Rows) -> str:
    return ", ".join(map(printable, sorted({row["backbone"] for row in rows})))


def _show_status(store: FeatureStore, output: Output) -> None:
    """What is finished, unfinished and lost; raises DamagedStore if anything is lost."""
    from clipsyn.show.tables import table_of
    from clipsyn.store.files import KINDS
    from clipsyn.store.inventory import debris, left_over

    places = store.places()
    damaged = list(debris(store, places))
    lying = left_over(store.path)
    kinds = [place[0] for place in places]
    rows: Rows = [
        *({"state": "finished", "what": kind, "groups": kinds.count(kind)} for kind in KINDS),
        *({"state": "damaged", "what": problem, "groups": None} for problem in damaged),
        *(
            {"state": "unfinished" if it.target else "left over", "what": it.what, "groups": None}
            for it in lying
        ),
    ]
    below = (
        "the command that began what is unfinished goes on with it if it is run again; "
        f"`{advised('gc', store.path)}` drops it, and what is left over of killed commands"
    )
    output.show(rows, lambda rows: {"": (table_of(rows, below=[below] if lying else ()),)})
    if damaged:
        raise DamagedStore(
            f"parts of {store.path} are lost: `{advised('verify', store.path)}` reads it all"
        )


def _copies(store: FeatureStore) -> DataFrame:
    """A row for each image that is a copy of an earlier one of its dataset."""
    import polars as pl

    from clipsyn.store.overlap import COPY, copies

    splits: dict[str, list[str]] = {}
    for (dataset, split), _ in store.groups("samples"):
        splits.setdefault(dataset, []).append(split)
    rows = [
        row
        for dataset, names in splits.items()
        for row in copies([store.samples(dataset, split) for split in sorted(names, reverse=True)])
    ]
    return pl.DataFrame(rows, schema=dict.fromkeys(COPY, pl.String), orient="row")


def _copies_tables(frame: DataFrame) -> dict[str, Tables]:
    """The first rows, and how many there are."""
    from clipsyn.show.tables import table_of

    counts = frame["copy"].value_counts(sort=True).rows()
    said = ", ".join(f"{count:,} {kind}" for kind, count in counts) or "none"
    return {"": (table_of(frame.head(_SHOWN), below=(f"copies: {said}",)),)}


@command("verify", STORE, flag(["--deep"], help="Also compute logits and predictions again."))
def verify(store: Path, deep: bool) -> None:
    """Re-read every chunk of STORE, and whether each group is whole and where it belongs.

    Exit status 4 if anything is not as it was written.
    """
    from clipsyn.show.progress import progress
    from clipsyn.store.features import FeatureStore
    from clipsyn.store.inventory import damage, debris

    opened = FeatureStore.open(store)
    groups = opened.places()
    problems = list(debris(opened, groups))
    opened.tree.expect(opened.at(*group) for group in groups)
    look = partial(damage, opened, deep=deep)
    with progress("groups") as counters, ThreadPoolExecutor(opened.tree.groups) as threads:
        counter = counters.add("verifying", len(groups))
        for found in threads.map(look, groups):
            problems += found
            counters.advance(counter, 1)
    problems = list(dict.fromkeys(problems))
    for problem in problems:
        say(problem)
    if not problems:
        one, several = f"group of {store} is as it was", f"groups of {store} are as they were"
        say(f"{counted(len(groups), one, several)} written")
        return
    mend = (
        f"`{advised('push', 'STORE', store, '--replace')}` sends them again from a whole store"
        if isinstance(opened.path, Location)
        else "remove the damaged groups with "
        f"`{advised('rm', store, '--dataset', '…', '--backbones', '…')}` and make them again"
    )
    raise DamagedStore(f"damage found in {store} (see above, {len(problems)} in all): {mend}")


@command(
    "gc",
    STORE,
    option(
        ["--older-than"],
        type=click.FloatRange(0),
        default=24,
        show_default=True,
        metavar="HOURS",
        help="Only what nobody has written to for so long.",
    ),
    YES,
)
def gc(store: Path, older_than: float, yes: bool) -> None:
    """Remove from STORE what jobs that were killed have left, having listed it and asked.

    A group that is not finished could be completed by the command that began it. A job that runs
    writes to its groups again and again, so it loses nothing as long as a block takes it less
    than --older-than.

    At the URL of a bucket, or in a folder that was pushed to, these are groups that the index does
    not name: sent by a push that was killed, or replaced. A push that runs loses nothing as long as
    it takes less than --older-than; who still reads a group that was replaced is told so.

    \b
    clipsyn gc store
    clipsyn gc store --older-than 0  all that is unfinished, where no job is running
    clipsyn gc s3://lab/clip
    """
    found, collect = _left_over(store)
    dead = [one for one in found if one.age >= older_than * _HOUR]
    for one in dead:
        hours = one.age / _HOUR
        say(f"{one.what}: {one.bytes / 1e6:,.1f} MB, last written to {hours:,.1f} hours ago")
    if young := len(found) - len(dead):
        say(f"{young:,} more were last written to less than {older_than:,g} hours ago: they stay")
    if not dead:
        say(f"nothing to remove from {store}")
        return
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
        from clipsyn.remote.garbage import collect, left_over

        return left_over(place), partial(collect, place)
    path = FeatureStore.open(place).path
    return inventory.left_over(path), partial(inventory.collect, path)


@command("rm", STORE, *cell_filters(), YES)
def rm(store: Path, yes: bool, **filters: tuple[str, ...] | None) -> None:
    """Remove from STORE what every given filter matches, having listed it and asked.

    \b
    clipsyn rm store --backbones tiny-RN/zoo         its features, logits and class embeddings
    clipsyn rm store --dataset emoji-food            everything of that dataset
    """
    from clipsyn.store.features import FeatureStore
    from clipsyn.store.inventory import remove
    from clipsyn.store.select import choose

    opened = FeatureStore.open(store)
    opened.check_writable()
    if not any(filters.values()):
        raise UsageError("rm needs a filter, for instance --dataset or --backbones; see --help")
    groups = choose(opened.places(), filters, str(store), sources=False)
    for place in groups:
        say(str(opened.at(*place).relative_to(store)))
    what = counted(len(groups), "group")
    _confirm(what, store, yes)
    remove(opened, groups)
    say(f"removed {what} from {store}")
