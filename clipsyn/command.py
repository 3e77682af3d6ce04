"""The command line that is running, as cells record it: without secrets, and not without end.

The command line says it with `recorded`. What calls clipsyn from Python has none, and a process
that works for a command elsewhere is given its words.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

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
