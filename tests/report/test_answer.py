"""What the answer says, of results made by hand; means over datasets against numbers by hand."""

import math
import re
from types import SimpleNamespace

import polars as pl
import pytest

from clipsyn.evaluation.results.frame import gain_metric
from clipsyn.report.page import rendered
from clipsyn.report.standings import answer, backbones, leading, main_part, methods, oracle
from clipsyn.report.tables import dataset_table, method_table
from clipsyn.show.table import mean_of

# What the answer says, of results made by hand


BOTH = ["a", "b"]


def text(html):
    return " ".join(re.sub("<[^>]*>", "", html).split())


def told(evidence):
    """The parts of the answer as the page has them."""
    html = rendered("answer.html", **answer(evidence))
    headline, *_ = re.findall('<p class="headline">(.*?)</p>', html, re.DOTALL)
    _, _, facts = html.partition('<ul class="facts">')
    bars = re.findall(
        r'<li class="(\w+)">\s*<span class="what">(.*?)</span>.*?class="value".*?width="([\d.]+)%"',
        html,
        re.DOTALL,
    )
    return SimpleNamespace(
        html=html,
        headline=text(headline),
        facts=[text(it) for it in re.findall("<li>(.*?)</li>", facts, re.DOTALL)],
        bars=[(text(what), kind, float(percent)) for kind, what, percent in bars],
        footnote=" ".join(map(text, re.findall('<p class="note">(.*?)</p>', html, re.DOTALL))),
    )


@pytest.fixture
def zeroshot(rows):
    """Backbone a has 60 and 40 %, b 50 and 44 %; the oracle 80 and 70 %."""
    found = []
    for dataset, numbers in {"pets": (0.6, 0.5, 0.8), "food": (0.4, 0.44, 0.7)}.items():
        about = {"dataset": dataset}
        for name, value in zip(BOTH, numbers, strict=False):
            found.append(about | {"backbones": [name], "value": value, "low": 0.1, "high": 0.9})
        union = about | {"backbones": BOTH, "ensemble": "oracle", "value": numbers[2]}
        found.append(union | {"low": 0.6, "high": 0.9})
    return rows(*found)


@pytest.fixture
def results(rows):
    """Function (gains on two datasets, half width, chosen) -> results of evaluate.

    super-learner has the gains; so has what is chosen, unless there is none. log-avg gains one
    point, which no label decides. The chosen backbone has 50 %.
    """

    def make(gains, width, choices=("lda · moe", "lda · moe")):
        found = []
        for dataset, gain, choice in zip(("pets", "food"), gains, choices, strict=True):
            methods = [
                ("best-single", 0, "16"),
                ("log-avg", 0.01, "0"),
                ("super-learner", gain, "16"),
            ]
            for name, lead, shots in [*methods, *([("chosen", gain, "16")] if choice else [])]:
                about = {"dataset": dataset, "ensemble": name, "backbones": BOTH}
                if name == "chosen":
                    about |= {"head": "chosen"}
                found.append(about | {"value": 0.5 + lead, "shots": shots})
                ends = {"low": lead - width, "high": lead + width, "shots": "16"}
                found.append(about | {"metric": "gain", "value": lead} | ends)
                if name == "chosen":
                    over = {"metric": "gain_over_zero_shot", "value": lead + 0.02}
                    over |= {"low": ends["low"] + 0.02, "high": ends["high"] + 0.02}
                    found.append(found[-1] | over)
        names = dict(zip(("pets", "food"), choices, strict=True))
        choice = pl.when(ensemble="chosen").then(pl.col("dataset").replace_strict(names))
        return rows(*found).with_columns(choice=choice)

    return make


def without_support(frame):
    """What nothing is fitted for, with gains over the backbone that is best on test."""
    return frame.filter(ensemble="log-avg").with_columns(
        pl.col("metric").replace("gain", "gain_over_best_on_test")
    )


def evidence(zeroshot, results=None, paired=None, **gflops):
    frames = {"zeroshot": zeroshot, "evaluate": results, "compare": paired}
    return SimpleNamespace(
        frames={name: frame for name, frame in frames.items() if frame is not None},
        gflops=gflops,
        has_support=results is not None and gain_metric(results) == "gain",
    )


def test_a_cascade_that_was_measured_stands_beside_the_cost(zeroshot, results, rows):
    about = {"ensemble": "log-avg", "backbones": BOTH}
    found = [
        about | {"dataset": dataset, "metric": metric, "value": value, "low": low, "high": high}
        for dataset, accuracy, cost in (("pets", 0.61, 4.0), ("food", 0.45, 3.0))
        for metric, value, low, high in (
            ("acc1", accuracy, accuracy - 0.03, accuracy + 0.03),
            ("mean_gflops", cost, cost, cost),
        )
    ]
    measured = rows(*found).with_columns(rule=pl.lit("within"))
    others = measured.with_columns(pl.col("value") * 0.5, rule=pl.lit("given"))
    shown = evidence(zeroshot, results((0.03, 0.01), 0.005), a=1, b=9)
    (before,) = (fact for fact in told(shown).facts if fact.startswith("Cost."))
    assert "cascade" not in before
    shown.frames["cascade"] = pl.concat([others, measured])
    (fact,) = (fact for fact in told(shown).facts if fact.startswith("Cost."))
    assert fact.startswith(before)
    # half of the root of 0.03² twice is 0.021
    assert all(it in fact for it in ("53.0 %", "50.9", "55.1", "3.5 GFLOPs"))


class TestStandings:
    def test_backbones_come_by_their_mean(self, zeroshot):
        one, two = backbones(zeroshot)
        assert (one.name, one.accuracy.value) == ("a", pytest.approx(0.5))
        assert (two.name, two.accuracy.value) == ("b", pytest.approx(0.47))

    def test_one_that_lacks_a_dataset_comes_after_those_that_have_it(self, zeroshot):
        is_a = pl.col("backbones") == ["a"]
        lacking = zeroshot.filter(~(is_a & (pl.col("dataset") == "food")))
        assert [it.name for it in backbones(lacking)] == ["b", "a"]

    def test_the_oracle_is_that_of_all_backbones(self, zeroshot, rows):
        alone = {"ensemble": "oracle", "backbones": ["a"], "value": 0.1}
        assert oracle(pl.concat([rows(alone), zeroshot])).accuracy.value == pytest.approx(0.75)

    def test_methods_have_means_over_datasets(self, results):
        found = {it.name: it for it in methods(results((0.04, 0.02), 0.03))}
        learned = found["super-learner"]
        assert learned.accuracy.value == pytest.approx(0.53)
        assert learned.gain.value == pytest.approx(0.03)
        assert learned.opponent.value == pytest.approx(0.5)
        assert (learned.better, learned.worse) == (1, 0)
        assert learned.least == ("food", pytest.approx(0.02))
        assert (learned.shots, found["log-avg"].shots) == ("16 shots", None)

    def test_draws_of_one_dataset_count_once(self, results):
        frame = results((0.04, 0.02), 0.03)
        again = frame.filter(ensemble="super-learner").with_columns(
            pl.lit(1, pl.Int32).alias("seed"), pl.col("value") + 0.02
        )
        found = {it.name: it for it in methods(pl.concat([frame, again]))}
        assert found["super-learner"].gain.value == pytest.approx(0.04)
        assert found["super-learner"].gain.datasets == 2


class TestLeading:
    def test_what_the_support_chose_comes_first(self, results):
        assert leading(methods(results((-0.1, -0.1), 0.01))).name == "chosen"

    def test_without_a_choice_the_best_that_needs_no_labels_comes_first(self, results):
        assert leading(methods(results((0.4, 0.4), 0.01, (None, None)))).name == "log-avg"

    def test_an_oracle_never_leads(self, zeroshot):
        assert leading(methods(zeroshot)) is None


class TestAnswer:
    def test_the_choice_has_its_gains_with_intervals_and_its_cost(self, zeroshot, results):
        said = told(evidence(zeroshot, results((0.04, 0.06), 0.01), a=4, b=6))
        # 0.01 * sqrt(2) / 2 = 0.0071 on both sides of 0.05
        numbers = [
            "lda · moe",
            "55.0 %",
            "5.0 points (4.3\N{EN DASH}5.7)",
            "7.0 points",
            "10 GFLOPs",
        ]
        assert all(it in said.headline for it in numbers)
        assert said.bars == [
            ("best single backbone", "single", 50),
            ("chosen by the labels", "combined", 55),
            ("a perfect choice for each image oracle", "oracle", 75),
        ]

    @pytest.mark.parametrize(
        ("gains", "first"),
        [
            ((0.04, 0.02), "Nothing here is surely better than one backbone: lda"),
            ((-0.4, -0.2), "One backbone is better: lda"),
        ],
    )
    def test_a_gain_within_chance_and_a_loss_are_no_advice(self, gains, first, zeroshot, results):
        said = told(evidence(zeroshot, results(gains, 0.1)))
        assert said.headline.startswith(first)

    def test_what_needs_no_label_comes_next(self, zeroshot, results):
        facts = " ".join(told(evidence(zeroshot, results((0.04, 0.06), 0.1))).facts)
        assert "Without labels, log-avg has 51.0 %: 1.0 points (-6.1 to 8.1) over" in facts
        assert "which may be chance." in facts

    def test_without_a_support_nothing_is_said_of_one(self, zeroshot, results):
        frame = without_support(results((0.04, 0.06), 0.01))
        said = told(evidence(zeroshot, frame))
        assert "1.0 points (0.3\N{EN DASH}1.7) over the backbone that is best on" in said.headline
        assert "support" not in " ".join([said.headline, *said.facts, said.footnote])
        assert said.bars[0][0] == "best backbone, in hindsight a"

    def test_the_limit_is_that_of_the_head_with_the_highest(self, zeroshot, results, rows):
        union = {"backbones": BOTH, "ensemble": "oracle", "head": "lda", "value": 0.9}
        union |= {"shots": "16"}
        frame = pl.concat([results((0.04, 0.06), 0.1), rows(union)], how="diagonal")
        facts = " ".join(told(evidence(zeroshot, frame)).facts)
        assert "with head lda, is right on 90.0 %" in facts

    def test_without_numbers_there_is_none(self):
        said = told(evidence(None))
        assert "Nothing here has both labels and predictions" in said.headline
        assert (said.facts, said.bars, said.footnote) == ([], [], "")

    def test_names_are_escaped(self, zeroshot):
        is_a = pl.col("backbones") == ["a"]
        odd = pl.when(is_a).then(pl.lit(["<b>&"])).otherwise(pl.col("backbones"))
        said = told(evidence(zeroshot.with_columns(backbones=odd)))
        assert "&lt;b&gt;&amp;" in said.html
        assert "<b>&" not in said.html


class TestTables:
    def test_each_dataset_has_the_method_of_the_answer(self, zeroshot, results, lines):
        frame = results((0.04, 0.06), 0.01, ("lda · moe", "single · a"))
        heads = "chosen", "its gain", "chose"
        table = dataset_table(evidence(zeroshot, frame), methods(frame)[0])
        pets, food = ([line[head].split(" |")[0] for head in heads] for line in lines(table))
        assert pets == ["54.0", "+4.0", "lda · moe"]
        assert food == ["56.0", "+6.0", "single · a"]

    def test_what_knows_the_test_labels_says_so_whatever_the_head(self, results, rows, lines):
        about = {"head": "lda", "shots": "16", "value": 0.9}
        more = [about | {"ensemble": "oracle", "backbones": BOTH}, about | {"backbones": ["a"]}]
        frame = pl.concat([results((0.04, 0.06), 0.01), rows(*more)], how="diagonal")
        shown = lines(method_table(methods(frame), ""))
        fitted = {line["method"].split(" |")[0]: line["fitted on"] for line in shown}
        assert fitted["oracle"] == fitted["best on test"] == "test labels"
        assert fitted["super-learner"] == "16 shots"


# Means over datasets, against numbers worked out by hand


NAN = math.nan
A, B = {"value": 1}, {"value": 2}


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        # (0.5 + 0.7) / 2; below sqrt(0.3^2 + 0.4^2) / 2 = 0.25, above sqrt(0.4^2 + 0.3^2) / 2
        ([(0.5, 0.2, 0.9), (0.7, 0.3, 1.0)], (0.6, 0.35, 0.85, 2)),
        ([(0.5, 0.4, 0.6), (0.7, None, None)], (0.6, None, None, 2)),
        ([(0.5, NAN, NAN)], (0.5, None, None, 1)),
        ([(NAN, None, None), (0.4, 0.3, 0.5)], (0.4, 0.3, 0.5, 1)),
        ([(NAN, None, None)], None),
        ([], None),
    ],
)
def test_distances_to_the_bounds_add_up_as_squares(numbers, expected):
    assert mean_of(numbers) == (expected and pytest.approx(expected))


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ([A, B | {"perturbation": "jpeg-3"}], [1]),  # clean images, where there are any
        ([A | {"perturbation": "fog-1"}, B | {"perturbation": "all"}], [2]),
        ([A | {"perturbation": "fog-1"}, B | {"perturbation": "fog-2"}], [1, 2]),
        ([A | {"prompts": "z"}, B | {"prompts": "a"}], [2]),  # of equals the first by name
        ([A, B | {"dataset": None}, B | {"classes": "new"}], [1]),
    ],
)
def test_the_main_part(rows, given, kept):
    assert main_part(rows(*given))["value"].to_list() == kept


def test_the_main_part_has_the_prompt_set_that_most_datasets_have(rows):
    sets = {"one": "az", "two": "z", "three": "b"}
    every = [A | {"dataset": of, "prompts": name} for of, names in sets.items() for name in names]
    chosen = dict(main_part(rows(*every)).select("dataset", "prompts").rows())
    assert chosen == {"one": "z", "two": "z", "three": "b"}
