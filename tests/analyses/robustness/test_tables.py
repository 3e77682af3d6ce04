from __future__ import annotations

import re

import polars as pl
import pytest

from clipsyn.analyses.robustness.tables import tables
from clipsyn.results.frame import RESULT

DASH = "\N{EN DASH}"
BOLD = re.compile(r"\x1b\[1m *(.*?)\x1b\[0m")
NAMES = ("tiny-RN/zoo", "tiny-ViT-8/zoo")
BOTH = "+".join(NAMES)
NAN = float("nan")
FOG, JPEG = {"fog": {2: "fog-2"}}, {"jpeg": {1: "jpeg-1", 3: "jpeg-3"}}
# accuracy of the two backbones and the oracle under each setting
ACCURACY = {
    "clean": (0.8, 0.6, 0.9),
    "fog-2": (0.2, 0.4, 0.5),
    "jpeg-1": (0.7, 0.5, 0.8),
    "jpeg-3": (0.5, 0.4, 0.7),
    "fog": (0.2, 0.4, 0.5),
    "jpeg": (0.6, 0.45, 0.75),
    "all": (0.4, 0.425, 0.625),
}
MEANS = ("fog", "jpeg", "all")


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


def setting(label: str) -> dict:
    number = label.rpartition("-")[2]
    severity = 0 if label == "clean" else int(number) if number.isdigit() else None
    return {"perturbation": label, "severity": severity}


def methods(names: tuple[str, ...]) -> list[tuple[str, str | None]]:
    joined = "+".join(names)
    return [(name, None) for name in names] + ([(joined, "oracle")] if len(names) > 1 else [])


def group(names: tuple[str, ...] = NAMES, **where) -> list[dict]:
    """What `robustness` makes of two backbones on forty images, fog at one severity, jpeg at two.

    The reference is the first; the corruption error of the second is 75 % under fog.
    """
    rows = [row("error", 0.2, names[0], "reference", **where)]
    for label, accuracy in ACCURACY.items():
        here = setting(label) | where
        for column, (name, ensemble) in enumerate(methods(names)):
            value, clean = accuracy[column], ACCURACY["clean"][column]
            found = {"acc1": value}
            if label != "clean":
                found |= {"drop": clean - value, "relative_robustness": value / clean}
            if label in MEANS:
                error = (1 - value) / (1 - accuracy[0])
                found["mce" if label == "all" else "ce"] = error
            rows += [row(metric, v, name, ensemble, **here) for metric, v in found.items()]
        if len(names) > 1:
            best = names[accuracy[1] > accuracy[0]]
            lead = abs(accuracy[0] - accuracy[1])
            rows.append(row("gain", accuracy[2] - max(accuracy[:2]), BOTH, "oracle", **here))
            rows.append(row("acc1_independent", accuracy[2] + 0.05, BOTH, "oracle", **here))
            rows.append(row("lead", lead, best, **here))
            if label != "clean":
                rows.append(row("switch", lead if best == names[1] else 0.0, best, **here))
                tau = 1.0 if best == names[0] else -1.0
                rows.append(row("kendall_tau", tau, BOTH, **here))
    return rows


def ensemble(name: str, seeds: tuple[int | None, ...] = (None,), **where) -> list[dict]:
    """Ten points above the first backbone; a second seed one more."""
    rows = []
    for label, accuracy in ACCURACY.items():
        for seed in seeds:
            value = accuracy[0] + 0.1 + 0.01 * (seed or 0)
            found = {"acc1": value, "gain": value - max(accuracy[:2])}
            if label != "clean":
                found |= {"drop": 0.9 - value, "relative_robustness": value / 0.9}
            if label in MEANS:
                error = (1 - value) / (1 - accuracy[0])
                found["mce" if label == "all" else "ce"] = error
            none = {"ci_low": None, "ci_high": None, "seed": seed}
            here = setting(label) | none | where
            rows += [row(metric, v, BOTH, name, **here) for metric, v in found.items()]
    return rows


def frame(*rows: dict) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=RESULT)


def line(text: str, start: str) -> str:
    (found,) = (line for line in text.split("\n") if line.startswith(start))
    return found


def test_one_dataset_has_six_tables():
    found = tables(frame(*group()), terminal=False)
    assert list(found) == ["summary", "accuracy", "errors", "order", "gains", "severities"]
    title = "birds/test · prompts own · n 40 · backbones tiny-*/zoo"
    assert all(text.startswith(f"{title}\n") for text in found.values())


def test_the_summary_has_a_line_a_method():
    text = tables(frame(*group()), terminal=False)["summary"]
    assert line(text, "ViT-8 ").split() == [
        "ViT-8",
        "60.0",
        f"59.0{DASH}62.0",
        "42.5",
        f"41.5{DASH}44.5",
        "17.5",
        f"16.5{DASH}19.5",
        "70.8",
        "95.8",
        f"94.8{DASH}97.8",
    ]
    assert line(text, "RN ").split()[-2:] == ["100.0", DASH]  # the reference
    assert line(text, "oracle ").split()[1] == "90.0"
    assert line(text, "independent ").split() == ["independent", "95.0", DASH, "67.5", *[DASH] * 6]
    assert "in % of those of RN (Hendrycks & Dietterich 2019)" in text
    assert "Ensembles" not in text


def test_the_best_of_each_column_is_bold():
    found = tables(frame(*group()), terminal=True)
    # clean, perturbed, drop, relative, mCE: the second but for the first column
    assert BOLD.findall(found["summary"]) == ["80.0", "42.5", "17.5", "70.8", "95.8"]
    assert BOLD.findall(found["accuracy"]) == ["80.0", "40.0", "60.0", "42.5"]
    assert BOLD.findall(found["errors"]) == ["75.0", "100.0", "95.8"]


def test_accuracy_and_errors_by_perturbation():
    found = tables(frame(*group()), terminal=False)
    assert line(found["accuracy"], "clean").split() == ["clean", "80.0", "60.0", "90.0", "95.0"]
    assert line(found["accuracy"], "jpeg").split() == ["jpeg", "60.0", "45.0", "75.0", "80.0"]
    assert line(found["accuracy"], "all ").split() == ["all", "40.0", "42.5", "62.5", "67.5"]
    assert line(found["errors"], "fog").split() == ["fog", "100.0", "75.0", "62.5"]
    assert line(found["errors"], "mCE").split() == ["mCE", "100.0", "95.8", "62.5"]
    assert "in % of those of RN;" in found["errors"]


def test_the_order_says_who_is_best_where():
    text = tables(frame(*group()), terminal=False)["order"]
    assert line(text, "clean  ").split()[:4] == ["clean", "RN", "80.0", "20.0"]
    assert line(text, "clean  ").split()[5:] == [DASH] * 4
    assert line(text, "fog ").split() == [
        "fog",
        "ViT-8",
        "40.0",
        "20.0",
        f"19.0{DASH}22.0",
        "20.0",
        f"19.0{DASH}22.0",
        "-1.00",
        "-1.01",
        "to",
        "-0.98",
    ]
    assert line(text, "jpeg ").split()[5:8] == ["0.0", DASH, "1.00"]
    assert "best on\nclean images, RN." in text


def test_gains_of_oracle_and_ensembles():
    alone = tables(frame(*group()), terminal=False)["gains"]
    assert line(alone, "all ").split() == ["all", "20.0", f"19.0{DASH}22.0"]
    assert "Gain of the oracle over the" in alone
    rows = [*group(), *ensemble("log-avg"), *ensemble("nlc", (0, 1), shots=16)]
    found = tables(frame(*rows), terminal=False)
    assert line(found["gains"], "fog ").split()[3:] == ["-10.0", "-9.5"]
    assert "the oracle and ensembles" in found["gains"]
    assert found["gains"].endswith("Ensembles: head zero-shot, 16 shots, means over seeds.")
    assert line(found["summary"], "nlc ").split()[1:4] == ["90.5", DASH, "50.5"]


def test_many_ensembles_are_in_several_tables():
    rows = [r for number in range(10) for r in ensemble(f"e{number}")]
    text = tables(frame(*group(), *rows), terminal=False)["gains"]
    assert text.count("perturbation ") == 2
    assert text.count("oracle  ") == 1
    assert text.endswith("Ensembles: head zero-shot.")


def test_ensembles_of_the_whole_support():
    text = tables(frame(*group(), *ensemble("nlc", shots=None)), terminal=False)["gains"]
    assert text.endswith("Ensembles: head zero-shot, the whole support.")


def test_what_an_ensemble_lacks_is_a_dash():
    rows = [r for r in ensemble("log-avg") if r["perturbation"] in ("clean", "fog-2", "fog")]
    found = tables(frame(*group(), *rows), terminal=False)
    assert line(found["gains"], "jpeg").split()[-1] == DASH
    assert line(found["summary"], "log-avg").split() == ["log-avg", "90.0", *[DASH] * 8]


def test_curves_are_numbers_and_bars_on_one_scale():
    text = tables(frame(*group()), terminal=False)["severities"]
    assert text.split("\n")[1].split() == ["perturbation", "clean", "1", "2", "3", "RN", "ViT-8"]
    assert line(text, "fog").split() == ["fog", "70.0", DASH, "30.0", DASH, "█▃", "▆▅"]
    assert line(text, "jpeg").split() == ["jpeg", "70.0", "60.0", DASH, "45.0", "█▇▅", "▆▅▅"]
    assert "from 0 to 80 %" in text


def test_many_severities_are_bars_alone():
    rows = group()
    for level in range(10, 20):
        where = {"perturbation": f"contrast-{level}", "severity": level}
        for name in NAMES:
            rows.append(row("acc1", level / 20, name, **where))
    for name in NAMES:
        here = {"perturbation": "contrast", "severity": None}
        rows += [row(m, 0.5, name, **here) for m in ("acc1", "drop", "ce", "lead", "switch")][:4]
    text = tables(frame(*rows), terminal=False)["severities"]
    assert text.split("\n")[1].split() == ["perturbation", "RN", "ViT-8"]
    assert line(text, "contrast").split()[1] == "▇▅▅▅▆▆▇▇▇██"


def test_several_datasets_are_shown_by_their_mean():
    rows = [*group(), *group(dataset="flags"), *group(dataset=None, n=80)]
    found = tables(frame(*rows), terminal=False)
    assert list(found)[:2] == ["datasets", "summary"]
    assert len(found) == 7
    title = "mean over 2 datasets · split test · prompts own · n 80 · backbones tiny-*/zoo"
    assert found["order"].startswith(f"{title}\n")
    assert line(found["datasets"], "flags").split() == [
        "flags",
        "40",
        "RN",
        "80.0",
        "40.0",
        f"39.0{DASH}42.0",
        "ViT-8",
        "42.5",
        "10.0",
        "20.0",
        "-1.00",
    ]


def test_details_are_those_of_every_dataset_too():
    rows = [*group(), *group(dataset="flags"), *group(dataset=None, n=80)]
    found = tables(frame(*rows), details=True, terminal=False)
    assert len(found) == 1 + 3 * 9
    assert "every severity, flags/test, own" in found
    one = tables(frame(*group()), details=True, terminal=False)
    assert list(one) == [
        "summary",
        "accuracy",
        "drop",
        "relative_robustness",
        "errors",
        "order",
        "gains",
        "severities",
        "every severity",
    ]
    assert found["order, birds/test, own"] == one["order"]
    every = ["jpeg-3", "50.0", "40.0", "70.0", "75.0"]
    assert line(one["every severity"], "jpeg-3").split() == every
    assert line(one["drop"], "fog").split() == ["fog", "60.0", "20.0", "40.0"]
    assert line(one["relative_robustness"], "all").split()[1:] == ["50.0", "70.8", "69.4"]


def test_what_is_in_no_mean_stands_beside_it():
    other = [r for r in group(dataset="odd") if "jpeg" not in r["perturbation"]]
    rows = [*group(), *group(dataset="flags"), *other, *group(dataset=None, n=80)]
    found = tables(frame(*rows), terminal=False)
    assert {"summary, mean, test, own", "summary, odd/test, own"} <= set(found)
    assert "summary, birds/test, own" not in found
    assert found["summary, mean, test, own"].startswith("mean over 2 datasets")
    assert len(found["datasets"].split("\n\n")[0].split("\n")) == 6


def test_datasets_without_a_mean_are_all_shown():
    other = [r for r in group(dataset="odd") if "jpeg" not in r["perturbation"]]
    found = tables(frame(*group(), *other), terminal=False)
    assert {"datasets", "order, birds/test, own", "order, odd/test, own"} <= set(found)


def test_one_backbone_has_no_order():
    found = tables(frame(*group(NAMES[:1])), terminal=False)
    assert list(found) == ["summary", "accuracy", "errors", "severities"]
    assert "oracle" not in "".join(found.values())
    two = tables(frame(*group(NAMES[:1]), *group(NAMES[:1], dataset="flags")), terminal=False)
    assert line(two["datasets"], "flags").split() == [
        "flags",
        "40",
        NAMES[0],
        "80.0",
        *("40.0", f"39.0{DASH}42.0", NAMES[0], "40.0"),
        *[DASH] * 3,
    ]


def test_what_is_unknown_is_a_dash():
    """All wrong on clean images, and a reference without errors."""
    unknown = ("relative_robustness", "ce", "mce", "kendall_tau")
    nan = {"value": NAN, "ci_low": NAN, "ci_high": NAN}
    rows = [r | (nan if r["metric"] in unknown else {}) for r in group()]
    found = tables(frame(*rows), terminal=False)
    assert line(found["summary"], "ViT-8").split()[-2:] == [DASH, DASH]
    assert line(found["errors"], "mCE").split() == ["mCE", DASH, DASH, DASH]
    assert line(found["order"], "fog").split()[-1] == DASH
    nothing = tables(frame(*(r | nan | {"n": 0} for r in group())), terminal=False)
    assert line(nothing["summary"], "RN ").split()[1:] == [DASH] * 5
    assert line(nothing["order"], "fog").split()[1] == DASH
    assert line(nothing["severities"], "fog").split()[1:] == [DASH] * 4


def test_an_empty_frame_has_no_tables():
    assert tables(pl.DataFrame(schema=RESULT)) == {}


@pytest.mark.parametrize("details", [False, True])
def test_nine_backbones_fit_the_page(details):
    """The paper's nine, under five severities of a long name."""
    kinds = ("RN101", "RN50", "RN50x16", "RN50x4", "RN50x64")
    kinds += ("ViT-B-16", "ViT-B-32", "ViT-L-14", "ViT-L-14-336")
    names = [f"{kind}/openai" for kind in kinds]
    joined = "+".join(names)
    settings = ["clean", *(f"elastic_transform-{n}" for n in range(1, 6)), "elastic_transform"]
    rows = [row("error", 0.5, names[0], "reference", n=50_000)]
    for label in (*settings, "all"):
        where = setting(label) | {"n": 50_000, "dataset": "stanford-cars"}
        error = "mce" if label == "all" else "ce"
        for metric in ("acc1", "drop", "relative_robustness", error):
            rows += [row(metric, 0.75, name, **where) for name in names]
            rows.append(row(metric, 0.9, joined, "oracle", **where))
        rows += [row(metric, 0.1, names[-1], **where) for metric in ("lead", "switch")]
        rows.append(row("kendall_tau", 0.5, joined, **where))
        rows.append(row("gain", 0.15, joined, "oracle", **where))
    rows[0]["dataset"] = "stanford-cars"
    found = tables(frame(*rows), details=details, terminal=False)
    assert max(len(line) for text in found.values() for line in text.split("\n")) <= 115
