"""Tables inside a Markdown document, replaced by those of now."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from clipsyn.errors import UsageError
from clipsyn.show.table import Tables
from clipsyn.show.text import text_of

_SECTION = re.compile(
    r"(?P<start><!-- clipsyn: (?P<name>[^>]+?) -->\n).*?(?P<end><!-- clipsyn end -->)", re.DOTALL
)


def renew(document: Path, shown: Mapping[str, Tables]) -> list[str]:
    """Put the tables of each name, as text, between the marks with it; the rest stays as it is.

    Marks are ``<!-- clipsyn: NAME -->`` and ``<!-- clipsyn end -->``. Returns the names that have
    marks. Raises UsageError if the document cannot be read or has no mark for any of them.
    """
    try:
        text = document.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"document {document} cannot be read: {error.strerror}") from None
    marked: list[str] = []

    def table(match: re.Match[str]) -> str:
        if match["name"] not in shown:
            return match[0]
        marked.append(match["name"])
        text = text_of(shown[match["name"]], terminal=False)
        return f"{match['start']}```text\n{text}\n```\n{match['end']}"

    renewed = _SECTION.sub(table, text)
    if not marked:
        raise UsageError(
            f"{document} has no mark for a table: write <!-- clipsyn: NAME --> and "
            f"<!-- clipsyn end --> where one of these is to stand: {'; '.join(shown)}"
        )
    if renewed != text:
        document.write_text(renewed, encoding="utf-8")
    return marked
