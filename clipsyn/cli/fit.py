"""`clipsyn fit`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from clipsyn.cli.complete import complete
from clipsyn.cli.declared import ShotsType
from clipsyn.cli.options import SEED, list_option, store_argument
from clipsyn.cli.output import say
from clipsyn.settings import FULL, Shots, images_of

if TYPE_CHECKING:
    from clipsyn.router.fitted import FittedRouter

_METHOD = "NAME or NAME:parameter=value:…"


@click.command(short_help="Fit a router on labelled images of a store.")
@store_argument
@click.option(
    "-d", "--dataset", shell_complete=complete, required=True, help="A dataset of the store."
)
@click.option(
    "--ensemble",
    shell_complete=complete,
    default="nlc",
    show_default=True,
    help=f"{_METHOD}: the combiner.",
)
@click.option(
    "--head",
    shell_complete=complete,
    default="zero-shot",
    show_default=True,
    help=f"{_METHOD}: what makes the logits that are combined.",
)
@click.option(
    "--shots",
    type=ShotsType(),
    default=FULL,
    show_default=True,
    help="Labelled images of each class to learn from, or full: all there are.",
)
@click.option(
    "--seed",
    type=SEED,
    default=0,
    show_default=True,
    help="Of the images drawn by --shots, and of methods with a random start.",
)
@click.option(
    "--support",
    default="train",
    show_default=True,
    help="The split with the labelled images; never the test split.",
)
@list_option(
    "-b",
    "--backbones",
    help="Names or patterns such as '*/openai', repeated or with commas.  [default: all]",
)
@click.option(
    "--prompts", shell_complete=complete, help="A prompt set of the store.  [default: the only one]"
)
@list_option(
    "--views",
    help="Perturbations of the store that are augmented views, for heads that use them. "
    "Repeated or with commas.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    help="The folder to write.",
)
@click.option("--replace", is_flag=True, help="Replace a router that is there.")
def fit(
    store: Path,
    dataset: str,
    *,
    ensemble: str,
    head: str,
    shots: Shots,
    seed: int,
    support: str,
    backbones: tuple[str, ...] | None,
    prompts: str | None,
    views: tuple[str, ...] | None,
    output: Path,
    replace: bool,
) -> None:
    """Fit an ensemble on labelled images of STORE and write it, with all it needs, to a folder.

    What is written predicts without STORE, and refuses what it was not fitted on. See
    docs/fitting.md for the names of ensembles and heads.

    \b
    clipsyn fit store -d emoji-food --shots 16 -o router
    clipsyn fit store -d emoji-food --ensemble nlc:weight_map=linear -b 'tiny-*' -o router
    clipsyn fit store -d photos --ensemble super-learner --head tip-adapter --shots 4 -o router
    """
    from clipsyn.router import fit_router
    from clipsyn.router.artefact import check_vacant, write
    from clipsyn.store.features import FeatureStore

    check_vacant(output, replace=replace)
    router = fit_router(
        FeatureStore.open(store),
        dataset,
        ensemble,
        head=head,
        shots=images_of(shots),
        seed=seed,
        support=support,
        backbones=backbones,
        prompts=prompts,
        views=views or (),
    )
    write(output, router, replace=replace)
    say(_outcome(router))
    say(f"written to {output}: next, `clipsyn predict {output} IMAGES`")


def _outcome(router: FittedRouter) -> str:
    """What it was fitted on, and what the support lacks."""
    support = router.support
    shots = f"{support.shots} shots, seed {support.seed}" if support.shots else "all there are"
    lines = [
        f"{router.method}, {len(router.backbones)} backbones, fitted on {support.samples:,} images "
        f"of {router.n_classes:,} classes of {support.dataset}/{support.split} ({shots})"
    ]
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
