"""The contract that every registered head keeps."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from clipsyn.errors import InputError, LeakError, RouterMismatch, TooFewSamples, UsageError
from clipsyn.methods.estimator import from_text
from clipsyn.methods.heads import HEADS
from clipsyn.methods.heads.base import Head
from clipsyn.methods.pool import Pool

NAMES = list(HEADS)
LEARNERS = [name for name in NAMES if name != "zero-shot"]
# what is chosen with all labels is given instead, so that nothing but the logits can know them
FIXED = {
    "tip-adapter": "tip-adapter:alpha=2:beta=3",
    "tip-adapter-f": "tip-adapter-f:alpha=2:beta=3",
    "ape": "ape:alpha=2:beta=3",
    "lda": "lda:alpha=0.02",
    "linear-probe": "linear-probe:penalty=0.1",
}


def head(name: str) -> Head:
    found: Head = from_text(HEADS, name)
    return found


def pool(per_class=4, classes=6, *, backbones=2, signal=1.0, seed=0, split="train"):
    """Clusters around class centres, and zero-shot logits that know a little.

    signal 0: neither has anything to do with the labels.
    """
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99)
    labels = np.repeat(np.arange(classes), per_class)
    rng.shuffle(labels)
    embeddings, logits, text = {}, [], {}
    for number in range(backbones):
        width = 12 + 4 * number
        common = centres.normal(size=width)
        centre = centres.normal(size=(classes, width))
        noise = rng.normal(size=(len(labels), width))
        values = 2 * common + signal * centre[labels] + 0.7 * noise
        values /= np.linalg.norm(values, axis=1, keepdims=True)
        embeddings[f"b{number}"] = values.astype(np.float16)
        known = signal * centre + centres.normal(size=centre.shape)
        text[f"b{number}"] = known / np.linalg.norm(known, axis=1, keepdims=True)
        z = rng.normal(size=(len(labels), classes))
        z[np.arange(len(labels)), labels] += signal
        logits.append(2 * z)
    names = [f"b{number}" for number in range(backbones)]
    found = Pool.of(np.stack(logits, axis=1), labels, embeddings, backbones=names, split=split)
    return dataclasses.replace(
        found, class_embeddings=text, logit_scales=dict.fromkeys(names, 10.0)
    )


def relabelled(support: Pool, labels: np.ndarray) -> Pool:
    return dataclasses.replace(support, labels=labels.astype(np.int32))


def close(found: Any, expected: Any, tolerance: float = 2e-3) -> None:
    """Solvers stop early, and sums in another order round differently."""
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", NAMES)
def test_the_test_split_is_refused(name):
    for method in ("fit", "fit_transform"):
        with pytest.raises(LeakError, match="test split"):
            getattr(head(name), method)(pool(split="test"))


@pytest.mark.parametrize("name", LEARNERS)
def test_labels_of_what_is_transformed_change_nothing(name):
    new = pool(seed=1)
    found = head(name).fit(pool())
    blind = found.transform(relabelled(new, np.full(len(new), -1)))
    np.testing.assert_array_equal(found.transform(new).logits, blind.logits)


@pytest.mark.parametrize("name", LEARNERS)
def test_it_learns(name):
    support, new = pool(8), pool(30, seed=1)

    def right(of: Pool) -> float:
        return float(np.mean(of.logits.argmax(axis=2) == of.labels[:, None]))

    assert right(head(name).fit(support).transform(new)) > right(new) + 0.05
    combiner = head(name).fit_transform(support)
    assert right(combiner) > right(support)


@pytest.mark.parametrize("name", NAMES)
def test_what_the_combiner_gets_is_labelled_and_part_of_the_support(name):
    support = pool()
    support = dataclasses.replace(support, ids=tuple(f"im{i}" for i in range(len(support))))
    found = head(name).fit_transform(support)
    assert 0 < len(found) <= len(support)
    assert found.backbones == support.backbones
    assert len(set(found.ids)) == len(found)
    rows = [support.ids.index(identifier) for identifier in found.ids]
    np.testing.assert_array_equal(found.labels, support.labels[rows])


@pytest.mark.parametrize("name", NAMES)
def test_fit_transform_fits_what_fit_fits(name):
    support, new = pool(), pool(seed=1)
    one, other = head(name), head(name).fit(support)
    one.fit_transform(support)
    np.testing.assert_array_equal(one.transform(new).logits, other.transform(new).logits)


@pytest.mark.parametrize("name", sorted({*LEARNERS, *FIXED.values()}))
@pytest.mark.parametrize("per_class", [1, 2, 4])
def test_where_there_is_nothing_to_know_nothing_is_known(name, per_class):
    """Embeddings and logits without any relation to the labels: the true class's logit is like
    any other. That is what "does not know its label" means, and it has two sides: a head's own
    support would be right far too often, and leaving out carelessly makes it wrong too often,
    because the class that is one image short is the true one."""
    places = []
    for seed in range(12):
        support = pool(per_class, 8, signal=0, seed=seed)
        support = support.with_logits(support.logits / 20)  # so that what the head adds is seen
        if name.startswith("linear-probe") and per_class == 1:
            with pytest.raises(TooFewSamples):
                head(name).fit_transform(support)
            return
        found = head(name).fit_transform(support)
        true = np.take_along_axis(found.logits, found.labels[:, None, None], axis=2)
        places.append((found.logits < true).mean(axis=2) * 8 / 7)
    share = np.concatenate(places).mean(axis=1)
    error = share.std() / np.sqrt(len(share))
    assert abs(share.mean() - 0.5) < 4 * error + 0.02
    assert error < 0.06


@pytest.mark.parametrize("name", [name for name in NAMES if name != "linear-probe"])
def test_the_order_of_the_support_does_not_matter(name):
    support, new = pool(), pool(seed=1)
    shuffled = support.take(np.random.default_rng(5).permutation(len(support)))
    # one batch holds the whole support, so that its order is no part of training either
    expected = head(name).fit(support).transform(new)
    close(head(name).fit(shuffled).transform(new).logits, expected.logits)


@pytest.mark.parametrize("name", NAMES)
def test_samples_are_transformed_one_by_one(name):
    support, new = pool(), pool(seed=1)
    order = np.random.default_rng(5).permutation(len(new))
    found = head(name).fit(support)
    close(found.transform(new.take(order)).logits, found.transform(new).logits[order], 1e-5)
    assert len(found.transform(new.take(order[:0]))) == 0


@pytest.mark.parametrize("name", NAMES)
def test_backbones_are_independent_and_found_by_name(name):
    support, new = pool(backbones=3), pool(backbones=3, seed=1)
    found = head(name).fit(support)
    expected = found.transform(new)
    turned = found.transform(new.of_backbones(["b2", "b0", "b1"]))
    np.testing.assert_array_equal(turned.of_backbones(new.backbones).logits, expected.logits)
    fewer = head(name).fit(support.of_backbones(["b1"])).transform(new.of_backbones(["b1"]))
    close(fewer.logits[:, 0], expected.logits[:, 1], 1e-5)
    unseen = head(name).fit_transform(support)
    turned = head(name).fit_transform(support.of_backbones(["b2", "b0", "b1"]))
    close(turned.of_backbones(unseen.backbones).logits, unseen.logits, 1e-5)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "linear-probe"])
def test_permuting_classes_permutes_logits(name):
    support, new = pool(), pool(seed=1)
    order = np.random.default_rng(3).permutation(6)
    turned = head(name).fit(support.of_classes(order)).transform(new.of_classes(order))
    expected = head(name).fit(support).transform(new)
    rows = np.flatnonzero(new.labels >= 0)
    close(turned.logits, expected.logits[rows][:, :, order])


@pytest.mark.parametrize("name", NAMES)
def test_unreadable_rows_stay_unknown_and_are_not_learned_from(name):
    support, new = pool(), pool(seed=1)
    logits = support.logits.copy()
    logits[3, 1] = np.nan
    labels = support.labels.copy()
    labels[7] = -1
    broken = dataclasses.replace(support, logits=logits, labels=labels)
    whole = support.take(np.setdiff1d(np.arange(len(support)), [3, 7]))
    found, expected = head(name).fit(broken), head(name).fit(whole)
    np.testing.assert_array_equal(found.transform(new).logits, expected.transform(new).logits)
    assert np.isfinite(head(name).fit_transform(broken).logits).all()
    result = found.transform(broken).logits
    assert np.isnan(result[3, 1]).all()
    assert np.isfinite(np.delete(result, 3, axis=0)).all()


@pytest.mark.parametrize("name", NAMES)
def test_another_pool_is_refused(name):
    found = head(name).fit(pool(backbones=3))
    with pytest.raises(RouterMismatch, match="backbones differ"):
        found.transform(pool())
    with pytest.raises(RouterMismatch, match="number of classes"):
        found.transform(pool(classes=5, backbones=3))
    with pytest.raises(UsageError, match="not fitted"):
        head(name).transform(pool())


def degenerate() -> dict[str, Pool]:
    support = pool(4)
    one_class = support.take(np.flatnonzero(support.labels == 2))
    huge = support.with_logits(support.logits * 300)
    same = {
        name: np.repeat(values[:1], len(support), 0) for name, values in support.embeddings.items()
    }
    return {
        "one sample": support.take(np.arange(1)),
        "two samples": support.take(np.arange(2)),
        "one class": one_class,
        "two classes": support.of_classes([1, 4]),
        "a set of one class": pool(classes=1),
        "absent classes": support.take(np.flatnonzero(support.labels % 2 == 0)),
        "one image a class but for one": support.take(
            np.concatenate([np.flatnonzero(support.labels == c)[: 1 + (c == 3)] for c in range(6)])
        ),
        "huge logits": huge,
        "equal logits": support.with_logits(np.zeros_like(support.logits)),
        "equal images": dataclasses.replace(support, embeddings=same),
    }


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", list(degenerate()))
def test_little_or_odd_data_gives_finite_logits(name, case):
    support = degenerate()[case]
    if name == "linear-probe" and np.bincount(support.labels).max() == 1:
        with pytest.raises(TooFewSamples, match=r"use the head anchored-probe"):
            head(name).fit_transform(support)
        return
    found = head(name)
    combiner = found.fit_transform(support)
    new = support.with_logits(support.logits[::-1])
    for result in (combiner, found.transform(new)):
        assert np.isfinite(result.logits).all()
    assert len(combiner)


@pytest.mark.parametrize("name", NAMES)
def test_texts_are_asked_for_where_they_are_needed(name):
    """Zero-shot logits, and the embeddings of the classes behind them."""
    support = dataclasses.replace(pool(), class_embeddings={})
    for lacking, needs in (
        (dataclasses.replace(support, without_text=frozenset({"b0"})), head(name).needs_text),
        (support, name in {"ape", "clap", "lp++", "rla"}),
    ):
        if needs:
            with pytest.raises(InputError, match=r"there (is no text for|are no class .* of) b0"):
                head(name).fit(lacking)
        else:
            assert np.isfinite(head(name).fit(lacking).transform(lacking).logits).all()
