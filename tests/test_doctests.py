"""Every public name has an example in its docstring, and the examples do what they show."""

import doctest

import pytest

import clipsyn
from clipsyn.analyses import Analysis

NAMES = [name for name in clipsyn.__all__ if name != "__version__"]


def examples(name):
    """Those of a class and its methods, of a function or of an analysis."""
    thing = getattr(clipsyn, name)
    if isinstance(thing, Analysis):
        yield doctest.DocTestParser().get_doctest(thing.__doc__ or "", {}, name, None, None)
    else:
        yield from doctest.DocTestFinder().find(thing, name, globs={})


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_has_an_example_that_runs(name, captioned, monkeypatch):
    """Those that need a store find the tiny one in the folder ``store``."""
    captioned.path.rename(captioned.path.with_name("store"))
    monkeypatch.chdir(captioned.path.parent)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    report: list[str] = []
    for example in examples(name):
        runner.run(example, out=report.append)
    assert runner.failures == 0, "".join(report)
    assert runner.tries > 1, f"{name} has no example"
