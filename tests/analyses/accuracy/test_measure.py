"""`zeroshot` against plain loops over what the store holds."""

import math

import polars as pl
import pytest

from clipsyn.analyses.accuracy import zeroshot
from clipsyn.analyses.oracle import oracle
from clipsyn.errors import DatasetError
from clipsyn.names import FeatureKey
from clipsyn.store.features import FeatureStore
from tests.results import only

BACKBONES = ("vit/a", "rn/b", "cnx/c")


@pytest.fixture(scope="module")
def results(birds):
    return zeroshot(birds)


def loop_over(store, key, prompts):
    """Top-1, top-5 and mean per class, one sample after the other."""
    logits, labels = store.cell(key).logits(prompts).tolist(), store.samples("birds", "test").labels
    top1, top5, per_class = [], [], {}
    for row, label in zip(logits, labels.tolist(), strict=True):
        if math.isnan(row[0]):
            continue
        order = sorted(range(len(row)), key=lambda c: (-row[c], c))
        top1.append(order[0] == label)
        top5.append(label in order[:5])
        per_class.setdefault(label, []).append(order[0] == label)
    recalls = [sum(hits) / len(hits) for hits in per_class.values()]
    return {
        "acc1": sum(top1) / len(top1),
        "acc5": sum(top5) / len(top5),
        "mean_per_class_recall": sum(recalls) / len(recalls),
    }


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("perturbation", ["clean", "jpeg-3"])
def test_metrics_equal_a_plain_loop(birds, results, backbone, perturbation):
    key = FeatureKey("birds", "test", perturbation, backbone)
    (prompts,) = birds.cell(key).prompt_sets()
    for metric, expected in loop_over(birds, key, prompts).items():
        row = only(results, metric, [backbone], dataset="birds", perturbation=perturbation)
        assert row["value"] == pytest.approx(expected, abs=1e-12)
        assert row["ci_low"] <= row["value"] <= row["ci_high"]
        assert row["ci_high"] - row["ci_low"] > 0.02
        assert row["n"] == 88  # two of the ninety cannot be decoded
        assert row["fingerprint"].startswith(birds.cell(key).fingerprint())
        assert row["severity"] == (3 if perturbation == "jpeg-3" else 0)


def test_the_oracle_is_that_of_the_oracle_command(birds, results):
    of_all = ["dataset", "perturbation", "metric", "value", "ci_low", "ci_high", "n"]
    metrics = pl.col("metric").is_in(["acc1", "acc1_independent", "gain_over_best_on_test"])
    whole = metrics & (pl.col("ensemble") == "oracle") & (pl.col("backbones").list.len() == 3)
    found, expected = (
        it.filter(whole).select(of_all).sort(of_all[:3]) for it in (results, oracle(birds))
    )
    assert len(found) == 3 * 3
    assert found.equals(expected)


def test_chance_is_one_over_the_number_of_classes(results):
    chance = results.filter(ensemble="chance")
    assert chance.select("dataset", "perturbation", "value").rows() == [
        ("birds", "clean", 1 / 6),
        ("birds", "jpeg-3", 1 / 6),
        ("flags", "clean", 1 / 3),
    ]


def test_unlabelled_datasets_are_an_error_only_when_asked_for(fakes, tmp_path):
    path = tmp_path / "store"
    fakes.fill(path, sources=[fakes.Source("photos", class_names=())])
    with pytest.raises(DatasetError, match="photos/test has no labels"):
        zeroshot(FeatureStore.open(path))
    store = fakes.fill(path, sources=[fakes.Source("toy")])
    assert set(zeroshot(store)["dataset"]) == {"toy"}
    with pytest.raises(DatasetError, match="photos/test has no labels"):
        zeroshot(store, datasets=["photos", "toy"])


def test_every_prompt_set_has_its_own_rows(fakes, tmp_path):
    path = tmp_path / "store"
    own = fakes.Source("toy", templates=("a {c}.", "the {c}."))
    encoders = [fakes.Encoder("a"), fakes.Encoder("b")]
    fakes.fill(path, encoders, [own])
    store = fakes.fill(path, encoders, [own], prompts="simple")
    sets = store.cell(store.keys()[0]).prompt_sets()
    assert len(sets) == 2
    gains = zeroshot(store).filter(metric="gain_over_best_on_test")
    assert sorted(gains["prompts"]) == sets
    assert set(zeroshot(store, prompts="simple")["prompts"]) == {"simple"}


def test_a_split_whose_images_are_all_bad_scores_nan(fakes, tmp_path):
    source = fakes.Source("toy", count=6, bad=dict.fromkeys(range(6), "empty file"))
    encoders = [fakes.Encoder("a"), fakes.Encoder("b")]
    store = fakes.fill(tmp_path / "store", encoders, [source], max_bad=1.0)
    numbers = zeroshot(store).filter(pl.col("ensemble") != "chance")
    assert set(numbers["n"]) == {0}
    assert numbers["value"].is_nan().all()
    assert numbers["ci_low"].is_nan().all()
