"""The command line: parse, call one function, print. Heavy imports stand inside the commands."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import click

from clipsyn import __version__
from clipsyn.analyses import ANALYSES
from clipsyn.cli.analysis import command_of
from clipsyn.cli.backbones import backbones
from clipsyn.cli.datasets import datasets
from clipsyn.cli.evaluate import evaluate
from clipsyn.cli.extract import extract
from clipsyn.cli.fit import fit
from clipsyn.cli.import_ import import_
from clipsyn.cli.output import say
from clipsyn.cli.perturbations import perturbations
from clipsyn.cli.predict import predict
from clipsyn.cli.run import run
from clipsyn.cli.sentences import flags_of, sentences, with_flags
from clipsyn.cli.store import info, ls, rm, status, verify


class _Group(click.Group):
    """Errors that the user can act on end it with one sentence and an exit status."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        with sentences(ctx):
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        if os.environ.get("NO_COLOR"):  # no-color.org; tables see to it themselves
            ctx.color = False
        with sentences(ctx):
            return super().invoke(ctx)


class _Stderr(logging.Handler):
    """Writes to what standard error is at the time: progress bars replace it for a while."""

    def __init__(self, flags: Mapping[str, str]) -> None:
        super().__init__()
        self._flags = flags

    def emit(self, record: logging.LogRecord) -> None:
        say(with_flags(self.format(record), self._flags), err=True)


@contextmanager
def _narrating(level: int, flags: Mapping[str, str]) -> Iterator[None]:
    """Log lines of clipsyn go to standard error, once: open_clip may set up the root logger."""
    logger, handler = logging.getLogger("clipsyn"), _Stderr(flags)
    logger.addHandler(handler)
    logger.setLevel(level)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = True


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="clipsyn")
@click.option("-q", "--quiet", is_flag=True, help="Results, notes and errors only.")
@click.option("-v", "--verbose", is_flag=True, help="Also what each step reads, and how long.")
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    help="The same by name: info, the default; -v is debug, -q warning.",
)
@click.pass_context
def main(context: click.Context, quiet: bool, verbose: bool, log_level: str | None) -> None:
    """Extract CLIP backbones once into a feature store; analyse and combine them for ever after.

    \b
    clipsyn extract STORE --backbones zoo --dataset emoji-animals --split test
    clipsyn zeroshot STORE
    """
    if quiet + verbose + bool(log_level) > 1:
        raise click.UsageError("give one of -q, -v and --log-level")
    name = log_level or ("warning" if quiet else "debug" if verbose else "info")
    context.with_resource(_narrating(getattr(logging, name.upper()), flags_of(context)))
    # Before numpy. After a product OpenBLAS's threads keep spinning for milliseconds, on cores
    # that other threads could use: an eighth of the time of fitting NLC on two cores.
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "10")


_READING = (ls, info, status, verify, rm, backbones, datasets, perturbations)
for _command in (extract, import_, evaluate, fit, predict, *_READING, run):
    main.add_command(_command)
for _name in ANALYSES:
    main.add_command(command_of(ANALYSES.load(_name)))
