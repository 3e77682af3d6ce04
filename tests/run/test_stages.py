"""Stages that measure a store or write a page: what each writes, and when it is skipped."""

import re

import polars as pl
import pytest

from clipsyn.analyses import ANALYSES
from clipsyn.errors import UsageError
from clipsyn.evaluation.results.frame import RESULT
from clipsyn.run.recipe import Recipe
from clipsyn.run.stages import digest, run_recipe
from clipsyn.store.features import FeatureStore

SETTINGS = {"cascade": {"costs": {"fake/one": 0.5, "fake/two": 2}}}
NAMES = sorted(ANALYSES)


@pytest.fixture(scope="module")
def store(tmp_path_factory, fakes):
    """Two backbones, both splits, clean and perturbed, with captions."""
    path = tmp_path_factory.mktemp("analysed") / "store"
    sources = [fakes.Source("toy", split, count=24) for split in ("train", "test")]
    fakes.caption(fakes.fill(path, fakes.two(), sources, ("clean", "jpeg:3")))
    return path


def run(store, *stages):
    recipe = Recipe(store=store, stages=list(stages))
    return run_recipe(recipe, lambda _number, _name: None)


def settings(name):
    return {"stage": name, **SETTINGS.get(name, {})}


@pytest.mark.parametrize("name", NAMES)
class TestEveryAnalysis:
    def test_it_writes_its_numbers_once(self, name, store, tmp_path):
        table = tmp_path / "new" / "some.numbers.parquet"
        stage = settings(name) | {"output": table.with_suffix("")}
        (first,) = run(store, stage)
        whole = pl.read_parquet(table)
        assert {**whole.schema} | RESULT == {**whole.schema}
        assert len(whole) == len(pl.read_csv(table.with_suffix(".csv"))) > 0
        written = {path: path.stat().st_mtime_ns for path in table.parent.iterdir()}
        (second,) = run(store, stage)
        assert (first.skipped, second.skipped, second.report) == (False, True, first.report)
        assert {path: path.stat().st_mtime_ns for path in table.parent.iterdir()} == written
        table.write_bytes(table.read_bytes()[:100])
        assert not run(store, stage)[0].skipped
        assert pl.read_parquet(table).equals(whole, null_equal=True)

    def test_its_tables_go_into_a_document(self, name, store, tmp_path):
        """Under marks with the names of stage and table, drawn without a terminal's colours."""
        stage = settings(name) | {"output": tmp_path / "numbers", "document": tmp_path / "page.md"}
        mark = "<!-- clipsyn: none such -->"
        (tmp_path / "page.md").write_text(f"{mark}\n<!-- clipsyn end -->")
        with pytest.raises(UsageError, match="has no mark for a table") as caught:
            run(store, stage)
        names = re.findall(rf"\b{name}: [^;]+", str(caught.value))
        assert names
        marks = [f"<!-- clipsyn: {one} -->\n<!-- clipsyn end -->\n" for one in names]
        (tmp_path / "page.md").write_text("".join(marks))
        (outcome,) = run(store, stage)
        assert outcome.skipped, "numbers that are there are not measured again for a document"
        page = (tmp_path / "page.md").read_text()
        assert page.count("```text\n") == len(names)
        assert "\x1b" not in page
        assert "None" not in page


@pytest.mark.parametrize("name", ["diversity", "robustness"])
def test_when_results_beside_the_store_change_it_is_measured_again(name, store, tmp_path):
    evaluate = {
        "stage": "evaluate",
        "ensembles": ["super-learner"],
        "perturbations": ["clean", "jpeg-3"],
        "shots": [1],
        "seeds": 1,
        "output": tmp_path / "results",
    }
    results = tmp_path / "results.parquet"
    stage = settings(name) | {"output": tmp_path / "o", "results": results, "shots": 1}
    assert [one.skipped for one in run(store, evaluate, stage)] == [False, False]
    assert [one.skipped for one in run(store, evaluate, stage)] == [True, True]
    more = evaluate | {"ensembles": ["super-learner", "c-log-avg"]}
    assert [one.skipped for one in run(store, more, stage)] == [False, False]


def test_an_evaluation_that_lacks_predictions_alone_is_not_skipped(store, tmp_path):
    stage = {"stage": "evaluate", "ensembles": ["log-avg"], "output": tmp_path / "results"}
    without = stage | {"predictions": False}
    assert [one.skipped for one in run(store, without, without)] == [False, True]
    assert [one.skipped for one in run(store, stage, stage)] == [False, True]
    assert len(pl.read_parquet(tmp_path / "results-predictions.parquet")) > 0


def test_an_import_is_skipped_where_the_store_has_it(tmp_path):
    (tmp_path / "a.csv").write_text("id,prediction,label\n1,cat,cat\n2,cat,dog\n")
    stage = {"stage": "import", "files": [tmp_path / "a.csv"], "dataset": "toy"}
    first, second = (run(tmp_path / "store", stage)[0] for _ in range(2))
    assert (first.skipped, first.did, second.skipped) == (False, "1 of 1 cells imported", True)


def test_a_file_that_a_setting_names_is_made_again(store, tmp_path):
    samples = tmp_path / "samples.csv"
    stage = {"stage": "oracle", "output": tmp_path / "o", "samples": samples}
    assert [run(store, stage)[0].skipped for _ in range(2)] == [False, True]
    samples.unlink()
    assert not run(store, stage)[0].skipped
    assert samples.exists()


def test_a_label_is_part_of_the_digest_and_provenance_is_not(tiny_store, fakes):
    before = digest(tiny_store)
    (tiny_store.path / ".wip" / "new-1").mkdir(parents=True)
    fakes.rewrite(tiny_store.at("features", *fakes.key.names), provenance={})
    assert digest(FeatureStore.open(tiny_store.path)) == before
    table = tiny_store.samples("toy", "test")
    table.labels[3] = (table.labels[3] + 1) % 3
    tiny_store.annotate(table)
    assert digest(tiny_store) != before


def test_two_evaluations_write_into_one_document(store, tmp_path):
    """Marks begin with the section where there is one."""
    page = tmp_path / "page.md"
    name = "by dataset, zero-shot, test, simple, all"
    marks = [f"<!-- clipsyn: {start}{name} -->\n<!-- clipsyn end -->\n" for start in ("", "one: ")]
    page.write_text("".join(marks))
    stage = {"stage": "evaluate", "shots": [1], "seeds": 1, "document": page}
    averages, votes = (
        stage | {"ensembles": [which], "output": tmp_path / which}
        for which in ("log-avg", "vote-1")
    )
    run(store, averages, votes | {"section": "one"})
    first, second = page.read_text().split("<!-- clipsyn end -->\n", 1)
    assert ["log-avg" in part for part in (first, second)] == [True, False]
    assert ["vote-1" in part for part in (first, second)] == [False, True]


def test_a_page_is_made_again_where_labels_or_results_changed(tiny_store, tmp_path):
    page, results = tmp_path / "new" / "report.html", tmp_path / "results.parquet"
    report = {"stage": "report", "output": page, "results": results}
    with pytest.raises(UsageError, match="an evaluate stage before this one makes it"):
        run(tiny_store.path, report)

    def made(shots):
        few = {"stage": "evaluate", "output": tmp_path / "results", "ensembles": ["super-learner"]}
        stages = (few | {"shots": [shots], "seeds": 1}, report)
        return not run(tiny_store.path, *stages)[-1].skipped

    assert [made(1), made(1), made(2), made(2)] == [True, False, True, False]
    assert page.read_text("utf-8").startswith("<!doctype html>")
    samples = tiny_store.samples("toy", "test")
    vars(samples)["labels"] = (samples.labels + 1) % 3
    tiny_store.annotate(samples)
    assert not run(tiny_store.path, {"stage": "report", "output": page})[0].skipped
