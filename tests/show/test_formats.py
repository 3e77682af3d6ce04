"""Tables as text that fits a terminal, as Markdown and LaTeX, read again, and in documents."""

import re
from html.parser import HTMLParser

import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from clipsyn.errors import UsageError
from clipsyn.show.formats import in_tex, latex_of, markdown_of, paragraphs, renew, text_of
from clipsyn.show.table import Cell, Table, paragraph
from clipsyn.show.tables import Measure, measures_table, show, table_of
from clipsyn.text import cells

DASH = "\N{EN DASH}"
LONG = "describable-textures-dataset-of-the-visual-geometry-group"
NAMES = [
    "EVA02-E-14-plus/laion2b_s9b_b144k",
    "coca_ViT-L-14/mscoco_finetuned_laion2b_s13b_b90k",
    "coca_ViT-L-14/mscoco_unrefined_laion2b_s13b_b90k",
    "xlm-roberta-large-ViT-H-14/frozen_laion5b_s13b_b90k",
    "RN50/openai",
]


@pytest.fixture
def _eighty(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")


def lines_of(frame, **options):
    text = re.sub(r"\x1b\[[0-9;]*m", "", show(frame, terminal=True, **options))
    found = text.split("\n")
    assert max(map(len, found)) <= 80, text
    return found


def split_tables(found):
    """The rows of each table, without their heads."""
    text = "\n".join(found).rstrip()
    parts = [part.split("\n") for part in text.split("\n\n")]
    rule = [next(n for n, line in enumerate(part) if line.startswith("─")) for part in parts]
    return [part[after + 1 :] for part, after in zip(parts, rule, strict=True)]


@pytest.mark.parametrize("written", [text_of, markdown_of])
def test_a_note_of_several_tables_stands_below_the_last_of_them(written):
    tables = [table_of([{"at": at}], notes=note) for at, note in enumerate(("a", "a", "b", "a"))]
    lines = [line for line in written(tables).split("\n") if line in ("a", "b")]
    assert lines == ["a", "b", "a"]
    assert written(tables).index("\na\n") > written(tables[:2]).rindex("1")


@pytest.mark.usefixtures("_eighty")
def test_too_many_columns_become_several_tables_that_name_their_rows():
    values = {
        name: [float(row + 10 * place) for row in range(3)]
        for place, name in enumerate([f"column-{n}-of-many" for n in range(24)])
    }
    frame = pl.DataFrame({"dataset": ["a", "b", "c"], "kind": ["x", "y", "x"]} | values)
    found = lines_of(frame)
    parts = split_tables(found)
    assert len(parts) > 1
    assert [[row.split()[:2] for row in part] for part in parts] == [
        [["a", "x"], ["b", "y"], ["c", "x"]]
    ] * len(parts)
    # nothing is lost, and the order stays
    whole = [[x for part in parts for x in part[row].split()[2:]] for row in range(3)]
    assert whole == [[f"{value:.0f}" for value in row[2:]] for row in frame.iter_rows()]


@pytest.mark.usefixtures("_eighty")
@pytest.mark.parametrize("letters", [69, 70, 71, 200])
def test_numbers_under_a_long_word_keep_all_digits(letters):
    text = "\n".join(lines_of(pl.DataFrame({"a": [1234567], "x" * letters: [7654321]})))
    assert text.split()[-2:] == ["1,234,567", "7,654,321"]
    assert text.count("x") == letters


@pytest.mark.usefixtures("_eighty")
def test_a_wide_character_takes_two_columns():
    frame = pl.DataFrame({"class": ["日本語の長い名前のクラス" * 5], "images": [3]})
    text = show(frame, terminal=True).split("\n")
    assert cells("\n".join(text)) == 80
    assert text[2].endswith(" 3")


def test_paragraphs_are_broken_anew_and_short_lines_stay():
    text = f"{'word ' * 18}and\nthe rest.\n\ncells: 3\n  a  b\n\n{'end ' * 30}"
    assert paragraphs(text, None) == text
    found = paragraphs(text, 80).split("\n")
    assert max(map(len, found)) <= 80
    assert found[:2] == [("word " * 16).strip(), "word word and the rest."]
    assert found[2:6] == ["", "cells: 3", "  a  b", ""]
    assert " ".join(found[6:]).split() == ["end"] * 30


@pytest.mark.usefixtures("_eighty")
def test_heads_and_long_names_take_several_lines_and_lose_nothing():
    where = {"dataset": [LONG] * 5, "backbone": NAMES, "perturbation": ["gaussian_noise-5"] * 5}
    frame = pl.DataFrame(where | {f"of-the-same-textures {n}": [0.25] * 5 for n in range(4)})
    text = "".join("\n".join(lines_of(frame)).split())
    assert text.count("0.25") == 20
    letters = sum(text.count(letter) for letter in "xq")
    assert letters >= sum(name.count(letter) for name in [*NAMES, LONG * 5] for letter in "xq")


# Markdown


WORDS = st.text(
    st.characters(exclude_categories=["C", "Z"], include_characters=" "), min_size=1, max_size=12
)


class Page(HTMLParser):
    """The cells of the tables of a page, its paragraphs, and the kinds of its elements."""

    def __init__(self, markdown):
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


def test_the_best_is_bold_and_so_is_what_reads_the_same():
    values = {"a": 0.7124, "b": 0.7121, "c": None}
    lines = [({"method": name}, {"acc1": {"value": value}}) for name, value in values.items()]
    table = measures_table(lines, [Measure("top-1", "acc1", best="most")], below=["1. two\nlines"])
    assert markdown_of([table]).split("\n") == [
        *("| method | top-1 |", "| --- | ---: |", "| a | **71.2** |", "| b | **71.2** |"),
        *(f"| c | {DASH} |", "", "1\\. two lines"),
    ]


@given(WORDS, WORDS, WORDS)
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


@given(st.lists(WORDS, min_size=1, max_size=4).map("\n".join))
@example("1. a\n2) b")
@example("- a\n+ b\n* c")
@example("a\n===\nb\n---")
@example("> a\n# b\n```\nc")
def test_notes_are_paragraphs_whatever_they_begin_with(notes):
    page = Page(markdown_of([Table(notes=notes)]))
    assert page.kinds <= {"p"}
    assert " ".join(page.paragraphs).split() == notes.split()


# LaTeX


EN, EM = "\N{EN DASH}", "\N{EM DASH}"
KNOWN = re.compile(  # what stands for a sign or for a number
    r"\\(char\d+|text[a-z]+|ldots)\{\}|\\[%&$#_{}]|\$(-|\\[a-z]+)\$|\\rule\{0\.3em\}\{[\d.]+ex\}\\,"
)
TEXT = st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), max_size=20)


@pytest.mark.parametrize(
    ("text", "tex"),
    [
        ("50 % of a_b & #1 {c} $d", r"50 \% of a\_b \& \#1 \{c\} \$d"),
        ("a\\b ~ ^ <|>", r"a\textbackslash{}b \textasciitilde{} \textasciicircum{} "
         r"\textless{}\textbar{}\textgreater{}"),
        ("-3 \N{EN DASH} x--y \N{EM DASH}", r"-3 -- x-{}-y ---"),
        ("· ● … θ", r"\textperiodcentered{} \textbullet{} \ldots{} $\theta$"),
        ("ab\N{NO-BREAK SPACE}c [1] *", "ab~c {[}1{]} {*}"),
    ],
)  # fmt: skip
def test_special_characters_in_latex(text, tex):
    assert in_tex(text) == tex


@given(st.lists(TEXT.filter(str.strip), min_size=1, max_size=3))
@example(["a & b", "c \\\\", "[2em]"])
@example(["*", "% comment", "\\end{tabular}"])
@example([f"--- -- {DASH} -{DASH}", "x\"y`y' ''z'' ,,q", "▁▂▃▄▅▆▇█ θ"])
def test_names_cannot_leave_their_cell(names):
    table = table_of([{"x": name, "y": 1} for name in names], headers={"x": names[0]})
    _, *rows = rows_of(latex_of({"": [table]}))
    assert [number for _, number in rows] == ["1"] * len(names)
    for cell, _ in rows:
        left = KNOWN.sub("", cell)
        assert not set(left) & set('\\%&$#_^<>|"`')
        assert left.count("{") == left.count("}")


def rows_of(tex):
    """The cells between the rules, of the head first."""
    body = re.search(r"\\toprule\n(.*)\\bottomrule", tex, re.DOTALL)
    assert body
    lines = body[1].replace("\\midrule\n", "").strip().split("\n")
    assert all(line.endswith(r" \\") for line in lines)
    return [re.split(r"(?<!\\) & ", line.removesuffix(r" \\")) for line in lines]


LINES = [
    ({"backbone": "a_b"}, {"acc1": {"value": 0.7124, "ci_low": 0.7, "ci_high": 0.72}}),
    ({"backbone": "[c]"}, {"acc1": {"value": 0.7121, "ci_low": -0.01, "ci_high": 0.72}}),
    ({"backbone": "oracle"}, {}),
]


def test_a_table_for_a_paper():
    top = Measure("top-1", "acc1", interval=True, best="most")
    table = measures_table(LINES, [top], title="birds · 50 %", notes="A_note.")
    assert latex_of({"": [table]}).split("\n") == [
        r"% \usepackage{adjustbox,booktabs}",
        "",
        r"\begin{table}",
        r"\centering",
        r"\caption{birds \textperiodcentered{} 50 \%}",
        r"\begin{adjustbox}{max width=\linewidth}",
        r"\begin{tabular}{lrr}",
        r"\toprule",
        r"backbone & top-1 & 95 \% \\",
        r"\midrule",
        r"a\_b & \textbf{71.2} & 70.0--72.0 \\",
        r"{[}c{]} & \textbf{71.2} & $-$1.0 to 72.0 \\",
        r"oracle & -- & -- \\",
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{adjustbox}",
        r"\par\smallskip",
        r"\begin{minipage}{\linewidth}\footnotesize",
        r"A\_note.",
        r"\end{minipage}",
        r"\end{table}",
    ]


# documents


DOCUMENT = """# Results

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
    path.write_text(DOCUMENT, encoding="utf-8")
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


def test_a_document_without_marks_says_which_would_do(tmp_path, document):
    with pytest.raises(UsageError, match=r"no mark for a table: .* one of these .*: gains, nlc"):
        renew(document, {"gains, nlc": (paragraph("1"),)})
    assert document.read_text(encoding="utf-8") == DOCUMENT
    with pytest.raises(UsageError, match=r"document .*none\.md cannot be read"):
        renew(tmp_path / "none.md", {"accuracy": (paragraph("1"),)})
