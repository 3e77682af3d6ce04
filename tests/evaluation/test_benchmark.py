"""CLIP_benchmark's columns: what goes out comes back, to the last bit."""

import csv
import io

import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from clipsyn.errors import UsageError
from clipsyn.evaluation.published import benchmark_columns
from clipsyn.show.frames import guarded, unguarded
from tests.results import row as made
from tests.results import tidy


def row(backbone, metric, value, **more):
    return made(metric, value, [backbone], off=None, **{"dataset": "vtab/pets", "n": 3000} | more)


def benchmark_csv(numbers):
    return guarded(benchmark_columns(numbers)).write_csv()


def read(text):
    return list(csv.DictReader(io.StringIO(text)))


def backbone_of(found):
    """As a reader of CLIP_benchmark's CSV would make a name of it."""
    assert found["model_fullname"] == f"{found['model']} {found['pretrained']}"
    return f"{found['model']}/{found['pretrained']}" if found["pretrained"] else found["model"]


def test_a_row_has_what_clip_benchmark_writes():
    values = {"acc1": 1 / 3, "acc5": 0.1 + 0.2, "mean_per_class_recall": 0.31}
    (found,) = read(benchmark_csv(tidy(*(row("ViT-B-32/openai", *it) for it in values.items()))))
    assert list(found) == [
        *("acc1", "acc5", "mean_per_class_recall", "dataset", "model", "pretrained", "task"),
        *("model_fullname", "split", "perturbation", "prompts", "n"),
    ]
    assert {name: float(found[name]) for name in values} == values
    assert (found["dataset"], found["model"], found["pretrained"]) == (
        *("vtab/pets", "ViT-B-32", "openai"),
    )
    assert found["task"] == "zeroshot_classification"


def test_a_missing_number_is_an_empty_cell():
    nothing = row("a/x", "mean_per_class_recall", float("nan"))
    (found,) = read(benchmark_csv(tidy(row("a/x", "acc1", 0.5), nothing)))
    assert (found["acc5"], found["mean_per_class_recall"]) == ("", "")


def test_linear_probes_have_columns_of_their_own():
    probe = {"head": "linear-probe", "shots": "16", "seed": 2}
    whole = {"head": "linear-probe", "shots": "full", "seed": None}
    zero, few, full = read(
        benchmark_csv(
            tidy(
                row("a/x", "acc1", 0.5),
                row("a/x", "acc1", 0.6, **probe),
                row("a/x", "acc1", 0.7, **whole),
            )
        )
    )
    assert (zero["acc1"], zero["lp_acc1"], zero["task"]) == ("0.5", "", "zeroshot_classification")
    assert (zero["fewshot_k"], zero["seed"]) == ("", "")
    assert (few["acc1"], few["lp_acc1"], few["task"]) == ("", "0.6", "linear_probe")
    assert (few["fewshot_k"], few["seed"]) == ("16", "2")
    assert (full["fewshot_k"], full["seed"], full["lp_acc1"]) == ("-1", "", "0.7")


def test_what_clip_benchmark_does_not_measure_has_no_row():
    others = [
        row("a/x", "acc1", 0.9, ensemble="oracle"),
        row("a/x", "acc1", 0.9, head="tip-adapter", shots="1"),
        row("a/x", "acc1", 0.9, classes="base"),
        row("a/x", "nll", 0.9),
    ]
    (found,) = read(benchmark_csv(tidy(row("a/x", "acc1", 0.5), *others)))
    assert found["acc1"] == "0.5"
    with pytest.raises(UsageError, match="there are none"):
        benchmark_csv(tidy(*others))


@given(
    st.text(st.characters(exclude_categories=["C"]), min_size=1).filter(str.strip), st.floats(0, 1)
)
@example('a"b,c/d', 0.1)
@example("hf-hub:a/b", 5e-324)
@example("//", 1.0)
@example("/=", 0.0)  # a tag that a spreadsheet would run
def test_a_round_trip_is_exact(backbone, value):
    written = benchmark_csv(tidy(row(f"x{backbone}", "acc1", value)))
    (found,) = unguarded(pl.DataFrame(read(written))).to_dicts()
    assert backbone_of(found) == f"x{backbone}"
    assert float(found["acc1"]) == value
