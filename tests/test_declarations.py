"""A setting has one name, one default and one unit: for the command, in recipes and in Python."""

import inspect
from typing import Any

import pytest

import clipsyn
from clipsyn import settings as kinds
from clipsyn.analyses import ANALYSES
from clipsyn.cli import main
from clipsyn.evaluation import ProtocolSettings
from clipsyn.run.recipe import STAGES

DECLARED: dict[str, type[kinds.Settings]] = {
    **{name: ANALYSES.load(name).settings for name in ANALYSES},
    "evaluate": ProtocolSettings,
}
EACH = [(command, name) for command, of in DECLARED.items() for name in kinds.declared(of)]
each = pytest.mark.parametrize(("command", "name"), EACH, ids=[" ".join(pair) for pair in EACH])
# OUTPUT in a recipe is the name that all files of a stage begin with, here OUTPUT.parquet; on the
# command line it is one of the files of -o
NEEDED = {("evaluate", "output")}
# of each kind a value, in a recipe and on the command line
VALUES: dict[Any, tuple[Any, str]] = {
    kinds.FLAG: (True, ""),
    kinds.WHOLE: (7, "7"),
    kinds.NUMBER: (0.5, "0.5"),
    kinds.TEXT: ("given", "given"),
    kinds.NAMES: (["nlc", "log-avg"], "nlc,log-avg"),
    kinds.NUMBERS: ([0.5, 0.25], "0.5,0.25"),
    kinds.COSTS: ({"a=b": 1.5, "c": 2.0}, "a=b=1.5,c=2"),
    **dict.fromkeys((kinds.PATH, kinds.OUTPUT), ("table.parquet", "table.parquet")),
    kinds.SHOTS: (3, "3"),
    kinds.CURVE: ([4, "full"], "4,full"),
}


def by_command(command, *words):
    """What the command is given, by name."""
    return main.commands[command].make_context(command, ["store", *words]).params


def flag(command, name):
    it = kinds.declared(DECLARED[command])[name]
    return kinds.option_of(name).replace("--", f"--{'no-' * (it.default is True)}", 1)


def value_of(it):
    if it.choices:
        return (
            ([it.choices[-1]], it.choices[-1]) if it.kind is kinds.NAMES else (it.choices[-1],) * 2
        )
    return (False, "") if it.default is True else VALUES[it.kind]


@each
def test_it_has_one_default_everywhere(command, name):
    default = kinds.defaults(DECLARED[command])[name]
    assert (command, name) in NEEDED or by_command(command)[name] == default
    assert inspect.signature(getattr(clipsyn, command)).parameters[name].default == default
    of_stage = kinds.defaults(STAGES[command])[name]
    assert of_stage is (kinds.REQUIRED if (command, name) in NEEDED else default)


@each
def test_it_has_one_unit_everywhere(command, name, monkeypatch, tmp_path):
    """The same value, given in each of the three ways, is the same setting."""
    monkeypatch.chdir(tmp_path)
    settings = DECLARED[command]
    it = kinds.declared(settings)[name]
    value, text = value_of(it)
    if (command, name) in NEEDED:
        return
    given = {name: value, **({it.about: "results.parquet"} if it.about else {})}
    in_python = settings(**given)
    assert getattr(in_python, name) != kinds.defaults(settings)[name]
    words = [flag(command, name), *([text] if text else [])]
    words += [flag(command, it.about), "results.parquet"] if it.about else []
    known = {name for name in kinds.declared(settings) if (command, name) not in NEEDED}
    typed = {k: v for k, v in by_command(command, *words).items() if k in known}
    assert settings(**typed) == in_python
    stage = STAGES[command](output="out", **given)
    assert getattr(stage.settings(), name) == getattr(in_python, name)
