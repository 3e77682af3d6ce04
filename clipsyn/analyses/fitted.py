"""What is fitted and chosen on a support, labelled samples of another split."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple, TypeVar

import numpy as np

from clipsyn import __version__
from clipsyn.analyses.predicted import Predicted, predicted
from clipsyn.errors import DatasetError, TooFewSamples
from clipsyn.evaluation import Learning
from clipsyn.evaluation.results.frame import Row
from clipsyn.methods.ensembles import ENSEMBLES, PLAIN
from clipsyn.methods.ensembles.base import Ensemble, inductive
from clipsyn.methods.estimator import cross_fitted
from clipsyn.methods.numerics import Array, Floats
from clipsyn.methods.numerics.blocks import side_by_side
from clipsyn.methods.numerics.samples import few_shot
from clipsyn.methods.pool import Pool
from clipsyn.names import fingerprint
from clipsyn.settings import images_of
from clipsyn.store.features import FeatureStore
from clipsyn.store.overlap import labels_to_learn
from clipsyn.store.pools import PoolReader

FOLDS = 5
_SMALL = 1 << 25  # numbers in all embeddings of a support: 64 MB as they are stored
_T = TypeVar("_T")
_F = TypeVar("_F")
_Settings = TypeVar("_Settings", bound=Learning)
Said = dict[str, Array]  # arrays (sample,), by what they are
Scores = Floats  # (sample, class)


class Candidate(NamedTuple):
    """What is compared: a backbone on its own, an ensemble of some backbones, or a cascade."""

    ensemble: str | None  # NAME or NAME:parameter=value; None for a backbone on its own
    backbones: tuple[str, ...]  # of an ensemble or a cascade in the order they run
    threshold: float | None = None  # confidence at which an image leaves a cascade
    rule: str | None = None  # of a cascade: GIVEN by the settings, or chosen WITHIN points

    @classmethod
    def single(cls, backbone: str) -> Candidate:
        return cls(None, (backbone,))


def read_support(
    reader: PoolReader, measured: Iterable[Predicted], settings: Learning
) -> tuple[Pool, dict[str, Any]]:
    """`shots` labelled, readable images of each class, or all of them; the seed decides which.

    measured: whose images are not taken. Returns what decides what is fitted, too: which cells, and
    which images of them. Raises DatasetError where no image has a label and is readable, and what
    `labels_to_learn` does.
    """
    tables = (group.samples for group in measured)
    labels = labels_to_learn(reader.samples, tables, allow_overlap=settings.allow_overlap)
    rows = few_shot(labels, images_of(settings.shots), settings.seed)
    pool = reader.read(rows).labelled()
    if not len(pool):
        raise DatasetError(
            f"{reader.samples.name} has no labelled, readable image: give another support=…"
        )
    digest = hashlib.sha256(rows.astype("<i8").tobytes()).hexdigest()
    return pool, {"of": reader.origin, "rows": digest, "seed": settings.seed}


def make_ensemble(candidate: Candidate, seed: int | None = None) -> Ensemble:
    """Not fitted yet; raises UnknownName and UsageError. seed: as in `inductive`."""
    text = PLAIN if candidate.ensemble is None else candidate.ensemble
    return inductive(text, seed)


def with_fits(
    store: FeatureStore,
    settings: _Settings,
    fit: Callable[[Predicted, Sequence[Predicted], _Settings], _F],
) -> Iterator[tuple[Predicted, _F]]:
    """Every group that is measured, with what is fitted for it.

    Splits and perturbations of a dataset share a fit. fit: gets a group, and all groups of its
    dataset, whose images are not learned from. Raises what `predicted` does.
    """
    for _, groups in groupby(predicted(store, settings), key=lambda group: group.samples.dataset):
        of_dataset = list(groups)
        fits: dict[object, _F] = {}
        for group in of_dataset:
            shared = group.prompts, group.backbones
            if shared not in fits:
                fits[shared] = fit(group, of_dataset, settings)
            yield group, fits[shared]


def fit_candidates(
    every: Sequence[Candidate], pool: Pool, seed: int, judge: Callable[[Scores, Pool], _T]
) -> dict[Candidate, tuple[Ensemble, _T]]:
    """Every candidate, fitted on all of a support, and what `judge` makes of its `unseen_scores`.

    Where the pool is small, each core fits other candidates. Raises LeakError for the test split.
    """

    def fit_one(candidate: Candidate) -> tuple[Ensemble, _T]:
        seen = _seen_by(candidate, pool)
        ensemble = make_ensemble(candidate, seed).fit(seen)
        return ensemble, judge(unseen_scores(ensemble, seen), pool)

    small = sum(array.size for array in pool.embeddings.values()) <= _SMALL
    return dict(zip(every, (side_by_side if small else map)(fit_one, every), strict=True))


def unseen_scores(ensemble: Ensemble, pool: Pool) -> Scores:
    """(sample, class) for the pool that an ensemble was fitted on, by some like it that were not.

    Each of `FOLDS` folds is left out of a fit: of samples that it was fitted on an ensemble is too
    sure. One that learns nothing needs no folds.
    """
    if not ensemble.learns or len(ensemble.backbones_) == 1:
        return ensemble.combine(pool)
    if len(pool) < 2:
        raise TooFewSamples(
            f"{ENSEMBLES.name_of(type(ensemble))} needs at least two labelled samples of "
            f"{pool.dataset}/{pool.split}, to be judged on others than it is fitted on"
        )
    return cross_fitted(ensemble, pool, Ensemble.combine, FOLDS)


def answers(
    ensembles: Mapping[Candidate, Ensemble],
    pool: Pool,
    say: Callable[[Candidate, Scores, Pool], Said],
) -> dict[Candidate, Said]:
    """What fitted candidates say of other labelled samples. say: what there is in their scores."""
    return {
        candidate: say(candidate, ensemble.combine(_seen_by(candidate, pool)), pool)
        for candidate, ensemble in ensembles.items()
    }


def answers_of(
    reader: PoolReader,
    ensembles: Mapping[Candidate, Ensemble],
    answer: Callable[[Pool], Mapping[Candidate, Said]],
) -> dict[Candidate, Said]:
    """What `answer` gives for all labelled samples of a reader, read in blocks."""
    embeddings = any(ensemble.needs_embeddings for ensemble in ensembles.values())
    return joined([answer(block.labelled()) for block in reader.blocks(embeddings=embeddings)])


def joined(parts: Sequence[Mapping[Candidate, Said]]) -> dict[Candidate, Said]:
    """Answers of consecutive blocks of samples."""
    return {
        candidate: {name: np.concatenate([part[candidate][name] for part in parts]) for name in of}
        for candidate, of in parts[0].items()
    }


def _seen_by(candidate: Candidate, pool: Pool) -> Pool:
    """What a candidate sees of a pool of all backbones, as ensembles order them."""
    return pool.of_backbones(sorted(candidate.backbones))


def about_fit(candidate: Candidate, prompts: str, settings: Learning, **decisive: Any) -> Row:
    """What a row says of how its numbers were made, and the fingerprint of what decides them.

    That knows the version of clipsyn, and of a package that the candidate comes from. decisive:
    `support` among others, None where nothing of it plays a part.
    """
    name = candidate.ensemble.partition(":")[0] if candidate.ensemble else ""
    package = ENSEMBLES.package(name) if name else ""
    decisive |= {"clipsyn": f"{__version__} {package}".rstrip(), "candidate": candidate._asdict()}
    about: Row = {"fingerprint": fingerprint(decisive)}
    if decisive["support"] is not None:
        about |= {"support": settings.support, "support_prompts": prompts}
        about |= {"shots": str(settings.shots), "seed": settings.seed}
    return about
