"""Texts from outside: read with limits, made safe to show; command lines to record or to advise."""

from __future__ import annotations

import errno
import json
import logging
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipsyn.errors import ClipsynError

if TYPE_CHECKING:
    from pydantic import ValidationError
    from yaml import SafeLoader

LOG = logging.getLogger("clipsyn")

# controls, line and paragraph separators, overrides of the direction of writing, lone surrogates
_UNSAFE = r"\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_IN_TEXT = re.compile(rf"[\t\n{_UNSAFE}]")
_IN_LINES = re.compile(rf"(\x1b\[[0-9;]*m)|[{_UNSAFE}]")


def printable(text: str) -> str:
    """A name or a sentence: unsafe characters become ``\\u001b``, a line break is one of them.

    That is what JSON writes for them too: JSON stays JSON of the same data.
    """
    return _IN_TEXT.sub(_escaped, text)


def printable_lines(text: str) -> str:
    """Lines of clipsyn's own: line breaks and colours stay, other unsafe characters go."""
    return _IN_LINES.sub(lambda match: match[1] or _escaped(match), text)


def few(names: Sequence[str], most: int = 3) -> str:
    """The first names for a sentence, with … where there are more."""
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")


def counted(count: int, one: str, several: str = "") -> str:
    """ "1 group is", "1,200 groups are": a number with what it is of; `several` adds an s."""
    return f"{count:,} {one if count == 1 else several or f'{one}s'}"


def cells(text: str) -> int:
    """The width of the widest line on a terminal: some characters are two columns wide."""
    from rich.cells import cell_len

    return max(cell_len(line) for line in _COLOUR.sub("", text).split("\n"))


def cut(text: str, width: int) -> str:
    """The text, its middle replaced by … if it is too long."""
    from rich.cells import set_cell_size

    if cells(text) <= width:
        return text
    first = (width - 1) // 2
    last = set_cell_size(text[::-1], width - 1 - first)[::-1]
    return f"{set_cell_size(text, first)}…{last}"


def _escaped(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"


_PART = 1 << 16  # bytes
_MOST_BYTES = 64 << 20  # prompts of all datasets together have 10 million


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
        if isinstance(error, OSError) and error.errno == errno.ENOMEM:
            raise  # no fault of the file
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise error_for(lines[0]) from error


def one_line(error: BaseException) -> str:
    """What an exception says, on one line; its type where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


def read_text(path: Path, most: int = _MOST_BYTES) -> str:
    """The text in a file; raises ValueError for more than anybody writes, as of a device."""
    with path.open("rb") as file:  # in parts, for all that is asked for is allocated at once
        parts = islice(iter(lambda: file.read(_PART), b""), most // _PART + 1)
        content = b"".join(parts)
    if len(content) > most:
        raise ValueError(f"it has more than {most:,} bytes")
    return content.decode("utf-8-sig")


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
    """YAML's safe loader, but a key stands once."""
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            seen = set()
            for key, _ in node.value:
                if isinstance(key, yaml.ScalarNode) and key.value in seen:
                    problem = f"the key '{key.value}' stands twice"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                seen.add(key.value if isinstance(key, yaml.ScalarNode) else id(key))
            return super().construct_mapping(node, deep)

    return Loader


HIDDEN = "…"  # stands for what was left out
_LONGEST = 2000  # characters: a cell of an import of a thousand files need not list them
_URL = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)(?:[^/?#\s]*@)?(?P<rest>[^?#\s]*)(?P<query>[?#]\S*)?"
)
_SECRET_NAMES = re.compile(
    r"(?i)(?:^|[-_])(?:token|secret|passw(?:or)?d|pwd|credentials?|auth|(?:api|access|secret)[-_]?key"
    r"|signature)(?:$|[-_])"
)
_SECRETS = re.compile(  # texts that are a key wherever they stand
    r"hf_[A-Za-z0-9]{16,}|(?:AKIA|ASIA)[A-Z0-9]{12,}|gh[opsu]_[A-Za-z0-9]{16,}"
    r"|github_pat_\w{16,}|sk-[\w-]{16,}|eyJ[\w-]{8,}\.[\w-]+\.[\w-]+"
)
_QUERY = re.compile(  # in names that are no URLs, as of a model on a hub
    r"(?i)([?&][\w.-]*(?:token|secret|passw|sig|credential|key)[\w.-]*=)[^&\s'\"`]+"
)
_running: list[str] = []  # threads that write cells see it, which a context variable would not


def running() -> str | None:
    """The command line that is running, as a shell takes it; None where there is none."""
    return _running[-1] if _running else None


def now() -> str:
    """The time, as it is recorded."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@contextmanager
def recorded(words: Sequence[str]) -> Iterator[None]:
    """While it lasts, cells are made by ``clipsyn WORDS``."""
    _running.append(line_of(words))
    try:
        yield
    finally:
        _running.pop()


def line_of(words: Sequence[str]) -> str:
    """``clipsyn WORDS`` without passwords, keys and the queries of URLs."""
    line = shlex.join(["clipsyn", *_without_secrets(words)])
    line = line.encode("utf-8", "backslashreplace").decode()
    if len(line) <= _LONGEST:
        return line
    return f"{line[:_LONGEST]}{HIDDEN} ({len(words)} words)"


def advised(*words: object) -> str:
    """``clipsyn WORDS``, for people to run: names are quoted, … is what they fill in."""
    return " ".join(_quoted(str(word)) for word in ("clipsyn", *words))


def _quoted(word: str) -> str:
    """As a shell takes it, to which … is a letter."""
    plain = word.replace(HIDDEN, "x")
    return word if shlex.quote(plain) == plain else shlex.quote(word)


def _without_secrets(words: Sequence[str]) -> Iterator[str]:
    follows = False  # whether this word is the value of an option that holds a secret
    for word in words:
        name, sign, _ = word.partition("=")
        is_secret = bool(_SECRET_NAMES.search(name)) and "/" not in name
        if follows:
            yield HIDDEN
        elif is_secret and sign:
            yield f"{name}={HIDDEN}"
        else:
            yield scrubbed(word)
        follows = is_secret and word.startswith("-") and not sign and not follows


def scrubbed(text: str) -> str:
    """A word, or a line for people: URLs without user, password and query, and no other key."""
    return _SECRETS.sub(HIDDEN, _QUERY.sub(rf"\1{HIDDEN}", _URL.sub(_bare, text)))


def _bare(url: re.Match[str]) -> str:
    return f"{url['scheme']}{url['rest']}{f'?{HIDDEN}' if url['query'] else ''}"
