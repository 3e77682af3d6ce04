"""The UpSet plot."""

from itertools import product

import numpy as np
import polars as pl
import pytest

from clipsyn.analyses.oracle.view import upset
from clipsyn.errors import UsageError
from tests.results import row as made
from tests.results import tidy

A, B, C = "tiny-a/zoo", "tiny-b/zoo", "tiny-c/zoo"


def row(dataset, backbones, value, metric="region", ensemble="oracle", *, n=100):
    return made(metric, value, backbones, ensemble, dataset=dataset, n=n)


def alone(dataset, **accuracies):
    names = {"a": A, "b": B, "c": C}
    return [row(dataset, [names[k]], v, "acc1", "single") for k, v in accuracies.items()]


FRAME = tidy(
    *alone("birds", a=0.7, b=0.5),
    row("birds", [A, B], 0.4),
    row("birds", [A], 0.3),
    row("birds", [], 0.2),
    row("birds", [B], 0.1),
    row("birds", [A, B], 0.8, "acc1"),
    *alone("cars", a=0.5, b=0.7),
    row("cars", [A, B], 0.3, n=50),
    row("cars", [B], 0.4, n=50),
    row("cars", [], 0.1, n=50),
    row("cars", [A], 0.2, n=50),
)


def columns(dots):
    """Which rows have a strong dot, for each column."""
    lines = dots.lines
    return [sorted(map(int, line.get_ydata())) for line in lines[1::2]]


def test_the_data_are_means_over_datasets():
    data = upset.data(FRAME)
    regions = data.select("backbones", "value").rows()
    assert [names for names, _ in regions] == [[A, B], [A], [B], []]
    assert [value for _, value in regions] == pytest.approx([0.35, 0.25, 0.25, 0.15])
    assert data.select("names", "datasets", "n").unique().rows() == [([A, B], 2, 150)]


def test_a_region_that_a_dataset_lacks_counts_as_nothing():
    data = upset.data(FRAME.filter(pl.col("value") != 0.2))
    regions = {tuple(names): value for names, value in data.select("backbones", "value").rows()}
    assert regions == {
        (A, B): pytest.approx(0.35),
        (B,): pytest.approx(0.25),
        (A,): pytest.approx(0.15),
        (): pytest.approx(0.05),
    }


def test_bars_stand_above_the_dots_of_their_backbones():
    dots, bars = upset(upset.data(FRAME.filter(dataset="birds"))).child_axes
    assert [tick.get_text() for tick in dots.get_yticklabels()] == ["a", "b"]
    assert [bar.get_height() for bar in bars.patches] == pytest.approx([40, 30, 20, 10])
    assert columns(dots) == [[0, 1], [0], [], [1]]
    assert [text.get_text() for text in bars.texts] == ["40.0", "30.0", "20.0", "10.0"]


def test_small_regions_are_one_number():
    """Against sets that are counted one image at a time."""
    rng = np.random.default_rng(0)
    right = rng.random((5, 1000)) < [[0.9], [0.8], [0.7], [0.6], [0.5]]
    names = [f"tiny-{letter}/zoo" for letter in "abcde"]
    rows = [
        row("birds", [name], of_one.mean(), "acc1", "single", n=1000)
        for name, of_one in zip(names, right, strict=True)
    ]
    shares = {}
    for region in product([False, True], repeat=5):
        inside = [name for name, there in zip(names, region, strict=True) if there]
        shares[tuple(inside)] = np.equal(right.T, region).all(axis=1).mean()
    rows += [row("birds", inside, value, n=1000) for inside, value in shares.items() if value]
    data = upset.data(tidy(*rows))
    largest = sorted(shares.values(), reverse=True)
    assert data["value"].to_list() == pytest.approx(largest[:16])
    _, bars = upset(data).child_axes
    assert len(bars.patches) == 16
    rest = 100 * sum(largest[16:])
    assert upset.about(data).startswith(f"all smaller regions together: {rest:.1f} %")


def test_datasets_must_have_the_same_backbones():
    frame = pl.concat([FRAME, tidy(*alone("cars", c=0.5))])
    with pytest.raises(UsageError, match=r"datasets have other backbones, .* backbones=…"):
        upset.data(frame)
    assert len(upset.data(frame.filter(dataset="birds")))
