"""Tables as Markdown, read again by an independent parser."""

from __future__ import annotations

from html.parser import HTMLParser

from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from clipsyn.show.formats import markdown_of
from clipsyn.show.table import Cell, Table
from clipsyn.show.tables import Measure, measures_table, table_of

DASH = "\N{EN DASH}"
NAMES = st.text(
    st.characters(exclude_categories=["C", "Z"], include_characters=" "), min_size=1, max_size=12
)


class Page(HTMLParser):
    """The cells of the tables of a page, its paragraphs, and the kinds of its elements."""

    def __init__(self, markdown: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.paragraphs: list[str] = []
        self.kinds: set[str] = set()
        self.texts: list[str] | None = None
        self.feed(MarkdownIt("commonmark").enable("table").render(markdown))

    def handle_starttag(self, tag, attrs):
        self.kinds.add(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.texts = self.rows[-1]
            self.texts.append("")
        if tag == "p":
            self.texts = self.paragraphs
            self.texts.append("")

    def handle_data(self, data):
        if self.texts and self.texts is not None:
            self.texts[-1] += data

    def handle_endtag(self, tag):
        if tag in ("td", "th", "p"):
            self.texts = None


PLAIN = {"table", "thead", "tbody", "tr", "th", "td", "p", "strong", "em"}


def test_a_table_has_a_head_rows_and_marks():
    values = {"a": 0.7124, "b": 0.7121, "c": None}
    table = measures_table(
        [({"method": name}, {"acc1": {"value": value}}) for name, value in values.items()],
        [Measure("top-1", "acc1", best="most")],
        title="birds",
        below=["one", "1. two\nlines"],
        notes="two",
    )
    assert markdown_of([table]).split("\n") == [
        "**birds**",
        "",
        "| method | top-1 |",
        "| --- | ---: |",
        "| a | **71.2** |",
        "| b | *71.2* |",
        f"| c | {DASH} |",
        "",
        "one\\",
        "1\\. two lines",
        "",
        "two",
        "",
        "Bold: the best; in italics: as good as it in the digits shown.",
    ]


@given(NAMES, NAMES, NAMES)
@example("a|b", "*x*", "<script>alert(1)</script>")
@example("`a`", "[a](http://b)", "http://evil.example")
@example("![a](b)", "a\\|b", "&amp;")
@example("1. a", "- a", "# a")
@example("~~a~~", "_a_", "---")
def test_names_are_read_as_themselves(head, cell, title):
    table = table_of([{"x": cell, "y": Cell("1", 1)}], headers={"x": head}, title=title)
    page = Page(markdown_of([table]))
    (shown_head, _), (shown_cell, _) = page.rows
    assert (shown_head, shown_cell) == (" ".join(head.split()), " ".join(cell.split()))
    assert [" ".join(text.split()) for text in page.paragraphs] == [" ".join(title.split())] * bool(
        title.strip()
    )
    assert page.kinds <= PLAIN


@given(st.lists(NAMES, min_size=1, max_size=4).map("\n".join))
@example("1. a\n2) b")
@example("- a\n+ b\n* c")
@example("a\n===\nb\n---")
@example("> a\n# b\n```\nc")
def test_notes_are_paragraphs_whatever_they_begin_with(notes):
    page = Page(markdown_of([Table(notes=notes)]))
    assert page.kinds <= {"p"}
    assert " ".join(page.paragraphs).split() == notes.split()
