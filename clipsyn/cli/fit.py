"""`clipsyn fit`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from clipsyn.cli.declared import settings_command
from clipsyn.cli.options import Destination
from clipsyn.cli.output import say
from clipsyn.router.settings import FitSettings
from clipsyn.text import advised

if TYPE_CHECKING:
    from clipsyn.router.fitted import FittedRouter


def _fit(store: Path, *, output: Path, replace: bool, **values: Any) -> None:
    from clipsyn.router.artefact import check_vacant, write
    from clipsyn.router.fit import fit_router
    from clipsyn.store.features import FeatureStore

    check_vacant(output, replace=replace)
    router = fit_router(FeatureStore.open(store), **values)
    write(output, router, replace=replace)
    say(_outcome(router))
    say(f"written to {output}: next, `{advised('predict', output, 'IMAGES')}`")


def _outcome(router: FittedRouter) -> str:
    """What it was fitted on, and what the support lacks."""
    support = router.support
    shots = f"{support.shots} shots, seed {support.seed}" if support.shots else "all there are"
    lines = [
        f"{router.method}, {len(router.backbones)} backbones, fitted on {support.samples:,} images "
        f"of {router.n_classes:,} classes of {support.dataset}/{support.split} ({shots})"
    ]
    if router.sampled:
        lines.append(f"of these a sample of {router.sampled:,}, which is what memory holds")
    if support.classes_short:
        lines.append(f"classes with fewer images than that: {support.classes_short:,}")
    if support.classes_empty:
        lines.append(f"classes with none: {support.classes_empty:,}")
    if support.accuracy is not None:
        lines.append(
            f"it gets {100 * support.accuracy:.1f} % of these very images right, which says little "
            "about others"
        )
    return "; ".join(lines)


fit = settings_command(
    "fit",
    FitSettings,
    _fit,
    short="Fit a router on labelled images of a store.",
    about="""\
Fit an ensemble on labelled images of STORE and write it, with all it needs, to a folder.

What is written predicts without STORE, and refuses what it was not fitted on. See
docs/fitting.md for the names of ensembles and heads.""",
    examples=(
        "clipsyn fit store -d emoji-food --shots 16 -o router",
        "clipsyn fit store -d emoji-food --ensemble nlc:weight_map=linear -b 'tiny-*' -o router",
        "clipsyn fit store -d photos --ensemble super-learner --head tip-adapter --shots 4 -o "
        "router",
    ),
    more=[
        click.option(
            "-o",
            "--output",
            type=Destination(is_made=True),
            required=True,
            help="The folder to write.",
        ),
        click.option("--replace", is_flag=True, help="Replace a router that is there."),
    ],
)
