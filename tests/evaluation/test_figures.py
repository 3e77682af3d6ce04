"""Gains by dataset, and curves by number of labelled images."""

import math
from itertools import product

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from clipsyn.errors import UsageError
from clipsyn.evaluation.figures import choices, few_shot, gains
from clipsyn.evaluation.tables import BEST
from tests.results import row as made
from tests.results import tidy

BOTH = ("a/zoo", "b/zoo")
SERIES = ["birds", "cars"]


def row(dataset, ensemble, value, *, metric="acc1", shots=0, seed=None, backbones=BOTH, **more):
    about = {"dataset": dataset, "shots": str(shots), "seed": seed, "n": 90} | more
    return made(metric, value, backbones, ensemble, off=(0.02, 0.02), **about)


def gain(*arguments, **more):
    return row(*arguments, metric="gain", **more)


GAINS = tidy(
    gain("birds", "oracle", 0.2),
    gain("birds", "oracle", 0.1, backbones=BOTH[:1]),  # of a smaller set
    gain("birds", "class-oracle", 0.12),
    gain("birds", "best-single", -0.01),  # what there is without an ensemble is none
    gain("birds", "log-avg", -0.02),
    gain("birds", "nlc", 0.02, shots=1, seed=0),
    gain("birds", "nlc", 0.06, shots=4, seed=0),
    gain("birds", "nlc", 0.08, shots=4, seed=1),
    gain("birds", "nlc", 0.5, shots=4, seed=1, classes="base"),
    row("birds", "nlc", 0.9, shots=4),
    gain("cars", "oracle", 0.4),
    gain("cars", "class-oracle", 0.1),
    gain("cars", "log-avg", 0.01),
    gain("cars", "nlc", 0.05, shots=1, seed=0),
    gain("cars", "nlc", 0.15, shots="full"),  # the whole support is more than any number
)


def by_method(data, *columns):
    keys = data.select("dataset", "method").rows()
    return dict(zip(keys, data.select(columns).rows(), strict=True))


# gains


def test_gains_are_means_over_draws_at_the_most_shots():
    data = by_method(gains.data(GAINS), "value", "ci_low", "shots", "seeds")
    assert data["birds", "nlc"] == (pytest.approx(0.07), pytest.approx(0.05), "4", 2)
    assert data["cars", "nlc"] == (0.15, pytest.approx(0.13), "full", 1)
    assert data["birds", "oracle"][0] == 0.2
    assert data["birds", "class-oracle"][0] == 0.12
    assert data["cars", "log-avg"][0] == 0.01


def test_means_over_datasets_stand_below():
    data = by_method(gains.data(GAINS), "value", "ci_low", "datasets")
    below = 0.02 / math.sqrt(2)  # sets are independent, each 0.02 wide
    assert data[None, "nlc"] == (pytest.approx(0.11), pytest.approx(0.11 - below), 2)
    assert data[None, "oracle"] == (pytest.approx(0.3), pytest.approx(0.3 - below), 2)
    one = gains.data(GAINS.filter(dataset="birds"))
    assert one["dataset"].null_count() == 0


def test_a_method_that_a_dataset_lacks_has_no_mean_and_is_not_drawn():
    """Its mean would be over other datasets than that of the next bar."""
    frame = GAINS.filter(~((pl.col("dataset") == "cars") & (pl.col("ensemble") == "nlc")))
    data = gains.data(frame)
    assert "nlc" not in set(data["method"])


def test_no_ensemble_is_picked_by_what_it_gains():
    more = [gain(d, f"e{at}", at / 100) for d in ("birds", "cars") for at in range(1, 9)]
    data = gains.data(pl.concat([GAINS.filter(pl.col("ensemble") != "nlc"), tidy(*more)]))
    assert set(data["method"]) == {"oracle", "class-oracle", "log-avg", "e1", "e2"}


def test_what_the_support_chooses_is_drawn_beside_the_zero_shot_head():
    most = ("birds", 4), ("cars", "full")
    of_choice = [gain(name, "chosen", 0.1, head="chosen", shots=shots) for name, shots in most]
    frame = pl.concat([GAINS, tidy(*of_choice, gain("cars", "nlc", 0.3, head="lda", shots=4))])
    data = by_method(gains.data(frame), "value")
    assert data["birds", "chosen"] == (pytest.approx(0.1),)
    assert data["cars", "nlc"] == (0.15,)


def test_gains_are_bars_of_oracles_and_marks_of_ensembles():
    ax = gains(gains.data(GAINS))
    names = [tick.get_text() for tick in ax.get_yticklabels()]
    assert names == ["cars", "birds", "mean of 2"]  # the largest gain on top
    assert sorted(bar.get_width() for bar in ax.patches) == pytest.approx([10, 11, 12, 20, 30, 40])
    dots = [line for line in ax.lines if line.get_marker() not in ("", "None", None)]
    assert sorted(line.get_xdata()[0] for line in dots) == pytest.approx([-2, -0.5, 1, 7, 11, 15])
    whiskers = sorted(tuple(map(float, it.get_segments()[0][:, 0])) for it in ax.collections)
    sides = {-2: 2, -0.5: math.sqrt(2), 1: 2, 7: 2, 11: math.sqrt(2), 15: 2}  # of means less
    assert whiskers == [pytest.approx((at - side, at + side)) for at, side in sides.items()]


def test_an_unknown_gain_counts_in_no_mean():
    frame = pl.concat([GAINS, tidy(gain("flags", "oracle", math.nan))])
    data = by_method(gains.data(frame), "value")
    assert data["flags", "oracle"] == (None,)
    assert data[None, "oracle"] == (pytest.approx(0.3),)
    gains(gains.data(frame))


@pytest.mark.parametrize("figure", [gains, few_shot], ids=["gains", "few-shot"])
@pytest.mark.parametrize(
    ("column", "words"),
    [
        ("perturbation", "perturbations=…"),
        ("prompts", "prompts=…"),
        ("support", "support, first, second, and this shows one: give a file of one"),
        ("support_prompts", "give a file of one"),
    ],
)
def test_results_of_several_kinds_are_not_mixed(figure, column, words):
    frames = [
        frame.with_columns(pl.lit(value).alias(column))
        for frame in (GAINS, CURVES)
        for value in ("first", "second")
    ]
    with pytest.raises(UsageError, match=words):
        figure.data(pl.concat(frames))


def test_gains_are_over_the_backbones_of_one_head():
    lda, probe = (GAINS.with_columns(head=pl.lit(name)) for name in ("lda", "linear-probe"))
    assert_frame_equal(gains.data(pl.concat([lda, GAINS, probe])), gains.data(GAINS))
    with pytest.raises(UsageError, match=r"heads, lda, linear-probe, .*: name it with heads=…"):
        gains.data(pl.concat([lda, probe]))


# chosen


def choice(dataset, accuracy, over, **more):
    about = {"head": "chosen", "shots": 4, "seed": 0} | more
    return row(dataset, "chosen", accuracy, **about), gain(dataset, "chosen", over, **about)


CHOICES = tidy(
    *choice("birds", 0.3, 0.05, shots=1),
    *choice("birds", 0.5, 0.1),
    *choice("birds", 0.6, -0.1, seed=1),
    *choice("birds", 0.1, -0.3, classes="base"),
    *choice("cars", 0.9, 0.2),
    row("birds", "oracle", 0.8, head="lda", shots=4),
    row("cars", "oracle", 0.95, head="lda", shots=4),
    row("birds", "oracle", 0.7),
    row("cars", "oracle", 0.75),
)


def test_bars_of_choices_are_means_over_draws_at_the_most_shots():
    assert by_method(choices.data(CHOICES), "value") == {
        ("birds", "oracle"): (0.8,),
        ("cars", "oracle"): (0.95,),
        ("birds", "best-single"): (pytest.approx(0.55),),  # 0.5 - 0.1 and 0.6 + 0.1
        ("cars", "best-single"): (pytest.approx(0.7),),
        ("birds", "chosen"): (pytest.approx(0.55),),
        ("cars", "chosen"): (0.9,),
        (None, "oracle"): (pytest.approx(0.875),),
        (None, "best-single"): (pytest.approx(0.625),),
        (None, "chosen"): (pytest.approx(0.725),),
    }


# few-shot


def curves(dataset, plus=0.0):
    """Two backbones, one ensemble that learns nothing, two that learn from one or four images."""
    yield row(dataset, "single", 0.4 + plus, backbones=BOTH[:1])
    yield row(dataset, "single", 0.5, backbones=BOTH[1:])
    yield row(dataset, "log-avg", 0.55 + plus)
    yield row(dataset, "oracle", 0.9)
    yield row(dataset, "chance", 0.1, backbones=())
    for name, shots, seed in product(("nlc", "best-single"), (1, 4), (0, 1)):
        value = (0.4 if name == "nlc" else 0.3) + plus + 0.05 * shots + 0.02 * seed
        yield row(dataset, name, value, shots=shots, seed=seed)
    yield row(dataset, "nlc", 0.8 + plus, shots="full")
    yield row(dataset, "best-single", 0.6 + plus, shots="full")


CURVES = tidy(*curves("birds"), *curves("cars", 0.2))


def curve(data, name, column="value"):
    return data.filter(series=name)[column].to_list()


def test_curves_are_means_over_datasets_and_draws():
    data = few_shot.data(CURVES)
    assert curve(data, "nlc", "shots") == ["1", "4", "full"]
    assert curve(data, "nlc") == pytest.approx([0.56, 0.71, 0.9])
    assert curve(data, "best-single") == pytest.approx([0.46, 0.61, 0.7])


def test_bands_go_from_the_worst_draw_to_the_best():
    data = few_shot.data(CURVES)
    assert curve(data, "nlc", "low") == pytest.approx([0.55, 0.7, 0.9])
    assert curve(data, "nlc", "high") == pytest.approx([0.57, 0.72, 0.9])
    assert curve(data, "nlc", "draws") == [2, 2, 1]


def test_what_learns_nothing_is_level():
    data = few_shot.data(CURVES)
    assert curve(data, "log-avg") == pytest.approx([0.65] * 3)
    assert curve(data, BEST) == pytest.approx([0.55] * 3)  # 0.5 and 0.6
    assert not {"oracle", "chance"} & set(data["method"])


def test_heads_stand_in_one_figure():
    other = tidy(*curves("birds", 0.01), *curves("cars", 0.01)).with_columns(head=pl.lit("lda"))
    other = other.with_columns(shots=pl.col("shots").replace("0", "1"))
    data = few_shot.data(pl.concat([CURVES, other]))
    assert {"nlc", "nlc on lda", "log-avg", BEST} <= set(data["series"])
    assert f"{BEST} on lda" not in set(data["series"])  # it would look like the other
    entries = [text.get_text() for text in few_shot(data).figure.legends[0].get_texts()]
    assert sorted(entries) == sorted(set(data["series"]))


def test_datasets_with_other_numbers_of_shots_are_left_out():
    fewer = tidy(*curves("flags")).filter(pl.col("shots") != "4")
    data = few_shot.data(pl.concat([fewer, CURVES]))
    assert curve(data, "nlc") == curve(few_shot.data(CURVES), "nlc")
    assert few_shot.about(data) == "mean over 2 of 3 datasets"


def test_datasets_with_one_number_of_shots_have_no_curve():
    fewer = [
        tidy(*curves(name)).filter(pl.col("shots").is_in(["0", "4"])) for name in ("x", "y", "z")
    ]
    with pytest.raises(UsageError, match=r"several numbers of labelled images.*clipsyn evaluate"):
        few_shot.data(pl.concat(fewer))


def test_the_first_six_ensembles_and_both_references_are_drawn():
    more = [
        row(dataset, f"e{at}", 0.5 + at / 100, shots=shots)
        for dataset in SERIES
        for at in range(9)
        for shots in (1, 4, "full")
    ]
    data = few_shot.data(pl.concat([CURVES, tidy(*more)]))
    assert set(data["series"]) == {BEST, "best-single", "nlc", "log-avg", "e0", "e1", "e2", "e3"}


def test_lines_go_through_the_numbers_at_equal_steps():
    data = few_shot.data(CURVES)
    ax = few_shot(data)
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["1", "4", "full"]
    lines = [line.get_ydata().tolist() for line in ax.lines]
    assert [100 * value for value in curve(data, "nlc")] in lines
    assert all(list(line.get_xdata()) == [0, 1, 2] for line in ax.lines)
    tops = [band.get_paths()[0].vertices[:, 1].max() for band in ax.collections]
    assert max(tops) == pytest.approx(90)


def test_what_is_unknown_is_left_out_of_means():
    broken = CURVES.with_columns(
        value=pl.when(dataset="cars", ensemble="nlc", seed=0).then(math.nan).otherwise("value")
    )
    data = few_shot.data(broken)
    assert np.isfinite(data["value"].to_numpy()).all()
    assert curve(data, "nlc", "low")[0] == pytest.approx(0.45)  # of birds alone
