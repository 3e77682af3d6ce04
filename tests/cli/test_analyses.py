"""The commands of analyses: the numbers of Python, tables of what was asked for, or a sentence."""

import json
import re
from pathlib import Path

import polars as pl
import pytest

from clipsyn.analyses import ANALYSES
from clipsyn.analyses.oracle import OracleSettings
from clipsyn.analyses.oracle.measure import sample_table

NAMES = ["fake/one", "fake/two"]
ODD_NAMES = ["a+b", "best", "n", "oracle", "x,y"]


@pytest.fixture
def run(clipsyn, captioned):
    """Run an analysis on the tiny store, which has captions; returns click's result."""
    return lambda name, *words, store=captioned.path: clipsyn(name, store, *words)


ASKED = {  # options, and the same as arguments of Python
    "oracle": (["--weights", "-b", "fake/*", "-s", "train"], {"splits": "train", "weights": True}),
    "robustness": (["-s", "train", "-p", "jpeg:3"], {"splits": "train"}),
    "representation": (["--samples", 12, "--support", "train"], {"samples": 12}),
    "cascade": (
        ["--ensembles", "super-learner,conf", "--thresholds", "0.4,0.6", "--cost", "fake/two=0.25"],
        {
            "ensembles": ["super-learner", "conf"],
            "thresholds": [0.4, 0.6],
            "costs": {"fake/two": 0.25},
        },
    ),
    "retrieval": (["--pairs", "6", "--bank", "test"], {"pairs": 6, "bank": "test"}),
}


@pytest.mark.parametrize("name", ANALYSES)
def test_the_numbers_are_those_of_python(run, captioned, tmp_path, read_results, name):
    options, settings = ASKED.get(name, ((), {}))
    csv, parquet = tmp_path / "out.csv", tmp_path / "out.parquet"
    result = run(name, *options, "-o", "-", "-o", csv, "-o", parquet)
    assert result.exit_code == 0, result.stderr
    expected = ANALYSES.load(name)(captioned, **settings)
    rows = json.loads(result.stdout)
    assert list(rows[0]) == expected.columns
    assert [row["value"] for row in rows] == expected["value"].fill_nan(None).to_list()
    assert pl.read_parquet(parquet).equals(expected, null_equal=True)
    assert len(pl.read_csv(csv, infer_schema_length=None)) == len(expected)
    assert f"{len(expected)} rows written to {csv}" in result.stderr
    if name == "zeroshot":
        assert read_results(csv).equals(expected.drop("data"))


def test_filters_choose_cells_by_name_and_pattern(run):
    def cells(*arguments):
        rows = json.loads(run("zeroshot", "-o", "-", *arguments).stdout)
        singles = [row for row in rows if row["ensemble"] == "single"]
        return sorted({(r["split"], r["perturbation"], *r["backbones"]) for r in singles})

    train = [("train", "clean", name) for name in NAMES]
    assert cells("-s", "train", "-p", "clean") == train
    assert len(cells("-s", "test,train")) == len(cells("-s", "test", "-s", "train")) == 8
    assert cells("-b", "*/two", "-p", "jpeg:3") == [("test", "jpeg-3", "fake/two")]
    assert len(cells("-d", "toy", "-d", "t*")) == 4


def test_the_table_of_samples_is_a_file(run, tmp_path, captioned):
    csv = tmp_path / "table.csv"
    expected = sample_table(captioned, OracleSettings(perturbations="clean"))
    said = run("oracle", "--samples", csv, "-p", "clean").stderr
    assert f"{len(expected)} rows written to {csv}" in said
    assert pl.read_csv(csv, schema=expected.schema).equals(expected)


# what is left out, and what cannot work


def test_what_is_left_out_is_named(fakes, captioned, run):
    fakes.fill(captioned.path, fakes.two(), [fakes.Source("still", class_names=())])
    for name in ("zeroshot", "diversity", "robustness"):
        result = run(name)
        assert "still" not in result.stdout
        assert re.search("not shown, for want of labels.*: .*still", result.stderr)
    assert "no logit statistics, for want of labels: still" in run("representation").stderr


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        ("zeroshot -d tyo", 2, "unknown dataset 'tyo': did you mean toy"),
        ("zeroshot -p jpeg:x", 2, "is no perturbation"),
        ("oracle --samples table.txt", 2, "--samples table.txt: give a name that ends in"),
        ("diversity -b fake/one", 2, "only one backbone here, fake/one, and it takes two to"),
        ("robustness --reference fake/on", 2, "unknown reference 'fake/on': did you mean fake/one"),
        ("representation --support test", 2, "another split than test: give another --support"),
        ("cascade --thresholds -1", 2, "--thresholds is numbers from 0 to 1, not -1"),
        ("cascade --cost fake/one", 2, "--cost fake/one: write NAME=GFLOPS"),
        ("cascade --cost fake/one=1,fake/one=2", 2, "gives a name twice"),
    ],
)
def test_what_cannot_work_is_said_in_a_sentence(run, line, code, message):
    result = run(*line.split())
    assert result.exit_code == code
    assert message in result.stderr
    assert result.stdout == ""


def test_a_store_without_labels(run, fakes, tmp_path):
    path = tmp_path / "photos"
    fakes.fill(path, sources=[fakes.Source("photos", class_names=())])
    assert "has no labels" in run("zeroshot", store=path).stderr
    result = run("representation", store=path)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "has one backbone there and no labels" in result.stderr


# names, and images that stand in several datasets


@pytest.fixture(scope="module")
def odd(fakes, tmp_path_factory):
    """Backbones may be called whatever a path can hold: every analysis tells them apart."""
    path: Path = tmp_path_factory.mktemp("names") / "store"
    sources = [fakes.Source(split=split, count=30) for split in ("train", "test")]
    encoders = [fakes.Encoder(name) for name in ODD_NAMES]
    fakes.caption(fakes.fill(path, encoders, sources, ["clean", "jpeg:3"]))
    return path


@pytest.mark.parametrize("name", [name for name in ANALYSES if name != "selective"])
def test_it_has_rows_of_each_backbone(run, name, odd, tmp_path):
    run(name, "-o", tmp_path / "out.parquet", store=odd)
    frame = pl.read_parquet(tmp_path / "out.parquet")
    named = frame["backbones"].explode(empty_as_null=False).unique().sort()
    assert named.to_list() == ODD_NAMES


def test_a_pattern_names_what_a_comma_list_cannot(run, odd, tmp_path):
    shown = run("zeroshot", "-b", "x?y,n", "-p", "clean", store=odd).stdout
    assert "\nx,y " in shown
    assert "\na+b " not in shown
    run("oracle", "--samples", tmp_path / "samples.csv", store=odd)
    columns = pl.read_csv(tmp_path / "samples.csv").columns
    assert all(any(name in column for column in columns) for name in ODD_NAMES)


NOTE = (
    "note: images stand in several of these sets, birds/test (20 of 20), more/test (20 of 24): "
    "means and correlations over datasets count them more than once, and the intervals that "
    "evaluate and report give to means take them for different images\n"
)
QUICK = "--heads zero-shot --ensembles log-avg --shots 1 --seeds 1 -p clean"


@pytest.fixture(scope="module")
def shared(fakes, tmp_path_factory):
    """Birds are in more, too; cars are not."""
    path = tmp_path_factory.mktemp("shared") / "store"
    sources = [fakes.Source("birds"), fakes.Source("more", count=24)]
    sources += [fakes.Source("cars", changed=set(range(20)))]
    sources += [fakes.Source(test.name, "train", changed=test.changed) for test in sources]
    fakes.caption(fakes.fill(path, fakes.two(), sources, ("clean", "jpeg:3")))
    return path


@pytest.mark.parametrize("name", [*ANALYSES, "evaluate"])
def test_images_in_several_datasets_are_said_where_means_are_over_them(run, shared, name):
    words = [name, *(QUICK.split() if name == "evaluate" else [])]
    is_over = name == "evaluate" or ANALYSES.load(name).over_datasets
    assert (NOTE in run(*words, store=shared).stderr) is is_over


def test_of_sets_that_share_no_image_nothing_is_said(run, shared):
    apart = run("zeroshot", "-d", "birds,cars", store=shared)
    assert apart.exit_code == 0
    assert "several of these sets" not in apart.stderr
