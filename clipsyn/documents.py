"""Files that others wrote: what their parsers raise, and what is made to do harm.

JSON, YAML and pickles that are none, or would do harm, are a ValueError here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from clipsyn.errors import ClipsynError

if TYPE_CHECKING:
    from yaml import SafeLoader


@contextmanager
def foreign(error_for: Callable[[str], Exception]) -> Iterator[None]:
    """Whatever goes wrong inside becomes one error, that of `error_for` the reason (one line).

    For calls of a parser on a file that others wrote: it may raise anything. Errors of clipsyn's
    own pass.
    """
    try:
        yield
    except (ClipsynError, MemoryError):
        raise
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise error_for(lines[0]) from error


def parse_json(text: str | bytes) -> Any:
    """As `json.loads`; raises ValueError for what is nested too deeply too."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def parse_yaml(text: str) -> Any:
    """What a YAML text says; raises ValueError, on one line, for a key that stands twice too."""
    import yaml

    try:
        return yaml.load(text, _loader())
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except (yaml.YAMLError, ValueError, LookupError) as error:  # these of a `!!bool x`, a day 32
        raise ValueError(" ".join(str(error).split())) from None


def check_pickle(content: bytes) -> None:
    """Raise ValueError for a pickle that would take far more memory than it has bytes.

    A place in the unpickler's list of what it has seen costs eight bytes, and so do all before it.
    """
    from pickletools import genops  # checks what is said of lengths too

    for opcode, argument, _ in genops(content):
        if opcode.name.endswith("PUT") and int(argument or 0) > len(content):
            raise ValueError(f"its pickle asks for place {argument}")


@cache
def _loader() -> type[SafeLoader]:
    """YAML's own safe loader, which would take the last of two equal keys without a word."""
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            seen = set()
            for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
                name = key.tag, key.value
                if isinstance(key, yaml.ScalarNode) and name in seen:
                    problem = f"the key '{key.value}' stands twice"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                seen.add((key.tag, str(key.value)))
            return super().construct_mapping(node, deep)

    return Loader
