"""`reachable` against scipy's linear programming, by hand, and on bad input."""

import numpy as np
import pytest
from scipy.optimize import linprog

from clipsyn.analyses.oracle.measures import reachable


def by_linprog(logits, label):
    """Whether some mixture of logits (backbone, class) ranks the label first."""
    backbones, classes = logits.shape
    margins = logits[:, [label]] - np.delete(logits, label, axis=1)
    solution = linprog(
        [*[0] * backbones, -1],
        A_ub=np.column_stack([-margins.T, np.ones(classes - 1)]),
        b_ub=np.zeros(classes - 1),
        A_eq=[[*[1] * backbones, 0]],
        b_eq=[1],
        bounds=[(0, None)] * backbones + [(None, None)],
    )
    assert solution.status == 0
    return -solution.fun > 1e-9


def random_logits(rng, shape, lead):
    """Backbones that agree in part, and the true class ahead by up to `lead`."""
    backbones, n, classes = shape
    labels = rng.integers(0, classes, n)
    logits = rng.normal(size=(1, n, classes)) + rng.normal(size=shape)
    logits[:, np.arange(n), labels] += rng.uniform(0, lead, (backbones, n))
    return logits.astype(np.float32), labels


@pytest.mark.parametrize(
    ("backbones", "classes", "lead"), [(1, 4, 2), (2, 3, 1), (2, 40, 4), (3, 10, 2), (9, 60, 2)]
)
def test_it_agrees_with_linear_programming(backbones, classes, lead):
    rng = np.random.default_rng(backbones)
    logits, labels = random_logits(rng, (backbones, 120, classes), lead)
    reached = reachable(logits, labels)
    expected = [by_linprog(logits[:, i].astype(float), labels[i]) for i in range(len(labels))]
    assert reached.tolist() == expected
    anyone = (logits.argmax(axis=2) == labels).any(axis=0)
    assert not (anyone & ~reached).any()
    assert (reached > anyone).any() or backbones == 1  # some mixtures help
    assert not reached.all()


def test_four_images_by_hand():
    """The true class is 0. One backbone is right; another class leads in each; one class leads in
    both; the lead in one backbone is more than the other can make up."""
    logits = np.array(
        [
            [[2, 1, 0], [2, 3, 0], [2, 3, 0], [2, 5, 0]],
            [[0, 1, 2], [2, 0, 3], [2, 3, 0], [2, 1, 4]],
        ],
        np.float32,
    )
    assert reachable(logits, np.zeros(4, int)).tolist() == [True, True, False, False]


def test_ties_go_to_the_lowest_class():
    """Two classes with the same logits everywhere, as classes of one name have."""
    logits = np.array([[[3, 3, 5, 0]], [[3, 3, 0, 5]]], np.float32)
    assert reachable(logits, np.array([0])).tolist() == [True]
    assert reachable(logits, np.array([1])).tolist() == [False]


def test_a_value_of_zero_is_not_reachable():
    """What one class gains by a weight the other loses: no mixture has both margins positive."""
    logits = np.array([[[0, 1, -1]], [[0, -1, 1]]], np.float32)
    assert reachable(logits, np.array([0])).tolist() == [False]


def test_one_class_and_no_images():
    assert reachable(np.zeros((2, 3, 1), np.float32), np.zeros(3, int)).all()
    assert reachable(np.zeros((2, 0, 5), np.float32), np.zeros(0, int)).shape == (0,)
