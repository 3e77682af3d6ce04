"""Text for the page. Whatever is not `Html` is escaped, here or by the template."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from html import escape
from typing import Any, Self

from clipsyn.show.table import NOTHING, Cell, Column, Table
from clipsyn.text import printable


class Html(str):
    """Text that is HTML already: templates leave it as it is."""

    __slots__ = ()

    def __html__(self) -> Self:
        return self


def safe(value: object) -> Html:
    """A name or a sentence as HTML: nothing in it is markup, or changes how it is written."""
    return Html(value if hasattr(value, "__html__") else escape(printable(str(value))))


def html(template: str, *values: object) -> Html:
    """A template of our own with `values` in its ``{}``, each escaped."""
    return Html(template.format(*map(safe, values)))


def named(name: object) -> Html:
    """A name in a sentence: its direction of writing stays its own."""
    return html("<bdi>{}</bdi>", name)


def listed(names: Sequence[str]) -> Html:
    """Names as a sentence has them: "a", "a and b", "a, b and c"."""
    shown = [named(name) for name in names]
    return Html(" and ".join(filter(None, [", ".join(shown[:-1]), *shown[-1:]])))


def placed(table: Table) -> list[tuple[Column, Column | None]]:
    """Columns with what stands smaller behind their cells, without those where nothing is known."""
    names = {column.name for column in table.columns}
    behind = {column.interval_of: column for column in table.columns if column.interval_of in names}
    return [
        (column, behind.get(column.name))
        for column in table.columns
        if column.interval_of not in names and any(it.text != NOTHING for it in column.cells)
    ]


def sorted_by(cell: Cell) -> str:
    """What the script reads: empty for a number that is not known, which comes last."""
    return f"{cell.value:.6g}" if isinstance(cell.value, int | float) else ""


def rendered(name: str, **values: Any) -> Html:
    """A template of the page, filled in."""
    return Html(_environment().get_template(name).render(values))


def paragraphs(name: str, **values: Any) -> list[Html]:
    """Those of a template, each on one line; names have no line break."""
    parts = re.split(r"\n\s*\n", rendered(name, **values))
    return [Html(re.sub(r"[ \n]+", " ", part.strip())) for part in parts if part.strip()]


@cache
def _environment() -> Any:
    # jinja2 comes with the extra `report`
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("clipsyn.report", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: safe(value) if isinstance(value, str) else value,
        keep_trailing_newline=True,
    )
    environment.filters |= {it.__name__: it for it in (named, listed, placed, sorted_by)}
    return environment
