"""The library names its arguments; the command line, its own flags."""

from __future__ import annotations

import click
import pytest

from clipsyn.analyses.cascade import cascade
from clipsyn.cli import main
from clipsyn.cli.sentences import flags_of, with_flags
from clipsyn.errors import UsageError
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
    with pytest.raises(UsageError, match=r"choose another support=…, or"):
        cascade(tiny_store, splits=["train"])
    error = fails(2, "cascade", path, "--split", "train")
    assert "choose another --support, or" in error
    with pytest.raises(UsageError, match=r"^order=given follows backbones=…: name them"):
        cascade(tiny_store, order="given")
    assert fails(2, "cascade", path, "--order", "given").startswith("--order given follows --back")


def test_one_split_is_a_list_of_one():
    context = click.Context(main)
    assert flags_of(context) == {}
    context.invoked_subcommand = "predict"
    assert flags_of(context)["splits"] == flags_of(context)["split"] == "--split"
