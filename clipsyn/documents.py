"""Files that others wrote: one guard around their parsers, and parsers that refuse harm.

JSON, YAML and pickles that are damaged, or made to exhaust memory, raise ValueError here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipsyn.errors import ClipsynError

if TYPE_CHECKING:
    from pydantic import ValidationError
    from yaml import SafeLoader

_PART = 1 << 16  # bytes
_MOST_BYTES = 64 << 20  # prompts of all datasets together have 10 million
_MOST_YAML = 1 << 18  # characters, and values: a recipe has some thousand
_BITS = 63  # of a whole number


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


def read_text(path: Path) -> str:
    """The text in a file; raises ValueError for more than anybody writes, as of a device."""
    with path.open("rb") as file:  # in parts, for all that is asked for is allocated at once
        parts = islice(iter(lambda: file.read(_PART), b""), _MOST_BYTES // _PART + 1)
        content = b"".join(parts)
    if len(content) > _MOST_BYTES:
        raise ValueError(f"it has more than {_MOST_BYTES:,} bytes")
    return content.decode("utf-8-sig")


def parse_json(text: str | bytes) -> Any:
    """Like `json.loads`, but nesting that is too deep is a ValueError, too."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def parse_yaml(text: str) -> Any:
    """The content of a YAML text; raises ValueError, on one line, also for a repeated key.

    An alias counts as often as it stands, so that a short text cannot mean endlessly much.
    """
    import yaml

    if len(text) > _MOST_YAML:
        raise ValueError(f"it is longer than {_MOST_YAML:,} characters")
    try:
        content = yaml.load(text, _loader())
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except (yaml.YAMLError, ValueError, LookupError) as error:  # these of a `!!bool x`, a day 32
        raise ValueError(one_line(error)) from None
    _check_size(content)
    return content


def _check_size(content: Any) -> None:
    """Raise ValueError for too many values, or a number that nothing here could hold."""
    waiting, values = [content], 0
    while waiting:
        value = waiting.pop()
        values += 1
        if values > _MOST_YAML:
            raise ValueError(f"it has more than {_MOST_YAML:,} values, aliases written out")
        if isinstance(value, int) and value.bit_length() > _BITS:
            raise ValueError(f"it has a whole number of more than {_BITS} bits")
        if isinstance(value, list | Mapping):
            waiting += [*value, *value.values()] if isinstance(value, Mapping) else value


def first_problem(error: ValidationError) -> str:
    """What pydantic finds wrong first, with its place: ``backbones.0.name is missing``."""
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(map(str, first["loc"]))
    words = {"missing": "is missing", "extra_forbidden": "is not allowed here"}
    return f"{where} {words.get(first['type']) or ': ' + first['msg']}".replace(" : ", ": ")


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
    """YAML's safe loader, but a key is a text or number, stands once, and merges nothing in."""
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            seen = set()
            for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
                name = key.tag, key.value if isinstance(key, yaml.ScalarNode) else None
                problem = f"the key '{name[1]}' stands twice" if name in seen else ""
                if name[1] is None or key.tag == "tag:yaml.org,2002:merge":
                    problem = "a key is no list, mapping or merge (<<)"
                if problem:
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                seen.add(name)
            return super().construct_mapping(node, deep)

    return Loader
