"""`clipsyn ls`, `info`, `verify`, `rm`: what a store holds and whether it is whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from clipsyn.cli.options import cell_filters, store_argument, yes_option
from clipsyn.cli.origins import made_of, say_citations, say_provenance
from clipsyn.cli.output import (
    format_of,
    format_option,
    json_option,
    say,
    say_json,
    say_lines,
    say_tables,
)
from clipsyn.cli.status import say_status
from clipsyn.cli.status import watch as watch_store
from clipsyn.errors import DamagedStore, UsageError
from clipsyn.names import Location
from clipsyn.show.formats import FORMATS
from clipsyn.text import advised, counted, printable


@click.command(short_help="List what a store holds.")
@store_argument
@click.option("--status", is_flag=True, help="What is finished, unfinished, lost or stale.")
@click.option("--watch", is_flag=True, help="How the work of all jobs goes on, until Ctrl-C.")
@format_option()
@json_option
def ls(store: Path, status: bool, watch: bool, as_json: bool, format: str) -> None:
    """List the cells of STORE: a line for each dataset, split and perturbation.

    With --status: what is finished, what an interrupted command left to do, and what readers
    refuse. The exit status is 4 if a part of a group is missing or may not be read, or if a cell
    was made from others than are there now; `verify` also reads the rest.

    With --watch: again and again how many blocks all jobs have done, and how long the rest of what
    they have begun takes.

    \b
    clipsyn ls store
    clipsyn ls store --status
    """
    format = format_of(as_json, format)
    if status or watch:
        if status and watch:
            raise UsageError("give one of --status and --watch")
        if format not in (FORMATS[0], "json"):
            raise UsageError(f"--status and --watch print no tables: leave out --format {format}")
        (say_status if status else watch_store)(store, as_json)
        return
    rows = _cell_rows(store)
    if format == "json":
        say_json(rows)
    elif rows:
        _print_grouped(rows, format)
    else:
        say(f"{store} is empty: fill it with `{advised('extract', store, '…')}`")


def _cell_rows(store: Path) -> list[dict[str, Any]]:
    if isinstance(store, Location) and not store.is_folder:
        from clipsyn.remote.cache import rows_at

        return rows_at(store)
    from clipsyn.store.features import FeatureStore
    from clipsyn.store.inventory import cell_rows

    return cell_rows(FeatureStore.open(store))


def _print_grouped(rows: list[dict[str, Any]], format: str) -> None:
    from clipsyn.show.tables import table_of

    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["dataset"], row["split"], row["perturbation"]), []).append(row)
    table = table_of([_group_line(names, cells) for names, cells in groups.items()])
    lines = list(_backbone_lines(rows))
    if format == FORMATS[0]:  # each line fits the terminal by itself
        say_tables({"": (table,)}, format)
        for line in lines:
            say_lines(line)
    else:
        say_tables({"": (replace(table, below=tuple(lines)),)}, format)


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


@click.command(short_help="Say how a store, or one group of it, was made.")
@store_argument
@click.argument("group", required=False)
@click.option("--provenance", is_flag=True, help="Who made the cells, of what, on whose terms.")
@click.option("--bibtex", is_flag=True, help="What to cite for the cells.")
@cell_filters("With --provenance or --bibtex, as all filters: of which cells.")
@click.option("--json", "as_json", is_flag=True, help="With --provenance or --bibtex: as JSON.")
def info(
    store: Path,
    group: str | None,
    provenance: bool,
    bibtex: bool,
    as_json: bool,
    **filters: tuple[str, ...] | None,
) -> None:
    """Say as JSON how STORE was made: format, backbones, datasets; or all about one GROUP.

    With --provenance: by which command, versions and device each cell was made, and when; from
    which weights and images, and under which licence.

    With --bibtex: what to cite for the cells, which is the method and the software, weights by
    their tags, datasets and perturbations of the catalogue. What nothing is known for is named on
    standard error.

    \b
    clipsyn info store
    clipsyn info store features/emoji-food/test/clean/tiny-RN--zoo
    clipsyn info store --provenance -d emoji-food -b tiny-RN/zoo
    clipsyn info store --bibtex -d food101 -b 'ViT-*'
    """
    from clipsyn.store.features import FeatureStore
    from clipsyn.store.inventory import describe, describe_group

    chosen = {name: names for name, names in filters.items() if names}
    if provenance and bibtex:
        raise UsageError("give one of --provenance and --bibtex")
    if provenance or bibtex:
        if group and chosen:
            raise UsageError("a GROUP is of one place: leave the filters away, or the GROUP")
        cells = made_of(store, filters, group)
        (say_citations if bibtex else say_provenance)(cells, as_json)
        return
    if chosen:
        raise UsageError(
            "filters choose cells for --provenance or --bibtex: add one, or give a GROUP"
        )
    opened = FeatureStore.open(store)
    described = describe_group(opened, group) if group else describe(opened)
    say_json(described)


@click.command(short_help="Re-read everything and name what is damaged.")
@store_argument
@json_option
@click.option("--deep", is_flag=True, help="Also compute logits and predictions again.")
def verify(store: Path, as_json: bool, deep: bool) -> None:
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
    if as_json:
        say_json({"groups": len(groups), "problems": problems})
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


@click.command(short_help="Remove cells from a store.")
@store_argument
@cell_filters(prompts=True)
@yes_option
def rm(store: Path, yes: bool, **filters: tuple[str, ...] | None) -> None:
    """Remove from STORE what every given filter matches, having listed it and asked.

    \b
    clipsyn rm store --backbones tiny-RN/zoo         its features, logits and class embeddings
    clipsyn rm store --dataset emoji-food            everything of that dataset
    """
    from clipsyn.store.choice import names_meant, nothing_matches
    from clipsyn.store.features import FeatureStore
    from clipsyn.store.inventory import find_groups, remove

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
    if not yes:
        click.confirm(f"Remove {what} from {store}?", abort=True)
    remove(opened, groups)
    say(f"removed {what} from {store}")
