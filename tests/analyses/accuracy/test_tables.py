from __future__ import annotations

import math
import re

import polars as pl
import pytest

from clipsyn.analyses.accuracy.tables import accuracy_frame, accuracy_table, backbone_tables
from clipsyn.results.frame import RESULT

DASH = "\N{EN DASH}"
BOLD = re.compile(r"\x1b\[1m *(.*?)\x1b\[0m")


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def row(
    backbones: str,
    value: float,
    *,
    metric: str = "acc1",
    ensemble: str | None = None,
    dataset: str = "birds",
    perturbation: str = "clean",
    split: str = "test",
    prompts: str = "simple",
    n: int = 1500,
) -> dict:
    return {
        "dataset": dataset,
        "split": split,
        "perturbation": perturbation,
        "severity": 0,
        "head": "zero-shot",
        "ensemble": ensemble,
        "backbones": backbones,
        "prompts": prompts,
        "shots": 0,
        "seed": None,
        "metric": metric,
        "value": value,
        "ci_low": value - 0.02,
        "ci_high": value + 0.0209,
        "n": n,
        "fingerprint": "f",
    }


def tidy(*rows: dict) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=RESULT)


def block(first: float, second: float, oracle: float, **where) -> list[dict]:
    """What zeroshot makes of two backbones."""
    both = "tiny-RN/zoo+tiny-ViT-8/zoo"
    return [
        row("tiny-RN/zoo", first, **where),
        row("tiny-RN/zoo", first + 0.2, metric="acc5", **where),
        row("tiny-RN/zoo", first - 0.01, metric="mean_per_class_recall", **where),
        row("tiny-ViT-8/zoo", second, **where),
        row(both, oracle, ensemble="oracle", **where),
        row(both, oracle + 0.05, ensemble="oracle", metric="acc1_independent", **where),
        row(both, oracle - max(first, second), ensemble="oracle", metric="oracle_gain", **where),
        row("", 0.125, ensemble="chance", **where),
    ]


@pytest.fixture
def results() -> pl.DataFrame:
    return tidy(
        *block(0.5, 0.625, 0.75),
        *block(0.4, 0.25, 0.55, perturbation="jpeg-3"),
        *block(0.3, 0.3, 0.5, dataset="flags", n=90),
    )


# show


def test_accuracy_frame_is_a_pivot(results):
    frame = accuracy_frame(results)
    assert frame.columns == [
        "dataset", "split", "perturbation", "prompts", "n", "chance",
        "tiny-RN/zoo", "tiny-ViT-8/zoo", "best", "oracle", "independent", "gain",
    ]  # fmt: skip
    assert frame.select("dataset", "perturbation", "n", "best").rows() == [
        ("birds", "clean", 1500, "tiny-ViT-8/zoo"),
        ("birds", "jpeg-3", 1500, "tiny-RN/zoo"),
        ("flags", "clean", 90, "tiny-RN/zoo"),  # the first of equals
    ]
    assert frame["independent"].to_list() == pytest.approx([0.8, 0.6, 0.55])
    assert frame["gain"].to_list() == pytest.approx([0.125, 0.15, 0.2])
    assert frame["tiny-RN/zoo"].to_list() == [0.5, 0.4, 0.3]


def test_accuracy_table_in_full(results):
    lines = accuracy_table(results, terminal=False).split("\n")
    assert lines[0].split() == [
        "dataset", "perturbation", "n", "chance", "RN", "ViT-8", "best", "oracle", "indep.", "gain",
    ]  # fmt: skip
    assert lines[2].split() == [
        "birds",
        "clean",
        "1,500",
        "12.5",
        "50.0",
        "62.5",
        "ViT-8",
        "75.0",
        "80.0",
        "12.5",
    ]
    assert "split test; prompts simple; backbones tiny-*/zoo" in lines[-5]


def test_the_best_of_each_row_is_bold(results):
    text = accuracy_table(results, terminal=True)
    assert BOLD.findall(text) == ["62.5", "40.0", "30.0", "30.0"]
    assert plain(text).replace(" ", "") == accuracy_table(results, terminal=False).replace(" ", "")


def test_splits_and_prompts_stand_in_columns_where_they_differ(results):
    more = tidy(*block(0.5, 0.6, 0.7, split="train"), *block(0.5, 0.6, 0.7, prompts="cupl"))
    head = accuracy_table(pl.concat([results, more]), terminal=False).split("\n")[0]
    assert {"split", "prompts"} <= set(head.split())


def test_backbones_that_miss_a_dataset_and_a_single_one_without_oracle():
    frame = tidy(
        *block(0.5, 0.6, 0.7),
        row("tiny-RN/zoo", 0.4, dataset="flags"),
        row("", 0.1, ensemble="chance", dataset="flags"),
    )
    line = accuracy_table(frame, terminal=False).split("\n")[3].split()
    assert line == ["flags", "clean", "1,500", "10.0", "40.0", DASH, "RN", DASH, DASH, DASH]


def test_backbones_of_other_images_have_no_best_one_by_name():
    """The oracle's gain is over the best on the images that all have, who need not be the best."""
    uneven = [
        r | ({"n": 20} if r["backbones"] == "tiny-RN/zoo" else {}) for r in block(0.9, 0.8, 1)
    ]
    said = f"+10.0 points (8.0{DASH}12.1) over the best single backbone"
    assert f"{said} on the images that all have" in backbone_tables(tidy(*uneven), terminal=False)
    note = "Oracle and gain are over the images that all backbones have a prediction for."
    assert note in accuracy_table(tidy(*uneven), terminal=False)
    even = tidy(*block(0.9, 0.8, 1))
    assert f"{said} here, tiny-RN/zoo" in backbone_tables(even, terminal=False)
    assert note not in accuracy_table(even, terminal=False)


def test_a_dozen_backbones_are_numbers():
    names = [f"model-{letter}/openai" for letter in "abcdefghijkl"]
    rows = [row(name, 0.5) for name in names] + [row("+".join(names), 0.6, ensemble="oracle")]
    rows.append(row("+".join(names), 0.1, ensemble="oracle", metric="oracle_gain"))
    text = accuracy_table(tidy(*rows), terminal=False)
    head = [str(number) for number in range(1, 13)]
    assert text.split("\n")[0].split()[4:16] == head
    assert text.endswith("1 a, 2 b, 3 c, 4 d, 5 e, 6 f, 7 g, 8 h, 9 i, 10 j, 11 k, 12 l.")


def test_nan_is_never_the_best():
    frame = tidy(row("a/x", math.nan, n=0), row("b/x", 0.1))
    assert accuracy_frame(frame)["best"].to_list() == ["b/x"]
    assert BOLD.findall(accuracy_table(frame, terminal=True)) == ["10.0"]
    accuracy_table(tidy(row("a/x", math.nan, n=0)), terminal=True)


def test_six_backbones_fit_in_130_columns():
    names = ["ConvNeXt", "MobileNet", "RN", "RegNet", "ViT-16", "ViT-8"]
    rows = [
        row(f"tiny-{name}/zoo", 0.5, dataset=dataset, perturbation=perturbation)
        for dataset in ("emoji-animals", "fashion-mnist")
        for perturbation in ("clean", "gaussian_noise-3")
        for name in names
    ]
    assert max(map(len, accuracy_table(tidy(*rows), terminal=False).split("\n"))) <= 130


def test_long_names_break_after_hyphens_in_the_head():
    rows = [row("ViT-L-14-336/openai", 0.5), row("RN50x64/openai", 0.5)]
    head = accuracy_table(tidy(*rows), terminal=False).split("\n")[:3]
    assert [line.split() for line in head[:1]] == [["ViT-L-14-"]]
    assert "336" in head[1].split()
    assert "RN50x64" in " ".join(head)


@pytest.mark.parametrize(
    ("names", "head", "note"),
    [
        (["ViT-B-16/openai", "ViT-B-32/openai"], ["B-16", "B-32"], "backbones ViT-*/openai"),
        (["b-0/x", "b-1/x"], ["b-0", "b-1"], "backbones */x"),
        (["RN50/openai", "ViT/laion"], ["RN50/openai", "ViT/laion"], None),
        (["mine"], ["mine"], None),
    ],
)
def test_what_all_names_share_is_said_once(names, head, note):
    text = accuracy_table(tidy(*(row(name, 0.5) for name in names)), terminal=False)
    assert text.split("\n")[0].split()[4:-4] == head
    assert (note in text) if note else ("backbones" not in text)


def test_no_results_no_table():
    assert accuracy_table(tidy()) == "no accuracy to show"
    assert backbone_tables(tidy()) == "no accuracy to show"


# a table for each dataset


def test_backbone_tables(results):
    first, second, third = backbone_tables(results, terminal=False).split("\n\n")
    lines = first.split("\n")
    assert lines[0] == "birds/test · clean · prompts simple · chance 12.5 %"
    assert lines[3].split() == ["tiny-RN/zoo", "50.0", f"48.0{DASH}52.1", "70.0", "49.0", "1,500"]
    assert lines[5].split() == ["oracle", "75.0", f"73.0{DASH}77.1", DASH, DASH, "1,500"]
    assert lines[6] == (
        f"oracle: +12.5 points (10.5{DASH}14.6) over the best single backbone here, tiny-ViT-8/zoo;"
    )
    assert lines[7] == "if errors were independent within each class it would be 80.0 %"
    assert second.startswith("birds/test · jpeg-3")
    assert third.startswith("flags/test")


def test_no_readable_image_no_gain():
    text = backbone_tables(tidy(*block(math.nan, math.nan, math.nan, n=0)), terminal=True)
    assert "points" not in text
    assert "nan" not in text


def test_columns_without_a_number_are_left_out():
    text = backbone_tables(tidy(row("a", 0.5)), terminal=False)
    assert "top-5" not in text
    assert "oracle" not in text
