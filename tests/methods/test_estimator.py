"""`clipsyn.methods.estimator`: scikit-learn's manners, and estimators from a line of text."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.utils import estimator_checks

from clipsyn.errors import UnknownName, UsageError
from clipsyn.methods.ensembles import ENSEMBLES
from clipsyn.methods.estimator import Estimator, from_text
from clipsyn.methods.heads import HEADS
from clipsyn.registry import Registry


class Example(Estimator):
    def __init__(
        self,
        *,
        rate: float = 0.5,
        hidden: int = 128,
        shape: str = "linear",
        free: bool = False,
        alpha: float | None = None,
        limit: int | None = 3,
    ) -> None:
        self.rate = rate
        self.hidden = hidden
        self.shape = shape
        self.free = free
        self.alpha = alpha
        self.limit = limit

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
        ("example:shape=true", "shape", "true"),
        ("example:shape=3", "shape", "3"),
        ("example:free=true", "free", True),
        ("example:free=False", "free", False),
        ("example:alpha=0.25", "alpha", 0.25),
        ("example:alpha=None", "alpha", None),
        ("example:limit=none", "limit", None),
        ("example:limit=5", "limit", 5),
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
    ("text", "message"),
    [
        ("example:hidden=2.5", "'example:hidden=2.5': 2.5 is not a whole number"),
        ("example:hidden=true", "true is not a whole number"),
        ("example:hidden=none", "none is not a whole number"),
        ("example:hidden=", "nothing is not a whole number"),
        ("example:rate=fast", "fast is not a number"),
        ("example:rate=nan", "nan is not a number"),
        ("example:rate=inf", "inf is not a number"),
        ("example:free=1", "1 is not true or false"),
        ("example:free=none", "none is not true or false"),
        ("example:alpha=true", "true is not a number or none"),
        ("example:hidden", "write example:PARAMETER=VALUE, not 'hidden'"),
        ("example:", "write example:PARAMETER=VALUE, not ''"),
    ],
)
def test_values_that_do_not_fit_are_refused(text, message):
    with pytest.raises(UsageError, match=message):
        from_text(EXAMPLES, text)


@pytest.mark.parametrize(
    ("registry", "text", "message"),
    [
        (ENSEMBLES, "log-average", "unknown ensemble 'log-average': did you mean .*log-avg"),
        (ENSEMBLES, "", "unknown ensemble ''"),
        (ENSEMBLES, "super-learner:simplx=true", "parameter of super-learner 'simplx': .*simplex"),
        (ENSEMBLES, "log-avg:x=1", "unknown parameter of log-avg 'x': none is known"),
        (HEADS, "zeroshot", "unknown head 'zeroshot': did you mean zero-shot"),
    ],
)
def test_unknown_names_are_answered_with_near_ones(registry, text, message):
    with pytest.raises(UnknownName, match=message):
        from_text(registry, text)


def test_a_clone_has_the_parameters_and_nothing_learned():
    fitted = Example(hidden=4, alpha=0.5).fit()
    assert list(fitted.learned()) == ["weights_"]
    copy = clone(fitted)
    assert copy is not fitted
    assert copy.get_params() == fitted.get_params()
    assert copy.learned() == {}


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
