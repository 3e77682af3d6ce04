from __future__ import annotations

from itertools import combinations

import polars as pl
import pytest

from clipsyn.analyses.diversity.tables import tables
from clipsyn.results.frame import RESULT

DASH = "\N{EN DASH}"
NAMES = ("tiny-RN/zoo", "tiny-ViT-16/zoo", "tiny-ViT-8/zoo")
ALL = "+".join(NAMES)
NAN = float("nan")
OF_PAIRS = ("error_inconsistency", "disagreement", "double_fault", "yules_q", "error_consistency")
MEASURES = (*OF_PAIRS, "fleiss_kappa", "vote_entropy")


def row(metric: str, value: float, backbones: str = ALL, **where) -> dict:
    common = {
        "dataset": "birds",
        "split": "test",
        "perturbation": "clean",
        "severity": 0,
        "head": "zero-shot",
        "ensemble": None,
        "prompts": "own",
        "classes": "all",
        "shots": 0,
        "ci_low": value - 0.125,
        "ci_high": value + 0.25,
        "n": 40,
        "fingerprint": "f",
    }
    return common | {"metric": metric, "value": value, "backbones": backbones} | where


def group(names=NAMES, *, kappa: float = 0.5, p: float = 0.02, **where) -> list[dict]:
    """What `diversity` makes of some backbones: pairs differ more and more."""
    joined, rows = "+".join(names), []
    for number, pair in enumerate(combinations(names, 2)):
        values = (0.2 + number / 10, 0.4, 0.3, 0.8, kappa - number / 10)
        for metric, value in zip(OF_PAIRS, values, strict=True):
            rows.append(row(metric, value, "+".join(pair), **where))
        rows.append(row("mcnemar_p_holm", p, "+".join(pair), **where))
    for number, metric in enumerate(MEASURES):
        name = f"mean_{metric}" if metric in OF_PAIRS else metric
        rows.append(row(name, 0.25 + number / 20, joined, **where))
    for number, name in enumerate(names):
        rows.append(row("unique_correct", 0.05 * number, name, **where))
        rows.append(row("unique_correct_floor", 0.03 + 0.01 * number, name, **where))
    return rows


def correlations(*, ensemble: str = "log-avg", value: float = 0.5, **where) -> list[dict]:
    where = {"dataset": None, "ensemble": ensemble, "n": 7} | where
    return [
        row(f"{kind}_{metric}", value - number / 4, **where)
        for kind in ("pearson", "spearman")
        for number, metric in enumerate(MEASURES)
    ]


def frame(*rows: dict) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=RESULT)


def line(text: str, start: str) -> str:
    (found,) = (line for line in text.split("\n") if line.startswith(start))
    return found


def test_one_group_has_means_and_pairs():
    found = tables(frame(*group()), terminal=False)
    assert list(found) == ["means", "pairs"]
    assert found["means"].startswith("diversity of the backbones · test · clean · prompts own\n")
    assert line(found["means"], "birds ").split() == [
        "birds",
        "40",
        "25.0",
        f"12.5{DASH}50.0",
        "30.0",
        "35.0",
        "0.40",
        "0.45",
        "0.50",
        "0.55",
    ]
    title = "birds/test · clean · prompts own · n 40 · backbones tiny-*/zoo"
    assert found["pairs"].split("\n")[0] == title


def test_pairs_that_differ_most_come_first():
    text = tables(frame(*group()), terminal=False)["pairs"]
    pairs = [row.split() for row in text.split("\n")[4:7]]
    assert [pair[:3] for pair in pairs] == [
        ["ViT-16", "ViT-8", "40.0"],
        ["RN", "ViT-8", "30.0"],
        ["RN", "ViT-16", "20.0"],
    ]
    interval = ["0.17", "to", "0.55"]
    assert pairs[0][3:] == [f"27.5{DASH}65.0", "40.0", "30.0", "0.80", "0.30", *interval, "0.020"]


def test_what_one_backbone_alone_gets_right():
    text = tables(frame(*group()), terminal=False)["pairs"]
    assert text.endswith(
        "\nWhat one backbone alone gets right, in %: RN 0.0, ViT-16 5.0, ViT-8 10.0; one that "
        "guesses would at\nmost get 5.0."
    )


@pytest.mark.parametrize(("p", "shown"), [(0.0004, "<0.001"), (0.001, "0.001"), (1, "1.000")])
def test_no_p_value_is_nothing(p, shown):
    text = tables(frame(*group(p=p)), terminal=False)["pairs"]
    assert {row.split()[-1] for row in text.split("\n")[4:7]} == {shown}


def test_several_groups_have_a_line_each_and_matrices():
    found = tables(frame(*group(), *group(dataset="cars", kappa=0.7)), terminal=False)
    assert list(found) == ["means", "pairs, test, clean, own"]
    assert line(found["means"], "cars ").split()[1] == "40"
    matrix = found["pairs, test, clean, own"].split("\n")
    assert matrix[0] == "test · clean · prompts own · backbones tiny-*/zoo · mean over 2 datasets"
    assert [cells.split() for cells in matrix[3:6]] == [
        ["RN", "0.0", "0.60", "0.50"],  # kappa above the diagonal
        ["ViT-16", "20.0", "5.0", "0.40"],
        ["ViT-8", "30.0", "40.0", "10.0"],
    ]


def test_each_split_and_perturbation_has_its_matrix():
    jpeg = {"perturbation": "jpeg-3", "severity": 3}
    found = tables(frame(*group(), *group(**jpeg), *group(split="train")), terminal=False)
    assert list(found) == [
        "means",
        "pairs, test, clean, own",
        "pairs, test, jpeg-3, own",
        "pairs, train, clean, own",
    ]
    assert found["means"].startswith("diversity of the backbones · prompts own\n")
    assert line(found["means"], "birds    test   jpeg-3").split()[3] == "40"
    assert "prompts own · backbones tiny-*/zoo · birds\n" in found["pairs, test, jpeg-3, own"]


def test_groups_of_other_backbones_share_a_matrix():
    found = tables(frame(*group(), *group(NAMES[:2], dataset="cars")), terminal=False)
    matrix = found["pairs, test, clean, own"].split("\n")
    assert [cells.split() for cells in matrix[3:6]] == [
        ["RN", "0.0", "0.50", "0.40"],
        ["ViT-16", "20.0", "5.0", "0.30"],
        ["ViT-8", "30.0", "40.0", "10.0"],
    ]


def test_a_pair_is_found_whatever_the_order_of_its_names():
    """The first dataset lacks the backbone in the middle."""
    rows = [*group((NAMES[0], NAMES[2])), *group(dataset="cars")]
    found = tables(frame(*rows), terminal=False)["pairs, test, clean, own"]
    assert [cells.split() for cells in found.split("\n")[3:6]] == [
        ["RN", "0.0", "0.45", "0.50"],
        ["ViT-8", "25.0", "7.5", "0.30"],
        ["ViT-16", "20.0", "40.0", "5.0"],
    ]
    assert "A pair that some datasets lack: mean over the others." in found
    alike = tables(frame(*group(), *group(dataset="cars")), terminal=False)
    assert "some datasets lack" not in alike["pairs, test, clean, own"]


def test_a_pair_that_no_group_has_is_a_dash():
    rows = [*group(NAMES[:2]), *group(NAMES[1:], dataset="cars")]
    matrix = tables(frame(*rows), terminal=False)["pairs, test, clean, own"].split("\n")
    assert [cells.split() for cells in matrix[3:6]] == [
        ["RN", "0.0", "0.50", DASH],
        ["ViT-16", "20.0", "2.5", "0.50"],
        ["ViT-8", DASH, "20.0", "5.0"],
    ]


def test_0_over_0_is_a_dash():
    unknown = {"value": NAN, "ci_low": NAN, "ci_high": NAN}
    kappas = ("yules_q", "error_consistency", "fleiss_kappa")
    rows = [r | (unknown if r["metric"].endswith(kappas) else {}) for r in group()]
    found = tables(frame(*rows), terminal=False)
    assert line(found["means"], "birds ").split()[-4:] == [*[DASH] * 3, "0.55"]
    first = found["pairs"].split("\n")[4].split()
    assert first[-4:] == [DASH, DASH, DASH, "0.020"]
    assert first[2] == "40.0"


def test_a_matrix_leaves_groups_without_a_value_out():
    rows = group(dataset="cars")
    rows = [r | ({"value": NAN} if r["metric"] == "error_consistency" else {}) for r in rows]
    found = tables(frame(*group(), *rows), terminal=False)["pairs, test, clean, own"]
    assert found.split("\n")[3].split() == ["RN", "0.0", "0.50", "0.40"]


def test_nothing_counted_is_all_dashes():
    unknown = {"value": NAN, "ci_low": NAN, "ci_high": NAN, "n": 0}
    found = tables(frame(*(r | unknown for r in group())), terminal=False)
    assert line(found["means"], "birds ").split() == ["birds", "0", *[DASH] * 8]
    assert found["pairs"].split("\n")[4].split() == ["RN", "ViT-16", *[DASH] * 8]
    assert f"RN {DASH}, ViT-16 {DASH}, ViT-8 {DASH};" in found["pairs"]


def test_no_negative_zero():
    rows = [r | ({"value": -0.001} if r["metric"] == "error_consistency" else {}) for r in group()]
    found = tables(frame(*rows, *group(dataset="cars")), terminal=False)
    assert "-0.00" not in "".join(found.values())
    rows += correlations(value=-0.001)
    assert "-0.00" not in tables(frame(*rows), terminal=False)["pearson"]


def test_correlations_have_a_line_an_ensemble_in_order():
    rows = [*correlations(ensemble="nlc", shots=16), *correlations(ensemble="oracle", value=0.125)]
    found = tables(frame(*group(), *rows), terminal=False)
    assert list(found) == ["means", "pairs", "pearson", "spearman"]
    text = found["spearman"]
    assert text.split("\n")[0] == (
        "Spearman's r with the gain · test · clean · prompts own · "
        "head zero-shot · 16 shots · 7 datasets"
    )
    lines = [row.split() for row in text.split("\n")[4:6]]
    assert [row[0] for row in lines] == ["oracle", "nlc"]
    assert lines[1][1:5] == ["+0.50*", "0.38", "to", "0.75"]  # the interval leaves 0 out
    assert lines[0][1:5] == ["+0.12", "0.00", "to", "0.38"]  # 0 is its end
    assert lines[1][5:] == ["+0.25*", "+0.00", "-0.25", "-0.50*", "-0.75*", "-1.00*"]


@pytest.mark.parametrize(
    ("shots", "said"), [(0, "nothing fitted"), (None, "the whole support"), (4, "4 shots")]
)
def test_the_number_of_shots_is_said(shots, said):
    text = tables(frame(*group(), *correlations(shots=shots)), terminal=False)["pearson"]
    assert f" · {said} · 7 datasets\n" in text


def test_what_differs_between_correlations_is_a_column():
    rows = [*correlations(), *correlations(perturbation="jpeg-3", n=5)]
    text = tables(frame(*group(), *rows), terminal=False)["pearson"]
    assert line(text, "clean ").split()[:3] == ["clean", "log-avg", "7"]
    assert line(text, "jpeg-3 ").split()[:3] == ["jpeg-3", "log-avg", "5"]
    assert "datasets\n" not in text.split("\n")[0]


def test_other_backbones_have_a_line_of_their_own():
    rows = [*correlations(), *correlations(backbones="+".join(NAMES[:2]), n=3, value=0.25)]
    text = tables(frame(*group(), *rows), terminal=False)["pearson"]
    found = [row.split()[:3] for row in text.split("\n")[4:6]]
    assert found == [["log-avg", "7", "+0.50*"], ["log-avg", "3", "+0.25*"]]


def test_a_correlation_without_interval_has_no_star():
    rows = [r | {"ci_low": NAN, "ci_high": NAN, "n": 3} for r in correlations()]
    text = tables(frame(*group(), *rows), terminal=False)["pearson"]
    assert line(text, "log-avg").split()[:4] == ["log-avg", "+0.50", DASH, "+0.25"]


def test_correlations_that_nobody_knows_are_no_table():
    rows = [r | {"value": NAN, "ci_low": NAN, "ci_high": NAN} for r in correlations(n=2)]
    assert list(tables(frame(*group(), *rows))) == ["means", "pairs"]


def test_an_ensemble_that_is_not_ours_comes_last():
    rows = [*correlations(ensemble="mine"), *correlations(ensemble="nlc:hidden=3")]
    text = tables(frame(*group(), *rows), terminal=False)["pearson"]
    assert [row.split()[0] for row in text.split("\n")[4:6]] == ["nlc:hidden=3", "mine"]


def test_nine_backbones_fit_the_page():
    kinds = ("RN101", "RN50", "RN50x16", "RN50x4", "RN50x64")
    kinds += ("ViT-B-16", "ViT-B-32", "ViT-L-14", "ViT-L-14-336")
    names = [f"{kind}/openai" for kind in kinds]
    where = {"dataset": "stanford-cars", "n": 50_000}
    noisy = where | {"perturbation": "gaussian_noise-3"}
    rows = [*group(names, **where), *group(names, **noisy)]
    rows += correlations(ensemble="super-learner", value=-0.5, backbones="+".join(names))
    rows += correlations(
        ensemble="super-learner", backbones="+".join(names), perturbation="gaussian_noise-3"
    )
    one = tables(frame(*group(names, **where)), terminal=False)
    for text in [*tables(frame(*rows), terminal=False).values(), *one.values()]:
        assert max(map(len, text.split("\n"))) <= 115, text
