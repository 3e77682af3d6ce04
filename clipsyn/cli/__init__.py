"""The command line: parse, call one function, print. Heavy imports stand inside the commands."""

from __future__ import annotations

import logging
import os
from collections import UserDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import click

from clipsyn import __version__
from clipsyn.analyses import ANALYSES, Analysis
from clipsyn.cli.options import STORE, command, output_option
from clipsyn.cli.output import Output, say, sentences, speak_of
from clipsyn.text import LOG, recorded, scrubbed

_WORDS = "clipsyn.words"  # the arguments as they were given
_ANALYSIS = "", ""  # an analysis declares its command and its line itself
_SECTIONS = {  # of help, what most need first: where each command is, and what help says of it
    "Make a store": {
        "extract": ("make:extract", "Run backbones over images into a store."),
        "split": ("make:split", "Divide labelled images into train and test."),
        "import": ("make:import_", "Bring predictions made elsewhere into a store."),
        "pull": ("share:pull", "Copy cells of other stores, or published ones, into a store."),
        "rm": ("store:rm", "Remove cells from a store."),
        "gc": ("store:gc", "Remove what dead jobs have left."),
        "run": ("make:run", "Run the stages of a recipe."),
    },
    "Look": {
        "ls": ("store:ls", "List what a store holds."),
        "search": ("share:search", "Find the images nearest to a text or an image."),
        "info": ("info:info", "Say how a store, or one group of it, was made."),
        "verify": ("store:verify", "Re-read everything and name what is damaged."),
        "catalog": ("info:catalog", "List known backbones, datasets or perturbations."),
    },
    "Measure": {
        "zeroshot": _ANALYSIS,
        "oracle": _ANALYSIS,
        "evaluate": ("methods:evaluate", "Fit and measure every ensemble, by number of shots."),
        "compare": (
            "methods:compare",
            "Compare methods in pairs, or accuracies with published ones.",
        ),
    },
    "Combine": {
        "fit": ("methods:fit", "Fit a router on labelled images of a store."),
        "predict": ("methods:predict", "Predict images with a fitted router."),
        "cascade": _ANALYSIS,
    },
    "Show and share": {
        "report": ("share:report", "Write a page to read about a store."),
        "plot": ("share:plot", "Draw a figure of a store or of results."),
        "export": ("share:export", "Write cells as files for other tools."),
        "push": ("share:push", "Publish cells of a store at a URL."),
    },
}
_COMMANDS = {name: about for section in _SECTIONS.values() for name, about in section.items()}
_SECTIONS["Measure"] |= {name: _ANALYSIS for name in ANALYSES if name not in _COMMANDS}


class _Commands(UserDict[str, Any]):
    """Commands by name. One is imported, and its options made, when it is asked for."""

    def __getitem__(self, name: str) -> Any:
        if self.data[name] is None:
            made = (
                analysis_command(ANALYSES.load(name))
                if name in ANALYSES
                else resolve_name(f"clipsyn.cli.{_COMMANDS[name][0]}")
            )
            made.short_help = _line(name)
            self.data[name] = made
        return self.data[name]


def analysis_command(analysis: Analysis) -> click.Command:
    """`clipsyn NAME STORE`, with an option for each setting of the analysis."""

    @command(analysis.name, STORE, analysis.settings, output_option(), help=analysis.help)
    def run(store: Path, *, output: Output, **values: Any) -> None:
        from clipsyn.store.features import FeatureStore

        opened, settings = FeatureStore.open(store), analysis.settings(**values)
        frame = analysis.measure(opened, settings)
        output.show(frame, lambda shown: analysis.tables(shown, settings))
        for note in analysis.notes(opened, frame, settings):
            say(note, err=True)

    return run


def _line(name: str) -> str:
    """What the list of commands says of it."""
    return str(ANALYSES.load(name).short) if name in ANALYSES else _COMMANDS[name][1]


class _Group(click.Group):
    """Errors that the user can act on end it with one sentence and an exit status."""

    def __init__(self, *args: Any, **about: Any) -> None:
        super().__init__(*args, **about)
        self.commands = _Commands(dict.fromkeys([*_COMMANDS, *ANALYSES]))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """By section, without the options of analyses: the list needs a line of each."""
        widest = max(map(len, self.commands))
        for heading, names in _SECTIONS.items():
            with formatter.section(heading):
                formatter.write_dl([(f"{name:{widest}}", _line(name)) for name in names])

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        args = args or ["--help"]
        ctx.meta[_WORDS] = tuple(args)
        with sentences(ctx):
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        if os.environ.get("NO_COLOR"):  # no-color.org; tables see to it themselves
            ctx.color = False
        with sentences(ctx):
            return super().invoke(ctx)


class _Stderr(logging.Handler):
    """Writes to what standard error is at the time: progress bars replace it for a while.

    A note is written once, though several analyses of a page have it.
    """

    _notes: frozenset[str] = frozenset()

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        if text not in self._notes:
            say(scrubbed(text), err=True)
        if text.startswith("note: "):
            self._notes |= {text}


@contextmanager
def _narrating(level: int) -> Iterator[None]:
    """Log lines of clipsyn go to standard error, once: open_clip may set up the root logger."""
    handler = _Stderr()
    LOG.addHandler(handler)
    LOG.setLevel(level)
    LOG.propagate = False
    try:
        yield
    finally:
        LOG.removeHandler(handler)
        LOG.propagate = True


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="clipsyn")
@click.option("-q", "--quiet", is_flag=True, help="Results, notes and errors only.")
@click.option("-v", "--verbose", is_flag=True, help="Also what each step reads, and how long.")
@click.pass_context
def main(context: click.Context, quiet: bool, verbose: bool) -> None:
    """Extract CLIP backbones once into a feature store; analyse and combine them for ever after.

    \b
    clipsyn extract STORE --backbones zoo --dataset emoji-animals --split test
    clipsyn zeroshot STORE
    """
    if quiet and verbose:
        raise click.UsageError("give one of -q and -v")
    level = logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO
    speak_of(main.commands.get(context.invoked_subcommand or ""))
    context.with_resource(_narrating(level))
    context.with_resource(recorded(context.meta[_WORDS]))
    # Before numpy. After a product OpenBLAS's threads keep spinning for milliseconds, on cores
    # that other threads could use: an eighth of the time of fitting NLC on two cores.
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "10")
