"""Images to look at, against plain loops; how many of them only one backbone gets right."""

from __future__ import annotations

from collections import Counter

import numpy as np
import polars as pl
import pytest

from clipsyn.analyses.oracle import oracle
from clipsyn.analyses.predicted import predicted
from clipsyn.evaluation.loop import evaluate
from clipsyn.evaluation.selection import Selection
from clipsyn.evaluation.settings import predictions_of
from clipsyn.report.gallery import chosen_answers, examples, unique_table


def of(store):
    (group,) = predicted(store, Selection(perturbations=("clean",), splits=("test",)))
    return group


def shown(store, most=100, chosen=None):
    return examples(of(store), most, chosen or {})


@pytest.fixture
def drawn(answered):
    """Answers of four backbones at random; labels, with images that have none."""
    draw = np.random.default_rng(5)
    labels = draw.integers(-1, 3, 90)
    answers = {name: draw.integers(0, 3, 90) for name in "abcd"}
    return answered(answers, labels), answers, labels


def test_every_image_that_a_backbone_gets_wrong_is_there_with_what_each_says(drawn):
    store, answers, labels = drawn
    expected = {}
    for row, label in enumerate(labels):
        said = [every[row] for every in answers.values()]
        if label >= 0 and any(answer != label for answer in said):
            expected[f"pets-{row}.png"] = [
                (name, ("cat", "dog", "owl")[answer], answer == label)
                for name, answer in zip("abcd", said, strict=True)
            ]
    found = {it.id: [one[:3] for one in it.said] for it in shown(store)}
    assert found == expected


def test_there_are_as_many_of_each_kind_as_there_are(drawn):
    store, *_ = drawn

    def kinds(most):
        right = [[said.is_right for said in it.said] for it in shown(store, most)]
        return Counter(it.index(True) if sum(it) == 1 else -sum(it) - 1 for it in right)

    every, few = kinds(100), kinds(21)
    assert len(every) == 7  # one alone of four; none, two, three
    assert few.total() == 21
    assert max(few.values()) - min(few[kind] for kind in every if every[kind] > 4) <= 1


def test_what_the_chosen_method_gets_wrong_is_one_more_kind(answered):
    store = answered({"a": [0, 0, 1], "b": [0, 0, 0]}, [0, 0, 0])
    chosen = {"pets-0.png": (0, 0.9), "pets-1.png": (1, 0.4), "pets-2.png": (2, None)}
    found = shown(store, chosen=chosen)
    assert [it.id for it in found] == ["pets-1.png", "pets-2.png"]
    assert [it.said[-1] for it in found] == [
        ("chosen", "dog", False, 0.4),
        ("chosen", "owl", False, None),
    ]


def test_confidences_are_those_of_logits_and_not_known_of_answers_alone(answered):
    logits = np.log(np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1]], np.float32))
    (found,) = shown(answered({"a": logits, "b": [0, 0]}, [0, 0]))
    one, other = found.said
    assert one.confidence == pytest.approx(0.8, abs=1e-3)
    assert other.confidence is None


def test_answers_of_the_chosen_method_are_of_the_first_draw_at_the_most_shots(
    tiny_store, tmp_path, monkeypatch
):
    output, group = tmp_path / "results.parquet", of(tiny_store)
    evaluate(tiny_store, ensembles=["log-avg"], output=output)
    path = predictions_of(output)
    assert chosen_answers(None, group) == chosen_answers(path, group) == {}
    about = {"dataset": "toy", "split": "test", "perturbation": "clean", "prompts": group.prompts}
    about |= {"ensemble": "chosen", "sample_id": "x", "confidence": 0.5}
    made = [
        about | {"shots": shots, "seed": seed, "prediction": answer}
        for shots, seed, answer in (("4", 0, 2), ("16", 1, 1), ("16", 0, 0))
    ]
    monkeypatch.setattr("clipsyn.report.gallery.scan", lambda _: pl.LazyFrame(made))
    assert chosen_answers(path, group) == {"x": (0, 0.5)}


def test_an_image_that_some_backbone_could_not_read_does_not_count(answered):
    answers = {"a": [0, 0], "b": [1, 1]}
    store = answered(answers, [0, 0], valid={"b": np.array([True, False])})
    assert [it.id for it in shown(store)] == ["pets-0.png"]


def test_the_table_counts_images(answered, lines):
    answers = {"a": [0, 0, 1, 0], "b": [0, 1, 1, 1]}
    table = unique_table(oracle(answered(answers, [0, 0, 0, 0])))
    assert lines(table) == [{"dataset": "pets", "images": "4", "a": "2 | 50.0 %", "b": "0 | 0.0 %"}]
    assert {column.name for column in table.columns if column.best} == {"a"}


def test_no_table_where_there_is_no_other(answered):
    assert unique_table(oracle(answered({"a": [0, 1]}, [0, 0]))) is None
