"""Tables of selective prediction, their cells read by the names of rows and columns."""

from functools import partial

import pytest

from clipsyn.analyses.selective import SelectiveSettings
from clipsyn.analyses.selective.measure import COLUMNS, COVERAGES
from clipsyn.analyses.selective.view import notes, tables
from clipsyn.evaluation.results.frame import frame
from tests.results import DASH, texts
from tests.results import row as made

NAMES = ("tiny-RN/zoo", "tiny-ViT-8/zoo")
METHODS = (("single", NAMES[:1], 0.4), ("single", NAMES[1:], 0.3), ("log-avg", NAMES, 0.2))
SCORES = ("max-softmax", "margin", "entropy", "agreement")


row = partial(made, off=(0.1, 0.1))


def group(scores=SCORES, *, gain=0.2, off=0.0, wished=(0.9,), ood=(), **where):
    """Three methods, the last the best; the later the score, the worse."""
    rows = []
    for ensemble, backbones, error in METHODS:
        about = {"ensemble": ensemble, "backbones": list(backbones)} | where
        rows.append(row("acc1", 1 - error, **about))
        for place, score in enumerate(scores):
            aurc = error + off + place / 100
            of = about | {"score": score}
            rows.append(row("aurc", aurc, **of))
            rows.append(row("e_aurc", aurc / 2, **of))
            rows.append(row("augrc", aurc / 4, **of))
            rows += [row("acc1", 1 - error * at, coverage=at, **of) for at in COVERAGES]
            if place:
                rows.append(row("aurc_gain", gain if score == "agreement" else 0.0, **of))
            for wish in wished:
                chosen = of | {"wished": wish, "threshold": 0.75, "support": "train"}
                chosen |= {"shots": "full", "seed": 0}
                for metric, value in (
                    ("coverage", 0.5),
                    ("acc1", 0.95 - error + off),
                    ("support_coverage", 0.625),
                    ("support_acc1", wish),
                ):
                    rows.append(row(metric, value, **chosen))
            for name in ood:
                rows.append(row("auroc", 0.9 - error, ood=name, **of))
                rows.append(row("fpr95", 0.1 + error, ood=name, **of))
    return rows


def shown(*groups, **settings):
    rows = [one for rows in groups for one in rows]
    return texts(tables(frame(rows, COLUMNS), SelectiveSettings(**settings)))


@pytest.fixture
def cells(read_table):
    """Function (text of a table): its lines, by their first cell."""
    return lambda text: {next(iter(row.values())): row for row in read_table(text).rows}


def test_a_line_a_method(cells):
    lines = cells(shown(group())["methods"])
    assert list(lines) == ["RN", "ViT-8", "log-avg"]
    of = lines["log-avg"]
    assert (of["AURC"], of["95 % of AURC"]) == ("20.00", f"10.0{DASH}30.0")
    assert (of["E-AURC"], of["AUGRC"]) == ("10.00", "5.00")
    assert [of[name] for name in ("100 %", "90 %", "80 %", "50 %")] == [
        "80.0", "82.0", "84.0", "90.0",
    ]  # fmt: skip


def test_scores_side_by_side_and_which_differ(cells):
    lines = cells(shown(group())["scores"])
    assert lines["RN"]["max-softmax"] == "40.00"
    assert lines["RN"]["margin"] == "41.00"
    assert lines["RN"]["agreement"] == "43.00*"
    assert "another AURC than by max-softmax" in shown(group())["scores"]
    assert cells(shown(group(gain=0.05))["scores"])["RN"]["agreement"] == "43.00"
    assert "scores" not in shown(group(["margin"]), scores=["margin"])


def test_thresholds():
    text = shown(group(wished=[0.9]))["thresholds"]
    (of,) = [line for line in text.split("\n") if " RN " in line]
    assert of.split() == (
        f"90.0 RN 0.750 62.5 90.0 50.0 40.0{DASH}60.0 55.0 45.0{DASH}65.0".split()
    )
    two = shown(group(wished=[0.9, 0.95]))["thresholds"]
    assert [line.split()[0] for line in two.split("\n") if " log-avg " in line] == ["90.0", "95.0"]


def test_other_datasets_to_be_told():
    text = shown(group(ood=["cars", "boats"]))["ood"]
    (of,) = [line for line in text.split("\n") if line.startswith("boats") and "log-avg" in line]
    assert of.split()[2:] == ["70.0", f"60.0{DASH}80.0", *["70.0"] * 3, *["30.0"] * 4]


def test_each_dataset_is_told_from_the_others_and_not_from_itself():
    groups = [group(dataset=one, ood=[other]) for one, other in (("a", "b"), ("b", "a"))]
    lines = [line.split() for line in shown(*groups)["ood"].split("\n") if "log-avg" in line]
    assert [line[:3] for line in lines] == [["a", "log-avg", "70.0"], ["b", "log-avg", "70.0"]]


def test_several_groups_are_means(cells):
    both = shown(group(), group(dataset="cars", off=0.1))
    assert list(both) == ["methods", "scores", "thresholds", "datasets"]
    of = cells(both["methods"])["ViT-8"]
    assert of["AURC"] == "35.00"
    assert "95 % of AURC" not in of
    assert both["methods"].startswith("mean over 2 datasets · test · clean · prompts own · back")
    assert "*" not in both["scores"].split("\n", 1)[1]


def test_how_many_groups_reach_what_was_wished():
    text = shown(group(wished=[0.6]), group(dataset="cars", off=0.1, wished=[0.6]))["thresholds"]
    lines = {line.split()[1]: line for line in text.split("\n") if line.startswith(" ")}
    assert lines["RN"].endswith("1 of 2")
    assert lines["log-avg"].endswith("2 of 2")


def test_notes_say_what_is_left_out():
    alone = [one for one in group(wished=[]) if one["backbones"] == [*NAMES[:1]]]
    assert list(notes(frame(alone, COLUMNS), SelectiveSettings())) == [
        "a single backbone: there is no ensemble, and no agreement",
        "no threshold is chosen: there is no train split",
    ]
