"""Bars of the chosen method, the chosen backbone and the oracle."""

from __future__ import annotations

import polars as pl
import pytest

from clipsyn.errors import UsageError
from clipsyn.evaluation.bars import chosen_bars
from clipsyn.evaluation.results.frame import RESULT


def row(dataset, head, ensemble, metric, value, **more):
    about = {"dataset": dataset, "split": "test", "perturbation": "clean", "prompts": "own"}
    about |= {"classes": "all", "shots": "4", "seed": 0, "n": 100, "backbones": ["a", "b"]}
    interval = {"ci_low": value - 0.1, "ci_high": value + 0.1}
    return (
        about
        | {"head": head, "ensemble": ensemble, "metric": metric, "value": value}
        | interval
        | more
    )


def choice(dataset, accuracy, gain, **more):
    said = {"acc1": accuracy, "gain": gain}
    return [row(dataset, "chosen", "chosen", metric, it, **more) for metric, it in said.items()]


FRAME = pl.DataFrame(
    [
        *choice("birds", 0.3, 0.05, shots="1"),
        *choice("birds", 0.5, 0.1),
        *choice("birds", 0.6, -0.1, seed=1),
        *choice("cars", 0.9, 0.2),
        row("birds", "lda", "oracle", "acc1", 0.8),
        row("cars", "lda", "oracle", "acc1", 0.95),
        row("birds", "zero-shot", "oracle", "acc1", 0.7, shots="0"),
        row("cars", "zero-shot", "oracle", "acc1", 0.75, shots="0"),
        row("cars", "tip-adapter", "oracle", "acc1", 0.99),  # which birds lack
    ],
    schema=RESULT,
)


def values(data):
    known = data.select("dataset", "method", "value").rows()
    return {(dataset, method): value for dataset, method, value in known}


def test_bars_are_means_over_draws_at_the_most_shots():
    found = values(chosen_bars.data(FRAME))
    assert found == pytest.approx(
        {
            ("birds", "oracle"): 0.8,
            ("cars", "oracle"): 0.95,
            ("birds", "best-single"): 0.55,  # 0.5 - 0.1 and 0.6 + 0.1
            ("cars", "best-single"): 0.7,
            ("birds", "chosen"): 0.55,
            ("cars", "chosen"): 0.9,
            (None, "oracle"): 0.875,
            (None, "best-single"): 0.625,
            (None, "chosen"): 0.725,
        }
    )
    assert chosen_bars.about(chosen_bars.data(FRAME)).endswith("head lda")


def test_the_best_stands_on_top_and_the_mean_below():
    ax = chosen_bars(chosen_bars.data(FRAME))
    assert [text.get_text() for text in ax.get_yticklabels()] == ["cars", "birds", "mean of 2"]
    assert sorted(bar.get_width() for bar in ax.patches)[-1] == pytest.approx(95)


def test_without_an_oracle_or_with_one_dataset():
    data = chosen_bars.data(FRAME.filter(dataset="cars", ensemble="chosen"))
    assert values(data) == pytest.approx({("cars", "best-single"): 0.7, ("cars", "chosen"): 0.9})
    chosen_bars(data)


def test_nothing_was_chosen():
    with pytest.raises(UsageError):
        chosen_bars.data(FRAME.filter(ensemble="oracle"))
