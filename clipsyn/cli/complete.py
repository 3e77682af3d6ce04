"""Completion in the shell: names in the store on the line, or else in the catalogues."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import click

_PLACES = {"--dataset": 0, "--split": 1, "--perturb": 2, "--backbones": 3}  # folders of a cell
_CELLS = ("features", "imports")
_NAMED = {"DATASET": "--dataset", "SPLIT": "--split", "BACKBONE": "--backbones"}  # by metavar


def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Names that begin with what is typed; in a list with commas, with its last name."""
    before, comma, start = incomplete.rpartition(",")
    flag = _NAMED.get(parameter.metavar or "", flag_of(parameter))
    names = sorted(set(getattr(parameter, "offered", ()) or _names(context, flag)))
    return [f"{before}{comma}{name}" for name in names if name.startswith(start)]


def flag_of(parameter: click.Parameter) -> str:
    """The long spelling of an option, as help shows it."""
    spellings: list[str] = getattr(parameter, "shown", parameter.opts)
    return max(spellings, key=len)


def _names(context: click.Context, flag: str) -> Iterable[str]:
    # where the line ends in an option without a value, click leaves what it read in args
    words = [*(context.params.get("sources") or ()), *context.args]  # the first may name a figure
    stores = [word for word in words if Path(word).is_dir()] or words
    typed = context.params.get("store") or next(iter(stores), None)
    store = typed or os.environ.get("CLIPSYN_STORE")
    if flag in (*_PLACES, "--prompts") and store and context.info_name != "extract":
        try:
            return list(_in_store(Path(store), flag))
        except OSError:  # a store that cannot be read has nothing to offer
            return ()
    known = _CATALOGUES.get(flag)
    return known() if known else ()


def _in_store(store: Path, flag: str) -> Iterable[str]:
    """From the names of folders alone: no array is opened."""
    from clipsyn.store.folders import name_of_folder

    deep = "/".join("*" * (_PLACES[flag] + 1)) if flag in _PLACES else ""
    globs = [f"{kind}/{deep}/" for kind in _CELLS] if deep else ["classes/*/*/"]
    folders = (path for pattern in globs for path in store.glob(pattern) if path.is_dir())
    return {name_of_folder(path.name) for path in folders}


def _backbones() -> Iterable[str]:
    from clipsyn.catalog.backbones import known_backbones

    for collection, backbones in known_backbones().items():
        yield collection
        yield from (backbone.name for backbone in backbones)


def _datasets() -> Iterable[str]:
    from clipsyn.catalog.datasets import catalogue, collections

    return [*(info.name for info in catalogue()), *collections()]


def _perturbations() -> Iterable[str]:
    from clipsyn.perturb import PERTURBATIONS

    return PERTURBATIONS


def _prompts() -> Iterable[str]:
    from clipsyn.catalog.prompts import NAMED

    return NAMED


def _ensembles() -> Iterable[str]:
    from clipsyn.ensembles import ENSEMBLES

    return ENSEMBLES


def _heads() -> Iterable[str]:
    from clipsyn.heads import HEADS

    return HEADS


_CATALOGUES: dict[str, Callable[[], Iterable[str]]] = {
    "--backbones": _backbones,
    "--dataset": _datasets,
    "--perturb": _perturbations,
    "--prompts": _prompts,
    "--ensembles": _ensembles,
    "--ensemble": _ensembles,
    "--compare": _ensembles,
    "--heads": _heads,
    "--head": _heads,
}
