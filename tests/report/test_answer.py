"""What the answer says, of results made by hand."""

from __future__ import annotations

import re
from types import SimpleNamespace

import polars as pl
import pytest

from clipsyn.report.answer import answer, choose
from clipsyn.report.standings import backbones, methods, oracle
from clipsyn.report.tables import dataset_grid

BOTH = ["a", "b"]


def text(html: str) -> str:
    return re.sub("<[^>]*>", "", html)


@pytest.fixture
def zeroshot(rows) -> pl.DataFrame:
    """Backbone a has 60 and 40 %, b 50 and 44 %; the oracle 80 and 70 %."""
    found = []
    for dataset, numbers in {"pets": (0.6, 0.5, 0.8), "food": (0.4, 0.44, 0.7)}.items():
        about = {"dataset": dataset}
        for name, value in zip(BOTH, numbers, strict=False):
            found.append(about | {"backbones": [name], "value": value, "low": 0.1, "high": 0.9})
        union = about | {"backbones": BOTH, "ensemble": "oracle"}
        found.append(union | {"value": numbers[2], "low": 0.6, "high": 0.9})
        gain = numbers[2] - max(numbers[:2])
        found.append(
            union
            | {
                "metric": "gain_over_best_on_test",
                "value": gain,
                "low": gain - 0.1,
                "high": gain + 0.1,
            }
        )
    return rows(*found)


@pytest.fixture
def results(rows):
    """Function (gain of super-learner on two datasets, half width) -> results of evaluate."""

    def make(gains, width):
        found = []
        for dataset, gain in zip(("pets", "food"), gains, strict=True):
            for name, value, shots in (
                ("best-single", 0, 16),
                ("log-avg", 0.01, 0),
                ("super-learner", gain, 16),
            ):
                about = {"dataset": dataset, "ensemble": name, "backbones": BOTH}
                seed = None if shots == 0 else 0
                found.append(about | {"value": 0.5 + value, "shots": shots, "seed": seed})
                found.append(
                    about
                    | {"metric": "gain", "value": value, "low": value - width}
                    | {"high": value + width, "shots": 16, "seed": 0}
                )
        return rows(*found)

    return make


def evidence(
    zeroshot: pl.DataFrame | None, results: pl.DataFrame | None = None, sharing=None, **gflops
):
    frames = {"zeroshot": zeroshot, "evaluate": results}
    kept = {name: frame for name, frame in frames.items() if frame is not None}
    return SimpleNamespace(frames=kept, gflops=gflops, sharing=sharing or {})


class TestStandings:
    def test_backbones_come_by_their_mean(self, zeroshot):
        one, two = backbones(zeroshot)
        assert (one.name, one.accuracy.value, one.best_on) == ("a", pytest.approx(0.5), 1)
        assert (two.name, two.accuracy.value, two.best_on) == ("b", pytest.approx(0.47), 1)

    def test_one_that_lacks_a_dataset_comes_after_those_that_have_it(self, zeroshot):
        is_a = pl.col("backbones") == ["a"]
        lacking = zeroshot.filter(~(is_a & (pl.col("dataset") == "food")))
        assert [it.name for it in backbones(lacking)] == ["b", "a"]

    def test_the_oracle_is_that_of_all_backbones(self, zeroshot, rows):
        alone = {"ensemble": "oracle", "backbones": ["a"], "value": 0.1}
        accuracy, gain = oracle(pl.concat([rows(alone), zeroshot]))
        assert accuracy.value == pytest.approx(0.75)
        assert gain.value == pytest.approx((0.2 + 0.26) / 2)

    def test_methods_have_means_over_datasets(self, results):
        found = {it.name: it for it in methods(results((0.04, 0.02), 0.03))}
        learned = found["super-learner"]
        assert learned.accuracy.value == pytest.approx(0.53)
        assert learned.gain.value == pytest.approx(0.03)
        assert (learned.better, learned.worse) == (1, 0)
        assert learned.least == ("food", pytest.approx(0.02))
        assert learned.shots == "16 shots"
        assert found["log-avg"].shots is None

    def test_draws_of_one_dataset_count_once(self, results, rows):
        frame = results((0.04, 0.02), 0.03)
        again = frame.filter(ensemble="super-learner").with_columns(
            pl.lit(1, pl.Int32).alias("seed"), pl.col("value") + 0.02
        )
        found = {it.name: it for it in methods(pl.concat([frame, again]))}
        assert found["super-learner"].gain.value == pytest.approx(0.04)
        assert found["super-learner"].gain.datasets == 2


class TestAnswer:
    def test_a_sure_gain_is_said_with_its_interval(self, zeroshot, results):
        said = answer(evidence(zeroshot, results((0.04, 0.06), 0.01)))
        headline = text(said.headline)
        # 0.01 * sqrt(2) / 2 = 0.0071 on both sides of 0.05
        assert "super-learner" in headline
        assert "5.0 points (4.3\N{EN DASH}5.7)" in headline
        assert "2 datasets" in headline

    def test_a_gain_within_chance_is_no_advice(self, zeroshot, results):
        said = text(answer(evidence(zeroshot, results((0.04, 0.02), 0.1))).headline)
        assert said.startswith("Combining is not surely better")

    def test_nor_is_a_loss(self, zeroshot, results):
        frame = results((-0.04, -0.02), 0.01)
        lost = frame.with_columns(
            value=pl.when(ensemble="log-avg").then(-0.05).otherwise(pl.col("value"))
        )
        assert text(answer(evidence(zeroshot, lost)).headline).startswith("One backbone is enough")

    def test_what_leads_in_hindsight_alone_is_no_advice(self, zeroshot, results):
        """super-learner gains 1.5 points on average; who chose it elsewhere lost one."""
        said = answer(evidence(zeroshot, results((0.06, -0.03), 0.001)))
        assert text(said.headline) == (
            "One backbone is enough: a combination chosen on other datasets differs from the "
            "one that is best on the support by -1.0 points (-1.1 to -0.9), on average over 2 "
            "datasets."
        )
        facts = " ".join(map(text, said.facts))
        assert "with the one of 2 combinations that gains most on the others" in facts
        assert "log-avg (once) and super-learner (once)" in facts
        assert "In hindsight super-learner gains most, 1.5 points (1.4\N{EN DASH}1.6)" in facts
        assert "The choice gains beyond its interval on 1 of 2 datasets" in facts
        assert "least on food: -3.0 points" in facts
        shown = {bar.what: (text(bar.name), bar.percent) for bar in said.bars}
        assert shown["combination chosen on other datasets"] == ("", "49.00")
        assert shown["best combination, in hindsight"] == ("super-learner", "51.50")

    def test_one_dataset_has_the_best_in_hindsight_and_says_so(self, zeroshot, results):
        one = results((0.04, 0.06), 0.01).filter(dataset="pets")
        said = answer(evidence(zeroshot, one))
        assert text(said.headline).startswith(
            "Combine them: super-learner of all 2 backbones gains 4.0 points (3.0\N{EN DASH}5.0)"
        )
        assert "It is the best of 2 combinations on these very images" in " ".join(said.facts)
        assert [bar.what for bar in said.bars if bar.kind == "combined"] == ["best combination"]

    def test_so_have_datasets_of_the_same_images(self, zeroshot, results):
        same = {"pets": {"food"}, "food": {"pets"}}
        said = answer(evidence(zeroshot, results((0.04, 0.06), 0.01), same))
        assert text(said.headline).startswith("Combine them: super-learner of all 2")
        assert "on these very images, which flatters it" in " ".join(said.facts)

    def test_what_a_dataset_lacks_is_left_aside(self, zeroshot, results):
        is_learned, is_food = pl.col("ensemble") == "super-learner", pl.col("dataset") == "food"
        frame = results((0.04, 0.06), 0.01).filter(~(is_learned & is_food))
        said = answer(evidence(zeroshot, frame))
        facts = " ".join(map(text, said.facts))
        assert "Combine them: log-avg of all 2 backbones gains 1.0" in text(said.headline)
        assert "Left aside, since not all datasets have them: super-learner." in facts

    def test_the_test_is_of_the_combination_to_take(self, zeroshot, results):
        row = {"dataset": None, "perturbation": "clean", "classes": "all", "split": "test"}
        row |= {"prompts": "own", "head": "zero-shot", "first": "best-single", "tie": False}
        row |= {"second": "super-learner", "difference": -0.015, "ci_low": -0.02, "ci_high": -0.01}
        row |= {"both_low": float("nan"), "both_high": float("nan"), "p_holm": 0.01}

        def said(gains):
            given = evidence(zeroshot, results(gains, 0.001))
            given.frames["test"] = pl.DataFrame([row])
            return " ".join(map(text, answer(given).facts))

        assert "Tested image by image, super-learner leads by 1.5 points (1.0" in said((0.04, 0.06))
        assert "super-learner, taken on every dataset, leads by 1.5" in said((0.06, -0.03))

    def test_the_bars_are_those_of_the_best(self, zeroshot, results):
        said = answer(evidence(zeroshot, results((0.04, 0.06), 0.01)))
        shown = {bar.kind: float(bar.percent) for bar in said.bars}
        assert shown == {"single": 50, "chosen": 50, "combined": 55, "oracle": 75}

    def test_what_needs_no_label_is_named(self, zeroshot, results):
        facts = " ".join(map(text, answer(evidence(zeroshot, results((0.04, 0.06), 0.01))).facts))
        assert "Without any label log-avg gains 1.0 points" in facts

    def test_the_cost_is_the_sum(self, zeroshot, results):
        given = evidence(zeroshot, results((0.04, 0.06), 0.01), a=4, b=6)
        facts = " ".join(map(text, answer(given).facts))
        assert "take 10 GFLOPs an image, 2.5 times as much as a alone" in facts

    def test_large_costs_are_written_out(self, zeroshot, results):
        given = evidence(zeroshot, results((0.04, 0.06), 0.01), a=341.2, b=1000)
        facts = " ".join(map(text, answer(given).facts))
        assert "take 1,341 GFLOPs" in facts

    def test_no_cost_is_said_where_one_is_not_known(self, zeroshot):
        facts = " ".join(map(text, answer(evidence(zeroshot, a=4)).facts))
        assert "GFLOPs" not in facts

    def test_backbones_alone_get_an_answer_and_a_command(self, zeroshot):
        said = answer(evidence(zeroshot))
        assert "a is the best backbone alone, with 50.0 %" in text(said.headline)
        assert "75.0 %" in text(said.headline)
        assert "clipsyn evaluate" in said.facts[-1]
        assert [bar.kind for bar in said.bars] == ["single", "oracle"]

    def test_one_backbone_has_no_oracle(self, zeroshot):
        alone = zeroshot.filter(pl.col("backbones") == ["a"])
        said = answer(evidence(alone))
        assert "no other" in said.headline
        assert [bar.kind for bar in said.bars] == ["single"]

    def test_without_numbers_there_is_none(self):
        said = answer(evidence(None))
        assert "Nothing here has both labels and predictions" in said.headline
        assert (said.facts, said.bars) == ((), ())

    def test_names_are_escaped(self, zeroshot):
        odd = zeroshot.with_columns(
            backbones=pl.when(pl.col("backbones") == ["a"])
            .then(pl.lit(["<b>&"]))
            .otherwise(pl.col("backbones"))
        )
        said = answer(evidence(odd))
        assert "&lt;b&gt;&amp;" in said.headline
        assert "<b>&" not in said.headline


class TestDatasets:
    """What the answer is made of, dataset by dataset."""

    def table(self, zeroshot, frame):
        choice = choose(methods(frame), {})
        grid = dataset_grid(evidence(zeroshot, frame), choice)
        return [{head: text(cell.text) for head, cell in line.items()} for line in grid.lines]

    def test_where_choices_differ_each_is_named_with_its_gain(self, zeroshot, results):
        pets, food = self.table(zeroshot, results((0.06, -0.03), 0.001))
        assert (pets["combination"], pets["its gain"]) == ("log-avg", "+1.0")
        assert (food["combination"], food["its gain"]) == ("super-learner", "-3.0")

    def test_where_they_agree_the_head_has_the_name(self, zeroshot, results):
        pets, food = self.table(zeroshot, results((0.04, 0.06), 0.01))
        assert (pets["super-learner"], pets["its gain"]) == ("54.0", "+4.0")
        assert (food["super-learner"], food["its gain"]) == ("56.0", "+6.0")

    def test_what_is_not_known_is_left_open(self, zeroshot, results):
        one = results((0.04, 0.06), 0.01).filter(dataset="pets")
        pets, food = self.table(zeroshot, one)
        assert pets["its gain"] == "+4.0"
        assert (food["super-learner"], food["its gain"]) == ("\N{EN DASH}", "\N{EN DASH}")
