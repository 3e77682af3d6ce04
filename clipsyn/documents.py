"""Files that others wrote: one guard around their parsers, and parsers that refuse harm.

JSON, YAML and pickles that are damaged, or made to exhaust memory, raise ValueError here.
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
    """Raise ``error_for(reason)`` for any exception inside; the reason is its first line.

    Meant for a parser that reads a file of others and may raise anything. Clipsyn's own errors
    pass unchanged.
    """
    try:
        yield
    except (ClipsynError, MemoryError):
        raise
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise error_for(lines[0]) from error


def one_line(error: BaseException) -> str:
    """What an exception says, on one line; its type where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


def parse_json(text: str | bytes) -> Any:
    """Like `json.loads`, but nesting that is too deep is a ValueError, too."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def parse_yaml(text: str) -> Any:
    """The content of a YAML text; raises ValueError, on one line, also for a repeated key."""
    import yaml

    try:
        return yaml.load(text, _loader())
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except (yaml.YAMLError, ValueError, LookupError) as error:  # these of a `!!bool x`, a day 32
        raise ValueError(one_line(error)) from None


def check_pickle(content: bytes) -> None:
    """Raise ValueError for a pickle that would take far more memory than it has bytes.

    The unpickler keeps what it has seen in a list, of eight bytes for each place up to the highest.
    """
    from pickletools import genops  # checks what is said of lengths too

    for opcode, argument, _ in genops(content):
        if opcode.name.endswith("PUT") and int(argument or 0) > len(content):
            raise ValueError(f"its pickle asks for place {argument}")


@cache
def _loader() -> type[SafeLoader]:
    """YAML's safe loader, made to refuse a repeated key, of which it would take the last."""
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
