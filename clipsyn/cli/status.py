"""`clipsyn ls --status` and `--watch`: how far the work on a store is."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from clipsyn.cli.output import say, say_document, say_json, say_lines, say_over
from clipsyn.errors import DamagedStore, StoreError
from clipsyn.text import advised, counted

if TYPE_CHECKING:
    from clipsyn.store.unfinished import Unfinished
    from clipsyn.store.watch import Seen

_EVERY = 2.0  # seconds
_COUNTED = {
    "samples": "sample tables",
    "classes": "class embeddings",
    "features": "image embeddings",
    "logits": "logits",
    "predictions": "predictions without logits",
}


def say_status(store: Path, as_json: bool) -> None:
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
    if as_json:
        shown = [{"target": d.target, "done": d.done, "blocks": d.total} for d in drafts]
        say_json({"finished": finished, **problems, "unfinished": shown, "leftovers": left})
    else:
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


def watch(store: Path, as_json: bool) -> None:
    """Say what there is whenever it has changed, until Ctrl-C; on a terminal, in one line."""
    from clipsyn.store.features import FeatureStore
    from clipsyn.store.marker import is_vacant
    from clipsyn.store.watch import Watch

    if not is_vacant(store):
        FeatureStore.open(store)  # raises where it is something else
    elif not store.absolute().parent.is_dir():
        raise StoreError(f"{store} cannot be made by any job: there is no folder {store.parent}")
    watched, before = Watch(store), None
    with suppress(KeyboardInterrupt):
        while True:
            seen = watched.look(time.monotonic())
            if as_json:
                say_document(json.dumps(asdict(seen)))
            elif (line := describe(seen)) != before:
                (say_over if sys.stdout.isatty() else say)(line)
                before = line
            time.sleep(_EVERY)
    if sys.stdout.isatty():
        say("")


def describe(seen: Seen) -> str:
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
