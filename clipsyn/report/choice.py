"""Which combination to take, and what such a choice gains on a dataset that it has not seen.

Who gains most over all datasets was chosen on the very images that its gain is measured on, which
flatters it. So each dataset is left out in turn: the combination that gains most on the others is
judged on this one. The mean over datasets is what choosing a combination is worth.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from clipsyn.report.standings import Method, Standing

ZERO_SHOT = "zero-shot"
Sharing = Mapping[str, Collection[str]]  # by dataset: the others that hold an image of it


@dataclass(frozen=True, eq=False)
class Unseen(Standing):
    """On each dataset, the combination that was chosen without it.

    names: of these combinations, by dataset.
    """

    names: Mapping[str, str]

    @property
    def times(self) -> list[tuple[str, int]]:
        """Combinations with the number of datasets that each is chosen for, the most first."""
        return Counter(self.names.values()).most_common()


class Choice(NamedTuple):
    """The combination that gains most over all datasets, and what it was chosen from.

    lacking: combinations that some dataset has no gain of; they are no candidates. unseen: None
    where no dataset can be left out.
    """

    best: Method
    candidates: Sequence[Method]
    lacking: Sequence[Method]
    unseen: Unseen | None

    @property
    def judged(self) -> Standing:
        """What may be expected of the choice; in hindsight where nothing else is known."""
        return self.unseen or self.best

    @property
    def name(self) -> str | None:
        """Of what is judged; None where that is not the best on every dataset."""
        names = set(self.unseen.names.values()) if self.unseen else {self.best.name}
        return self.best.name if names == {self.best.name} else None


def choose(compared: Sequence[Method], sharing: Sharing) -> Choice | None:
    """Choose among the combinations on zero-shot logits, or else on the first head there is.

    Candidates are those that all datasets have, since a mean over other datasets says nothing; all
    combinations where none is everywhere. None where there is no combination.
    """
    lead = _lead(compared)
    if not lead:
        return None
    everywhere = {place for it in lead for place in it.gains}
    whole = [it for it in lead if it.gains.keys() == everywhere]
    lacking = [it for it in lead if it not in whole] if whole else []
    return Choice(_best(whole or lead), whole or lead, lacking, leave_out(whole, sharing))


def _lead(compared: Sequence[Method]) -> list[Method]:
    fair = [it for it in compared if it.is_fair and it.gains]
    heads = [it.head for it in fair]
    head = ZERO_SHOT if ZERO_SHOT in heads else next(iter(heads), None)
    return [it for it in fair if it.head == head]


def leave_out(candidates: Sequence[Method], sharing: Sharing) -> Unseen | None:
    """For each dataset the candidate that gains most on those that share no image with it.

    candidates: with gains of the same places. None where there is nothing to choose, or a dataset
    without which none is left.
    """
    if len(candidates) < 2:
        return None
    places = candidates[0].gains
    datasets = {dataset for dataset, *_ in places}
    hidden = {dataset: {dataset, *sharing.get(dataset, ())} for dataset in datasets}
    if any(datasets <= kin for kin in hidden.values()):
        return None
    chosen = {dataset: _best(candidates, kin) for dataset, kin in hidden.items()}
    return Unseen(
        {place: chosen[place[0]].accuracies[place] for place in places},
        {place: chosen[place[0]].gains[place] for place in places},
        {dataset: chosen[dataset].name for dataset, *_ in places},
    )


def _best(methods: Sequence[Method], without: Collection[str] = ()) -> Method:
    """The largest mean gain over datasets but some; of equals the first."""

    def mean(method: Method) -> float:
        gains = [
            gain for (dataset, *_), (gain, *_) in method.gains.items() if dataset not in without
        ]
        return math.fsum(gains) / len(gains)

    return max(methods, key=mean)
