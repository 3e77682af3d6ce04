"""What docs/rivals.md and docs/router.md show: rows in pairs, regret, NLC without embeddings."""

import numpy as np
import pytest

from clipsyn.methods.pool import Pool
from tests.evaluation.conftest import Answers
from tests.pipelines.scripts import script

rivals, nlc = script("rivals"), script("nlc_study")


def right(count):
    return np.arange(100) < count


@pytest.fixture
def column(tmp_path):
    """On two sets: `chosen` is right on 50 of 100 images of each of two draws, others on more or
    fewer; `log-avg`, of which nothing is drawn, on 50; `nlc` is better on one set alone."""
    answers = Answers(tmp_path / "r.parquet")
    for dataset, of_nlc in (("birds", 90), ("cars", 50)):
        drawn = {"nlc": of_nlc, "moe": 20}
        few = {(name, draw): right(n) for name, n in drawn.items() for draw in (0, 1)}
        answers.add(few | {("log-avg", None): right(50), ("sota", None): right(99)}, dataset)
        answers.add({("chosen", draw): right(50) for draw in (0, 1)}, dataset, head="chosen")
        answers.add({("log-avg", draw): right(80) for draw in (0, 1)}, dataset, head="lda")
    (column,) = rivals.columns(answers.path)
    return column


def test_rows_are_compared_with_what_was_chosen_on_the_same_draws(column):
    assert (column.shots, column.perturbation, [*column.right]) == (
        "16",
        "clean",
        ["birds", "cars"],
    )
    assert column.rows(transductive=True) == ["sota"]
    assert {*column.rows()} == {"chosen", "log-avg", "nlc", "moe", "lda+log-avg"}
    found = rivals.compared(column, column.rows(), "chosen")
    expected = {  # points, mark, sets won and lost
        "lda+log-avg": (30, "+", 2, 0),
        "nlc": (20, "+", 1, 0),
        "log-avg": (0, "", 0, 0),
        "moe": (-30, "-", 0, 2),
    }
    for row, (points, mark, won, lost) in expected.items():
        it = found[row]
        assert 100 * it["difference"] == pytest.approx(points)
        assert (it["mark"], it["won"], it["lost"]) == (mark, won, lost)
    first, *_, last = [line.split(" | ")[0] for line in rivals.rows_table(column)][2:]
    assert (first, last) == ("| lda+log-avg", "| sota (transductive)")


def test_regret_is_of_the_best_row_over_all_sets_and_of_each(column):
    line = [*rivals.regret_table([column])][-1].strip("| ").split(" | ")
    assert line[:4] == ["16", "clean", "2", "lda+log-avg"]
    assert line[4].startswith("+30.0")
    assert line[5] == "+35.0"  # 40 by nlc on birds, 30 by lda on cars


@pytest.fixture
def pool():
    rng = np.random.default_rng(0)
    images = {b: rng.normal(size=(40, 4)).astype(np.float32) for b in "ab"}
    images = {b: rows / np.linalg.norm(rows, axis=1, keepdims=True) for b, rows in images.items()}
    labels = np.repeat(np.arange(4), 10)
    logits = rng.normal(size=(40, 2, 4)) + 2 * np.eye(4)[labels][:, None]
    return Pool.of(logits.astype(np.float32), labels, images, backbones=["a", "b"])


def test_embeddings_are_taken_away_and_nothing_else(pool):
    without = nlc.changed(pool, nlc.shuffled, 1)
    rows = [pool.embeddings["a"].tolist().index(row) for row in without.embeddings["a"].tolist()]
    assert sorted(rows) == [*range(40)] != rows
    np.testing.assert_array_equal(without.embeddings["b"], pool.embeddings["b"][rows])
    np.testing.assert_array_equal(without.logits, pool.logits)
    same = nlc.changed(pool, nlc.constant, 1)
    assert [len(np.unique(same.embeddings[b], axis=0)) for b in "ab"] == [1, 1]


@pytest.mark.usefixtures("few_steps")
def test_weights_without_embeddings_are_the_same_for_all_images(pool):
    found = dict(nlc.scores(pool, pool, 0))
    assert len(found) == len(nlc.OTHERS) + len(nlc.STEPS) + 4
    assert "nlc, 75 steps" not in dict(nlc.scores(pool, pool, nlc.STEPPED))
    logits = pool.logits.transpose(0, 2, 1).reshape(-1, 2)

    def unexplained(name):
        """The squares that one weight a backbone leaves."""
        return np.linalg.lstsq(logits, found[name].ravel())[1].sum()

    assert unexplained(nlc.CONSTANT) == pytest.approx(0, abs=1e-6)
    assert unexplained(nlc.AVERAGED) == pytest.approx(0, abs=1e-6)
    assert unexplained(nlc.NLC) > 1e-4
