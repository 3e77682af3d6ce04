"""`diversity` against plain loops, scikit-learn and scipy, on stores and on four images by hand."""

import math
from itertools import combinations

import numpy as np
import polars as pl
import pytest
from scipy.stats import binomtest, pearsonr
from sklearn.metrics import cohen_kappa_score

from clipsyn.analyses.diversity import diversity
from clipsyn.analyses.diversity import measure as module
from clipsyn.analyses.diversity.measure import PAIRWISE
from clipsyn.errors import UsageError
from clipsyn.evaluation.loop import evaluate
from clipsyn.methods.numerics.logits import NO_PREDICTION
from tests.results import only

BACKBONES = ("cnx/c", "rn/b", "vit/a")  # as a store sorts them


@pytest.fixture
def given(give, one_hot):
    """Function (predictions of each backbone, labels) -> what `diversity` makes of this group."""
    return lambda predictions, labels: diversity(give(module, one_hot(predictions, 6), labels))


@pytest.fixture(scope="module")
def results(birds):
    return diversity(birds)


def counted(store, dataset, perturbation):
    """(backbone and label, sample) of the samples that have all predictions."""
    keys = store.keys(dataset=[dataset], split=["test"], perturbation=[perturbation])
    labels = store.samples(dataset, "test").labels
    columns = [store.cell(key).predictions(store.cell(key).prompt_sets()[0]) for key in keys]
    table = np.stack([*columns, labels]).astype(int)
    return table[:, (table != NO_PREDICTION).all(axis=0)]


def test_four_images_by_hand(given):
    """Right: a on 0, 1, 2; b on 0, 1, 3; c on 3. Two more images have no label, no prediction."""
    frame = given(
        [[0, 1, 2, 0, 0, 2], [0, 1, 1, 3, 0, 2], [3, 2, 1, 3, 0, None]], [0, 1, 2, 3, -1, 2]
    )
    assert set(frame["n"]) == {4}
    for metric, pairs in {
        "error_inconsistency": (2 / 4, 4 / 4, 2 / 4),
        "disagreement": (2 / 4, 4 / 4, 2 / 4),
        "double_fault": (0, 0, 1 / 4),
        "yules_q": (-1, -1, 1),
        "error_consistency": (-2 / 6, -6 / 10, 2 / 10),
        "mcnemar_p": (1, 0.625, 0.5),  # 1:1, 3:1, 2:0
        "mcnemar_p_holm": (1, 1, 1),
    }.items():
        found = [only(frame, metric, pair)["value"] for pair in ("ab", "ac", "bc")]
        assert found == pytest.approx(pairs), metric
        if metric in PAIRWISE:
            assert only(frame, f"mean_{metric}", "abc")["value"] == pytest.approx(sum(pairs) / 3)
    assert [only(frame, "unique_correct", name)["value"] for name in "abc"] == [1 / 4, 0, 0]
    # b and c miss one of the four images together, the other pairs none; six classes
    floors = [only(frame, "unique_correct_floor", name)["value"] for name in "abc"]
    assert floors == pytest.approx([1 / 4 / 6, 0, 0])
    # mean accuracy 7/12, mean inconsistency 2/3; two of three votes alike on every image
    fleiss = 1 - (2 / 3) / (2 * 7 / 12 * 5 / 12)
    assert only(frame, "fleiss_kappa", "abc")["value"] == pytest.approx(fleiss)
    entropy = -(2 / 3 * math.log(2 / 3) + 1 / 3 * math.log(1 / 3)) / math.log(3)
    assert only(frame, "vote_entropy", "abc")["value"] == pytest.approx(entropy)


@pytest.mark.parametrize("perturbation", ["clean", "jpeg-3"])
def test_pairs_of_a_store_equal_loops_scikit_learn_and_scipy(birds, results, perturbation):
    *predictions, labels = counted(birds, "birds", perturbation)
    frame = results.filter(dataset="birds", perturbation=perturbation)
    assert len(labels) == 88  # two of the ninety cannot be decoded
    assert set(frame["n"]) == {88}
    for i, j in combinations(range(3), 2):
        first, second = predictions[i] == labels, predictions[j] == labels
        a, d = (first & second).sum(), (~first & ~second).sum()
        b, c = (first & ~second).sum(), (~first & second).sum()
        for metric, expected in {
            "error_inconsistency": np.mean(first != second),
            "disagreement": np.mean(predictions[i] != predictions[j]),
            "double_fault": d / 88,
            "yules_q": (a * d - b * c) / (a * d + b * c),
            "error_consistency": cohen_kappa_score(first, second),
            "mcnemar_p": binomtest(int(b), int(b + c)).pvalue,
        }.items():
            row = only(frame, metric, [BACKBONES[i], BACKBONES[j]])
            assert row["value"] == pytest.approx(expected), metric
            if metric != "mcnemar_p":
                assert row["ci_low"] < expected < row["ci_high"], metric


def test_all_together_equal_dumb_versions(birds, results):
    *predictions, labels = counted(birds, "birds", "clean")
    right = np.array(predictions) == labels
    frame = results.filter(dataset="birds", perturbation="clean")
    for metric, expected in (
        ("fleiss_kappa", fleiss_of_the_table(right)),
        ("vote_entropy", np.mean([entropy(votes) for votes in zip(*predictions, strict=True)])),
    ):
        row = only(frame, metric, BACKBONES)
        assert row["value"] == pytest.approx(expected), metric
        assert metric == "fleiss_kappa" or row["ci_low"] < expected < row["ci_high"]
    for b, name in enumerate(BACKBONES):
        alone = np.mean([bool(column[b]) and column.sum() == 1 for column in right.T])
        row = only(frame, "unique_correct", [name])
        assert row["value"] == pytest.approx(alone)
        assert row["ci_low"] <= alone <= row["ci_high"]


def fleiss_of_the_table(right):
    """As Fleiss (1971) has it: counts of the votes for right and wrong, sample by sample."""
    raters = len(right)
    table = np.stack([right.sum(axis=0), raters - right.sum(axis=0)], axis=1)
    agreement = ((table**2).sum(axis=1) - raters) / (raters * (raters - 1))
    expected = ((table.sum(axis=0) / table.sum()) ** 2).sum()
    return float((agreement.mean() - expected) / (1 - expected))


def entropy(votes):
    shares = [votes.count(vote) / len(votes) for vote in set(votes)]
    return -sum(share * math.log(share) for share in shares) / math.log(len(votes))


def test_correlations_with_what_evaluate_writes(fakes, tmp_path):
    path = tmp_path / "results.parquet"
    sources = [
        fakes.Source(f"set{number}", split, count=20 + 7 * number, class_names=tuple("abcd"))
        for number in range(3)
        for split in ("train", "test")
    ]
    store = fakes.fill(tmp_path / "store", fakes.two(), sources)
    gains = evaluate(
        store, ensembles=["log-avg", "super-learner"], shots=(1, 2), seeds=1, output=path
    )
    frame = diversity(store, results=path)
    found = frame.filter(pl.col("dataset").is_null())
    assert set(found["ensemble"]) == {"oracle", "log-avg", "super-learner"}
    assert set(found.filter(ensemble="super-learner")["shots"]) == {"2"}
    assert set(found["n"]) == {3}
    values = frame.filter(metric="mean_error_inconsistency")["value"].to_list()
    oracle = (
        gains.filter(metric="gain", head="zero-shot", ensemble="oracle", shots="2")
        .sort("dataset")["value"]
        .to_list()
    )
    names = ("fake/one", "fake/two")
    row = only(found, "pearson_error_inconsistency", names, ensemble="oracle")
    assert row["value"] == pytest.approx(pearsonr(values, oracle)[0])
    assert math.isnan(row["ci_low"])  # three datasets are too few for one


def test_one_backbone_is_refused(birds, fakes, tmp_path):
    with pytest.raises(UsageError, match="birds/test has only one backbone here, rn/b, and it tak"):
        diversity(birds, backbones="rn/b")
    path = tmp_path / "s"
    fakes.fill(path, [fakes.Encoder("a"), fakes.Encoder("b")], [fakes.Source("toy")])
    store = fakes.fill(path, [fakes.Encoder("a")], [fakes.Source("other", count=5)])
    assert set(diversity(store)["dataset"]) == {"toy"}
    with pytest.raises(UsageError, match="other/test has only one backbone here, a"):
        diversity(store, datasets=["toy", "other"])
