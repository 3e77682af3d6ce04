import polars as pl
import pytest

from clipsyn.errors import UsageError
from clipsyn.evaluation.results.frame import RESULT, best_single, over_datasets, refuse_several


def test_the_best_single_backbone_is_the_first_of_equals_and_never_nan():
    def best(*accuracies):
        rows = [
            {"backbones": [name], "ensemble": "single", "metric": "acc1", "value": value}
            for name, value in zip("abc", accuracies, strict=True)
        ]
        oracle = {"backbones": [*"abc"], "ensemble": "oracle", "metric": "acc1", "value": 1.0}
        return best_single(pl.DataFrame([oracle, *rows], schema=RESULT))["backbones"]

    nan = float("nan")
    assert best(0.1, 0.5, 0.5) == ["b"]
    assert best(nan, 0.0, nan) == ["b"]
    assert best(nan, nan, nan) == ["a"]


@pytest.mark.parametrize(
    ("column", "setting", "kinds"),
    [
        ("split", "splits", "splits"),
        ("perturbation", "perturbations", "perturbations"),
        ("prompts", "prompts", "prompt sets"),
    ],
)
def test_several_of_a_kind_are_refused(column, setting, kinds):
    about = {"split": "test", "perturbation": "clean", "prompts": "own"}
    refuse_several(pl.DataFrame([about, about]))
    frame = pl.DataFrame([about | {column: text} for text in ("a", "b", "c", "d")])
    with pytest.raises(UsageError, match=f"4 {kinds}, a, b, c, …, .* name it with {setting}=…"):
        refuse_several(frame)


def test_means_over_datasets_are_of_known_values():
    def row(dataset, metric, value):
        numbers = {"value": value, "ci_low": value - 1, "ci_high": value + 1, "n": 10}
        return {"dataset": dataset, "metric": metric, **numbers}

    rows = [row("birds", "cka", 0.2), row("cars", "cka", 0.5), row("dogs", "cka", float("nan"))]
    rows += [row("birds", "acc1", 0.25), row("cars", "nll", float("nan"))]
    of_cka, of_acc1, of_nll = over_datasets(pl.DataFrame(rows), ["metric"]).to_dicts()
    mean = {"metric": "cka", "dataset": None, "ci_low": None, "ci_high": None, "n": 30}
    assert of_cka == mean | {"value": pytest.approx(0.35), "datasets": 2}
    assert of_acc1 == row("birds", "acc1", 0.25) | {"datasets": 1}
    assert (of_nll["dataset"], of_nll["value"], of_nll["datasets"]) == ("cars", None, 0)
