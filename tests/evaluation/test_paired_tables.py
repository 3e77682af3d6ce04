"""What the tables say, cell by cell."""

import numpy as np
import pytest

from clipsyn.evaluation.paired import compare_methods
from clipsyn.evaluation.tables import pair_tables as tables
from clipsyn.show.frames import printable_frame
from clipsyn.show.table import NOTHING
from tests.results import texts


def shown(path, *names, **settings):
    return texts(tables(printable_frame(compare_methods(path, *names, **settings))))


@pytest.fixture
def sure(answers):
    """Of 40 images nlc gets 36 right, log-avg 20 of the same, a/x none but two others."""
    place = np.arange(40)
    right = {
        ("nlc", None): place < 36,
        ("log-avg", None): place < 20,
        ("vote-1", None): place % 2 == 0,
        ("a/x", None): place >= 38,
    }
    return answers.add(right)


def test_two_methods_have_a_line_for_each_dataset(sure, answers, drawn, read_table):
    answers.add({("nlc", None): np.ones(10, bool), ("log-avg", None): np.ones(10, bool)}, "cars")
    text = shown(sure, "nlc", "log-avg")["test, own, all"]
    assert text.startswith("nlc less log-avg · test · clean · prompts own · head zero-shot\n")
    table = read_table(text)
    assert table.column("dataset") == ["birds", "cars", "mean over 2"]
    row = table.row("birds")
    assert (row["nlc top-1"], row["log-avg top-1"], row["difference"]) == ("90.0", "50.0", "+40.0")
    assert (row["only nlc"], row["only log-avg"]) == ("16.0", "0.0")
    assert (row["McNemar"], row["p"], row["p (Holm)"]) == ("<0.001",) * 3
    assert table.row("cars")["difference"] == "+0.0="
    assert table.row("cars")["p"] == "1.000"
    assert table.row("mean over 2")["McNemar"] == NOTHING


def test_several_methods_have_a_line_for_each_pair(sure, read_table):
    text = shown(sure)["pairs, birds, test, clean, own, all"]
    assert text.startswith("first less second · birds/test · clean")
    table = read_table(text)
    assert [*zip(table.column("first"), table.column("second"), strict=True)] == [
        ("log-avg", "vote-1"),
        ("nlc", "log-avg"),
        ("nlc", "vote-1"),
    ]
    row = table.row("nlc", "log-avg")
    assert (row["difference"], row["only first"], row["only second"]) == ("+40.0", "16.0", "0.0")
    assert table.row("log-avg", "vote-1")["difference"] == "+0.0="


def test_the_mean_stands_for_the_datasets(sure, answers, drawn):
    answers.add({key: one[:20] for key, one in drawn(20).items()}, "cars")
    said = shown(sure)
    assert {*said} == {"pairs, mean, test, clean, own, all", "what they mean"}
    assert "mean over 2 datasets · test" in said["pairs, mean, test, clean, own, all"]


def test_names_of_strangers_are_shown_as_they_are(answers):
    one, other = "[red]x\x1b[31m:a=1", "\u202e<b>"
    place = np.arange(8)
    path = answers.add({(one, None): place < 4, (other, None): place < 5})
    text = shown(path, one, other)["test, own, all"]
    assert "\x1b" not in text
    assert "[red]x\\u001b[31m:a=1" in text
    assert "\\u202e<b>" in text


def test_cells_have_numbers_for_those_who_sort_and_read_them(sure):
    frame = compare_methods(sure, "nlc", "log-avg")
    (table,) = tables(frame)["test, own, all"]
    cells = {column.name: column.cells[0] for column in table.columns}
    row = frame.row(0, named=True)
    assert cells["difference"].value == pytest.approx(100 * row["difference"])
    assert cells["p"].value == row["p"]
    assert cells["95 % of difference"].low == pytest.approx(100 * row["ci_low"])
    assert cells["both"].high == pytest.approx(100 * row["both_high"])
