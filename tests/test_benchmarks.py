"""The benchmark at the paper's size, at a tiny one: what it makes, and how it measures."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from clipsyn.store.features import FeatureStore
from clipsyn.store.pools import PoolReader

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
MODULES = ("shapes", "synthetic", "stores", "bounds", "processes", "estimates", "plain", "fits")


@pytest.fixture(scope="module")
def bench():
    """The modules of the benchmark, by name; nothing else sees them afterwards."""
    pytest.importorskip("resource", reason="processes are measured on Unix")
    sys.path.insert(0, str(BENCHMARKS))
    try:
        yield SimpleNamespace(**{name: __import__(name) for name in MODULES})
    finally:
        sys.path.remove(str(BENCHMARKS))
        for name in (*MODULES, "common", "memory", "sampled"):
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def tiny(bench):
    """Twenty classes, 320 train and 3,000 test images, embeddings of 32 to 64 numbers."""
    return bench.shapes.Set("tiny", 20, 3_000, 0.5, 0.8, narrower=16)


@pytest.fixture(scope="module")
def store(bench, tiny, tmp_path_factory):
    made: FeatureStore = bench.stores.make_store(tmp_path_factory.mktemp("made") / "store", [tiny])
    return made


def right(store):
    pool = PoolReader(store, "tiny", "test").read()
    hits = pool.logits.argmax(axis=2) == pool.labels[:, None]
    return dict(zip(pool.backbones, hits.T, strict=True))


def kappa(one, other):
    """Cohen's, of two arrays of right and wrong, by the counts of the four cases."""
    both, neither = np.mean(one & other), np.mean(~one & ~other)
    chance = one.mean() * other.mean() + (1 - one.mean()) * (1 - other.mean())
    return float((both + neither - chance) / (1 - chance))


def test_backbones_have_the_accuracy_that_they_were_given(store, tiny):
    hits = right(store)
    for made in tiny.backbones:
        assert hits[made.name].mean() == pytest.approx(made.accuracy, abs=0.04), made.name


def test_backbones_of_a_family_err_on_the_same_images(store):
    hits = right(store)
    resnets = [hits[name] for name in hits if name.startswith("RN")]
    transformers = [hits[name] for name in hits if name.startswith("ViT")]
    within = [kappa(a, b) for a in resnets for b in resnets if a is not b]
    across = [kappa(a, b) for a in resnets for b in transformers]
    assert 0.4 < np.mean(within) < 0.8
    assert 0.15 < np.mean(across) < 0.35


def test_a_store_that_is_there_is_kept_and_another_is_the_same(bench, tiny, store, tmp_path):
    again = bench.stores.make_store(tmp_path / "again", [tiny])
    for key in store.keys(split=["test"]):
        assert again.cell(key).fingerprint() == store.cell(key).fingerprint()
        np.testing.assert_array_equal(again.cell(key).embeddings(), store.cell(key).embeddings())
    before = {file: file.stat().st_mtime_ns for file in store.path.rglob("c.*")}
    bench.stores.make_store(store.path, [tiny])
    assert {file: file.stat().st_mtime_ns for file in store.path.rglob("c.*")} == before


def test_perturbed_images_are_recognised_less_often(bench, tiny, store):
    [first, *_] = bench.stores.encoded(tiny)
    images = bench.stores.Split(tiny, "test").images
    accuracies = [
        np.mean(first.answers(images, bench.stores.HARDER * severity, 0) == images.labels)
        for severity in range(6)
    ]
    assert sorted(accuracies, reverse=True) == accuracies
    assert 1 / tiny.classes < accuracies[-1] < accuracies[0] - 0.1


def test_plain_answers_are_those_of_the_store(bench, tiny, store, tmp_path):
    bench.stores.save_plain(store, tiny, tmp_path / "plain")
    hits = right(store)
    rows = bench.plain.zeroshot(tmp_path / "plain")
    for made, (accuracy, low, high, top5, _) in zip(tiny.backbones, rows, strict=True):
        assert accuracy == pytest.approx(hits[made.name].mean(), abs=1e-4)
        assert low < accuracy < high < top5 <= 1
    assert bench.plain.oracle(tmp_path / "plain") == np.any(list(hits.values()), axis=0).mean()
    one, other = (hits[made.name] for made in tiny.backbones[:2])
    assert bench.plain.diversity(tmp_path / "plain")[0] == pytest.approx(
        kappa(one, other), abs=1e-4
    )


@pytest.mark.parametrize("classes", [2, 7, 10, 43, 211])
def test_confused_classes_are_others_of_the_group(bench, classes):
    images = bench.synthetic.Images.draw(500, classes, [1])
    for confused in images.confused.values():
        assert (confused != images.labels[:, None]).all()
        assert confused.min() >= 0
        assert confused.max() < classes
        assert all(len(set(row)) == len(row) for row in confused.tolist())


def test_the_bound_of_a_probe_counts_its_evaluations(bench):
    shape = bench.bounds.Shape(support=10, test=100, classes=4, widths=(3, 5))
    counts = bench.bounds.Counts(evaluations=2, parameters=2 * 12)
    assert bench.bounds.fitting("linear-probe", shape, counts).operations == 4 * 10 * 24
    assert bench.bounds.applying("linear-probe", shape).operations == 2 * 100 * 4 * 8
    wide = bench.bounds.Counts(products=1e6)
    assert bench.bounds.fitting("stacking", shape, wide).operations == 1e6
    assert bench.bounds.fitting("vote-1", shape, counts).operations == 0
    assert bench.bounds.applying("vote-1", shape).memory == 4 * 100 * 2 * 4


def test_a_process_is_measured_alone(bench):
    ballast = np.ones(40_000_000)  # 320 MB, which are this process's
    code = "import time; x = bytearray(10**8); print('done'); time.sleep(1)"
    ran = bench.processes.run([sys.executable, "-c", code], 60)
    assert ran.worked
    assert ran.output == "done\n"
    assert 1e8 < ran.peak < ballast.nbytes
    assert ran.cpu > 0


def test_a_process_that_fails_says_why(bench):
    ran = bench.processes.run([sys.executable, "-c", "raise SystemExit('no such store')"], 60)
    assert not ran.worked
    assert ran.error == "no such store"


def test_estimates_are_compared_with_what_a_run_took(bench):
    said = (
        (30.0, "note: gac left out"),
        (50.0, "fits: 3/14, 1,010 s left"),
        (60.0, "fits: 4/14, 140 s left"),
        (80.0, "fits: 9/14, 0 fits/s, 20 s left"),
    )
    ran = bench.processes.Ran(wall=100.0, cpu=1.0, peak=1, output="", said=said)
    found = list(bench.estimates.estimates(ran))
    assert found == [(50.0, 1060.0), (60.0, 200.0), (80.0, 100.0)]
    assert bench.estimates.over_truth(ran) == "10.60, then 1.00-2.00"


def test_what_a_fit_does_is_counted(bench, store):
    took = bench.fits.measure(store, "tiny", "stacking")
    assert took["counts"]["evaluations"] > 3
    assert took["counts"]["products"] + took["counts"]["parameters"] > 0
    assert took["shape"]["support"] == 320
    assert took["accuracy"] > max(hits.mean() for hits in right(store).values()) - 0.05
    assert bench.fits.measure(store, "tiny", "gac")["counts"]["searched"] > 64
    assert bench.fits.measure(store, "tiny", "nlc")["counts"]["steps"] > 100
    assert bench.fits.measure(store, "tiny", "linear-probe")["counts"]["products"] > 0


def test_an_older_checkout_is_what_runs(bench, tmp_path, monkeypatch):
    """Whatever clipsyn the current folder holds: that of this repository, for one."""
    (tmp_path / "clipsyn").mkdir()
    (tmp_path / "clipsyn" / "__init__.py").touch()
    (tmp_path / "clipsyn" / "__main__.py").write_text("print('older')")
    monkeypatch.chdir(BENCHMARKS.parent)
    command = bench.processes.fresh_python("-m", "clipsyn", "--version")
    ran = bench.processes.run(command, 60, bench.processes.of_checkout(tmp_path))
    assert (ran.output, ran.error) == ("older\n", "")
