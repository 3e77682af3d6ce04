"""Stages that measure a store or write a page: what each writes, and when it is skipped."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest

from clipsyn.analyses import ANALYSES
from clipsyn.errors import UsageError
from clipsyn.evaluation.results.frame import RESULT
from clipsyn.run.recipe import Recipe, run_recipe
from clipsyn.run.stages import Outcome, digest
from clipsyn.store.features import FeatureStore

# Stages that measure a store: what each writes, when it is skipped, what it says of bad input


SETTINGS = {"cascade": {"costs": {"fake/one": 0.5, "fake/two": 2}}}
NAMES = sorted(ANALYSES)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, fakes: SimpleNamespace) -> Path:
    """Two backbones, both splits, clean and perturbed."""
    path = tmp_path_factory.mktemp("analysed") / "store"
    encoders = [fakes.Encoder(), fakes.Encoder("fake/two", size=12, embed_dim=16)]
    sources = [fakes.Source("toy", split, count=24) for split in ("train", "test")]
    fakes.fill(path, encoders, sources, ("clean", "jpeg:3"))
    return path


def run(store: Path, *stages: dict[str, Any]) -> list[Outcome]:
    recipe = Recipe.of({"store": store, "stages": list(stages)})
    return run_recipe(recipe, lambda _number, _name: None)


def settings(name: str) -> dict[str, Any]:
    return {"stage": name, **SETTINGS.get(name, {})}


@pytest.mark.parametrize("name", NAMES)
class TestEveryAnalysis:
    def test_damaged_numbers_are_made_again(self, name: str, store: Path, tmp_path: Path) -> None:
        stage, table = settings(name) | {"output": tmp_path / "out"}, tmp_path / "out.parquet"
        run(store, stage)
        whole = pl.read_parquet(table)
        table.write_bytes(table.read_bytes()[:100])
        (outcome,) = run(store, stage)
        assert not outcome.skipped
        assert pl.read_parquet(table).equals(whole, null_equal=True)
        assert run(store, stage)[0].skipped

    def test_it_writes_its_numbers(self, name: str, store: Path, tmp_path: Path) -> None:
        (outcome,) = run(store, settings(name) | {"output": tmp_path / "new" / "some.numbers"})
        frame = pl.read_parquet(tmp_path / "new" / "some.numbers.parquet")
        shared = {column: kind for column, kind in frame.schema.items() if column in RESULT}
        assert list(shared.items()) == list(RESULT.items())
        own = [place for place, column in enumerate(frame.columns) if column not in RESULT]
        assert all(place < frame.columns.index("metric") for place in own)
        assert len(frame) == len(pl.read_csv(tmp_path / "new" / "some.numbers.csv")) > 0
        measured = frame.filter(pl.col("ensemble").ne_missing("chance"))
        assert measured["fingerprint"].null_count() == 0
        assert (outcome.stage, outcome.skipped) == (name, False)
        assert str(tmp_path / "new" / "some.numbers.csv") in outcome.did

    def test_the_second_time_it_is_there(self, name: str, store: Path, tmp_path: Path) -> None:
        stage = settings(name) | {"output": tmp_path / "numbers"}
        (first,) = run(store, stage)
        written = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
        (second,) = run(store, stage)
        assert (second.skipped, second.report) == (True, first.report)
        assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == written

    def test_its_tables_go_into_a_document(self, name: str, store: Path, tmp_path: Path) -> None:
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
class TestResultsBesideTheStore:
    def test_when_they_change_it_is_measured_again(self, name, store, tmp_path):
        evaluate = {
            "stage": "evaluate",
            "ensembles": ["super-learner"],
            "perturbations": ["clean", "jpeg-3"],
            "shots": [1],
            "seeds": 1,
            "output": tmp_path / "results",
        }
        stage = settings(name) | {
            "output": tmp_path / "o",
            "results": tmp_path / "results.parquet",
            "shots": 1,
        }
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


def test_a_file_that_a_setting_names_is_made_again(store: Path, tmp_path: Path) -> None:
    samples = tmp_path / "samples.csv"
    stage = {"stage": "oracle", "output": tmp_path / "o", "samples": samples}
    assert [run(store, stage)[0].skipped for _ in range(2)] == [False, True]
    samples.unlink()
    assert not run(store, stage)[0].skipped
    assert samples.exists()


class TestDigest:
    def test_it_is_of_what_can_be_read(self, tiny_store: FeatureStore) -> None:
        before = digest(tiny_store)
        assert digest(FeatureStore.open(tiny_store.path)) == before
        (tiny_store.path / ".wip" / "new-1").mkdir(parents=True)
        assert digest(tiny_store) == before

    def test_provenance_is_no_part_of_it(self, tiny_store: FeatureStore, fakes: Any) -> None:
        before = digest(tiny_store)
        fakes.rewrite(tiny_store.features_path(fakes.key), provenance={})
        assert digest(tiny_store) == before

    def test_a_label_is(self, tiny_store: FeatureStore) -> None:
        before = digest(tiny_store)
        table = tiny_store.samples("toy", "test")
        table.labels[3] = (table.labels[3] + 1) % 3
        tiny_store.annotate(table)
        assert digest(tiny_store) != before


def test_two_evaluations_write_into_one_document(store: Path, tmp_path: Path) -> None:
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


# The stage that writes a page: when it is skipped, and when it is made again


@pytest.fixture
def make(tiny_store, tmp_path):
    """Function (stages) -> their outcomes; the page goes to a folder that is not there yet."""

    def make(*stages: dict[str, Any]) -> list[Outcome]:
        recipe = Recipe.of({"store": tiny_store.path, "stages": list(stages)})
        return run_recipe(recipe, lambda _number, _name: None)

    return make


@pytest.fixture
def page(tmp_path) -> Path:
    return tmp_path / "new" / "report.html"


def page_stage(page: Path, **fields: Any) -> dict[str, Any]:
    return {"stage": "report", "output": page, **fields}


def test_it_says_where_the_page_is(make, page):
    (outcome,) = make(page_stage(page))
    assert not outcome.skipped
    assert str(page) in outcome.did
    assert page.read_text("utf-8").startswith("<!doctype html>")


def test_the_same_again_is_skipped(make, page):
    make(page_stage(page))
    before = page.stat().st_mtime_ns
    (outcome,) = make(page_stage(page))
    assert outcome.skipped
    assert page.stat().st_mtime_ns == before


def test_nor_is_a_corrected_label(make, page, tiny_store):
    make(page_stage(page))
    samples = tiny_store.samples("toy", "test")
    labels = samples.labels.copy()
    labels[0] = (labels[0] + 1) % 3
    vars(samples)["labels"] = labels
    tiny_store.annotate(samples)
    assert not make(page_stage(page))[0].skipped


def test_nor_are_other_results(make, page, tmp_path):
    few = {"stage": "evaluate", "output": tmp_path / "results", "ensembles": ["super-learner"]}
    shown = page_stage(page, results=tmp_path / "results.parquet")
    make(few | {"shots": [1], "seeds": 1}, shown)
    *_, again = make(few | {"shots": [1], "seeds": 1}, shown)
    assert again.skipped
    *_, outcome = make(few | {"shots": [2], "seeds": 1}, shown)
    assert not outcome.skipped


def test_results_that_are_not_there_are_asked_of_the_stage_before(make, page, tmp_path):
    with pytest.raises(UsageError, match="an evaluate stage before this one makes it"):
        make(page_stage(page, results=tmp_path / "none.parquet"))
