"""What `clipsyn info --provenance` and `--bibtex` print: where cells come from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from clipsyn.cli.output import say, say_document, say_json, say_lines, say_tables
from clipsyn.text import counted, printable

if TYPE_CHECKING:
    from clipsyn.exchange.origins.made import Made, Run

Names = tuple[str, ...] | None


def made_of(store: Path, filters: Mapping[str, Names], group: str | None = None) -> list[Made]:
    """Where the cells come from that pass the filters, or that a group is of."""
    from clipsyn.exchange.origins.made import made
    from clipsyn.store.features import FeatureStore
    from clipsyn.store.inventory import cells_of_group
    from clipsyn.store.select import select

    opened = FeatureStore.open(store)
    return made(opened, cells_of_group(opened, group) if group else select(opened, **filters))


def say_citations(cells: Sequence[Made], as_json: bool) -> None:
    """What to cite for cells, as BibTeX; what nothing is known for, on standard error."""
    from clipsyn.exchange.origins.cite import citations

    found = citations(cells)
    if as_json:
        say_json(found.json())
        return
    say_document(found.bibtex())
    for sentence in found.unknown:
        say(f"note: {sentence}", fg="yellow", err=True)


def say_provenance(cells: Sequence[Made], as_json: bool) -> None:
    """How cells were made, and of which weights and images, each once."""
    from clipsyn.exchange.origins.made import distinct_runs
    from clipsyn.exchange.origins.tables import images_table, weights_table

    if as_json:
        say_json([cell.json() for cell in cells])
        return

    for number, (run, made) in enumerate(distinct_runs(cells).items(), 1):
        say_lines(f"{number}. {printable(_cells(made))}")
        for line in _run(run, made):
            say(f"   {line}")
        say("")
    say_tables({"": (weights_table(cells), images_table(cells))}, "text")


def _cells(made: Sequence[Made]) -> str:
    if len(made) == 1:
        return str(made[0].key)
    counts = {
        field: len({getattr(cell.key, field) for cell in made})
        for field in ("backbone", "dataset", "perturbation")
    }
    said = ", ".join(counted(count, field) for field, count in counts.items())
    return f"{len(made):,} cells: {said}"


def _run(run: Run, made: Sequence[Made]) -> Iterator[str]:
    yield from run.commands or ("command: not recorded",)
    whens = sorted(_spoken(cell.when) for cell in made if cell.when)
    when = " to ".join(dict.fromkeys((whens[0], whens[-1]))) if whens else "date: not recorded"
    hosts = list(dict.fromkeys(host for cell in made for host in cell.run.hosts))
    yield f"{when}{f' on {_several(hosts)}' if hosts else ''}"
    if run.made_by:
        yield f"made by: {run.made_by}"
    versions = ", ".join(f"{name} {version}" for name, version in run.versions)
    yield versions or "versions: not recorded"
    if run.device:
        yield f"device: {run.device}"


def _spoken(when: str) -> str:
    """A date as people write it; one of another form as it is."""
    day, mark, time = when.removesuffix("+00:00").partition("T")
    return f"{day} {time} UTC" if mark and when.endswith("+00:00") else when


def _several(hosts: Sequence[str]) -> str:
    return ", ".join(hosts[:3]) + (f" and {len(hosts) - 3} more" if len(hosts) > 3 else "")
