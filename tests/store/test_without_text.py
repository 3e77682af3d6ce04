"""Backbones with embeddings and no class embeddings, such as DINOv2, beside CLIPs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner

from clipsyn.cli import main
from clipsyn.errors import InputError
from clipsyn.methods.ensembles import ENSEMBLES
from clipsyn.methods.estimator import from_text
from clipsyn.methods.heads import HEADS
from clipsyn.methods.pool import Pool
from clipsyn.router.artefact import load_router
from clipsyn.store.features import FeatureStore
from clipsyn.store.samples import SampleTable
from clipsyn.store.select import groups

CLASSES, WIDTH, LOST = 4, 6, 5
TEXTLESS = [name for name in HEADS if not from_text(HEADS, name).needs_text]


@pytest.fixture(scope="module")
def store(fakes: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FeatureStore]:
    """clip and dino on 80 train and 60 test images; one image of each split is unreadable.

    It is read only.
    """
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(CLASSES, WIDTH))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    store = FeatureStore.create(tmp_path_factory.mktemp("textless") / "store", chunk_rows=16)
    for split, count in (("train", 80), ("test", 60)):
        labels = np.arange(count) % CLASSES
        samples = SampleTable.of("toy", split, range(count), labels, list("abcd"))
        for name in ("clip", "dino"):
            images = centres[labels] + 0.4 * rng.normal(size=(count, WIDTH))
            images /= np.linalg.norm(images, axis=1, keepdims=True)
            with store.writer(samples, name) as cell:
                cell.embeddings(images, np.arange(count) != LOST)
                if name == "clip":
                    cell.classes("simple", centres, 20)
    before = fakes.contents(store.path)
    yield store
    assert fakes.contents(store.path) == before


@pytest.fixture
def run(store: FeatureStore) -> Callable[..., Any]:
    def call(command: str, *options: object) -> Any:
        return CliRunner().invoke(main, [command, str(store.path), *map(str, options)])

    return call


def test_pool_logits_are_even_where_there_is_no_text(store: FeatureStore) -> None:
    pool = store.pool("toy", "test")
    assert (pool.backbones, pool.without_text) == (("clip", "dino"), {"dino"})
    assert (pool.prompts, list(pool.class_embeddings)) == ("simple", ["clip"])
    rows = np.flatnonzero(np.arange(60) != LOST)
    assert not pool.logits[rows, 1].any()
    assert np.isnan(pool.logits[LOST]).all()
    np.testing.assert_array_equal(np.flatnonzero(pool.readable), rows)


def test_pool_parts_know_it_too(store: FeatureStore) -> None:
    pool = store.pool("toy", "test").take(np.arange(9))
    with pytest.raises(InputError, match="there is no text for dino"):
        pool.check_text("x")
    pool.of_backbones(["clip"]).check_text("x")
    pool.with_logits(pool.logits).check_text("x")


def test_pool_of_such_backbones_alone(store: FeatureStore) -> None:
    pool = store.pool("toy", "test", backbones="dino")
    assert (pool.prompts, pool.without_text) == ("imported", {"dino"})


@pytest.mark.parametrize("name", TEXTLESS)
def test_heads_the_others_work_on_embeddings(store: FeatureStore, name: str) -> None:
    """As where zero-shot logits say nothing: a pool of arrays says so plainly."""
    support, test = store.pool("toy", "train"), store.pool("toy", "test")
    known = support.labelled().of_backbones(["dino"])
    plain = Pool.of(np.zeros((len(known), 1, CLASSES)), known.labels, [known.embeddings["dino"]])
    head = from_text(HEADS, name).fit(support)
    other = from_text(HEADS, name).fit(plain)
    images = test.embeddings["dino"]
    apart = Pool.of(np.zeros((60, 1, CLASSES)), embeddings=[images])
    ours, theirs = head.transform(test), other.transform(apart)
    rows = np.flatnonzero(test.readable)
    np.testing.assert_allclose(ours.logits[rows, 1], theirs.logits[rows, 0], rtol=1e-4, atol=1e-4)
    assert np.mean(ours.logits[rows, 1].argmax(axis=1) == test.labels[rows]) > 0.6
    assert not ours.without_text
    assert not head.fit_transform(support).without_text


@pytest.mark.parametrize("name", ["zero-shot", "anchored-probe"])
def test_heads_that_need_text_refuse_it(store: FeatureStore, name: str) -> None:
    support = store.pool("toy", "train")
    said = "there is no text for dino, and .* use the head linear-probe, lda or tip-adapter"
    with pytest.raises(InputError, match=said):
        from_text(HEADS, name).fit(support)
    head = from_text(HEADS, name).fit(support.of_backbones(["clip"]))
    head.transform(support.of_backbones(["clip"]))


@pytest.mark.parametrize("name", ["log-avg", "vote-1", "super-learner", "nlc"])
def test_ensembles_want_a_head_first(store: FeatureStore, name: str) -> None:
    support, test = store.pool("toy", "train"), store.pool("toy", "test")
    with pytest.raises(InputError, match="there is no text for dino"):
        from_text(ENSEMBLES, name).fit(support)
    if not from_text(ENSEMBLES, name).learns:
        with pytest.raises(InputError, match="there is no text for dino"):
            from_text(ENSEMBLES, name).combine(test)
    head = from_text(HEADS, "lda")
    fitted = from_text(ENSEMBLES, name).fit(head.fit_transform(support))
    assert fitted.score(head.transform(test)) > 0.6
    with pytest.raises(InputError, match="there is no text for dino"):
        fitted.combine(test)


def test_groups_hold_them_where_they_are_asked_for(store: FeatureStore) -> None:
    cells = store.keys(split=["test"])
    for asked, names in ((False, ["clip"]), (True, ["clip", "dino"])):
        found = groups(store, cells, None, without_text=asked)
        assert [key.backbone for _, keys in found for key in keys] == names
    ((where, _),) = groups(store, cells[1:], None, without_text=True)
    assert where == ("clean", "imported")


def singles(rows: list[dict[str, Any]]) -> set[str]:
    """The backbones that have results of their own."""
    return {name for row in rows if row["ensemble"] == "single" for name in row["backbones"]}


def test_they_are_a_dash_beside_zero_shot_answers(run: Any, read_table: Any) -> None:
    rows = json.loads(run("zeroshot", "-o", "-").stdout)
    known = {tuple(row["backbones"]): (row["value"] is None, row["n"]) for row in rows}
    assert (known["dino",], known["clip",][0]) == ((True, 0), False)
    asked = json.loads(run("zeroshot", "-b", "clip", "-o", "-").stdout)
    assert all("dino" not in row["backbones"] for row in asked)
    table = read_table(run("zeroshot").stdout)
    assert (table.row("dino")["top-1"], table.row("clip")["n"]) == ("\u2013", "59")
    assert "that all backbones have" not in run("zeroshot", "--summary").stdout


OPTIONS = ("--shots", 4, "--seeds", 1, "--ensembles", "log-avg,nlc", "-o", "-")


@pytest.mark.parametrize("heads", ["zero-shot", "zero-shot,lda", "all"])
def test_each_head_has_all_that_it_can_use(run: Any, heads: str) -> None:
    result = run("evaluate", "--heads", heads, *OPTIONS)
    assert "left out: dino, of which there are embeddings alone" in result.stderr
    rows = json.loads(result.stdout)
    by_head = {
        head: singles([row for row in rows if row["head"] == head])
        for head in {row["head"] for row in rows}
    }
    assert set(by_head) == ({*HEADS} if heads == "all" else {*heads.split(",")})
    for head, names in by_head.items():
        assert names == ({"clip", "dino"} if head in TEXTLESS else {"clip"})


def test_what_is_chosen_is_chosen_once(run: Any) -> None:
    rows = json.loads(run("evaluate", *OPTIONS[:4], "--ensembles", "chosen", "-o", "-").stdout)
    chosen = [row["backbones"] for row in rows if row["ensemble"] == "chosen"]
    assert {tuple(names) for names in chosen} == {("clip",)}


def test_commands_fit_and_predict(run: Any, store: FeatureStore, tmp_path: Path) -> None:
    options = ("-d", "toy", "--ensemble", "nlc", "-o", tmp_path / "router")
    assert "no text for dino" in run("fit", *options).stderr
    assert run("fit", *options, "--head", "lda").exit_code == 0
    words = ["predict", tmp_path / "router", store.path, "-o", tmp_path / "predicted.csv"]
    predicted = CliRunner().invoke(main, [*map(str, words)])
    assert predicted.exit_code == 0, predicted.output
    index = pl.read_csv(tmp_path / "predicted.csv")["class_index"].to_numpy()
    expected = load_router(tmp_path / "router").predict(store.pool("toy", "test"))
    rows = np.flatnonzero(np.arange(60) != LOST)
    np.testing.assert_array_equal(index[rows], expected[rows])
    assert np.isnan(index[LOST])
