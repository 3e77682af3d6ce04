"""Methods of a file compared: against a second implementation, and against `evaluate`."""

import shutil
from itertools import combinations

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from clipsyn.errors import UnknownName, UsageError
from clipsyn.evaluation import predictions_of
from clipsyn.evaluation.loop import evaluate
from clipsyn.evaluation.paired import PAIRS, compare_methods
from clipsyn.stats.differences import holm, mcnemar


def test_every_pair_has_a_row_for_each_dataset_and_for_the_mean(answers, drawn):
    path = answers.add(drawn(50))
    answers.add(drawn(80, 1), "cars")
    frame = compare_methods(path)
    assert dict(frame.schema) == PAIRS
    methods = ["nlc", "moe", "log-avg", "best on test"]
    assert frame.select("dataset", "first", "second").rows() == [
        (dataset, *pair) for pair in combinations(methods, 2) for dataset in ("birds", "cars", None)
    ]
    assert frame.filter(dataset="birds")["n"].unique().item() == 50
    assert frame.filter(pl.col("dataset").is_null())["n"].unique().item() == 130
    assert frame.filter(draws=3)["shots"].unique().item() == "16"


def test_numbers_are_those_of_loops_over_the_answers(answers, drawn):
    right = drawn(70)
    frame = compare_methods(answers.add(right))
    best = max(("a/x", "b/x"), key=lambda name: right[name, None].sum())
    by_method = {name: [one for (of, _), one in right.items() if of == name] for name, _ in right}
    by_method["best on test"] = by_method[best]
    rng = np.random.default_rng(5)
    for row in frame.iter_rows(named=True):
        first, second = by_method[row["first"]], by_method[row["second"]]
        draws = max(len(first), len(second))
        pairs = [(first[k % len(first)], second[k % len(second)]) for k in range(draws)]
        lead = np.mean([one.astype(float) - other for one, other in pairs], axis=0)
        assert row["difference"] == pytest.approx(lead.mean())
        assert row["difference"] == pytest.approx(row["first_acc1"] - row["second_acc1"])
        assert row["draws"] == (draws if draws > 1 else 0)
        only = np.mean([[(a & ~b).sum(), (b & ~a).sum()] for a, b in pairs], axis=0)
        assert (row["only_first"], row["only_second"]) == pytest.approx(tuple(only))
        if draws == 1:
            assert row["mcnemar"] == row["p"] == pytest.approx(mcnemar(*map(int, only)))
        drawn_means = lead[rng.integers(0, 70, (4000, 70))].mean(axis=1)
        bounds = np.quantile(drawn_means, [0.025, 0.975])
        assert (row["ci_low"], row["ci_high"]) == pytest.approx(tuple(bounds), abs=0.015)
        assert row["both_high"] - row["both_low"] > 0.9 * (row["ci_high"] - row["ci_low"])


def test_holm_is_over_the_pairs_of_a_table(answers, drawn):
    path = answers.add(drawn(50))
    answers.add(drawn(80, 1), "cars")
    answers.add(drawn(50, 2), perturbation="jpeg-3")
    frame = compare_methods(path)
    keys = ["dataset", "perturbation"]
    tables = frame.partition_by(keys)
    assert len(tables) == 4
    for table in tables:
        assert table["p_holm"].to_numpy() == pytest.approx(holm(table["p"].to_numpy()))
    assert frame["tie"].to_list() == (frame["p_holm"] >= 0.05).to_list()
    assert 0 < frame["tie"].sum() < len(frame)


def test_a_pair_has_one_p_whichever_pairs_are_shown(answers, drawn):
    path = answers.add(drawn(50))
    answers.add(drawn(80, 1), "cars")
    answers.add(drawn(50, 2), perturbation="jpeg-3")
    every = compare_methods(path)
    assert set(every["comparisons"]) == {6}  # nlc, moe, log-avg and best on test
    for names in (("nlc",), ("nlc", "log-avg")):
        shown = compare_methods(path, *names)
        same = every.filter(pl.col("first") == "nlc", pl.col("second").is_in([*shown["second"]]))
        assert_frame_equal(shown, same)


def test_what_was_chosen_is_compared_with_every_other_unless_others_are_named(answers, drawn):
    path = answers.add(drawn(50))
    chosen = {("chosen", seed): drawn(50, 3)["nlc", seed] for seed in range(3)}
    answers.add(chosen, head="chosen")
    frame = compare_methods(path)
    assert frame["first"].unique().to_list() == ["chosen"]
    assert frame["second"].to_list() == ["nlc", "moe", "log-avg", "best on test"]
    assert set(frame["draws"]) == {3}
    assert_frame_equal(compare_methods(path, "chosen", "log-avg"), frame.filter(second="log-avg"))
    assert compare_methods(path, "nlc")["second"].to_list()[0] == "chosen"


def test_the_interval_over_images_is_that_of_the_gain_in_results(tiny_store, tmp_path):
    path = tmp_path / "p.parquet"
    results = evaluate(
        tiny_store,
        output=path,
        heads=["zero-shot"],
        ensembles=["log-avg", "super-learner"],
        shots=(2,),
        seeds=1,
    )
    for metric, other in (("gain", "best-single"), ("gain_over_best_on_test", "best on test")):
        gains = results.filter(metric=metric).filter(pl.col("ensemble") != "oracle")
        for row in gains.iter_rows(named=True):
            if row["ensemble"] == "best-single" == other:
                continue
            found = compare_methods(path, row["ensemble"], other).row(0, named=True)
            columns = ("value", "ci_low", "ci_high", "n")
            expected = [row[name] for name in columns]
            columns = ("difference", *columns[1:])
            assert [found[name] for name in columns] == pytest.approx(expected, abs=1e-6)


def test_images_of_several_datasets_are_resampled_together(answers, drawn):
    """Two datasets of the same images are as sure as one; of others they are surer."""
    right = drawn(400)
    numbers = np.arange(1, 401)
    path = answers.add(right, images=numbers)
    answers.add(right, "again", images=numbers)
    answers.add(right, "others", images=numbers + 400)
    answers.add(right, "unseen")

    def width(*datasets, kind="ci"):
        frame = compare_methods(path, "log-avg", "a/x", datasets=datasets)
        row = frame.row(-1, named=True)
        return row[f"{kind}_high"] - row[f"{kind}_low"]

    for kind in ("ci", "both"):
        one = width("birds", kind=kind)
        assert width("birds", "again", kind=kind) == pytest.approx(one, rel=0.12)
        assert width("birds", "others", kind=kind) == pytest.approx(one / 2**0.5, rel=0.12)
        assert width("birds", "unseen", kind=kind) == pytest.approx(one / 2**0.5, rel=0.12)


def test_only_images_that_all_compared_methods_have_count(answers):
    path = answers.add({("log-avg", None): np.array([1, 1, 0, 0, 1], bool)})
    answers.add({("vote-1", None): np.array([0, 1, 1], bool)}, rows=[0, 2, 4])
    row = compare_methods(path, "log-avg", "vote-1").row(0, named=True)
    assert (row["n"], row["only_first"], row["only_second"]) == (3, 1, 1)
    assert row["first_acc1"] == row["second_acc1"] == pytest.approx(2 / 3)


def test_other_heads_and_shots(answers, drawn):
    path = answers.add(drawn(50))
    answers.add(drawn(50, 3), head="lda", shots="16")
    few = {key: one for key, one in drawn(50, 4).items() if key[0] == "nlc"}
    answers.add(few, shots="1")
    assert compare_methods(path, "nlc", "lda+nlc")["draws"].item() == 3
    assert compare_methods(path, "nlc", "lda+nlc", head="zero-shot")["head"].item() == "zero-shot"
    assert set(compare_methods(path)["second"]) == {"moe", "log-avg", "best on test"}
    few_shots = compare_methods(path, "nlc", "log-avg", shots=1)
    assert few_shots["shots"].item() == "1"
    assert few_shots["first_acc1"].item() == pytest.approx(np.mean([*few.values()]))


def test_what_has_no_draw_in_common_is_left_out_or_refused(answers, drawn):
    right = drawn(50)
    path = answers.add({key: one for key, one in right.items() if key != ("moe", 1)})
    assert compare_methods(path, "nlc", "moe")["draws"].item() == 2
    answers.add({("other", 7): right["moe", 1]})
    with pytest.raises(UsageError, match="no two of nlc, other on the same images and draws"):
        compare_methods(path, "nlc", "other")
    pairs = compare_methods(path).select("first", "second").rows()
    assert ("log-avg", "other") in pairs
    assert ("nlc", "other") not in pairs


@pytest.mark.parametrize(
    ("names", "settings", "error", "message"),
    [
        (("ncl",), {}, UnknownName, "unknown method 'ncl': did you mean nlc"),
        (("nlc", "nlc"), {}, UsageError, "nlc is compared with itself"),
        ((), {"datasets": "cats"}, UnknownName, "unknown dataset 'cats'"),
        ((), {"perturbations": "jpeg-3"}, UnknownName, "unknown perturbation 'jpeg-3'"),
        ((), {"shots": 4}, UsageError, "there are no ensembles with shots=4, but with 16"),
        ((), {"head": "tip"}, UnknownName, "unknown head 'tip'"),
        ((), {"backbones": "z/*"}, UnknownName, "unknown backbone 'z/*'"),
        ((), {"colour": 1}, UsageError, "unknown setting 'colour'"),
    ],
)
def test_a_mistake_is_one_sentence(names, settings, error, message, answers):
    path = answers.add({("nlc", 0): np.ones(5, bool), ("a/x", None): np.ones(5, bool)})
    with pytest.raises(error) as caught:
        compare_methods(path, *names, **settings)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_hold_nothing_to_compare(answers, tmp_path):
    with pytest.raises(UsageError, match="clipsyn evaluate STORE -o"):
        compare_methods(tmp_path / "none.parquet")
    path = answers.add({("log-avg", None): np.ones(5, bool)})
    with pytest.raises(UsageError, match="no two of log-avg on the same images"):
        compare_methods(path)
    predictions_of(path).rename(tmp_path / "gone")
    with pytest.raises(UsageError, match="cannot be read as predictions"):
        compare_methods(path)


def test_sets_of_backbones_under_one_name_are_refused(answers, drawn):
    right = drawn(20)
    path = answers.add(right)
    answers.add({("nlc", seed): ~right["nlc", seed] for seed in range(3)}, backbones=["a/x", "c/x"])
    with pytest.raises(UsageError, match="nlc of several sets of backbones"):
        compare_methods(path)
    assert len(compare_methods(path, "log-avg", "moe")) == 1
    row = compare_methods(path, "nlc", "log-avg", backbones=["a/x", "b/x"]).row(0, named=True)
    assert row["first_acc1"] == pytest.approx(np.mean([right["nlc", k] for k in range(3)]))


def test_datasets_may_have_other_backbones(answers, drawn):
    path = answers.add(drawn(20))
    ensembles = {key: one for key, one in drawn(20, 1).items() if "/" not in key[0]}
    answers.add(ensembles, "cars", backbones=["a/x", "b/x", "c/x"])
    assert compare_methods(path, "nlc", "moe")["dataset"].to_list() == ["birds", "cars", None]


def test_shots_are_said_of_what_is_fitted(answers, drawn):
    path = answers.add(drawn(20))
    assert compare_methods(path, "log-avg", "a/x")["shots"].item() == "0"
    assert compare_methods(path, "log-avg", "best on test")["shots"].item() == "0"
    assert compare_methods(path, "log-avg", "nlc")["shots"].item() == "16"


def test_labels_that_were_corrected_in_between_are_refused(answers):
    path = answers.add({("log-avg", None): np.ones(5, bool)})
    answers.add({("vote-1", None): np.ones(5, bool)}, label=0)
    with pytest.raises(UsageError, match="corrected in between"):
        compare_methods(path, "log-avg", "vote-1")


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: pl.concat([rows, rows]),
        lambda rows: rows.with_columns(label=pl.lit(None, pl.Int32)),
        lambda rows: rows.with_columns(
            prediction=pl.when(pl.int_range(pl.len()) > 0).then("prediction")
        ),
        lambda rows: rows.with_columns(sample_id=pl.lit(None, pl.String)),
        lambda rows: rows.with_columns(fingerprint=pl.lit(None, pl.String)),
        lambda rows: rows.with_columns(label=pl.col("label").cast(pl.String)),
        lambda rows: rows.with_columns(more=1),
        lambda rows: rows.drop("image"),
    ],
)
def test_what_others_wrote_is_refused(answers, drawn, change):
    path = predictions_of(answers.add(drawn(50)))
    changed = change(pl.read_parquet(path))
    shutil.rmtree(path)
    changed.write_parquet(path)
    with pytest.raises(UsageError):
        compare_methods(answers.path)
