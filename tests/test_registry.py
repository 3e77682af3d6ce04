"""`clipsyn.registry`: names that are imported when used, near matches for those that are not."""

import subprocess
import sys

import pytest

from clipsyn.errors import UnknownName
from clipsyn.registry import Registry


def test_a_name_is_imported_on_first_use():
    registry = Registry("shape", {"sqrt": "math:sqrt", "broken": "no_such_module:x"})
    assert registry.load("sqrt")(9) == 3
    assert "sqrt" in registry
    assert "cbrt" not in registry
    assert list(registry) == ["sqrt", "broken"]
    assert len(registry) == 2
    with pytest.raises(ModuleNotFoundError):
        registry.load("broken")


def test_registering_imports_nothing():
    code = (
        "import sys; from clipsyn.registry import Registry;"
        "Registry('x', {'a': 'wave:open'}); sys.exit('wave' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_name_of_a_class_is_found_without_importing_the_others():
    registry = Registry("shape", {"broken": "no_such_module:x", "mine": f"{__name__}:Mine"})
    assert registry.name_of(Mine) == "mine"
    with pytest.raises(UnknownName, match="int is not registered as shape"):
        registry.name_of(int)


class Mine:
    pass


def test_an_unknown_name_is_answered_with_near_ones():
    registry = Registry("shape", {"circle": "a:b", "square": "a:b"})
    with pytest.raises(UnknownName, match=r"unknown shape 'Circel': did you mean circle\?"):
        registry.load("Circel")
