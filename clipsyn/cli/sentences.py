"""A command that cannot go on ends with one sentence on standard error and an exit status."""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import NoReturn

import click

from clipsyn.cli.options import flag_of
from clipsyn.cli.output import say
from clipsyn.errors import ClipsynError, Interrupted
from clipsyn.text import printable

_EXTRAS = {  # what installs a package that the base install lacks
    **dict.fromkeys(("torch", "torchvision", "open_clip", "PIL", "timm"), "extract"),
    **dict.fromkeys(("matplotlib", "jinja2"), "report"),
    **dict.fromkeys(("obstore", "filelock"), "remote"),
    "submitit": "slurm",
}
_KEPT = {  # what a command that was interrupted goes on with
    **dict.fromkeys(("extract", "run"), "finished blocks"),
    "push": "files that were sent",
    "pull": "files that were copied",
}
_ADVICE = {
    errno.EACCES: "give yourself the right to it, or choose another place",
    errno.EPERM: "give yourself the right to it, or choose another place",
    errno.EROFS: "choose a place that can be written to",
    errno.ENOSPC: "make room there and run the same command again",
    errno.EDQUOT: "make room there and run the same command again",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EMFILE: "allow more open files, `ulimit -n 4096`",
}
# not within a command line, a quoted name or an ensemble's parameters
_ARGUMENT = re.compile(r"`[^`]*`|(?<![\w:='/])(?P<name>[a-z_]+)=(?P<value>…|[\w-]+)")
_MEMORY = (  # what libraries say of too little memory, where they raise no MemoryError
    "failed to map segment",
    "cannot allocate memory",
    "can't start new thread",
    "can't spawn worker thread",
)


@contextmanager
def sentences(context: click.Context) -> Iterator[None]:
    """End the process with one sentence for an error that the user or an administrator can mend."""
    try:
        yield
    except click.ClickException as error:
        vars(error)["message"] = printable(error.message)  # it stands on a line of its own
        raise
    except ClipsynError as error:
        _fail(error, flags_of(context))
    except KeyboardInterrupt:
        kept = _KEPT.get(context.invoked_subcommand or "")
        again = f"; {kept} are kept, run the same command again" if kept else ""
        _fail(Interrupted(f"interrupted{again}"))
    except (click.Abort, click.exceptions.Exit, SystemExit):
        raise
    except BaseException as error:  # Rust's panics are no Exception
        if (known := _of_machine(error)) is None:
            raise
        _fail(ClipsynError(known))


def _of_machine(error: BaseException) -> str | None:
    """A sentence for what the operating system refused; None for a bug of clipsyn."""
    if isinstance(error, ModuleNotFoundError):
        name = (error.name or "").split(".")[0]
        needs = f"this needs {name}: run `pip install 'clipsyn[{_EXTRAS.get(name)}]'` first"
        return needs if name in _EXTRAS else None
    if isinstance(error, MemoryError) or any(said in str(error).lower() for said in _MEMORY):
        return (
            "there is not enough memory: allow more (`ulimit -v`, or what your cluster's job asks "
            "for), or ask for less at once, as with --dataset and --backbones"
        )
    if isinstance(error, OSError):
        return _of_system(error)
    if isinstance(error, UnicodeEncodeError):
        return (
            f"'{error.object[error.start : error.end]}' cannot be written as {error.encoding}: "
            "take it out of the name, or set PYTHONUTF8=1 if it is for the terminal"
        )
    if isinstance(error, ValueError) and "embedded null" in str(error):
        return "a name has a NUL character in it, which no path can: take it out"
    return None


def _of_system(error: OSError) -> str | None:
    if error.errno == errno.EPIPE:  # the reader has closed the pipe: click ends in silence
        return None
    paths = (error.filename, error.filename2)
    names = [os.fsdecode(path) for path in paths if isinstance(path, str | bytes)]
    where = " and ".join(names) or "the operating system refused"
    advice = _ADVICE.get(error.errno or 0, "check the paths that the command was given")
    return f"{where}: {error.strerror or error}; {advice}"


def flags_of(context: click.Context) -> dict[str, str]:
    """The flags of the command that runs, by the names of Python's arguments.

    Where the command takes one dataset, Python may take several: `datasets` stands for it too.
    """
    group, name = context.command, context.invoked_subcommand
    command = group.get_command(context, name) if isinstance(group, click.Group) and name else None
    options = [it for it in command.params if isinstance(it, click.Option)] if command else []
    flags = {option.name or "": flag_of(option) for option in options}
    return {f"{name}s": flag for name, flag in flags.items()} | flags


def with_flags(message: str, flags: Mapping[str, str]) -> str:
    """A message with flags instead of ``backbones=…``, ``shots=4`` and ``replace=True``."""

    def flag(match: re.Match[str]) -> str:
        name, value = match["name"], match["value"]
        if name not in flags:
            return match[0]
        return flags[name] if value in ("…", "True") else f"{flags[name]} {value}"

    return _ARGUMENT.sub(flag, message)


def _fail(error: ClipsynError, flags: Mapping[str, str] | None = None) -> NoReturn:
    message = with_flags(" ".join([str(error), *getattr(error, "__notes__", [])]), flags or {})
    with suppress(OSError):  # standard error may be what cannot be written to
        click.secho("Error: ", fg="red", err=True, nl=False)
        say(printable(message), err=True)
    _close_broken()
    sys.exit(error.exit_code)


def _close_broken() -> None:
    """Close streams that cannot be written to: Python would complain of them when it ends."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
