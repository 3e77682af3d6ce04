"""`correlations` against scipy on made-up measures, and results that do not fit."""

import numpy as np
import polars as pl
import pytest
from scipy.stats import pearsonr, spearmanr

from clipsyn.analyses.diversity import DiversitySettings
from clipsyn.analyses.diversity import measure as module
from clipsyn.analyses.diversity.measure import MEANS
from clipsyn.errors import UnknownName, UsageError
from clipsyn.evaluation.results.frame import IF_ALIKE, NAMES, RESULT
from clipsyn.evaluation.results.frame import frame as tidy
from tests.results import row

ALL = ["cnx/c", "rn/b", "vit/a"]
DATASETS = ("birds", "cars", "dogs", "flags")
METRICS = ("mean_disagreement", "fleiss_kappa")
COMMON = row("gain", 0.0, ALL, off=None)


@pytest.fixture
def means():
    """Two measures of three backbones on four datasets."""
    rng = np.random.default_rng(6)
    rows = [
        COMMON | {"dataset": name, "metric": metric, "value": rng.normal(), "fingerprint": name}
        for name in DATASETS
        for metric in METRICS
    ]
    return pl.DataFrame(rows, schema=RESULT)


@pytest.fixture
def write(tmp_path):
    """Function (changes of columns) -> a file of gains of two ensembles on the four datasets."""

    def make(**changes):
        rng, rows = np.random.default_rng(0), []
        for dataset in DATASETS:
            row = COMMON | {"dataset": dataset}
            learned = {"ensemble": "nlc", "support": "train", "support_prompts": "own"}
            rows.append(row | {"ensemble": "log-avg", "shots": "0", "value": rng.normal()})
            for shots, seed in (("1", 0), ("16", 0), ("16", 1), ("full", 0)):
                rows.append(row | learned | {"shots": shots, "seed": seed, "value": rng.normal()})
        frame = pl.DataFrame([row | changes for row in rows], schema=RESULT)
        frame = frame.with_row_index("at").with_columns(pl.col("at").cast(str).alias("fingerprint"))
        frame.drop("at").write_parquet(tmp_path / "gains.parquet")
        return tmp_path / "gains.parquet"

    return make


@pytest.fixture
def correlated(monkeypatch, means):
    """Function (measures or None, file of gains, settings): the correlations of the two."""
    monkeypatch.setattr(module, "check_data", lambda *_: None)  # there is no store

    def correlate(other, path, **options):
        settings = DiversitySettings(results=path, **options)
        return tidy(module.correlations(None, means if other is None else other, settings, path))

    return correlate


def gains_of(path, ensemble, shots):
    """Mean over seeds, dataset by dataset."""
    rows = pl.read_parquet(path).filter(shots=shots, ensemble=ensemble)
    return [rows.filter(dataset=name)["value"].mean() for name in DATASETS]


@pytest.mark.parametrize(
    ("asked", "shots"), [(16, "16"), (1, "1"), ("full", "full"), (None, "full")]
)
def test_correlations_with_gains_are_scipys(correlated, means, write, asked, shots):
    path = write()
    found = correlated(means, path, shots=asked)
    assert len(found) == 4 * len(METRICS)
    assert set(found["n"]) == {4}
    assert found["dataset"].null_count() == len(found)
    assert found.select(NAMES).is_duplicated().sum() == 0
    for metric in METRICS:
        values = means.filter(metric=metric)["value"].to_list()
        for ensemble, at in (("log-avg", "0"), ("nlc", shots)):
            gains = gains_of(path, ensemble, at)
            for kind, scipys in (("pearson", pearsonr), ("spearman", spearmanr)):
                name = f"{kind}_{MEANS[metric]}"
                (row,) = found.filter(metric=name, ensemble=ensemble).to_dicts()
                assert row["value"] == pytest.approx(scipys(values, gains)[0]), name
                assert row["shots"] == at
                assert abs(row["value"]) > 1 - 1e-9 or row["ci_low"] < row["value"] < row["ci_high"]


def test_gains_of_other_backbones_are_not_mixed_in(correlated, means, write, tmp_path):
    alike = correlated(means, write())
    others = pl.read_parquet(write(backbones=["cnx/c", "rn/b"])).with_columns(pl.col("value") * -3)
    both = pl.concat([others, pl.read_parquet(write(backbones=["vit/a", "rn/b", "cnx/c"]))])
    both.write_parquet(tmp_path / "both.parquet")
    found = correlated(means, tmp_path / "both.parquet")
    assert found["value"].to_list() == alike["value"].to_list()


def test_fewer_than_three_datasets_have_no_correlation(correlated, means, write):
    two = means.filter(pl.col("dataset").is_in(["birds", "cars"]))
    found = correlated(two, write())
    assert set(found["n"]) == {2}
    assert found["value"].is_nan().all()


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"classes": "new"}, {}, "has no gain or .* of any ensemble over all classes"),
        ({}, {"head": "zeroshot"}, "unknown head 'zeroshot': did you mean zero-shot"),
        ({}, {"shots": 4}, "with shots=4, but with 1, 16, full: .*--shots 4"),
        ({"backbones": ["a", "b"]}, {}, "has no gains of cnx/c.*--backbones cnx/c,rn/b,vit/a"),
    ],
)
def test_results_that_do_not_fit_are_answered(correlated, write, changes, options, message):
    with pytest.raises((UnknownName, UsageError), match=message):
        correlated(None, write(**changes), **options)


def test_results_fitted_on_several_splits_are_refused(correlated, means, write, tmp_path):
    frames = [pl.read_parquet(write(support=support)) for support in ("train", "val")]
    path = tmp_path / "both.parquet"
    pl.concat(frames).write_parquet(path)
    with pytest.raises(UsageError, match="several supports or prompt sets"):
        correlated(means, path)


def test_the_correlation_to_expect_of_equal_datasets_is_a_mean_over_these(correlated, means, write):
    path = write()
    rows = pl.read_parquet(path).filter(ensemble="log-avg")
    alike = rows.with_columns(metric=pl.lit(IF_ALIKE), value=pl.Series([0.1, 0.2, 0.3, 0.6]))
    pl.concat([pl.read_parquet(path), alike]).write_parquet(path)
    renamed = means.with_columns(
        pl.col("metric").replace("fleiss_kappa", "mean_error_inconsistency")
    )
    found = correlated(renamed, path).filter(metric=IF_ALIKE)
    assert found.select("ensemble", "n").rows() == [("log-avg", 4)]
    assert found["value"].item() == pytest.approx(0.3)
