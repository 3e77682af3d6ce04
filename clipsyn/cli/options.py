"""What several commands share: comma lists, and where tables are written."""

from __future__ import annotations

from collections.abc import Callable, Sized
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from polars import DataFrame

    from clipsyn.store.features import FeatureStore


def listed(texts: tuple[str, ...]) -> tuple[str, ...] | None:
    """Comma lists flattened; None, no filter, where nothing is given."""
    return tuple(part.strip() for text in texts for part in text.split(",") if part) or None


def output_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--json, --csv and --parquet."""
    for option in (
        click.option("--parquet", type=click.Path(path_type=Path), help="The same as Parquet."),
        click.option(
            "--csv", type=click.Path(path_type=Path), help="Also write the numbers to this file."
        ),
        click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables."),
    ):
        command = option(command)
    return command


def say_written(frame: Sized, *paths: Path | None) -> None:
    for path in paths:
        if path:
            click.echo(f"{len(frame):,} rows written to {path}", err=True)


def say_left_out(store: FeatureStore, frame: DataFrame, lacking: str = "labels") -> None:
    """Say which datasets of the store have no row in a frame of results."""
    there = {key.dataset for key in store.keys(split=set(frame["split"]))}
    if missing := ", ".join(sorted(there - set(frame["dataset"]))):
        click.echo(f"not shown, for want of {lacking} or such cells: {missing}", err=True)
