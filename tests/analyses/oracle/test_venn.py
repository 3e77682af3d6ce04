"""The Venn diagram of three backbones."""

import polars as pl
import pytest

from clipsyn.analyses.oracle.view import venn
from clipsyn.errors import UsageError
from tests.results import row, tidy

A, B, C, D = "tiny-a/zoo", "tiny-b/zoo", "tiny-c/zoo", "tiny-d/zoo"


def counted(dataset, n, counts):
    """counts: images by the backbones that get them right, a letter each."""
    about = {"ensemble": "oracle", "dataset": dataset, "n": n}
    names = {letters: [f"tiny-{it}/zoo" for it in letters] for letters in counts}
    return tidy(*(row("region", counts[it] / n, names[it], **about) for it in counts))


BIRDS = counted("birds", 97, {"abcd": 40, "ab": 7, "cb": 11, "d": 5, "bd": 3, "a": 13, "": 18})
CARS = counted("cars", 50, {"abc": 29, "ac": 8, "c": 6, "": 7})


def images(data):
    return {
        "".join(name[5] for name in names): count
        for names, count in data.select("backbones", "images").iter_rows()
    }


def test_counts_are_exact_and_those_of_the_three_that_are_right_most_often():
    data = venn.data(pl.concat([BIRDS, CARS]))
    assert images(data) == {
        "abc": 69, "ab": 7, "bc": 11, "ac": 8, "a": 13, "b": 3, "c": 6, "": 30,
    }  # fmt: skip
    assert "3 of 4 backbones" in venn.about(data)


def test_every_count_and_name_is_drawn():
    ax = venn(venn.data(CARS))
    shown = [text.get_text() for text in ax.texts]
    assert {"a", "b", "c", "29", "8", "6"} <= {*shown}
    assert len(ax.patches) == 3
    inside = {text.get_text(): text.get_position() for text in ax.texts}["29"]
    assert inside == pytest.approx((0, 0), abs=1e-9)


def test_a_file_whose_regions_were_filtered_has_no_counts():
    """Of a file of four, backbones=a,b,c leaves the regions without d, which are not all images."""
    with pytest.raises(UsageError):
        venn.data(BIRDS.filter(~pl.col("backbones").list.contains(D)))
