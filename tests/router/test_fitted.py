"""A fitted router applies to pools of what it was fitted on, and names what differs elsewhere."""

from dataclasses import replace

import numpy as np
import pytest

from clipsyn.errors import InputError, RouterMismatch, UsageError
from clipsyn.methods.ensembles.base import LogAverage, ProbabilityAverage, Router
from clipsyn.methods.heads.base import Head
from clipsyn.methods.numerics.logits import softmax
from clipsyn.methods.pool import Pool
from clipsyn.router.fit import FittedRouter


class First(Router):
    """All weight on the first backbone by name."""

    learns = False

    def _weights(self, pool):
        return np.eye(len(pool.backbones))[0]


class Doubled(Head):
    """Twice the logits, for the backbones in the order of the support."""

    learns = False

    def _logits(self, pool, backbone):
        return 2 * pool.logits[:, pool.backbones.index(backbone)]

    def _combiner_pool(self, support):
        return self.transform(support)


def fitted(support, ensemble=None, head=None):
    head = head.fit(support) if head else None
    return FittedRouter.of((ensemble or First()).fit(support), support, head=head)


def test_scores_are_those_of_the_ensemble_on_the_heads_logits(support, unseen):
    router = fitted(support, head=Doubled())
    np.testing.assert_array_equal(router.combine(unseen), 2 * unseen.logits[:, 0])
    np.testing.assert_array_equal(router.predict_proba(unseen), softmax(2 * unseen.logits[:, 0]))
    expected = unseen.logits[:, 0].argmax(axis=1)
    np.testing.assert_array_equal(router.predict(unseen), expected)
    assert router.score(unseen) == (expected == unseen.labels).mean()


@pytest.mark.parametrize("head", [None, Doubled()])
def test_weights_are_in_the_order_of_the_pool(support, unseen, head):
    router = fitted(support, head=head)
    shuffled = unseen.of_backbones(("fake/two", "fake/one", "fake/three"))
    np.testing.assert_array_equal(router.weights(unseen), np.tile([1, 0, 0], (len(unseen), 1)))
    np.testing.assert_array_equal(router.weights(shuffled), np.tile([0, 1, 0], (len(unseen), 1)))
    scores, weights = router.combine_and_weigh(shuffled)
    np.testing.assert_array_equal(scores, router.combine(unseen))
    np.testing.assert_array_equal(weights, router.weights(shuffled))


def test_an_ensemble_without_weights_says_so(support, unseen):
    router = fitted(support, ProbabilityAverage())
    with pytest.raises(UsageError, match="ProbabilityAverage does not weigh backbones"):
        router.weights(unseen)
    assert router.combine_and_weigh(unseen)[1] is None


def test_what_has_no_finite_scores_for_its_own_images_is_no_router(support):
    labels = np.where(np.arange(40) < 30, support.labels, -1)
    part = replace(support, labels=labels.astype(np.int32))

    class Diverged(Doubled):
        def _logits(self, pool, backbone):
            logits = super()._logits(pool, backbone)
            logits[pool.labels == 0, 1] = np.inf  # of one class
            return logits

    with pytest.raises(
        UsageError,
        match=r"^First\(\) on Diverged\(\) has no finite scores for 6 of the 30 images that it was",
    ):
        fitted(part, head=Diverged())


def test_what_the_support_was(support):
    labels = support.labels.copy()
    labels[labels == 2] = -1
    labels[:30][labels[:30] == 1] = -1  # leaves two of ten
    part = replace(support, labels=labels)
    found = FittedRouter.of(LogAverage().fit(part), part, shots=8, seed=1).support
    assert found.samples == np.count_nonzero(labels >= 0)
    assert (found.classes_short, found.classes_empty) == (1, 1)
    right = LogAverage().fit(part).predict(part)[labels >= 0] == labels[labels >= 0]
    assert found.accuracy == right.mean()


def with_identity(pool, name, **fields):
    identities = dict(pool.provenance["backbones"])
    identities[name] = identities[name] | fields
    return replace(pool, provenance={**pool.provenance, "backbones": identities})


def with_prompts(pool, **fields):
    prompts = {**pool.provenance["prompts"], **fields}
    return replace(pool, provenance={**pool.provenance, "prompts": prompts})


REFUSALS = {
    "backbones": lambda pool: pool.of_backbones(pool.backbones[:2]),
    "number of classes": lambda pool: pool.of_classes([0, 1, 2]),
    "class names (of class 1)": lambda pool: replace(
        pool, class_names=("missile", "cat", "missile", "crane", "beacon")
    ),
    "prompts": lambda pool: with_prompts(pool, name="simple"),
    "prompts (templates)": lambda pool: with_prompts(pool, templates=["the {c}."]),
    "weights of fake/two": lambda pool: with_identity(pool, "fake/two", weights="0" * 64),
    "precision of fake/one": lambda pool: with_identity(pool, "fake/one", precision="bf16"),
    "preprocess.size of fake/one": lambda pool: with_identity(
        pool, "fake/one", preprocess={"size": 9}
    ),
}


@pytest.mark.parametrize("field", REFUSALS)
@pytest.mark.parametrize("use", ["combine", "predict", "predict_proba", "weights", "score"])
def test_it_refuses_another_pool_and_names_the_field(field, use, support, unseen):
    given = {"size": 8}
    support = with_identity(support, "fake/one", preprocess=given)
    router = fitted(support)
    unseen = with_identity(unseen, "fake/one", preprocess=given)
    router.check(unseen)
    with pytest.raises(RouterMismatch, match=r"fitted on .* applied to") as caught:
        getattr(router, use)(REFUSALS[field](unseen))
    assert caught.value.field == field


def test_what_a_pool_does_not_know_is_taken_on_trust(support, unseen):
    bare = Pool.of(unseen.logits, unseen.labels, backbones=unseen.backbones)
    router = fitted(support)
    np.testing.assert_array_equal(router.predict(bare), router.predict(unseen))


def test_a_router_of_plain_arrays_cannot_vouch_for_stored_embeddings():
    pool = Pool.of(np.zeros((4, 2, 3)), [0, 1, 2, 0])
    (backbone, _) = fitted(pool).backbones
    for use in (
        lambda: backbone.check({"weights": "ab"}),
        lambda: backbone.logits(np.ones((1, 3)), 1),
        lambda: backbone.precision,
    ):
        with pytest.raises(InputError, match="plain arrays or were imported"):
            use()
