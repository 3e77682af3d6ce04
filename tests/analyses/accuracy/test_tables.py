from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import partial

import polars as pl
import pytest

from clipsyn.analyses.accuracy import ZeroshotSettings
from clipsyn.analyses.accuracy.tables import tables
from clipsyn.evaluation.results.frame import RESULT
from clipsyn.show.text import text_of

DASH = "\N{EN DASH}"
BOLD = re.compile(r"\x1b\[1m *(.*?)\x1b\[0m")
TWO = ("tiny-RN/zoo", "tiny-ViT-8/zoo")


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def shown(name: str, frame: pl.DataFrame, *, terminal: bool = False) -> str:
    settings = ZeroshotSettings(summary=name == "accuracy")
    by_name = tables(frame, settings)
    assert list(by_name) == [name]
    return text_of(by_name[name], terminal=terminal)


summary, by_backbone = partial(shown, "accuracy"), partial(shown, "backbones")


def row(
    backbones: Sequence[str],
    value: float,
    *,
    metric: str = "acc1",
    ensemble: str | None = None,
    **where,
) -> dict:
    return {
        "dataset": "birds",
        "split": "test",
        "perturbation": "clean",
        "severity": 0,
        "head": "zero-shot",
        "ensemble": ensemble,
        "backbones": list(backbones),
        "prompts": "simple",
        "shots": 0,
        "metric": metric,
        "value": value,
        "ci_low": value - 0.02,
        "ci_high": value + 0.0209,
        "n": 1500,
        "fingerprint": "f",
        **where,
    }


def tidy(*rows: dict) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=RESULT)


def block(
    first: float, second: float, oracle: float, names: Sequence[str] = TWO, **where
) -> list[dict]:
    """What zeroshot makes of two backbones."""
    return [
        row(names[:1], first, **where),
        row(names[:1], first + 0.2, metric="acc5", **where),
        row(names[:1], first - 0.01, metric="mean_per_class_recall", **where),
        row(names[1:], second, **where),
        row(names, oracle, ensemble="oracle", **where),
        row(names, oracle + 0.05, ensemble="oracle", metric="acc1_independent", **where),
        row(
            names,
            oracle - max(first, second),
            ensemble="oracle",
            metric="gain_over_best_on_test",
            **where,
        ),
        row([], 0.125, ensemble="chance", **where),
    ]


@pytest.fixture
def results() -> pl.DataFrame:
    return tidy(
        *block(0.5, 0.625, 0.75),
        *block(0.4, 0.25, 0.55, perturbation="jpeg-3"),
        *block(0.3, 0.3, 0.5, dataset="flags", n=90),
    )


# a line for each dataset


def test_the_summary_has_a_line_for_each_group(results, read_table):
    text = summary(results)
    table = read_table(text)
    assert table.row("birds", "clean") == {
        "dataset": "birds",
        "perturbation": "clean",
        "n": "1,500",
        "chance": "12.5",
        "RN": "50.0",
        "ViT-8": "62.5",
        "best": "ViT-8",
        "oracle": "75.0",
        "indep.": "80.0",
        "lead": "12.5",
    }
    assert table.column("RN") == ["50.0", "40.0", "30.0"]
    assert table.column("best") == ["ViT-8", "RN", "RN"]  # the first of equals
    assert table.column("n") == ["1,500", "1,500", "90"]
    assert table.column("indep.") == ["80.0", "60.0", "55.0"]
    assert table.column("lead") == ["12.5", "15.0", "20.0"]
    assert "split test; prompts simple; backbones tiny-*/zoo" in text.split("\n")[-4]


def test_the_best_of_each_row_is_bold(results):
    text = summary(results, terminal=True)
    assert BOLD.findall(text) == ["62.5", "40.0", "30.0", "30.0"]
    assert plain(text).replace(" ", "") == summary(results).replace(" ", "")


def test_splits_and_prompts_stand_in_columns_where_they_differ(results, read_table):
    more = tidy(*block(0.5, 0.6, 0.7, split="train"), *block(0.5, 0.6, 0.7, prompts="cupl"))
    table = read_table(summary(pl.concat([results, more])))
    assert table.column("split") == ["test", "test", "test", "train", "test"]
    assert table.column("prompts") == ["simple"] * 4 + ["cupl"]


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


def test_backbones_of_other_images_have_no_best_one_by_name():
    """The oracle's gain is over the best on the images that all have, who need not be the best."""
    uneven = [r | ({"n": 20} if r["backbones"] == [TWO[0]] else {}) for r in block(0.9, 0.8, 1)]
    gain = f"+10.0 points (8.0{DASH}12.1) over the best single backbone"
    assert f"{gain} on the images that all have" in by_backbone(tidy(*uneven))
    note = "Oracle and lead are over the images that all backbones have a prediction for."
    assert note in summary(tidy(*uneven))
    even = tidy(*block(0.9, 0.8, 1))
    assert f"{gain} here, tiny-RN/zoo" in by_backbone(even)
    assert note not in summary(even)


@pytest.mark.parametrize("names", [("best", "n"), ("chance", "oracle"), ("backbone 2", "top-1")])
def test_backbones_may_be_called_as_columns_are(names, read_table):
    frame = tidy(*block(0.5, 0.625, 0.75, names))
    (line,) = read_table(summary(frame)).rows
    both = ["50.0", "62.5"]
    assert list(line.values())[2:] == ["1,500", "12.5", *both, names[1], "75.0", "80.0", "12.5"]
    assert BOLD.findall(summary(frame, terminal=True)) == ["62.5"]
    lines = read_table(by_backbone(frame)).rows
    assert [(line["backbone"], line["top-1"]) for line in lines] == [
        (names[0], "50.0"),
        (names[1], "62.5"),
        ("oracle", "75.0"),
    ]


def test_a_dozen_backbones_are_numbers(read_table):
    names = [f"model-{letter}/openai" for letter in "abcdefghijkl"]
    rows = [row([name], 0.5) for name in names] + [row(names, 0.6, ensemble="oracle")]
    rows.append(row(names, 0.1, ensemble="oracle", metric="gain_over_best_on_test"))
    text = summary(tidy(*rows))
    (line,) = read_table(text).rows
    assert [line[str(number)] for number in range(1, 13)] == ["50.0"] * 12
    assert text.endswith("1 a, 2 b, 3 c, 4 d, 5 e, 6 f, 7 g, 8 h, 9 i, 10 j, 11 k, 12 l.")


def test_nan_is_never_the_best(read_table):
    frame = tidy(row(["a/x"], math.nan, n=0), row(["b/x"], 0.1))
    assert read_table(summary(frame)).column("best") == ["b"]
    assert BOLD.findall(summary(frame, terminal=True)) == ["10.0"]
    assert BOLD.findall(summary(tidy(row(["a/x"], math.nan, n=0)), terminal=True)) == []


def test_six_backbones_fit_in_130_columns():
    names = ["ConvNeXt", "MobileNet", "RN", "RegNet", "ViT-16", "ViT-8"]
    rows = [
        row([f"tiny-{name}/zoo"], 0.5, dataset=dataset, perturbation=perturbation)
        for dataset in ("emoji-animals", "fashion-mnist")
        for perturbation in ("clean", "gaussian_noise-3")
        for name in names
    ]
    assert max(map(len, summary(tidy(*rows)).split("\n"))) <= 130


def test_long_names_break_after_hyphens_in_the_head(read_table):
    rows = [row(["ViT-L-14-336/openai"], 0.5), row(["RN50x64/openai"], 0.5)]
    text = summary(tidy(*rows))
    assert text.split("\n")[0].split() == ["ViT-L-14-"]
    assert {"ViT-L-14-336", "RN50x64"} <= set(read_table(text).columns)


@pytest.mark.parametrize(
    ("names", "heads", "note"),
    [
        (["ViT-B-16/openai", "ViT-B-32/openai"], ["B-16", "B-32"], "backbones ViT-*/openai"),
        (["b-0/x", "b-1/x"], ["b-0", "b-1"], "backbones */x"),
        (["RN50/openai", "ViT/laion"], ["RN50/openai", "ViT/laion"], None),
        (["mine"], ["mine"], None),
    ],
)
def test_what_all_names_share_is_said_once(names, heads, note, read_table):
    text = summary(tidy(*(row([name], 0.5) for name in names)))
    columns = read_table(text).columns
    assert columns[columns.index("chance") + 1 : columns.index("best")] == sorted(heads)
    assert (note in text) if note else ("backbones" not in text)


def test_no_results_no_table():
    assert tables(tidy(), ZeroshotSettings()) == {}
    assert tables(tidy(), ZeroshotSettings(summary=True)) == {}


# a table for each dataset


def test_every_group_has_a_table_of_its_backbones(results, read_table):
    text = by_backbone(results)
    first, second, third = text.split("\n\n")
    assert first.split("\n")[0] == "birds/test · clean · prompts simple · chance 12.5 %"
    table = read_table(first)
    assert table.row("tiny-RN/zoo") == {
        "backbone": "tiny-RN/zoo",
        "top-1": "50.0",
        "95 % interval": f"48.0{DASH}52.1",
        "top-5": "70.0",
        "mean per class": "49.0",
        "n": "1,500",
    }
    assert table.row("oracle") == {
        "backbone": "oracle",
        "top-1": "75.0",
        "95 % interval": f"73.0{DASH}77.1",
        "top-5": DASH,
        "mean per class": DASH,
        "n": "1,500",
    }
    gain, mark = first.split("\n")[-2:]
    assert gain == (
        f"oracle: +12.5 points (10.5{DASH}14.6) over the best single backbone here, tiny-ViT-8/zoo;"
    )
    assert mark == "if errors were independent within each class it would be 80.0 %"
    assert second.startswith("birds/test · jpeg-3")
    assert third.startswith("flags/test")


def test_no_readable_image_no_gain():
    text = by_backbone(tidy(*block(math.nan, math.nan, math.nan, n=0)), terminal=True)
    assert "points" not in text
    assert "nan" not in text


def test_columns_without_a_number_are_left_out(read_table):
    text = by_backbone(tidy(row(["a"], 0.5)))
    assert read_table(text).columns == ["backbone", "top-1", "95 % interval", "n"]
    assert "oracle" not in text
