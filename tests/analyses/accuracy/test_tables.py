import math
from functools import partial

import pytest

from clipsyn.analyses.accuracy import ZeroshotSettings
from clipsyn.analyses.accuracy.view import tables
from tests.results import BOLD, DASH, cells, texts, tidy
from tests.results import row as made

TWO = ("tiny-RN/zoo", "tiny-ViT-8/zoo")


def shown(name, frame, *, terminal=False):
    by_name = tables(frame, ZeroshotSettings(summary=name == "accuracy"))
    assert list(by_name) == [name]
    return texts(by_name, terminal=terminal)[name]


summary, by_backbone = partial(shown, "accuracy"), partial(shown, "backbones")


def row(backbones, value, metric="acc1", ensemble="single", **where):
    where = {"prompts": "simple", "n": 1500} | where
    return made(metric, value, backbones, ensemble, off=(0.02, 0.0209), **where)


def block(first, second, oracle, names=TWO, **where):
    """What zeroshot makes of two backbones."""
    gain = oracle - max(first, second)
    return [
        row(names[:1], first, **where),
        row(names[:1], first + 0.2, "acc5", **where),
        row(names[:1], first - 0.01, "mean_per_class_recall", **where),
        row(names[1:], second, **where),
        row(names, oracle, ensemble="oracle", **where),
        row(names, oracle + 0.05, "acc1_independent", "oracle", **where),
        row(names, gain, "gain_over_best_on_test", "oracle", **where),
        row([], 0.125, ensemble="chance", **where),
    ]


@pytest.fixture
def results():
    return tidy(
        *block(0.5, 0.625, 0.75),
        *block(0.4, 0.25, 0.55, perturbation="jpeg-3"),
        *block(0.3, 0.3, 0.5, dataset="flags", n=90),
    )


# a line for each dataset


def test_the_summary_has_a_line_for_each_group(results, read_table):
    text = summary(results)
    table = read_table(text)
    assert (
        table.row("birds", "clean")
        == cells("""
    dataset | perturbation | n     | chance | RN   | ViT-8 | best  | oracle | indep. | lead
    birds   | clean        | 1,500 | 12.5   | 50.0 | 62.5  | ViT-8 | 75.0   | 80.0   | 12.5
    """)[0]
    )
    assert table.column("RN") == ["50.0", "40.0", "30.0"]
    assert table.column("best") == ["ViT-8", "RN", "RN"]  # the first of equals
    assert table.column("n") == ["1,500", "1,500", "90"]
    assert table.column("indep.") == ["80.0", "60.0", "55.0"]
    assert table.column("lead") == ["12.5", "15.0", "20.0"]
    assert "split test; prompts simple; backbones tiny-*/zoo" in text.split("\n")[-4]


def test_backbones_that_miss_a_dataset_and_a_single_one_without_oracle(read_table):
    frame = tidy(
        *block(0.5, 0.6, 0.7),
        row(TWO[:1], 0.4, dataset="flags"),
        row([], 0.1, ensemble="chance", dataset="flags"),
    )
    line = read_table(summary(frame)).row("flags", "clean")
    assert (line["n"], line["chance"], line["best"]) == ("1,500", "10.0", "RN")
    assert (line["RN"], line["ViT-8"]) == ("40.0", DASH)
    assert (line["oracle"], line["indep."], line["lead"]) == (DASH, DASH, DASH)


def test_nan_is_never_the_best(read_table):
    frame = tidy(row(["a/x"], math.nan, n=0), row(["b/x"], 0.1))
    assert read_table(summary(frame)).column("best") == ["b"]
    assert BOLD.findall(summary(frame, terminal=True)) == ["10.0"]
    assert BOLD.findall(summary(tidy(row(["a/x"], math.nan, n=0)), terminal=True)) == []


# a table for each dataset


def test_every_group_has_a_table_of_its_backbones(results, read_table):
    text = by_backbone(results)
    first, second, third = text.split("\n\n")
    assert first.split("\n")[0] == "birds/test · clean · prompts simple · chance 12.5 %"
    table = read_table(first)
    assert (
        table.row("tiny-RN/zoo")
        == cells(f"""
    backbone    | top-1 | 95 % interval  | top-5 | mean per class | n
    tiny-RN/zoo | 50.0  | 48.0{DASH}52.1 | 70.0  | 49.0           | 1,500
    """)[0]
    )
    assert (
        table.row("oracle")
        == cells(f"""
    backbone | top-1 | 95 % interval  | top-5  | mean per class | n
    oracle   | 75.0  | 73.0{DASH}77.1 | {DASH} | {DASH}         | 1,500
    """)[0]
    )
    gain, mark = first.split("\n")[-2:]
    assert gain == (
        f"oracle: +12.5 points (10.5{DASH}14.6) over the best single backbone here, tiny-ViT-8/zoo;"
    )
    assert mark == "if errors were independent within each class it would be 80.0 %"
    assert second.startswith("birds/test · jpeg-3")
    assert third.startswith("flags/test")
