import pytest

from clipsyn.analyses.diversity.view import error_consistency
from clipsyn.analyses.representation.view import cka
from tests.results import row as made
from tests.results import tidy

THREE = ("a/m", "b/m", "c/m")


def row(metric, value, backbones=THREE, **about):
    return made(metric, value, backbones, off=(0.02, 0.04), **about)


@pytest.mark.parametrize(
    ("figure", "metric"), [(error_consistency, "error_consistency"), (cka, "cka")]
)
def test_a_matrix_of_pairs_is_of_means_over_datasets(figure, metric):
    found = figure.data(
        tidy(
            row(metric, 0.5, ("a/m", "b/m")),
            row(metric, -0.1, ("a/m", "c/m")),
            row(metric, 0.1, ("a/m", "b/m"), dataset="cars"),
            row("yules_q", 0.9, ("a/m", "b/m")),
            row("mean_error_consistency", 0.2),
        )
    )
    pairs = found.select("backbone", "other", "dataset", "value", "datasets", "ci_high").rows()
    assert pairs == [
        ("a/m", "b/m", None, pytest.approx(0.3), 2, None),
        ("a/m", "c/m", "birds", -0.1, 1, pytest.approx(-0.06)),
    ]
    texts = {text.get_text() for text in figure(found).texts}
    assert texts == {"0.30", "-0.10"}
