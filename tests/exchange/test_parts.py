"""`clipsyn.exchange.parts`: severities, and what kind of scores numbers by class are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from clipsyn.errors import DatasetError, UsageError
from clipsyn.exchange.parts import as_logits, severity_label


@pytest.mark.parametrize(
    ("name", "severity", "label", "of_row"),
    [
        ("contrast", "3", "contrast-3", False),
        ("contrast", "3.0", "contrast-3", False),
        ("contrast", "180", "contrast-180", True),
        ("contrast", "0", "clean", False),
        ("contrast", "0.0", "clean", True),
        ("contrast", "00", "clean", False),
        ("contrast", "", "clean", False),
        ("contrast", "NaN", "clean", False),
        ("clean", "0", "clean", False),
        ("clean", "3", "clean", True),
        ("fog-2", "", "fog-2", True),
    ],
)
def test_severity_label_is_that_of_the_perturbation(name, severity, label, of_row):
    assert severity_label(name, severity, Path("a.csv"), of_row=of_row) == label


@pytest.mark.parametrize("severity", ["bw", "0.03", "inf", "1-10-10", "-3", "c30"])
def test_severity_label_one_that_is_no_whole_number(severity):
    with pytest.raises(DatasetError):
        severity_label("contrast", severity, Path("a.csv"), of_row=False)


def test_severity_label_a_perturbation_without_its_severity():
    with pytest.raises(UsageError):
        severity_label("fog", "", Path("a.csv"), of_row=True)


PROBABILITIES = np.array([[0.25, 0.75, 0], [0.2, 0.3, 0.5]], np.float32)


@pytest.mark.parametrize("kind", ["auto", "probabilities"])
def test_as_logits_probabilities_become_logarithms(kind):
    logits = as_logits(PROBABILITIES, kind, "x")
    assert logits.dtype == np.float32
    assert np.isfinite(logits).all()
    np.testing.assert_allclose(np.exp(logits), PROBABILITIES, atol=1e-7)
    assert logits[0, 2] == pytest.approx(np.log(np.finfo(np.float32).tiny))


def test_as_logits_what_is_said_to_be_logits_stays():
    assert as_logits(PROBABILITIES, "logits", "x") is PROBABILITIES


def test_as_logits_what_lies_outside_0_to_1_is_logits():
    values = np.array([[0.5, 0.5], [-3, 4]], np.float32)
    assert as_logits(values, "auto", "x") is values
    with pytest.raises(DatasetError):
        as_logits(values, "probabilities", "x")


@pytest.mark.parametrize("kind", ["auto", "probabilities"])
def test_as_logits_sums_that_are_not_one(kind):
    values = np.array([[np.nan, 1], [0.5, 0.5], [0.5, 0.4], [0.1, 0.1]], np.float32)
    with pytest.raises(DatasetError):
        as_logits(values, kind, "x")
