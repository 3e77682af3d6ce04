"""How differently backbones err: measures of pairs of them, and of all together.

predictions: (backbone, sample), labels: (sample,). A sample counts if it has a label and
a prediction of every backbone. Formulas write r_i for the share that backbone i gets right, r_ij
for the share that i and j both get right. A measure that is 0/0 is NaN, such as the agreement
beyond chance of backbones that are right everywhere.

The vocabulary is that of Kuncheva and Whitaker, "Measures of Diversity in Classifier Ensembles",
Machine Learning 51 (2003).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipsyn.methods.numerics.metrics import correctness, ratio, scored

_DRAWS = 1000  # of a posterior


class Counts(NamedTuple):
    """Counts of samples that all measures of pairs are made of, whole, so that 0/0 is exact.

    Those of draws are shares, of n = 1, and have one more axis, in front: (draw, backbone).
    """

    n: int
    right: NDArray[np.float64]  # (backbone,) samples that it gets right
    both: NDArray[np.float64]  # (backbone, backbone) samples that both get right
    same: NDArray[np.float64]  # (backbone, backbone) samples with the same prediction

    @property
    def only(self) -> NDArray[np.float64]:
        """(first, second): samples that the first gets right and the second does not."""
        return self.right[..., :, None] - self.both

    @property
    def neither(self) -> NDArray[np.float64]:
        """(first, second): samples that both get wrong."""
        return self.n - self.right[..., :, None] - self.only.swapaxes(-1, -2)


def pair_counts(predictions: NDArray[Any], labels: NDArray[Any]) -> Counts:
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


def error_inconsistency(counts: Counts) -> NDArray[np.float64]:
    """Share of samples that exactly one of the two gets right: r_i + r_j - 2 r_ij.

    The paper's likely measure (section 2); 0 on the diagonal. NaN for n = 0, as all shares.
    """
    return ratio(counts.only + counts.only.swapaxes(-1, -2), counts.n)


def disagreement(counts: Counts) -> NDArray[np.float64]:
    """Share of samples with two different predictions, both wrong or not; 0 on the diagonal."""
    return ratio(counts.n - counts.same, counts.n)


def double_fault(counts: Counts) -> NDArray[np.float64]:
    """Share of samples that both get wrong: 1 - r_i - r_j + r_ij (Giacinto and Roli 2001).

    No selection between the two can be right there.
    """
    return ratio(counts.neither, counts.n)


def yules_q(counts: Counts) -> NDArray[np.float64]:
    """Yule's (1900) Q of right and wrong: (ad - bc) / (ad + bc); 1 on the diagonal.

    a: both right, d: both wrong, b and c: one of them. 0 where they err independently, 1 where the
    errors of one are all errors of the other. NaN where ad + bc = 0: where one of the two is right,
    or wrong, everywhere.
    """
    agree = counts.both * counts.neither
    differ = counts.only * counts.only.swapaxes(-1, -2)
    return ratio(agree - differ, agree + differ)


def error_consistency(counts: Counts) -> NDArray[np.float64]:
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


PAIRWISE: dict[str, Callable[[Counts], NDArray[np.float64]]] = {  # (backbone, backbone) each
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


def over_pairs(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """(...,) mean over the pairs of different backbones that have a value; NaN where none has."""
    first, second = np.triu_indices(matrix.shape[-1], 1)
    pairs = matrix[..., first, second]
    known = ~np.isnan(pairs)
    return ratio(np.where(known, pairs, 0).sum(axis=-1), known.sum(axis=-1))


def fleiss_kappa(counts: Counts) -> NDArray[np.float64]:
    """(...,) Fleiss' (1971) kappa of right and wrong over all backbones: `error_consistency` of
    more than two.

    With the mean accuracy r and the mean error inconsistency e over pairs, 1 - e / (2 r (1 - r)).
    Expected agreement is that of one accuracy for all, so with two backbones of different
    accuracies it is a little below Cohen's kappa. NaN where r is 0 or 1.
    """
    r = counts.right.mean(axis=-1) / max(1, counts.n)
    e = over_pairs(error_inconsistency(counts))
    return 1 - ratio(e, 2 * r * (1 - r))


def shares_by_image(
    predictions: NDArray[Any], labels: NDArray[Any]
) -> dict[str, NDArray[np.floating[Any]]]:
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


def plausible(counts: Counts, i: int, j: int, effective: float, *, seed: int = 0) -> Counts:
    """Shares of two backbones alone, (draw, 2), that their counts make plausible.

    Draws of Dirichlet's distribution of who is right, with Jeffreys' prior (1946): half a sample
    more that both get right, each alone, and neither. Where one of these is rare a bootstrap hardly
    moves: with 50 images, accuracies of 95 and 93 % and a kappa of 0.5 its 95 % interval holds the
    truth in 76 %, this in 96 %. effective: `Images.effective`.
    """
    only, neither = counts.only, counts.neither[i, j]
    cells = np.array([counts.both[i, j], only[i, j], only[j, i], neither])
    mass = cells * (effective / max(1, counts.n)) + 0.5
    both, first, second, _ = np.random.default_rng(seed).dirichlet(mass, _DRAWS).T
    hits = np.stack([both + first, both + second], axis=1)
    pair = np.repeat(both, 4).reshape(-1, 2, 2)
    pair[:, [0, 1], [0, 1]] = hits
    return Counts(1, hits, pair, np.full_like(pair, np.nan))


def _entropy(predictions: NDArray[Any]) -> NDArray[np.float32]:
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
