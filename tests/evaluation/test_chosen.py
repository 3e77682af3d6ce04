"""The rows of what the support chooses are those of the head and the ensemble by name."""

import polars as pl
import pytest

from clipsyn.evaluation.loop import evaluate
from clipsyn.evaluation.tables import tables

METHODS = {"heads": ["zero-shot", "lda"], "ensembles": ["log-avg", "super-learner", "chosen"]}


def value(frame, metric, **where):
    return frame.filter(metric=metric, **where)["value"].item()


def test_the_chosen_method_has_the_numbers_that_it_has_by_name(tiny_store):
    frame = evaluate(tiny_store, datasets="toy", shots=[1, 3], seeds=2, **METHODS)
    chosen = frame.filter(head="chosen")
    assert set(chosen["ensemble"]) == {"chosen"}
    assert set(chosen["shots"]) == {"1", "3"}
    for row in chosen.filter(metric="acc1", perturbation="clean").rows(named=True):
        head, ensemble = row["choice"].split(" · ")
        drawn = {"split": row["split"], "shots": row["shots"], "seed": row["seed"]}
        there = frame.filter(head=head, ensemble=ensemble, split=row["split"])
        learned = there.filter(pl.col("shots").is_in(["0", row["shots"]]))
        same = learned.filter(pl.col("seed").is_null() | (pl.col("seed") == row["seed"]))
        assert row["value"] == value(same.filter(perturbation="clean"), "acc1")
        single = frame.filter(head=head, ensemble="best-single", **drawn)
        gain = value(chosen.filter(perturbation="clean", **drawn), "gain")
        assert gain == pytest.approx(row["value"] - value(single, "acc1"))
        unheaded = frame.filter(head="zero-shot", ensemble="best-single", **drawn)
        over = value(chosen.filter(perturbation="clean", **drawn), "gain_over_zero_shot")
        assert over == pytest.approx(row["value"] - value(unheaded, "acc1"))


def test_it_is_chosen_from_what_is_asked_for(tiny_store, tmp_path):
    path = tmp_path / "results.parquet"
    asked = {"datasets": "toy", "shots": [2], "seeds": 1, "output": path}
    one = evaluate(tiny_store, heads=["lda"], ensembles=["log-avg", "chosen"], **asked)
    assert set(one.filter(head="chosen")["choice"]) <= {"lda · log-avg", "lda · best-single"}
    known = evaluate(tiny_store, heads=["lda"], ensembles=["log-avg", "chosen"], **asked)
    assert known.equals(one)  # nothing is fitted again
    without = evaluate(tiny_store, heads=["lda"], ensembles=["log-avg"], **asked)
    assert without.filter(head="chosen").is_empty()


def test_a_table_says_what_was_chosen(tiny_store):
    frame = evaluate(tiny_store, datasets="toy", shots=[1, 3], seeds=1, **METHODS)
    shown = tables(frame)
    (table,) = shown["chosen"]
    assert len(table) == frame.filter(head="chosen", metric="acc1").height
    assert not [name for name in shown if "head chosen" in name]
