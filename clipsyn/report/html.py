"""Text for the page. Whatever is not `Html` is escaped, here or by the template."""

from __future__ import annotations

from html import escape
from typing import Self

from clipsyn.printable import printable


class Html(str):
    """Text that is HTML already: templates leave it as it is."""

    __slots__ = ()

    def __html__(self) -> Self:
        return self


def safe(value: object) -> Html:
    """A name or a sentence as HTML: nothing in it is markup, or changes how it is written."""
    return value if isinstance(value, Html) else Html(escape(printable(str(value))))


def html(template: str, *values: object) -> Html:
    """A template of our own with `values` in its ``{}``, each escaped."""
    return Html(template.format(*map(safe, values)))


def named(name: object) -> Html:
    """A name in a sentence: its direction of writing stays its own."""
    return html("<bdi>{}</bdi>", name)


def listed(names: list[str] | tuple[str, ...]) -> Html:
    """Names as a sentence has them: "a", "a and b", "a, b and c"."""
    shown = [named(name) for name in names]
    return Html(" and ".join(filter(None, [", ".join(shown[:-1]), *shown[-1:]])))
