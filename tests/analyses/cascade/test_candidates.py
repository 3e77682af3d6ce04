"""What cascades are made of and compared with."""

from __future__ import annotations

import numpy as np

from clipsyn.analyses.cascade.fitted import Answers, averages, candidates, stages_of
from clipsyn.analyses.predicted import Candidate

ABC = ("a", "b", "c")


def test_every_subset_of_what_has_nothing_to_fit():
    every = candidates(ABC, ["conf", "nlc"])
    assert every == [
        *(Candidate(None, (name,)) for name in ABC),
        Candidate("conf", ("a", "b")),
        Candidate("conf", ABC),
        Candidate("conf", ("a", "c")),
        Candidate("conf", ("b", "c")),
        Candidate("nlc", ("a", "b")),
        Candidate("nlc", ABC),
    ]


def test_subsets_end_at_nine_backbones(pool):
    nine, ten = ([f"m{place}" for place in range(count)] for count in (9, 10))
    assert len(candidates(nine, ["conf"])) == 511
    assert len(candidates(ten, ["conf"])) == 10 + 9
    answers = {name: [1] for name in ten}
    assert averages(pool(answers), ten) == {}
    answers.pop("m9")
    whole = candidates(nine, ["log-avg"])  # its other subsets are all made at once
    assert len([*whole, *averages(pool(answers), nine)]) == 511


def test_averages_of_all_subsets_but_the_stages(pool):
    answers = pool({"a": [1, 1, 0, 0], "b": [1, 1, 1, 0], "c": [0, 1, 1, 1]})  # c is the surest
    correct = averages(answers, ("b", "a", "c"))
    assert {candidate: right.tolist() for candidate, right in correct.items()} == {
        Candidate("log-avg", ("b", "c")): [False, True, True, True],
        Candidate("log-avg", ("a", "c")): [False, True, True, True],
    }


def test_a_cascade_begins_with_a_backbone_on_its_own():
    assert stages_of("nlc", ABC) == [
        Candidate(None, ("a",)),
        Candidate("nlc", ("a", "b")),
        Candidate("nlc", ABC),
    ]
    confidence = {
        candidate: np.full(2, place, np.float32)
        for place, candidate in enumerate(stages_of("nlc", ABC))
    }
    right = {it: np.array([of[0] == 1, True]) for it, of in confidence.items()}
    along, correct = Answers(right, confidence).along("nlc", ABC)
    assert along.tolist() == [[0, 0], [1, 1], [2, 2]]
    assert correct.tolist() == [[False, True], [True, True], [False, True]]
