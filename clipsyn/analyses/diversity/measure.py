"""How differently the backbones of a store err, and whether ensembles gain by it.

Reads predictions and labels; no logit, no embedding. All numbers are over the samples that every
backbone has a prediction for. docs/analysis.md lists the metrics. With `results`, a file of
`clipsyn evaluate`, the rows of `correlations` come after these.

Formulas write r_i for the share that backbone i gets right, r_ij for the share that i and j both
get right. A measure that is 0/0 is NaN, such as the agreement beyond chance of backbones that are
right everywhere. The vocabulary is that of Kuncheva and Whitaker, "Measures of Diversity in
Classifier Ensembles", Machine Learning 51 (2003).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from clipsyn.analyses.diversity import DiversitySettings
from clipsyn.analyses.oracle.measures import Overlap
from clipsyn.analyses.predicted import Predicted, predicted
from clipsyn.errors import UsageError
from clipsyn.evaluation.results.data import check_data
from clipsyn.evaluation.results.files import ensembles_in
from clipsyn.evaluation.results.frame import (
    IF_ALIKE,
    OVER_BEST_ON_TEST,
    Measured,
    Row,
    estimate,
    frame,
    gain_metric,
    mean_share,
    row,
    share,
)
from clipsyn.methods.ensembles import BEST_SINGLE
from clipsyn.methods.numerics import Array, Doubles, Floats, Mask
from clipsyn.methods.numerics.metrics import Score, correctness, ratio, scored
from clipsyn.names import fingerprint
from clipsyn.stats.differences import holm, paired
from clipsyn.stats.images import Images
from clipsyn.stats.intervals import (
    UNKNOWN,
    Correlation,
    Interval,
    pearson,
    percentiles,
    spearman,
)
from clipsyn.store.features import FeatureStore
from clipsyn.text import advised

_Places = tuple[int, ...]  # of the backbones that a number is about
_GROUP = ["split", "perturbation", "prompts"]
_DRAWS = 1000  # of a posterior


def measure(store: FeatureStore, settings: DiversitySettings) -> pl.DataFrame:
    """A tidy frame with the columns of `RESULT`.

    Groups of one backbone are left out. Raises UsageError where no group has two, or a dataset that
    is asked for has none that does, and where the results are of other samples or backbones;
    MissingCell, UnknownName and DatasetError as `predicted` does.
    """
    rows: list[Row] = []
    alone: dict[tuple[str, str], Predicted] = {}  # dataset and split: a group of one backbone
    for group in predicted(store, settings, pooled=settings.pooled):
        if len(group.keys) == 1:
            alone[group.samples.dataset, group.samples.split] = group
            continue
        for places, number in numbers(group):
            rows.append(group.row(number, tuple(group.backbones[place] for place in places)))
    for place, group in alone.items():
        there = {(row["dataset"], row["split"]) for row in rows}
        if not rows or (settings.datasets is not None and place not in there):
            raise UsageError(
                f"{group.samples.name} has only one backbone here, {group.backbones[0]}, and it "
                "takes two to differ: choose more with backbones=…, or extract one"
            )
    measured = frame(rows)
    if settings.results is not None:
        found = correlations(store, measured, settings, settings.results)
        return pl.concat([measured, frame(found)])
    return measured


def numbers(group: Predicted) -> Iterator[tuple[_Places, Measured]]:
    """Everything that is measured of one group, with the backbones that it is about."""
    predictions, labels, images = group.predictions, group.labels, group.images
    right = correctness(predictions, labels)
    counts = pair_counts(predictions, labels)
    by_image = shares_by_image(predictions, labels)
    every = tuple(range(len(predictions)))
    for name, formula in PAIRWISE.items():
        values = formula(counts)
        for i, j in combinations(every, 2):
            yield (i, j), _of_pair(name, counts, (float(values[i, j]), i, j), images)
        mean = estimate(f"mean_{name}", over_pairs(values), counts.n)
        if mean.metric in by_image:
            of_images = mean_share(mean.metric, by_image[mean.metric], images)
            mean = mean._replace(interval=of_images.interval)
        yield every, mean
    yield every, estimate("fleiss_kappa", fleiss_kappa(counts), counts.n)
    yield every, mean_share("vote_entropy", by_image["vote_entropy"], images)
    overlap = Overlap.of(right)
    for b, hits in enumerate(overlap.only()):
        yield (b,), share("unique_correct", hits, images)
    for b, floor in enumerate(overlap.mean(overlap.guessed(group.n_classes))):
        yield (b,), estimate("unique_correct_floor", floor, counts.n)
    yield from _significance(right, images)


def _of_pair(name: str, counts: Counts, at: tuple[float, int, int], images: Images) -> Measured:
    """A measure of two backbones; the interval of a kappa holds it also where it is 1."""
    value, i, j = at
    if name in SHARES and counts.n:
        return share(name, round(value * counts.n), images)
    draws = PAIRWISE[name](plausible(counts, i, j, images.effective))[:, 0, 1]
    low, high = percentiles(draws[np.isfinite(draws) & np.isfinite(value)])
    return Measured(name, Score(value, counts.n), Interval(min(low, value), max(high, value)))


def _significance(right: Mask, images: Images) -> Iterator[tuple[_Places, Measured]]:
    pairs, n = list(combinations(range(len(right)), 2)), len(images)
    hits = images.sums(right.T).astype(np.int64)
    p = np.array([paired(hits[:, i] - hits[:, j]) if n else math.nan for i, j in pairs])
    for name, values in (("mcnemar_p", p), ("mcnemar_p_holm", holm(p))):
        for pair, value in zip(pairs, values, strict=True):
            yield pair, estimate(name, value, n)


def correlations(
    store: FeatureStore, measured: pl.DataFrame, settings: DiversitySettings, path: Path
) -> Iterator[Row]:
    """Correlations over datasets of the diversity of backbones with the gains of ensembles.

    measured: rows about diversity; the metrics in `MEANS` count. Gains are those in the file of
    results over the backbone that is best on the support, where nothing is fitted over the best on
    test; means over seeds. Metrics pearson_NAME and spearman_NAME for each measure NAME, `dataset`
    null, `n` the number of datasets, with an interval over datasets; NaN for fewer than three.
    Where the results know it, `IF_ALIKE` is what to expect of error inconsistency over datasets
    that do not differ. Raises UsageError where the results are no such gains, or of other samples,
    UnknownName for a head that is not there.
    """
    members = pl.col("backbones").list.sort().alias("members")
    means = measured.filter(pl.col("metric").is_in(list(MEANS))).with_columns(members)
    words, metrics = ("evaluate", "STORE", "-o", path), ("gain", OVER_BEST_ON_TEST, IF_ALIKE)
    every = ensembles_in(path, metrics, settings.head, settings.shots, words)
    place = ["dataset", *_GROUP, "members"]
    of_ensembles = every.filter(pl.col("ensemble") != BEST_SINGLE).with_columns(members)
    found = of_ensembles.join(means, on=place, how="semi", maintain_order="left")
    if found.is_empty():
        names, dataset, split = means.select("backbones", "dataset", "split").row(0)
        line = advised(*words[:2], "--backbones", ",".join(names), *words[2:])
        raise UsageError(
            f"{path} has no gains of {', '.join(names)} on {dataset}/{split}, nor on what else is "
            f"shown: add them with `{line}`"
        )
    check_data(store, found, path)
    over_seeds = found.group_by(*place, "ensemble", maintain_order=True).agg(
        gain=pl.col("value").filter(metric=gain_metric(every)).mean(),
        alike=pl.col("value").filter(metric=IF_ALIKE).mean(),
        shots=pl.col("shots").first(),
        prints=pl.col("fingerprint"),
    )
    pairs = means.drop("ensemble", "shots").join(over_seeds, on=place, maintain_order="left")
    by = [*_GROUP, "backbones", "ensemble", "metric"]
    for _, part in pairs.drop_nulls("gain").group_by(by, maintain_order=True):
        values = part["value"].to_numpy(), part["gain"].to_numpy()
        for correlation in (pearson, spearman):
            name = f"{correlation.__name__}_{MEANS[part['metric'][0]]}"
            yield _correlation_row(part, settings.head, name, correlation(*values))
        alike = part["alike"].drop_nulls().to_numpy()
        if len(alike) and part["metric"][0] == "mean_error_inconsistency":
            mean = Correlation(float(alike.mean()), UNKNOWN)
            yield _correlation_row(part, settings.head, IF_ALIKE, mean)


def _correlation_row(part: pl.DataFrame, head: str, metric: str, correlation: Correlation) -> Row:
    """part: a measure and the gain of an ensemble, a row a dataset."""
    first = part.row(0, named=True)
    prints = [part["fingerprint"].to_list(), part["prints"].to_list()]
    return row(
        Measured(metric, Score(correlation.value, len(part)), correlation.interval),
        dataset=None,
        **{name: first[name] for name in (*_GROUP, "backbones", "ensemble", "shots")},
        head=head,
        fingerprint=fingerprint({"over": prints}),
    )


class Counts(NamedTuple):
    """Counts of samples that all measures of pairs are made of, whole, so that 0/0 is exact.

    Those of draws are shares, of n = 1, and have one more axis, in front: (draw, backbone).
    """

    n: int
    right: Doubles  # (backbone,) samples that it gets right
    both: Doubles  # (backbone, backbone) samples that both get right
    same: Doubles  # (backbone, backbone) samples with the same prediction

    @property
    def only(self) -> Doubles:
        """(first, second): samples that the first gets right and the second does not."""
        return self.right[..., :, None] - self.both

    @property
    def neither(self) -> Doubles:
        """(first, second): samples that both get wrong."""
        return self.n - self.right[..., :, None] - self.only.swapaxes(-1, -2)


def pair_counts(predictions: Array, labels: Array) -> Counts:
    """Counts of all pairs of backbones, made pair by pair, whose rows stay in a core's cache."""
    right = correctness(predictions, labels)
    b, n = right.shape
    kept = predictions
    if n < len(labels):
        kept = np.compress(scored(predictions, labels), predictions, axis=1)
    both, same = np.empty((b, b)), np.full((b, b), float(n))
    for i, j in zip(*np.triu_indices(b), strict=True):
        both[i, j] = both[j, i] = np.count_nonzero(right[i] & right[j])
        if i != j:
            same[i, j] = same[j, i] = np.count_nonzero(kept[i] == kept[j])
    return Counts(n, both.diagonal().copy(), both, same)


def error_inconsistency(counts: Counts) -> Doubles:
    """Share of samples that exactly one of the two gets right: r_i + r_j - 2 r_ij.

    The paper's likely measure (section 2); 0 on the diagonal. NaN for n = 0, as all shares.
    """
    return ratio(counts.only + counts.only.swapaxes(-1, -2), counts.n)


def disagreement(counts: Counts) -> Doubles:
    """Share of samples with two different predictions, both wrong or not; 0 on the diagonal."""
    return ratio(counts.n - counts.same, counts.n)


def double_fault(counts: Counts) -> Doubles:
    """Share of samples that both get wrong: 1 - r_i - r_j + r_ij (Giacinto and Roli 2001).

    No selection between the two can be right there.
    """
    return ratio(counts.neither, counts.n)


def yules_q(counts: Counts) -> Doubles:
    """Yule's (1900) Q of right and wrong: (ad - bc) / (ad + bc); 1 on the diagonal.

    a: both right, d: both wrong, b and c: one of them. 0 where they err independently, 1 where the
    errors of one are all errors of the other. NaN where ad + bc = 0: where one of the two is right,
    or wrong, everywhere.
    """
    agree = counts.both * counts.neither
    differ = counts.only * counts.only.swapaxes(-1, -2)
    return ratio(agree - differ, agree + differ)


def error_consistency(counts: Counts) -> Doubles:
    """Cohen's (1960) kappa of right and wrong: (o - e) / (1 - e); 1 on the diagonal.

    o: share of samples on which both are right or both wrong; e: what two backbones of these
    accuracies that err independently would have of them, r_i r_j + (1 - r_i)(1 - r_j). 1 for the
    same errors, 0 for as many common ones as by chance (Geirhos et al., NeurIPS 2020). NaN where
    e = 1: both right, or both wrong, everywhere.
    """
    right, wrong = counts.right, counts.n - counts.right
    expected = right[..., :, None] * right[..., None, :] + wrong[..., :, None] * wrong[..., None, :]
    observed = counts.n * (counts.both + counts.neither)
    return ratio(observed - expected, counts.n**2 - expected)


PAIRWISE: dict[str, Callable[[Counts], Doubles]] = {  # (backbone, backbone) each
    "error_inconsistency": error_inconsistency,
    "disagreement": disagreement,
    "double_fault": double_fault,
    "yules_q": yules_q,
    "error_consistency": error_consistency,
}
SHARES = ("error_inconsistency", "disagreement", "double_fault")  # of the samples
# metric over all backbones: the measure that it is of
MEANS = {f"mean_{name}": name for name in PAIRWISE} | {
    name: name for name in ("fleiss_kappa", "vote_entropy")
}


def over_pairs(matrix: Doubles) -> Doubles:
    """(...,) mean over the pairs of different backbones that have a value; NaN where none has."""
    first, second = np.triu_indices(matrix.shape[-1], 1)
    pairs = matrix[..., first, second]
    known = ~np.isnan(pairs)
    return ratio(np.where(known, pairs, 0).sum(axis=-1), known.sum(axis=-1))


def fleiss_kappa(counts: Counts) -> Doubles:
    """(...,) Fleiss' (1971) kappa of right and wrong over all backbones: `error_consistency` of
    more than two.

    With the mean accuracy r and the mean error inconsistency e over pairs, 1 - e / (2 r (1 - r)).
    Expected agreement is that of one accuracy for all, so with two backbones of different
    accuracies it is a little below Cohen's kappa. NaN where r is 0 or 1.
    """
    r = counts.right.mean(axis=-1) / max(1, counts.n)
    e = over_pairs(error_inconsistency(counts))
    return 1 - ratio(e, 2 * r * (1 - r))


def shares_by_image(predictions: Array, labels: Array) -> dict[str, NDArray[np.floating[Any]]]:
    """By the name of what is a mean over images: the number of each image, from 0 to 1.

    Of measures that are shares, the part of the pairs. vote_entropy: the entropy of the votes over
    log B, 0 where all predict the same, 1 where all predict differently; NaN for B = 1.
    """
    right = correctness(predictions, labels)
    kept = predictions[:, scored(predictions, labels)]
    first, second = np.triu_indices(len(right), 1)
    pairs = {
        "error_inconsistency": right[first] != right[second],
        "disagreement": kept[first] != kept[second],
        "double_fault": ~(right[first] | right[second]),
    }
    means = {f"mean_{name}": ratio(of.sum(axis=0), len(of)) for name, of in pairs.items()}
    return {**means, "vote_entropy": _entropy(kept)}


def plausible(counts: Counts, i: int, j: int, effective: float) -> Counts:
    """Shares of two backbones alone, (draw, 2), that their counts make plausible.

    Draws of Dirichlet's distribution of who is right, with Jeffreys' prior (1946): half a sample
    more that both get right, each alone, and neither. Where one of these is rare a bootstrap hardly
    moves: with 50 images, accuracies of 95 and 93 % and a kappa of 0.5 its 95 % interval holds the
    truth in 76 %, this in 96 %. effective: `Images.effective`.
    """
    only, neither = counts.only, counts.neither[i, j]
    cells = np.array([counts.both[i, j], only[i, j], only[j, i], neither])
    mass = cells * (effective / max(1, counts.n)) + 0.5
    both, first, second, _ = np.random.default_rng(0).dirichlet(mass, _DRAWS).T
    hits = np.stack([both + first, both + second], axis=1)
    pair = np.repeat(both, 4).reshape(-1, 2, 2)
    pair[:, [0, 1], [0, 1]] = hits
    return Counts(1, hits, pair, np.full_like(pair, np.nan))


def _entropy(predictions: Array) -> Floats:
    """(sample,) entropy of the votes (backbone, sample) over log B; NaN for one backbone.

    A backbone that votes as v of B do, itself among them, adds -log(v / B) / B, so that no votes
    need sorting.
    """
    b, n = predictions.shape
    votes = np.ones((b, n), np.intp)
    for i, j in zip(*np.triu_indices(b, 1), strict=True):
        agree = predictions[i] == predictions[j]
        votes[i] += agree
        votes[j] += agree
    if b == 1:
        return np.full(n, np.nan, np.float32)
    part = 1 - np.log(np.arange(1, b + 1)) / np.log(b)  # of a backbone, by its votes
    return np.asarray(part[votes - 1].mean(axis=0), np.float32)
