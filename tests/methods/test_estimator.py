"""`clipsyn.methods.estimator`: scikit-learn's manners, and estimators from a line of text."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest
from sklearn.utils import estimator_checks

from clipsyn.errors import UsageError
from clipsyn.methods.ensembles import ENSEMBLES
from clipsyn.methods.estimator import Estimator, from_text, parameter
from clipsyn.methods.heads import HEADS
from clipsyn.registry import Registry
from clipsyn.settings import FLAG, NUMBER, TEXT, WHOLE


@dataclass(eq=False, repr=False)
class Example(Estimator):
    rate: float = parameter(0.5, NUMBER)
    hidden: int = parameter(128, WHOLE, least=1)
    shape: str = parameter("linear", TEXT)
    free: bool = parameter(False, FLAG)
    alpha: float | None = parameter(None, NUMBER)

    def fit(self) -> Example:
        self.weights_ = np.ones(3)
        self._cache = 1
        self._private_ = 2
        return self


EXAMPLES = Registry("example", {"example": f"{__name__}:Example"})


@pytest.mark.parametrize(
    ("text", "parameter", "value"),
    [
        ("example:rate=2", "rate", 2.0),
        ("example:rate=1e-3", "rate", 1e-3),
        ("example:hidden=64", "hidden", 64),
        ("example:shape=softmax", "shape", "softmax"),
        ("example:free=true", "free", True),
        ("example:free=False", "free", False),
        ("example:alpha=0.25", "alpha", 0.25),
        ("example:alpha=None", "alpha", None),
        (" example : hidden = 7 ", "hidden", 7),
        ("example:hidden=7:hidden=8", "hidden", 8),
        ("example:shape=a=b", "shape", "a=b"),
    ],
)
def test_a_value_is_read_as_what_the_parameter_is(text, parameter, value):
    found = from_text(EXAMPLES, text).get_params()
    expected = Example().get_params() | {parameter: value}
    assert found == expected
    assert type(found[parameter]) is type(value)


def test_a_seed_is_the_random_state_that_the_text_does_not_set():
    states = {
        from_text(ENSEMBLES, text, seed).random_state
        for text, seed in [("nlc", 7), ("nlc:random_state=7", 2), ("gac:random_state=7", None)]
    }
    assert states == {7}
    assert from_text(HEADS, "anchored-probe", 3).random_state == 3
    assert repr(from_text(ENSEMBLES, "log-avg", 7)) == "LogAverage()"


@pytest.mark.parametrize(
    "text",
    [
        "example:hidden=2.5",
        "example:hidden=0",
        "example:hidden=true",
        "example:hidden=none",
        "example:hidden=",
        "example:rate=fast",
        "example:rate=nan",
        "example:free=1",
        "example:alpha=true",
        "example:hidden",
        "example:",
    ],
)
def test_values_that_do_not_fit_are_refused(text):
    with pytest.raises(UsageError):
        from_text(EXAMPLES, text)


@pytest.mark.parametrize(
    "check",
    [
        estimator_checks.check_estimator_cloneable,
        estimator_checks.check_estimator_repr,
        estimator_checks.check_get_params_invariance,
        estimator_checks.check_no_attributes_set_in_init,
        estimator_checks.check_parameters_default_constructible,
        estimator_checks.check_set_params,
    ],
)
@pytest.mark.parametrize("registry", [ENSEMBLES, HEADS], ids=["ensembles", "heads"])
def test_the_checks_of_scikit_learn_that_need_no_table(registry, check):
    """The others fit on (sample, feature), and `check_estimator` leaves them out for that."""
    for name in registry:
        check(name, registry.load(name)())


def test_scikit_learn_is_not_imported():
    code = (
        "import sys; from clipsyn.methods.estimator import from_text;"
        "from clipsyn.methods.ensembles import ENSEMBLES;"
        "from_text(ENSEMBLES, 'super-learner:penalty=2');"
        "sys.exit(bool({'sklearn', 'scipy', 'torch'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
