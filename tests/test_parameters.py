"""What parameters of heads and ensembles may be: one table on each class, and what `fit` says."""

import math
from dataclasses import dataclass

import numpy as np
import pytest

from clipsyn.errors import UsageError
from clipsyn.methods.ensembles import ENSEMBLES
from clipsyn.methods.estimator import Estimator, parameter
from clipsyn.methods.heads import HEADS
from clipsyn.methods.pool import Pool
from clipsyn.settings import FLAG, NUMBER, TEXT, WHOLE, Constraint

REGISTERED = {name: registry.load(name) for registry in (HEADS, ENSEMBLES) for name in registry}
PARAMETERS = [(name, it) for name, make in REGISTERED.items() for it in make().get_params()]
OF_ANOTHER_KIND = {
    FLAG: [1, 0.5, "true"],
    WHOLE: [2.5, True, "3", math.nan],
    NUMBER: ["0.5", True, math.nan, math.inf, -math.inf, 1j],
    TEXT: [3, True],
}


def support():
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(2, 24, 5))
    embeddings /= np.linalg.norm(embeddings, axis=2, keepdims=True)
    return Pool.of(rng.normal(size=(24, 2, 3)), np.arange(24) % 3, embeddings, split="train")


def invalid(constraint):
    """Values that are of another kind, and the nearest beyond each bound."""
    yield from OF_ANOTHER_KIND[constraint.kind]
    if not constraint.instead_of_none:
        yield None
    if constraint.choices:
        yield constraint.choices[0] + "x"
    if math.isfinite(constraint.least):
        yield beyond(constraint, constraint.least, -math.inf)
    if math.isfinite(constraint.most):
        yield beyond(constraint, constraint.most, math.inf)
    if math.isfinite(constraint.above):
        yield constraint.above


def beyond(constraint, bound, towards):
    if constraint.kind is WHOLE:
        return int(bound + math.copysign(1, towards))
    return math.nextafter(bound, towards)


@pytest.mark.parametrize("name", REGISTERED)
def test_every_parameter_has_a_constraint_(name):
    make = REGISTERED[name]
    assert list(make.constraints()) == list(make().get_params())


@pytest.mark.parametrize("name", REGISTERED)
def test_defaults_are_what_parameters_may_be(name):
    defaults = REGISTERED[name]().get_params()
    for setting, constraint in REGISTERED[name].constraints().items():
        assert constraint.accepted(setting, defaults[setting]) == defaults[setting]


@pytest.mark.parametrize(("name", "setting"), PARAMETERS)
def test_values_that_cannot_be_are_refused_by_fit(name, setting):
    make = REGISTERED[name]
    for value in invalid(make.constraints()[setting]):
        estimator = make().set_params(**{setting: value})
        refusal = f"{setting} is .*, not |unknown {setting} '"
        with pytest.raises(UsageError, match=f"^({refusal})"):
            estimator.fit(support())
        assert not estimator.learned()


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("nlc", {"hidden": 0}, "hidden is a whole number of at least 1, not 0"),
        ("nlc", {"holdout": 0.9999}, "holdout is a number from 0 to 0.5, not 0.9999"),
        ("moe", {"weight_decay": math.inf}, "weight_decay is a number, not inf"),
        ("nlc", {"random_state": None}, "random_state is a whole number, not None"),
        ("super-learner", {"simplex": "yes"}, "simplex is true or false, not 'yes'"),
        ("linear-probe", {"holdout": 0.7}, "holdout is a number above 0 and at most 0.5, not 0.7"),
        ("tip-adapter", {"beta": -1000.0}, "beta is a number from 0 to 10,000, not -1,000"),
    ],
)
def test_a_refusal_is_one_clear_sentence(name, parameters, message):
    with pytest.raises(UsageError) as error:
        REGISTERED[name](**parameters).fit(support())
    assert str(error.value) == message


def test_a_refused_fit_leaves_an_earlier_one():
    ensemble = REGISTERED["super-learner"]().fit(support())
    before = ensemble.learned()
    with pytest.raises(UsageError, match="penalty"):
        ensemble.set_params(penalty=-1.0).fit(support())
    assert ensemble.learned() == before


@dataclass(eq=False, repr=False)
class Base(Estimator):
    size: int = parameter(7, WHOLE, least=1)
    rate: float | None = parameter(None, NUMBER, most=1, keyword=True)


@dataclass(eq=False, repr=False)
class Derived(Base):
    size: int = parameter(9, WHOLE, least=5)
    shape: str = parameter("round", TEXT, choices=("round", "flat"))


@dataclass(eq=False, repr=False)
class Undeclared(Base):
    power: float = 2.0  # of another package, which does not say what it may be


class Plain(Base):
    def __init__(self, size=7, random_state=0, free=""):
        self.size = size
        self.random_state = random_state
        self.free = free


def stated(constraints):
    return {name: vars(constraint) for name, constraint in constraints.items()}


def test_a_class_adds_to_what_its_bases_declare():
    assert Derived(8, "flat", rate=0.5).get_params() == {"size": 8, "shape": "flat", "rate": 0.5}
    assert stated(Derived.constraints()) == stated(
        {
            "size": Constraint(WHOLE, least=5),
            "shape": Constraint(TEXT, choices=("round", "flat")),
            "rate": Constraint(NUMBER, most=1, instead_of_none="chosen on the support"),
        }
    )
    assert repr(Derived(rate=0.5)) == "Derived(rate=0.5)"


def test_a_class_of_another_package_declares_what_it_likes():
    assert list(Undeclared.constraints()) == ["size", "rate"]
    assert stated(Plain.constraints()) == stated({"size": Constraint(WHOLE, least=1)})
