"""Tables as Markdown, read again by an independent parser."""

from __future__ import annotations

import csv
import io
from html.parser import HTMLParser

import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from clipsyn.errors import UsageError
from clipsyn.show.formats import csv_of, markdown_of, renew
from clipsyn.show.table import SOFT_HYPHEN, Cell, Table, paragraph
from clipsyn.show.tables import Measure, measures_table, table_of
from clipsyn.show.titles import shortened

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


def test_heads_stand_on_one_line():
    heads = {"a": f"incon{SOFT_HYPHEN}\nsistency", "b": "double\nfault"}
    page = Page(markdown_of([table_of([{"a": 1, "b": 2}], headers=heads)]))
    assert page.rows[0] == ["inconsistency", "double fault"]


def test_several_tables_and_paragraphs_stand_below_each_other():
    tables = [table_of([{"a": 1}]), table_of([{"b": 2}]), paragraph("The end.")]
    page = Page(markdown_of(tables))
    assert page.rows == [["a"], ["1"], ["b"], ["2"]]
    assert page.paragraphs == ["The end."]


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


def read(text: str) -> list[list[dict[str, str]]]:
    """The rows of each table."""
    return [list(csv.DictReader(io.StringIO(part))) for part in text.split("\n\n")]


def test_numbers_have_twelve_digits_and_intervals_are_two_columns():
    row = {"value": 0.285, "ci_low": 0.25, "ci_high": 2 / 3}
    top = Measure("top-1", "acc1", interval=True)
    table = measures_table([({"backbone": "a, b"}, {"acc1": row})], [top])
    ((found,),) = read(csv_of({"": (table,)}))
    assert list(found) == ["backbone", "top-1", "top-1 low", "top-1 high"]
    assert found["backbone"] == "a, b"
    assert (found["top-1"], found["top-1 low"], found["top-1 high"]) == (
        *("28.5", "25.0", "66.6666666667"),
    )


def test_a_number_with_its_interval_in_one_cell_is_three_columns():
    table = table_of([{"x": Cell("+3.1 [-0.2, 4.9]", 3.1, -0.2, 4.9)}, {"x": None}])
    first, last = read(csv_of({"": (table,)}))[0]
    assert first == {"x": "3.1", "x low": "-0.2", "x high": "4.9"}
    assert set(last.values()) == {""}


def test_intervals_alone_are_two_columns():
    table = table_of([{"both": Cell("-0.2 to 4.9", None, -0.2, 4.9)}, {"both": None}])
    first, last = read(csv_of({"": (table,)}))[0]
    assert first == {"both low": "-0.2", "both high": "4.9"}
    assert set(last.values()) == {""}


def test_what_is_not_known_is_empty():
    rows = [{"x": None, "y": 0.5, "z": "a"}, {"x": None, "y": float("nan")}]
    _, last = read(csv_of({"": (table_of(rows),)}))[0]
    assert last == {"x": "", "y": "", "z": ""}


def test_a_column_of_texts_stays_one():
    rows = [
        {"x": Cell("within-1"), "y": Cell("●", True)},
        {"x": Cell("0.5"), "y": Cell("·", False)},
    ]
    first, last = read(csv_of({"": (table_of(rows),)}))[0]
    assert (first, last) == ({"x": "within-1", "y": "true"}, {"x": "0.5", "y": "false"})


def test_tables_with_names_say_what_they_are():
    one, other = table_of([{"a": 1}], title="birds\nclean"), table_of([{"b": 2}])
    shown = {"gains": (one, other), "notes": (paragraph("not a table"),), "costs": (other,)}
    first, second, third = read(csv_of(shown))
    assert first == [{"table": "gains", "about": "birds · clean", "a": "1"}]
    assert second == [{"table": "gains", "about": "birds · clean", "b": "2"}]
    assert third == [{"table": "costs", "about": "", "b": "2"}]


def test_backbones_have_their_whole_names():
    names = shortened(["tiny-RN/zoo", "tiny-ViT/zoo"])
    row = {"best": names.cell("tiny-RN/zoo")} | dict.fromkeys(names.columns.values(), 0.5)
    table = table_of([row], headers=names.heads, labels=names.labels)
    ((found,),) = read(csv_of({"": (table,)}))
    assert list(found) == ["best", "tiny-RN/zoo", "tiny-ViT/zoo"]
    assert found["best"] == "tiny-RN/zoo"
    assert table.columns[0].cells[0].text == "RN"


def test_no_spreadsheet_runs_a_name():
    table = table_of(pl.DataFrame({"=name": ["=1+1", "-3"]}))
    assert csv_of({"": (table,)}).split("\n") == ["'=name", "'=1+1", "-3"]


def test_an_empty_table_has_its_head():
    assert csv_of({"": (table_of(pl.DataFrame(schema=["a", "b"])),)}) == "a,b"
    assert csv_of({}) == ""


TEXT = """# Results

Before.

<!-- clipsyn: accuracy -->
old
<!-- clipsyn end -->

Between \\1 and $0.

<!-- clipsyn: by shots, nlc -->
<!-- clipsyn end -->
<!-- clipsyn: other -->
kept
<!-- clipsyn end -->
"""


@pytest.fixture
def document(tmp_path):
    path = tmp_path / "results.md"
    path.write_text(TEXT, encoding="utf-8")
    return path


def test_tables_stand_between_their_marks(document):
    found = renew(
        document,
        {
            "accuracy": (paragraph("a  b\n1  \\2"),),
            "by shots, nlc": (paragraph("x"),),
            "more": (paragraph("y"),),
        },
    )
    assert found == ["accuracy", "by shots, nlc"]
    text = document.read_text(encoding="utf-8")
    assert "<!-- clipsyn: accuracy -->\n```text\na  b\n1  \\2\n```\n<!-- clipsyn end -->" in text
    assert "old" not in text
    assert "kept" in text
    assert "Between \\1 and $0." in text
    assert text.startswith("# Results\n\nBefore.\n")


def test_the_same_tables_leave_the_same_file(document):
    renew(document, {"accuracy": (paragraph("1"),)})
    before = document.stat().st_mtime_ns
    renew(document, {"accuracy": (paragraph("1"),)})
    assert document.stat().st_mtime_ns == before


def test_a_document_without_marks_says_which_would_do(tmp_path, document):
    with pytest.raises(UsageError, match=r"no mark for a table: .* one of these .*: gains, nlc"):
        renew(document, {"gains, nlc": (paragraph("1"),)})
    assert document.read_text(encoding="utf-8") == TEXT
    with pytest.raises(UsageError, match=r"document .*none\.md cannot be read"):
        renew(tmp_path / "none.md", {"accuracy": (paragraph("1"),)})
