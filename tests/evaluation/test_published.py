"""Ours minus what is published: which numbers are compared, and which are not."""

import polars as pl
import pytest

import clipsyn
from clipsyn.errors import UnknownName, UsageError
from clipsyn.evaluation import CompareSettings
from clipsyn.evaluation.published import COMPARED, tables
from clipsyn.show.formats import text_of
from tests.results import row, tidy

HEAD = "dataset,backbone,accuracy,source,metric,prompts,head,shots\n"


def ours(**changes):
    """A row of `clipsyn zeroshot`: 62.0 % (60.0 to 64.0) on Food-101."""
    about = {"dataset": "food101", "n": 25_250, "fingerprint": str(changes), "off": (0.02, 0.02)}
    return row(**{"metric": "acc1", "value": 0.62, "backbones": ["RN50/openai"]} | about | changes)


@pytest.fixture
def compare(tmp_path):
    """Function from rows of ours, and lines of a reference, to the rows that are compared."""

    def run(rows, theirs, **settings):
        path = tmp_path / "theirs.csv"
        path.write_text(HEAD + theirs, "utf-8")
        found = clipsyn.compare(tidy(*rows), reference=str(path), **settings)
        assert dict(found.schema) == COMPARED
        return found.to_dicts()

    return run


def test_difference_and_interval_are_ours_minus_the_published_number(compare):
    (row,) = compare([ours()], "food101,RN50/openai,0.613,A table,,,,\n")
    assert row["difference"] == pytest.approx(0.007)
    assert row["difference_low"] == pytest.approx(-0.013)
    assert row["difference_high"] == pytest.approx(0.027)
    assert (row["published"], row["value"], row["source"]) == (0.613, 0.62, "A table")
    assert (row["dataset"], row["backbone"], row["n"]) == ("food101", "RN50/openai", 25_250)
    assert row["usual_n"] == 25_250


@pytest.mark.parametrize(
    ("published", "tolerance", "beyond"),
    [(0.615, 0.5, False), (0.6149, 0.5, True), (0.6251, 0.5, True), (0.7, 8.0, False)],
)
def test_beyond_the_tolerance_in_points_either_way(compare, published, tolerance, beyond):
    (row,) = compare([ours()], f"food101,RN50/openai,{published},A,,,,\n", tolerance=tolerance)
    assert row["beyond"] is beyond


@pytest.mark.parametrize(
    "changes",
    [
        {"perturbation": "jpeg-3"},
        {"split": "train"},
        {"head": "linear-probe"},
        {"shots": "16"},
        {"classes": "new"},
        {"ensemble": "nlc"},
        {"ensemble": None, "backbones": ["RN50/openai", "RN101/openai"]},
        {"backbones": ["RN50/laion"]},
        {"metric": "nll"},
        {"metric": "mean_per_class_recall"},
        {"dataset": "birds"},
        {"value": float("nan")},
    ],
    ids=str,
)
def test_what_is_not_published_is_not_compared(compare, changes):
    theirs = "food101,RN50/openai,0.6,A,,,,\n"
    rows = compare([ours(), ours(**changes)], theirs)
    assert [row["value"] for row in rows] == [0.62]
    with pytest.raises(UsageError):
        compare([ours(**changes)], theirs)


def test_heads_are_compared_by_shots_over_their_draws(compare):
    fitted = {"head": "lda", "ensemble": "single", "support": "train"}
    rows = [
        ours(**fitted, shots=shots, seed=seed, value=value)
        for shots, seed, value in (("4", 0, 0.70), ("4", 1, 0.74), ("8", 0, 0.8))
    ]
    theirs = "food101,RN50/openai,0.71,A,,,lda,4\nfood101,RN50_openai,0.6,A,,,,\n"
    few, zero = compare([*rows, ours()], theirs)
    assert (few["head"], few["shots"], few["value"]) == ("lda", "4", pytest.approx(0.72))
    assert (few["difference"], few["difference_low"]) == pytest.approx((0.01, -0.01))
    assert (zero["head"], zero["value"]) == ("zero-shot", 0.62)


def test_other_names_of_the_same_thing(compare):
    theirs = "pets,RN50-quickgelu/openai,0.8,A,,\nimagenet,RN50/openai,0.6,A,,,,\n"
    per_class = ours(dataset="oxford_pets", metric="mean_per_class_recall", value=0.81)
    rows = compare(
        [per_class, ours(dataset="oxford_pets"), ours(dataset="imagenet1k", split="val")], theirs
    )
    assert [(row["dataset"], row["metric"]) for row in rows] == [
        ("oxford_pets", "mean_per_class_recall"),
        ("imagenet1k", "acc1"),  # whose test images are its val images
    ]
    assert [row["usual_n"] for row in rows] == [3_669, 50_000]


def test_prompts_that_a_reference_names(compare):
    rows = [ours(), ours(prompts="simple", value=0.5)]
    theirs = "food101,RN50/openai,0.6,A,,own openai,,\n"
    assert [row["prompts"] for row in compare(rows, theirs)] == ["own"]
    assert len(compare(rows, "food101,RN50/openai,0.6,A,,,,\n")) == 2
    with pytest.raises(UsageError):
        compare(rows[1:], theirs)


def test_files_and_settings_that_cannot_be(tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        clipsyn.compare(tmp_path / "gone.parquet")
    with pytest.raises(UsageError, match="tolerance=… is a number"):
        clipsyn.compare(tidy(ours()), tolerance=-1)
    with pytest.raises(UnknownName, match=r"did you mean .*tolerance"):
        clipsyn.compare(tidy(ours()), tolerence=1)
    assert CompareSettings().reference == "openai-zeroshot"


# tables


def compared(backbone, difference, **changes):
    about = {
        "dataset": "food101",
        "split": "test",
        "prompts": "own",
        "backbone": backbone,
        "head": "zero-shot",
        "shots": "0",
        "metric": "acc1",
        "value": 0.6 + difference,
        "ci_low": 0.59 + difference,
        "ci_high": 0.61 + difference,
        "n": 25_250,
        "usual_n": 25_250,
        "published": 0.6,
        "difference": difference,
        "difference_low": difference - 0.01,
        "difference_high": difference + 0.01,
        "beyond": abs(difference) > 0.005,
        "source": "A table",
    }
    return about | changes


def shown(*rows, **settings):
    frame = pl.DataFrame(list(rows), schema=COMPARED)
    found = tables(frame, settings.get("tolerance", 0.5))
    return {name: text_of(those, terminal=False) for name, those in found.items()}


def line_of(text, start):
    (line,) = (line for line in text.splitlines() if line.startswith(start))
    return line.split()


def test_those_beyond_are_listed_with_both_numbers_and_intervals():
    rows = [compared("RN50", 0.001), compared("ViT", 0.02, metric="mean_per_class_recall")]
    text = shown(*rows)["numbers"]
    assert "RN50" not in text
    found = " ".join(line_of(text, "food101"))
    assert found.startswith("food101 test own ViT zero-shot 0 mean per class 62.0 61.0")
    assert found.endswith("63.0 60.0 2.0 1.0\N{EN DASH}3.0 25,250 25,250")
    assert "1 of 2 numbers are within 0.5 points of the published ones (A table)." in text
    within = shown(compared("RN50", 0.001))["numbers"]
    assert within.startswith("1 of 1 numbers are within 0.5 points")
