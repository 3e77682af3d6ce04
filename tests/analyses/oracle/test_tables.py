from __future__ import annotations

import re

import polars as pl
import pytest

from clipsyn.analyses.oracle.tables import RIGHT, WRONG, tables
from clipsyn.results.frame import RESULT

DASH = "\N{EN DASH}"
BOLD = re.compile(r"\x1b\[1m *(.*?)\x1b\[0m")
NAMES = ("tiny-RN/zoo", "tiny-ViT-16/zoo", "tiny-ViT-8/zoo")
ALL = "+".join(NAMES)
NAN = float("nan")
SINGLE = ("acc1", "unique_correct", "shapley", "unique_correct_floor", "shapley_floor")


def row(metric: str, value: float, backbones: str, ensemble: str | None = None, **where) -> dict:
    common = {
        "dataset": "birds",
        "split": "test",
        "perturbation": "clean",
        "severity": 0,
        "head": "zero-shot",
        "prompts": "own",
        "classes": "all",
        "shots": 0,
        "ci_low": value - 0.01,
        "ci_high": value + 0.02,
        "n": 40,
        "fingerprint": "f",
    }
    named = {"metric": metric, "value": value, "backbones": backbones, "ensemble": ensemble}
    return common | named | where


WHOLE = (
    "acc1",
    "acc1_independent",
    "gain",
    "gain_relative",
    "none_correct",
    "all_correct",
    "region",
)


def class_oracle(accuracy: float, best: float, joined: str, **where) -> list[dict]:
    """Left out it is two points lower."""
    return [
        row(f"{metric}{end}", value - less, joined, "class-oracle", **where)
        for metric, value in (("acc1", accuracy), ("gain", accuracy - best))
        for end, less in (("", 0.0), ("_left_out", 0.02))
    ]


def group(*, best: float = 0.5, weights: float | None = None, **where) -> list[dict]:
    """What `oracle` makes of three backbones on forty images; 20 to 30 right."""
    pair = f"{NAMES[0]}+{NAMES[2]}"
    rows = [
        row(metric, value, name, **where)
        for name, *values in (
            (NAMES[0], best, 0.125, 0.3, 0.05, 0.11),
            (NAMES[1], 0.4, 0.025, 0.2, 0.06, 0.12),
            (NAMES[2], 0.45, 0.1, 0.25, 0.04, 0.13),
        )
        for metric, value in zip(SINGLE, values, strict=True)
    ]
    for joined, accuracy in ((pair, 0.7), (ALL, 0.75)):
        rows += [
            row("acc1", accuracy, joined, "oracle", **where),
            row("acc1_independent", accuracy + 0.1, joined, "oracle", **where),
            row("gain", accuracy - best, joined, "oracle", **where),
            row("gain_relative", accuracy / best - 1, joined, "oracle", **where),
        ]
    rows += class_oracle(0.55, best, ALL, **where)
    rows += [
        row("none_correct", 0.25, ALL, "oracle", **where),
        row("all_correct", 0.15, ALL, "oracle", **where),
        *(
            row("region", value, joined, "oracle", **where)
            for joined, value in (("", 0.25), (pair, 0.2), (ALL, 0.15), (NAMES[0], 0.125))
        ),
    ]
    if weights is not None:
        rows.append(row("acc1", weights, ALL, "weight-oracle", **where))
    return rows


def frame(*rows: dict) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=RESULT)


def line(text: str, start: str) -> str:
    (found,) = (line for line in text.split("\n") if line.startswith(start))
    return found


def test_one_group_has_three_tables():
    found = tables(frame(*group()), terminal=False)
    assert list(found) == ["backbones", "subsets", "regions"]
    title = "birds/test · clean · prompts own · n 40 · backbones tiny-*/zoo"
    assert all(text.startswith(f"{title}\n") for text in found.values())


def test_backbones_and_the_oracle():
    text = tables(frame(*group()), terminal=False)["backbones"]
    assert line(text, "RN ").split() == [
        "RN",
        "50.0",
        f"49.0{DASH}52.0",
        "30.0",
        f"29.0{DASH}32.0",
        "11.0",
        "12.5",
        "5.0",
        "5",
    ]
    assert line(text, "class oracle ").split()[2:4] == ["55.0", f"54.0{DASH}57.0"]
    assert line(text, "oracle ").split()[:4] == ["oracle", "75.0", f"74.0{DASH}77.0", "75.0"]
    assert line(text, "oracle:") == (
        f"oracle: +25.0 points (24.0{DASH}27.0), +50.0 % (49.0{DASH}52.0) over the best single "
        "backbone here, RN;"
    )
    assert "if errors were independent within each class it would be 85.0 %" in text
    assert line(text, "class oracle: +5.0 points, the best backbone of each class chosen on these")
    assert f"on the other images of the class: +3.0 points (2.0{DASH}5.0)" in text
    assert line(text, "no backbone") == (
        "no backbone gets 10 images right (25.0 %), all get 6 right (15.0 %)"
    )
    assert "weighted sums" not in text


def test_the_weight_oracle_stands_beside_it():
    assert "could get 87.5 %" in tables(frame(*group(weights=0.875)), terminal=False)["backbones"]


def test_the_best_single_backbone_is_bold():
    text = tables(frame(*group()), terminal=True)["backbones"]
    assert BOLD.findall(text) == ["50.0"]


def test_of_equal_backbones_the_first_is_the_best():
    text = tables(frame(*group(best=0.45)), terminal=False)["backbones"]
    assert "best single backbone here, RN" in text


def test_the_best_subset_of_each_size():
    text = tables(frame(*group()), terminal=False)["subsets"]
    lines = [text.split() for text in text.split("\n")[3:6]]
    gain = [f"19.0{DASH}22.0", f"24.0{DASH}27.0"]
    assert lines == [
        ["1", "50.0", DASH, DASH, DASH, DASH, RIGHT, WRONG, WRONG],
        ["2", "70.0", "80.0", "20.0", "20.0", gain[0], RIGHT, WRONG, RIGHT],
        ["3", "75.0", "85.0", "5.0", "25.0", gain[1], RIGHT, RIGHT, RIGHT],
    ]


def test_regions_are_images_and_marks():
    text = tables(frame(*group()), terminal=False)["regions"]
    assert [text.split() for text in text.split("\n")[3:7]] == [
        ["10", "25.0", WRONG, WRONG, WRONG],
        ["8", "20.0", RIGHT, WRONG, RIGHT],
        ["6", "15.0", RIGHT, RIGHT, RIGHT],
        ["5", "12.5", RIGHT, WRONG, WRONG],
    ]
    assert "more regions" not in text


def test_top_limits_regions_and_sizes_and_says_so():
    found = tables(frame(*group()), top=2, terminal=False)
    assert "2 more regions with 11 images: --top 4" in found["regions"]
    assert "\n     6 " not in found["regions"]
    assert "1 more numbers of backbones: --top 3" in found["subsets"]
    two = frame(*group(), *group(perturbation="jpeg-3"))
    assert tables(two, top=2, terminal=False)["sizes"].split("\n")[0].split()[-2:] == ["1", "2"]


def test_several_groups_have_an_overview():
    two = frame(*group(), *group(perturbation="jpeg-3", best=0.6))
    found = tables(two, terminal=False)
    assert list(found) == ["oracle", "choices", "shapley", "unique_correct", "sizes"]
    assert [text.split("\n\n")[0].count("\n") for text in found.values()] == [3, 4, 3, 3, 3]
    for text in found.values():
        assert text.endswith("split test; prompts own; backbones tiny-*/zoo.")
    assert line(found["oracle"], "birds    clean").split() == [
        "birds",
        "clean",
        "40",
        "RN",
        "50.0",
        "75.0",
        "85.0",
        "25.0",
        f"24.0{DASH}27.0",
        "50.0",
        "25.0",
        "15.0",
    ]
    choices = ["50.0", "55.0", "53.0", "75.0", "20.0", "12.0"]  # 5 and 3 of 25 points
    assert line(found["choices"], "birds    clean").split()[2:] == choices
    shapley = ["30.0", "20.0", "25.0", "13.0"]  # the last: the most that a guess would have
    assert line(found["shapley"], "birds    jpeg-3").split()[2:] == shapley
    alone = ["12.5", "2.5", "10.0", "6.0"]
    assert line(found["unique_correct"], "birds    clean").split()[2:] == alone
    assert line(found["sizes"], "birds    jpeg-3").split()[2:] == ["60.0", "70.0", "75.0"]


def test_details_come_after_the_overview():
    two = frame(*group(), *group(perturbation="jpeg-3"))
    found = tables(two, details=True, terminal=False)
    assert len(found) == 5 + 2 * 3
    assert list(found)[5:8] == [
        f"{kind}, birds/test, clean, own" for kind in ("backbones", "subsets", "regions")
    ]
    one = tables(frame(*group()), terminal=False)
    assert found["regions, birds/test, clean, own"] == one["regions"]
    assert list(tables(frame(*group()), details=False)) == list(found)[:5]


def test_groups_of_other_splits_and_backbones_stand_in_one_table():
    fewer = [r for r in group(split="train") if r["ensemble"] is None][:10]
    both = f"{NAMES[0]}+{NAMES[1]}"
    for metric, value in (
        ("acc1", 0.6),
        ("acc1_independent", 0.65),
        ("gain", 0.1),
        ("gain_relative", 0.2),
        ("none_correct", 0.4),
        ("all_correct", 0.3),
    ):
        fewer.append(row(metric, value, both, "oracle", split="train"))
    fewer += class_oracle(0.55, 0.5, both, split="train")
    found = tables(frame(*group(weights=0.8), *fewer), terminal=False)
    train = [line(text, "birds    train") for text in found.values()]
    assert train[0].split()[-4:] == [f"9.0{DASH}12.0", "20.0", "40.0", "30.0"]
    assert train[1].split()[-4:] == ["60.0", "50.0", "30.0", DASH]
    assert train[2].split()[-4:] == ["30.0", "20.0", DASH, "12.0"]
    assert train[4].split()[-3:] == ["50.0", "60.0", DASH]
    assert "weights: share that some" in found["choices"]


def test_numbers_that_are_unknown_are_dashes():
    rows = [r | {"value": NAN, "ci_low": NAN, "ci_high": NAN, "n": 0} for r in group()]
    rows = [r for r in rows if r["metric"] != "region"]
    one = tables(frame(*rows), terminal=False)
    assert line(one["backbones"], "RN ").split() == ["RN", *[DASH] * 8]
    assert "no image counts" in one["backbones"]
    assert "images right" not in one["backbones"]
    two = tables(frame(*rows, *group(perturbation="jpeg-3")), terminal=False)
    assert line(two["oracle"], "birds    clean").split()[2:] == ["0", *[DASH] * 9]
    assert line(two["choices"], "birds    clean").split()[2:] == [DASH] * 6


def test_a_relative_gain_over_nothing_is_left_out():
    rows = [r | ({"value": NAN} if r["metric"] == "gain_relative" else {}) for r in group()]
    text = tables(frame(*rows), terminal=False)["backbones"]
    assert f"oracle: +25.0 points (24.0{DASH}27.0) over the best" in text


def test_one_backbone_has_one_size_and_no_gain():
    name = "RN50/openai"
    rows = [
        *(row(metric, 0.5, name) for metric in SINGLE),
        *(row(metric, 0.5, name, "oracle") for metric in ("acc1", "acc1_independent")),
        *class_oracle(0.5, 0.5, name),
        *(row(metric, 0.0, name, "oracle") for metric in ("gain", "gain_relative")),
        *(row(metric, 0.5, name, "oracle") for metric in ("none_correct", "all_correct")),
        row("region", 0.5, name, "oracle"),
        row("region", 0.5, "", "oracle"),
    ]
    found = tables(frame(*rows), terminal=False)
    assert line(found["subsets"], "   1").split() == ["1", "50.0", *[DASH] * 4, RIGHT]
    assert "   2" not in found["subsets"]
    assert line(found["backbones"], "RN50/openai").split()[-1] == "20"


def test_twenty_backbones_are_numbers():
    names = [f"ResNet-{number:02}-of-a-long-name/laion2b_s34b_b88k" for number in range(20)]
    joined = "+".join(names)
    rows = [row("acc1", 0.5, name) for name in names]
    rows += [row(m, 0.1, n) for n in names for m in SINGLE[1:]]
    rows += [row(metric, 0.6, joined, "oracle") for metric in WHOLE]
    rows += class_oracle(0.55, 0.5, joined)
    found = tables(frame(*rows), terminal=False)
    for name in ("subsets", "regions"):
        assert max(map(len, found[name].split("\n"))) <= 130
        assert "1 ResNet-00-of-a-long-name" in " ".join(found[name].split())
        assert line(found[name], "images  " if name == "regions" else "size  ").split()[-20:] == [
            str(number) for number in range(1, 21)
        ]


def test_an_empty_frame_has_no_tables():
    assert tables(pl.DataFrame(schema=RESULT)) == {}


@pytest.mark.parametrize("details", [None, True])
def test_nine_backbones_fit_the_page(details):
    """The paper's nine, each region and size as wide as it gets."""
    kinds = ("RN101", "RN50", "RN50x16", "RN50x4", "RN50x64")
    kinds += ("ViT-B-16", "ViT-B-32", "ViT-L-14", "ViT-L-14-336")
    names = [f"{kind}/openai" for kind in kinds]
    joined = "+".join(names)
    where = {"dataset": "stanford-cars", "n": 50_000}
    rows = [row(m, 0.1, n, **where) for n in names for m in SINGLE]
    rows += [row(metric, 0.75, joined, "oracle", **where) for metric in WHOLE]
    rows += class_oracle(0.55, 0.1, joined, **where)
    rows.append(row("acc1", 0.9, joined, "weight-oracle", **where))
    noisy = [r | {"perturbation": "gaussian_noise-3"} for r in rows]
    found = tables(frame(*rows, *noisy), details=details, terminal=False)
    assert max(len(line) for text in found.values() for line in text.split("\n")) <= 115
