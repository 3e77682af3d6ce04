"""The library names its arguments; the command line, its own flags."""

from __future__ import annotations

import pytest

from clipsyn.cli.sentences import with_flags
from clipsyn.errors import UsageError
from clipsyn.evaluate.cascade import cascade
from clipsyn.store.features import FeatureStore

FLAGS = {"perturbations": "--perturb", "shots": "--shots", "replace": "--replace", "seed": "--seed"}


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("choose with perturbations=….", "choose with --perturb."),
        ("no ensembles with shots=16, but", "no ensembles with --shots 16, but"),
        ("give replace=True", "give --replace"),
        ("give other=…, backbones=…", "give other=…, backbones=…"),
        ("run `clipsyn x shots=3`, or shots=…", "run `clipsyn x shots=3`, or --shots"),
        ("unknown dataset 'seed=3'", "unknown dataset 'seed=3'"),
        ("jpeg:3:seed=1 and nlc:seed=2", "jpeg:3:seed=1 and nlc:seed=2"),
    ],
)
def test_arguments_become_flags(message, shown):
    assert with_flags(message, FLAGS) == shown


def test_each_caller_reads_the_name_that_it_used(fails, tiny_store: FeatureStore):
    path = tiny_store.path
    with pytest.raises(UsageError, match=r"choose another support=… or splits=…"):
        cascade(tiny_store, splits=["train"])
    error = fails(2, "cascade", path, "--split", "train")
    assert error.endswith("choose another --support or --split")
    with pytest.raises(UsageError, match=r"^order=given follows backbones=…: name them"):
        cascade(tiny_store, order="given")
    assert fails(2, "cascade", path, "--order", "given").startswith("--order given follows --back")
