"""Targets on a head: the same numbers whether or not they fit into memory, and whose logits."""

import pytest
from polars.testing import assert_frame_equal

from clipsyn.evaluation import plan
from clipsyn.evaluation.loop import evaluate
from clipsyn.methods.heads import HEADS
from clipsyn.methods.heads.base import ZeroShot
from clipsyn.store.pools import PoolReader
from tests.results import untimed

SETTINGS = {
    "heads": ["zero-shot", "lda", "tip-adapter"],
    "ensembles": ["log-avg", "super-learner", "nlc:steps=5", "ola"],
    "shots": (2, "full"),
    "seeds": 1,
    "perturbations": None,
}


@pytest.fixture
def large(monkeypatch):
    """No target fits into memory."""
    monkeypatch.setattr(plan, "ROOM", 0)


def test_large_targets_have_the_same_numbers(tiny_store, request):
    settings = SETTINGS | {"ensembles": [*SETTINGS["ensembles"], "sota", "zlap:batch=7"]}
    small = untimed(evaluate(tiny_store, **settings))
    request.getfixturevalue("large")
    assert_frame_equal(untimed(evaluate(tiny_store, **settings)), small)
    halves = {"base_to_new": True, "heads": ["zero-shot"], "shots": ("full",)}
    new = untimed(evaluate(tiny_store, **settings | halves))
    assert set(new["classes"]) == {"base", "new"}


@pytest.fixture
def read(monkeypatch):
    """Passes over the store: split, perturbation, and whether embeddings were read."""
    passes: list[tuple[str, str, bool]] = []
    blocks = PoolReader.blocks

    def spy(self, *, embeddings=True):
        passes.append((self.samples.split, self.perturbation, embeddings))
        return blocks(self, embeddings=embeddings)

    monkeypatch.setattr(PoolReader, "blocks", spy)
    return passes


@pytest.mark.usefixtures("large")
def test_large_targets_are_read_once_a_fit_with_embeddings_where_needed(tiny_store, read):
    settings = {"heads": ["zero-shot"], "perturbations": "clean", "shots": ("full",)}
    evaluate(tiny_store, **SETTINGS | settings)
    # the backbones with log-avg; super-learner, ola, nlc, best-single
    needed = [False, False, True, True, False]
    assert sorted(read) == sorted(("test", "clean", it) for it in needed)


@pytest.mark.usefixtures("large")
def test_what_learns_nothing_is_judged_once_for_all_draws(tiny_store, read):
    settings = {"heads": ["zero-shot"], "perturbations": "clean", "shots": (1, 2, "full")}
    ensembles = ["log-avg", "vote-1", "super-learner"]
    evaluate(tiny_store, **SETTINGS | settings | {"ensembles": ensembles, "seeds": 3})
    draws = 2 * 3 + 1
    assert len(read) == 1 + 2 * draws  # super-learner and best-single are fitted on each


class Turned(ZeroShot):
    def _transform(self, pool):
        return -pool.logits


def test_a_head_that_learns_nothing_may_change_logits_all_the_same(tiny_store, monkeypatch):
    monkeypatch.setattr(HEADS, "_others", {"turned": Turned})
    frame = evaluate(tiny_store, heads=["turned"], ensembles=["log-avg"], shots=(), datasets="toy")
    test = tiny_store.pool("toy", "test")
    wrong = (-test.logits).mean(axis=1).argmax(axis=1) == test.labels
    found = frame.filter(metric="acc1", ensemble="log-avg")["value"].item()
    assert found == pytest.approx(wrong.mean())
