from __future__ import annotations

import math
from itertools import combinations

import polars as pl

from clipsyn.analyses.representation.tables import tables
from clipsyn.results.frame import RESULT

DASH = "\N{EN DASH}"
NAMES = ("tiny-RN/zoo", "tiny-ViT-16/zoo", "tiny-ViT-8/zoo")
CKA = (0.5, 0.25, 0.75)  # of the pairs in order
NAN = float("nan")
UNKNOWN = {"value": NAN, "ci_low": NAN, "ci_high": NAN}
VALUES = {
    "acc1": 0.4,
    "confidence_right": 0.7,
    "confidence_wrong": 0.5,
    "nll": 1.5,
    "ece": 0.2,
    "ece_floor": 0.05,
    "logit_scale": 15.0,
    "temperature": 1.25,
    "nll_calibrated": 1.4,
    "ece_calibrated": 0.1,
    "ece_calibrated_floor": 0.04,
}


def row(metric: str, value: float, backbones: str, prompts: str | None = None, **where) -> dict:
    common = {
        "dataset": "birds",
        "split": "test",
        "perturbation": "clean",
        "severity": 0,
        "classes": "all",
        "ci_low": value - 0.01,
        "ci_high": value + 0.02,
        "n": 40,
        "fingerprint": "f",
    }
    return (
        common
        | {"metric": metric, "value": value, "backbones": backbones, "prompts": prompts}
        | where
    )


def pairs(names=NAMES, cka=CKA, **where) -> list[dict]:
    """Procrustes is 1 - CKA, and neighbours half of it."""
    return [
        row(metric, value, "+".join(pair), **where)
        for pair, alike in zip(combinations(names, 2), cka, strict=True)
        for metric, value in (("cka", alike), ("procrustes", 1 - alike), ("mutual_knn", alike / 2))
    ]


def logits(names=NAMES, *, without: tuple[str, ...] = (), **where) -> list[dict]:
    """Each backbone a tenth better than the one before."""
    where = {"prompts": "own", "n": 35} | where
    return [
        row(metric, value + number / 10 * (metric == "acc1"), name, **where)
        for number, name in enumerate(names)
        for metric, value in VALUES.items()
        if metric not in without
    ]


def frame(*rows: dict) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=RESULT)


def line(text: str, start: str) -> str:
    (found,) = (line for line in text.split("\n") if line.startswith(start))
    return found


def test_one_dataset_has_a_matrix_its_pairs_and_its_logits():
    found = tables(frame(*pairs(), *logits()), terminal=False)
    assert list(found) == ["similarity", "pairs", "logits"]
    title = "birds/test · clean · n 40 · backbones tiny-*/zoo\n"
    assert found["similarity"].startswith(title)
    assert found["pairs"].startswith(title)
    assert found["logits"].startswith(
        "birds/test · clean · prompts own · n 35 · backbones tiny-*/zoo\n"
    )


def test_the_matrix_has_cka_above_and_neighbours_below_the_diagonal():
    text = tables(frame(*pairs()), terminal=False)["similarity"]
    assert line(text, "RN ").split() == ["RN", "0.50", "0.25"]
    assert line(text, "ViT-16 ").split() == ["ViT-16", "25.0", "0.75"]
    assert line(text, "ViT-8 ").split() == ["ViT-8", "12.5", "37.5"]
    assert line(text, "backbone").split() == ["backbone", "RN", "ViT-16", "ViT-8"]


def test_pairs_have_intervals_the_most_alike_first():
    text = tables(frame(*pairs()), terminal=False)["pairs"]
    lines = [line.split() for line in text.split("\n")[3:6]]
    assert [words[:3] for words in lines] == [
        ["ViT-16", "ViT-8", "0.75"],
        ["RN", "ViT-16", "0.50"],
        ["RN", "ViT-8", "0.25"],
    ]
    procrustes, neighbours = ["0.25", "0.24", "to", "0.27"], ["37.5", f"36.5{DASH}39.5"]
    assert lines[0][3:] == ["0.74", "to", "0.77", *procrustes, *neighbours]


def test_a_line_a_backbone():
    text = tables(frame(*logits()), terminal=False)["logits"]
    ece = ["20.0", f"19.0{DASH}22.0", "5.0", "10.0", f"9.0{DASH}12.0", "4.0"]
    assert line(text, "ViT-16 ").split() == [
        *["ViT-16", "50.0", f"49.0{DASH}52.0", "15", "70.0", "50.0", "1.5", "1.4"],
        *ece,
        "1.25",
    ]
    assert "median" not in text


def test_without_a_support_there_is_nothing_after():
    without = ("temperature", "nll_calibrated", "ece_calibrated", "ece_calibrated_floor")
    text = tables(frame(*logits(without=without)), terminal=False)["logits"]
    assert line(text, "backbone").split() == [
        *["backbone", "top-1", "95", "%", "scale", "right", "wrong", "NLL", "ECE", "95", "%"],
        "chance",
    ]


def test_several_groups_have_an_overview_and_a_mean_matrix():
    other = pairs(dataset="flags", cka=(0.7, 0.45, 0.35), n=20)
    found = tables(frame(*pairs(), *other), terminal=False)
    assert list(found) == ["similarity", "matrix, test, clean"]
    text = found["similarity"]
    assert text.startswith("similarity of embeddings · split test · perturbation clean · back")
    assert line(text, "birds ").split() == [
        *["birds", "40", "0.50", "RN", "ViT-8", "0.25", "ViT-16", "ViT-8", "0.75", "0.50", "25.0"]
    ]
    assert line(text, "flags ").split()[3:9] == ["ViT-16", "ViT-8", "0.35", "RN", "ViT-16", "0.70"]
    matrix = found["matrix, test, clean"]
    assert matrix.startswith("test · clean · mean over 2 datasets · backbones tiny-*/zoo\n")
    assert line(matrix, "RN ").split() == ["RN", "0.60", "0.35"]


def test_perturbations_have_a_matrix_each():
    noisy = pairs(perturbation="jpeg-3", cka=(0.6, 0.6, 0.6))
    found = tables(frame(*pairs(), *noisy), terminal=False)
    assert list(found) == ["similarity", "matrix, test, clean", "matrix, test, jpeg-3"]
    assert line(found["similarity"], "birds    jpeg-3").split()[2:4] == ["40", "0.60"]
    assert line(found["matrix, test, jpeg-3"], "RN ").split() == ["RN", "0.60", "0.60"]


def test_logits_are_means_over_datasets_and_temperature_the_median():
    rows = [
        r | ({"value": temperature} if r["metric"] == "temperature" else {})
        for dataset, temperature in (("birds", 1.0), ("flags", 1.5), ("food", 100.0))
        for r in logits(dataset=dataset)
    ]
    text = tables(frame(*rows), terminal=False)["logits"]
    assert text.startswith("test · clean · prompts own · mean over 3 datasets · backbones")
    words = line(text, "ViT-16 ").split()
    assert words == [
        "ViT-16",
        "50.0",
        "15",
        "70.0",
        "50.0",
        *["1.5", "1.4"],
        *["20.0", "5.0", "10.0", "4.0", "1.5"],
    ]
    assert "T: median over datasets" in text
    assert "Only" not in text


def test_datasets_without_a_support_are_counted():
    without = ("temperature", "nll_calibrated", "ece_calibrated", "ece_calibrated_floor")
    rows = [*logits(), *logits(dataset="flags", without=without)]
    text = tables(frame(*rows), terminal=False)["logits"]
    assert "Only 1 of the datasets have such a split" in text


def test_prompt_sets_and_perturbations_have_logits_of_their_own():
    rows = [*logits(), *logits(prompts="simple"), *logits(perturbation="jpeg-3")]
    assert list(tables(frame(*rows), terminal=False)) == [
        "logits, test, clean, own",
        "logits, test, clean, simple",
        "logits, test, jpeg-3, own",
    ]


def test_numbers_that_are_unknown_are_dashes():
    few = [r | UNKNOWN for r in pairs()]
    found = tables(frame(*few, *[r | UNKNOWN for r in logits()]), terminal=False)
    assert line(found["similarity"], "RN ").split() == ["RN", DASH, DASH]
    assert line(found["pairs"], "RN        ViT-16").split() == ["RN", "ViT-16", *[DASH] * 6]
    assert DASH in line(found["logits"], "RN ")
    two = tables(frame(*few, *pairs(dataset="flags")), terminal=False)
    assert line(two["similarity"], "birds ").split() == ["birds", "40", *[DASH] * 5]
    assert line(two["matrix, test, clean"], "RN ").split() == ["RN", "0.50", "0.25"]


def test_datasets_of_other_backbones_share_a_matrix():
    few = pairs(("A", "C"), CKA[:1], dataset="flags")
    rows = [*few, *pairs(("A", "B", "C"), dataset="pets")]
    found = tables(frame(*rows), terminal=False)["matrix, test, clean"]
    assert line(found, "backbone").split() == ["backbone", "A", "C", "B"]
    shown = [line(found, f"{name}   ").split() for name in "ACB"]
    assert all(DASH not in cells and len(cells) == 3 for cells in shown)  # but for the diagonal
    assert "A pair that some datasets lack: mean over the others." in found


def test_an_empty_frame_has_no_tables():
    assert tables(pl.DataFrame(schema=RESULT)) == {}


def test_nine_backbones_fit_the_page():
    kinds = ("RN101", "RN50", "RN50x16", "RN50x4", "RN50x64")
    kinds += ("ViT-B-16", "ViT-B-32", "ViT-L-14", "ViT-L-14-336")
    names = [f"{kind}/openai" for kind in kinds]
    cka = [0.25] * math.comb(9, 2)
    where = {"dataset": "stanford-cars", "n": 50_000}
    one = [*pairs(names, cka, **where), *logits(names, **where)]
    several = [*one, *(r | {"perturbation": "gaussian_noise-3"} for r in one)]
    for rows in (one, several):
        found = tables(frame(*rows), terminal=False)
        assert max(len(line) for text in found.values() for line in text.split("\n")) <= 125
