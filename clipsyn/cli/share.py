"""Commands that show and share: report, plot, pull, push and export."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from clipsyn.cli.options import (
    STORE,
    Destination,
    StorePath,
    cell_filters,
    command,
    flag,
    option,
    options_of,
)
from clipsyn.cli.output import say, say_rows, say_written
from clipsyn.cli.store import by_kind
from clipsyn.errors import UsageError
from clipsyn.exchange import LAYOUTS
from clipsyn.names import Address, is_url
from clipsyn.report import FIGURES, Drawn, ReportSettings
from clipsyn.text import advised, counted


@command("report", [STORE, *options_of(ReportSettings)])
def report(store: Path, **values: Any) -> None:
    """Write one HTML page about STORE, for a reader who has five minutes.

    The answer comes first: the method that the support chooses, what it gains over the best single
    backbone and over zero-shot, and at what cost; then what needs no labels; then the limit. Then
    figures, tables that can be sorted, images to look at, caveats, and where the weights come from.
    The page opens from a file, without a network.

    Clean images are what the answer is about, where the store has any; --perturb names others. A
    store that is not complete, or holds imported predictions alone, gets what can be said of it.

    \b
    clipsyn report store -o report.html
    clipsyn report store --results results.parquet --images photos -o report.html
    clipsyn report store -d 'emoji-*' --measured cascade=cascade.parquet -o report.html
    """
    from clipsyn.report.page import write_page
    from clipsyn.store.features import FeatureStore

    page = write_page(FeatureStore.open(store), ReportSettings(**values))
    say(f"{page}: {page.stat().st_size / 1e3:,.0f} kB, open it in a browser")


@command(
    "plot",
    [
        click.Argument(["name"], metavar="NAME", required=False),
        click.Argument(
            ["sources"], metavar="SOURCE...", nargs=-1, type=StorePath(), envvar="CLIPSYN_STORE"
        ),
        option(
            ["-o", "--output"],
            type=Destination(".svg", ".pdf", ".png"),
            help="The file to write.",
        ),
        *options_of(Drawn),
    ],
)
def plot(
    name: str | None,
    sources: tuple[Path, ...],
    output: Path | None,
    **selection: Any,
) -> None:
    """Draw the figure NAME of SOURCE, a store or the Parquet file that a command wrote by -o.

    The ending of the output says the format: .svg, .pdf or .png. Beside figure.svg stand
    figure.svg.csv, the numbers that are drawn, and figure.svg.txt, the caption. Of several SOURCEs
    the numbers stand in one figure.

    Without filters all that is in a file is drawn, and of a store what its analysis takes. For
    other settings of the analysis, draw the file that its command wrote. Without a NAME the figures
    are listed, with the command whose numbers each shows.

    \b
    clipsyn plot
    clipsyn plot accuracy-matrix store -p clean -o accuracy.pdf
    clipsyn plot gains results.parquet store -p clean -o gains.svg
    """
    if name is None and output is None:
        figures = [FIGURES.load(figure) for figure in FIGURES]
        say_rows(
            [{"figure": it.name, "of": it.source, "what it shows": it.short} for it in figures]
        )
        return
    if not (name and sources and output):
        raise UsageError(
            "say which figure, of what and where to: `clipsyn plot NAME STORE -o figure.pdf`; "
            "`clipsyn plot` says which figures there are"
        )
    import matplotlib  # noqa: F401 (an extra, asked for before anything is measured)

    from clipsyn.report.plot import frame_of
    from clipsyn.show import frames
    from clipsyn.show.figure import save

    figure = FIGURES.load(name)
    data = figure.data(frame_of(figure, sources, Drawn(**selection)))
    save(figure(data).figure, output)
    beside, text = (output.with_name(f"{output.name}.{end}") for end in ("csv", "txt"))
    frames.write(data, csv=beside)
    with frames.written_whole(text) as file:
        file.write(f"{figure.text(data)}\n".encode())
    say(f"{output}: {figure.text(data)}", err=True)
    say_written(len(data), beside)


def _check_folder(store: str) -> None:
    """Raise UsageError for a URL, most likely the other argument."""
    if is_url(store):
        shown = Address.parse(store).shown
        raise UsageError(
            f"{shown} stands where a folder is wanted: `clipsyn push STORE URL` publishes a "
            "store, `clipsyn pull URL STORE` brings one"
        )


_DRY_RUN = flag(["--dry-run"], help="Say what would be copied, and stop.")
_FOLDER = click.Argument(["store"], type=click.Path())


@command(
    "push",
    [
        _FOLDER,
        click.Argument(["url"]),
        *cell_filters(prompts=True),
        _DRY_RUN,
        flag(["--replace"], help="Send all again, in the place of what is published."),
    ],
)
def push(store: str, url: str, dry_run: bool, replace: bool, **filters: Any) -> None:
    """Publish the cells of STORE at URL: s3://, gs://, az:// or a folder.

    Cells bring their samples and class embeddings along. What is published already stays, and what
    others publish at the same time stays, too. Readers see a cell when all of it is there. After an
    interruption the same command goes on.

    \b
    clipsyn push store s3://lab/clip
    clipsyn push store s3://lab/clip --dataset emoji-food --dry-run
    """
    from clipsyn.exchange.card import card
    from clipsyn.remote.push import Push, address_of
    from clipsyn.show.progress import progress
    from clipsyn.store.features import FeatureStore

    _check_folder(store)
    plan = Push.plan(FeatureStore.open(store), url, filters, replace=replace)
    shown, groups = plan.remote.shown, counted(len(plan.groups), "group")
    already = counted(plan.there, "is", "are") if plan.there else "none is"
    what = f"{groups} to push, {plan.size / 1e6:,.1f} MB" if plan.groups else "nothing to push"
    say(f"{shown}: {what}; {already} there already")
    if plan.making_way:
        say(f"{len(plan.making_way):,} of them take the place of what is published")
    if dry_run:
        for group in plan.groups:
            say("/".join(group.place))
    elif plan.groups:
        with progress("files") as counters:
            plan.carry_out(counters)
        published = plan.store if plan.is_all() else FeatureStore.open(address_of(url))
        plan.remote.put("README.md", card(published, where=shown).encode())
        say(f"pushed: `{advised('ls', shown)}` shows what is there")


@command(
    "pull",
    [
        click.Argument(["sources"], nargs=-1, required=True),
        _FOLDER,
        *cell_filters(prompts=True),
        _DRY_RUN,
    ],
)
def pull(sources: Sequence[str], store: str, dry_run: bool, **filters: Any) -> None:
    """Copy cells of SOURCES into STORE, which is made if it is not there.

    SOURCES are stores in folders, or the URLs or folders that stores were pushed to. Cells bring
    their samples and class embeddings along. A cell that is there already stays as it is. Where one
    name stands for two things, of other weights, images or settings, the fields that differ are
    named, and nothing is copied.

    Every file is compared with what was written or published. A cell is seen when all of it is
    there. After an interruption the same command goes on.

    \b
    clipsyn pull alice bob lab
    clipsyn pull https://example.org/clip store
    clipsyn pull s3://lab/clip store --backbones 'tiny-*' --perturb clean --dry-run
    """
    _check_folder(store)
    _merge(Path(store), sources, filters, dry_run)


def _merge(into: Path, stores: Sequence[str], filters: Mapping[str, Any], dry_run: bool) -> None:
    from clipsyn.show.progress import progress
    from clipsyn.store.merge import plan_merge

    plan = plan_merge(into, stores, filters)
    if len(plan.conflicts) > 1:
        for conflict in plan.conflicts:
            say(conflict.said)
    plan.check()
    for offer in plan.offers:
        new = f"{by_kind(offer.counts())} ({offer.size / 1e6:,.1f} MB)" if offer.take else ""
        there = counted(offer.there, "group is", "groups are")
        say(f"{offer.store}: {new or 'nothing new'}; {there} there already")
        for note in offer.notes():
            say(note)
    groups = sum(len(offer.take) for offer in plan.offers)
    if dry_run:
        for offer in plan.offers:
            for group in offer.take:
                say(group.name)
    elif groups:
        with progress("groups") as counters:
            plan.carry_out(counters)
        say(f"added {counted(groups, 'group')} to {into}")


@command(
    "export",
    [
        STORE,
        click.Argument(["output"], type=click.Path(path_type=Path)),
        option(
            ["--layout"],
            type=click.Choice(LAYOUTS),
            default=LAYOUTS[0],
            show_default=True,
            help="Whose files: see above.",
        ),
        *cell_filters(),
    ],
)
def export(store: Path, output: Path, layout: str, **filters: tuple[str, ...] | None) -> None:
    """Write cells of STORE into the new folder OUTPUT, for other tools or as a data set.

    \b
    npz           one file a cell
    huggingface   parquet with a card, as the library datasets and the hub read

    The numbers have the bits of the store's, and `clipsyn import STORE OUTPUT` reads them back.

    \b
    clipsyn export store embeddings -d emoji-food -b tiny-RN/zoo
    clipsyn export store for-the-hub --layout huggingface -p clean
    """
    from clipsyn.exchange.export import export as write
    from clipsyn.show.progress import progress
    from clipsyn.store.features import FeatureStore
    from clipsyn.store.select import select

    opened = FeatureStore.open(store)
    with progress() as counters:
        manifest = write(opened, output, select(opened, **filters), layout, counters)
    cells = len(manifest.cells)
    say(f"{counted(cells, 'cell')} written to {output}, with README.md and export.json")
