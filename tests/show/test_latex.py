r"""Tables as LaTeX, read again as TeX reads: no sign of a name is a command.

`read` knows what a few commands stand for, and refuses every special sign that is not escaped.
"""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from clipsyn.show.latex import escaped, latex_of
from clipsyn.show.table import Cell
from clipsyn.show.tables import Measure, measures_table, table_of

COMMANDS = {
    "textbackslash": "\\",
    "textasciitilde": "~",
    "textasciicircum": "^",
    "textless": "<",
    "textgreater": ">",
    "textbar": "|",
    "textperiodcentered": "·",
    "textbullet": "●",
    "ldots": "…",
}
TOKEN = re.compile(
    r"\\char(?P<code>\d+)\{\}|\\(?P<command>[a-z]+)\{\}|\\(?P<sign>[^a-zA-Z])|(?P<group>[{}])"
    r"|\$\\(?P<greek>[a-z]+)\$|\\rule\{0\.3em\}\{(?P<height>[\d.]+)ex\}\\,|(?P<dashes>-+)|(?P<other>.)",
    re.DOTALL,
)
EN, EM = "\N{EN DASH}", "\N{EM DASH}"
TEXT = st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), max_size=20)


def read(tex: str) -> str:
    """What TeX would print."""
    text, depth = "", 0
    for token in TOKEN.finditer(tex):
        if token["code"]:
            text += chr(int(token["code"]))
        elif token["command"]:
            text += COMMANDS[token["command"]]
        elif token["sign"]:
            assert token["sign"] in "%&$#_{}"
            text += token["sign"]
        elif token["group"]:
            depth += 1 if token["group"] == "{" else -1
            assert depth >= 0
        elif token["greek"]:
            text += {"theta": "θ"}[token["greek"]]
        elif token["height"]:
            text += "▁▂▃▄▅▆▇█"[round(float(token["height"]) * 5) - 1]
        elif token["dashes"]:
            text += {1: "-", 2: EN, 3: EM}[len(token["dashes"])]
        else:
            assert token["other"] not in '\\%&$#_^<>|"`'
            assert token["other"] not in "[]*" or depth  # which may belong to what stands before
            text += "\N{NO-BREAK SPACE}" if token["other"] == "~" else token["other"]
    assert depth == 0
    return text


@given(TEXT)
@example(f"--- -- - {EN}{EM} -{EN} {EN}-")
@example("a\\b{c}$d$ e_f^g%h&i#j~k")
@example("[1] \\\\[2em] * \"x\" `y' ''z'' ,,q")
@example("▁▂▃▄▅▆▇█ ●· θ …")
def test_text_is_read_as_itself(text):
    assert read(escaped(text)) == text


def rows_of(tex: str) -> list[list[str]]:
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
        r"\begin{tabular}{lr@{ }l}",
        r"\toprule",
        r"backbone & \multicolumn{2}{c}{top-1} \\",
        r"\midrule",
        r"a\_b & \textbf{71.2} & [70.0, 72.0] \\",
        r"{[}c{]} & \underline{71.2} & [$-$1.0, 72.0] \\",
        r"oracle & -- &  \\",
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{adjustbox}",
        r"\par\smallskip",
        r"\begin{minipage}{\linewidth}\footnotesize",
        r"A\_note.",
        "",
        r"In brackets: 95 \% intervals.",
        "",
        r"Bold: the best; underlined: as good as it in the digits shown.",
        r"\end{minipage}",
        r"\end{table}",
    ]


@pytest.mark.parametrize(
    ("cell", "tex"),
    [
        (Cell("-5.5", -5.5), "$-$5.5"),
        (Cell("+0.25*", 0.25), "$+$0.25$^{*}$"),
        (Cell("-0.25 ", -0.25), "$-$0.25"),
        (Cell("+0.0=", 0.0), "$+$0.0$^{=}$"),
        (Cell("-3.2 to 2.1", None, -3.2, 2.1), "[$-$3.2, 2.1]"),
        (Cell("1,234", 1234), "1,234"),
        (Cell("+3.1 [-0.2, 4.9]", 3.1, -0.2, 4.9), "+3.1 {[}$-$0.2, 4.9{]}"),
        (Cell("<0.001", 0.0002), r"\textless{}0.001"),
        (Cell("ViT-B-32"), "ViT-B-32"),
        (Cell("●", True), r"\textbullet{}"),
        (Cell(EN), "--"),
    ],
)
def test_cells(cell, tex):
    assert rows_of(latex_of({"": [table_of([{"x": cell}])]}))[1] == [tex]


@given(st.lists(TEXT.filter(str.strip), min_size=1, max_size=3))
@example(["a & b", "c \\\\", "[2em]"])
@example(["*", "% comment", "\\end{tabular}"])
@example(["-0", "+1*", "a -2"])
def test_names_cannot_leave_their_cell(names):
    table = table_of([{"x": name, "y": 1} for name in names], headers={"x": names[0]})
    head, *rows = rows_of(latex_of({"": [table]}))
    assert read(head[0]).split() == names[0].split()
    assert [(read(cell).split(), number) for cell, number in rows] == [
        (name.split(), "1") for name in names
    ]
