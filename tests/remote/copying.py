"""Push and pull as tests call them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from clipsyn.remote.pull import Pull
from clipsyn.remote.push import Push
from clipsyn.show.progress import progress
from clipsyn.store.features import FeatureStore

Names = Mapping[str, Sequence[str]]


def push(
    store: FeatureStore,
    url: str | Path,
    filters: Names | None = None,
    *,
    replace: bool = False,
) -> Push:
    """What was pushed."""
    plan = Push.plan(store, str(url), filters or {}, replace=replace)
    with progress("MB") as counters:
        plan.carry_out(counters)
    return plan


def pull(url: str | Path, path: Path, filters: Names | None = None) -> Pull:
    """What was pulled."""
    plan = Pull.plan(str(url), path, filters or {})
    with progress("MB") as counters:
        plan.carry_out(counters)
    return plan
