"""CKA against explicit kernels, Procrustes against scipy, neighbours against brute force."""

from itertools import combinations

import numpy as np
import pytest
from scipy.linalg import orthogonal_procrustes
from scipy.stats import ortho_group

from clipsyn.analyses.representation.measures import mutual_neighbours, similarities


def rng(seed=0):
    return np.random.default_rng(seed)


def normal(n, *widths, seed=0, shared=1.0):
    """Embeddings of the same samples that have something in common, and are off centre."""
    draw = rng(seed)
    common = shared * draw.normal(size=(n, 4))
    return [
        common @ draw.normal(size=(4, width)) + draw.normal(size=(n, width)) + 0.5
        for width in widths
    ]


def explicit_hsic(k, l):  # noqa: E741
    """Song et al. 2012, equation 5, with n x n matrices."""
    n = len(k)
    k, l = k - np.diag(np.diag(k)), l - np.diag(np.diag(l))  # noqa: E741
    one = np.ones(n)
    first = np.trace(k @ l)
    second = (one @ k @ one) * (one @ l @ one) / ((n - 1) * (n - 2))
    third = 2 / (n - 2) * (one @ k @ l @ one)
    return (first + second - third) / (n * (n - 3))


def explicit_cka(x, y):
    k, l = x @ x.T, y @ y.T  # noqa: E741
    return explicit_hsic(k, l) / np.sqrt(explicit_hsic(k, k) * explicit_hsic(l, l))


def explicit_distance(x, y):
    width = max(x.shape[1], y.shape[1])
    x, y = (np.pad(z - z.mean(axis=0), ((0, 0), (0, width - z.shape[1]))) for z in (x, y))
    x, y = x / np.linalg.norm(x), y / np.linalg.norm(y)
    rotation, _ = orthogonal_procrustes(x, y)
    return float(np.linalg.norm(x @ rotation - y))


@pytest.mark.parametrize("n", [4, 5, 23, 150])
@pytest.mark.parametrize("scale", [1, 100])
def test_cka_is_that_of_explicit_kernels(n, scale):
    arrays = [scale * x for x in normal(n, 6, 17, 3)]
    found = similarities(arrays)["cka"][0]
    for i, j in combinations(range(3), 2):
        assert found[i, j] == pytest.approx(explicit_cka(arrays[i], arrays[j]), abs=2e-4)
        assert found[j, i] == found[i, j]
    assert np.diag(found) == pytest.approx(1)


def test_hsic_is_that_of_another_package():
    """Not of repsim 0.1.5, whose estimator "song" is another number."""
    peer = pytest.importorskip("ckatorch.hsic", exc_type=ImportError)
    import torch

    x, y = normal(60, 6, 17)
    k, l = (torch.tensor(z @ z.T)[None] for z in (x, y))  # noqa: E741
    assert explicit_hsic(k[0].numpy(), l[0].numpy()) == pytest.approx(float(peer.hsic1(k, l)))


def test_rotation_scale_and_shift_change_nothing():
    x, y = normal(80, 7, 7)
    moved = 3.0 * x @ ortho_group.rvs(7, random_state=0) + 5.0
    before, after, same = (similarities(both) for both in ([x, y], [moved, y], [x, moved]))
    for measure, matrices in before.items():
        assert after[measure] == pytest.approx(matrices, abs=2e-4)
    assert same["cka"][0, 0, 1] == pytest.approx(1, abs=1e-5)
    assert same["procrustes"][0, 0, 1] == pytest.approx(0, abs=2e-3)


@pytest.mark.parametrize("widths", [(5, 5), (4, 9), (9, 4)])
def test_procrustes_is_that_of_scipy(widths):
    x, y = normal(40, *widths)
    found = similarities([x, y])["procrustes"][0]
    assert found[0, 1] == pytest.approx(explicit_distance(x, y), abs=1e-5)
    assert found[1, 0] == found[0, 1]
    assert np.diag(found) == pytest.approx(0, abs=1e-7)


def exact_jackknife(x, y, measure):
    """Value and standard error, each sample left out in turn."""
    n = len(x)
    left_out = np.array([measure(np.delete(x, i, 0), np.delete(y, i, 0)) for i in range(n)])
    return measure(x, y), float(np.sqrt((n - 1) * left_out.var()))


@pytest.mark.parametrize(
    ("name", "measure", "tolerance"),
    [("cka", explicit_cka, 1e-3), ("procrustes", explicit_distance, 0.1)],
)
def test_intervals_are_those_of_leaving_out_samples(name, measure, tolerance):
    """Procrustes leaves them out to first order only."""
    x, y = normal(60, 5, 8)
    value, error = exact_jackknife(x, y, measure)
    _, low, high = similarities([x, y], groups=60)[name][:, 0, 1]
    t = 2.00100  # Student's, 59 degrees of freedom
    assert low == pytest.approx(value - t * error, abs=tolerance * t * error)
    assert high == pytest.approx(value + t * error, abs=tolerance * t * error)


def test_intervals_of_cka_cover_the_truth():
    """||S_xy||^2 / (||S_xx|| ||S_yy||) of the covariances; 95 % give or take two errors of 300."""
    draw = rng(1)
    a, b = draw.normal(size=(3, 5)), draw.normal(size=(3, 6))
    covariance = [a.T @ b, a.T @ a + np.eye(5), b.T @ b + np.eye(6)]
    cross, own, other = (np.linalg.norm(c) for c in covariance)
    truth = cross**2 / (own * other)
    covered = 0
    for seed in range(300):
        draw = rng(seed)
        common = draw.normal(size=(200, 3))
        x = common @ a + draw.normal(size=(200, 5))
        y = common @ b + draw.normal(size=(200, 6))
        _, low, high = similarities([x, y], seed=seed)["cka"][:, 0, 1]
        covered += low <= truth <= high
    assert 0.91 <= covered / 300 <= 0.98


def test_samples_that_come_class_by_class_are_mixed():
    """Groups of one class each would differ far more than random ones do."""
    draw = rng(0)
    centres = draw.normal(size=(20, 5)).repeat(10, axis=0) * 3
    x, y = (centres @ draw.normal(size=(5, 5)) + draw.normal(size=(200, 5)) for _ in range(2))
    mixed = draw.permutation(200)
    sides = [x, y], [x[mixed], y[mixed]]
    one, two = (np.diff(similarities(both)["cka"][1:, 0, 1]) for both in sides)
    assert 0.5 < one / two < 2


@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_too_few_samples_are_nan(n):
    arrays = [x[:n] for x in normal(5, 4, 6)]
    found = similarities(arrays)
    assert np.isnan(found["cka"]).all()
    assert np.isnan(found["procrustes"][0]).all() == (n < 2)
    assert np.isnan(mutual_neighbours(arrays, 2)).all()


def brute_neighbours(x, k):
    similar = x @ x.T
    return [
        set(sorted((j for j in range(len(x)) if j != i), key=lambda j: (-similar[i, j], j))[:k])
        for i in range(len(x))
    ]


@pytest.mark.parametrize("k", [1, 4])
@pytest.mark.parametrize("at_once", [40, 10_000])
def test_mutual_neighbours_are_those_of_brute_force(k, at_once, monkeypatch):
    monkeypatch.setattr("clipsyn.analyses.representation.measures._SIMILARITIES_AT_ONCE", at_once)
    arrays = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in normal(33, 5, 8, 6)]
    sets = [brute_neighbours(x, k) for x in arrays]
    found = mutual_neighbours(arrays, k)
    for i in range(3):
        for j in range(3):
            expected = [len(a & b) / k for a, b in zip(sets[i], sets[j], strict=True)]
            assert found[i, j] == pytest.approx(expected)
    assert (found[0, 0] == 1).all()


def test_equally_near_samples_count_from_the_lowest_row():
    x = np.eye(4)[[0, 0, 0, 0, 1, 1]]  # the first four are one, and so are the last two
    y = np.eye(4)[[0, 1, 0, 1, 0, 1]]
    found = mutual_neighbours([x, y], 2)
    near_x = [{1, 2}, {0, 2}, {0, 1}, {0, 1}, {0, 5}, {0, 4}]
    near_y = [{2, 4}, {3, 5}, {0, 4}, {1, 5}, {0, 2}, {1, 3}]
    expected = [len(a & b) / 2 for a, b in zip(near_x, near_y, strict=True)]
    assert found[0, 1].tolist() == expected
