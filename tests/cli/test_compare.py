"""`clipsyn evaluate -o` and `clipsyn compare`."""

from __future__ import annotations

import json

import polars as pl
import pytest

from clipsyn.evaluation.paired import compare_methods
from clipsyn.evaluation.paired.measure import PAIRS

QUICK = (
    "--heads",
    "zero-shot",
    "--ensembles",
    "log-avg,super-learner",
    "--shots",
    "1",
    "--seeds",
    "3",
)


@pytest.fixture
def predictions(clipsyn, tiny_store, tmp_path):
    path = tmp_path / "results.parquet"
    done = clipsyn("evaluate", tiny_store.path, *QUICK, "-o", path)
    assert done.exit_code == 0, done.output
    assert f"`clipsyn compare {path}`" in done.stderr
    return path


def test_it_compares_two_methods(clipsyn, predictions):
    done = clipsyn("compare", predictions, "super-learner", "log-avg")
    assert done.exit_code == 0, done.output
    assert "super-learner less log-avg · test · clean" in done.stdout
    assert "1 shot · 3 draws" in done.stdout
    assert done.stderr == ""


def test_it_compares_all(clipsyn, predictions):
    done = clipsyn("compare", predictions)
    for name in ("log-avg", "super-learner", "best-single", "best on test", "All pairs"):
        assert name in done.stdout


def test_the_numbers_are_those_of_python(clipsyn, predictions, tmp_path):
    csv, parquet = tmp_path / "p.csv", tmp_path / "pairs.parquet"
    done = clipsyn("compare", predictions, "log-avg", "-o", "-", "-o", csv, "-o", parquet)
    expected = compare_methods(predictions, "log-avg")
    found = json.loads(done.stdout)
    assert list(found[0]) == list(PAIRS)
    assert [row["difference"] for row in found] == expected["difference"].to_list()
    assert pl.read_parquet(parquet).equals(expected)
    assert len(pl.read_csv(csv)) == len(expected)


def test_it_needs_no_store(clipsyn, predictions, tiny_store):
    tiny_store.path.rename(tiny_store.path.with_name("gone"))
    assert clipsyn("compare", predictions, "log-avg", "fake/one").exit_code == 0


def test_mistakes(fails, predictions, tiny_store, tmp_path):
    told = fails(2, "compare", predictions, "log_avg")
    assert "unknown method 'log_avg': did you mean log-avg" in told
    assert "does not exist" in fails(2, "compare", tmp_path / "none.parquet")
    assert "--shots 16" in fails(2, "compare", predictions, "--shots", 16)
