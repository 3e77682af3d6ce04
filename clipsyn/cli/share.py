"""Commands that show and share: report, plot, pull, push and export."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    output_option,
)
from clipsyn.cli.output import NUMBERS, TABLES, Output, say, say_rows, say_written
from clipsyn.errors import UsageError
from clipsyn.exchange import LAYOUTS
from clipsyn.names import Address, is_url
from clipsyn.report import FIGURES, PAGE, Drawn, ReportSettings, SearchSettings
from clipsyn.text import advised, counted

if TYPE_CHECKING:
    from clipsyn.remote.push import Push


@command("report", STORE, ReportSettings)
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
    from clipsyn.report.page import write_report

    page = write_report(store, **values)
    say(f"{page}: {page.stat().st_size / 1e3:,.0f} kB, open it in a browser")


@command(
    "search",
    STORE,
    click.Argument(["text"], required=False),
    *options_of(SearchSettings, without=("text", "output")),
    output_option(endings=(*NUMBERS, *TABLES, PAGE), about=f"; {PAGE} shows --images"),
)
def search(store: Path, output: Output, **values: Any) -> None:
    """Find the images of STORE that are nearest to TEXT, to one of its images, or to a file.

    Nearness is the cosine of embeddings, its mean over backbones the score; for a text each
    backbone counts by its logit scale. A text or a file runs through the backbones, --like ID reads
    the store alone.

    \b
    clipsyn search store "a red apple" -n 20
    clipsyn search store --like red-apple -d emoji-food -s test
    clipsyn search store --image apple.jpg -b 'ViT-*' --images photos -o apples.html
    """
    from clipsyn.report.search import search as found
    from clipsyn.show.tables import table_of

    page, output = output.without(PAGE)
    frame = found(store, output=page, **values)
    digits = dict.fromkeys(frame.columns[2:], 3)
    output.show(frame, lambda shown: {"images": (table_of(shown, digits=digits),)})
    if page:
        say_written(len(frame), page)


@command(
    "plot",
    click.Argument(["name"], metavar="NAME", required=False),
    click.Argument(
        ["sources"], metavar="SOURCE...", nargs=-1, type=StorePath(), envvar="CLIPSYN_STORE"
    ),
    option(["-o", "--output"], type=Destination(".svg", ".pdf", ".png"), help="The file to write."),
    flag(["--heading"], help="Say above the figure what it is of."),
    Drawn,
)
def plot(
    name: str | None,
    sources: tuple[Path, ...],
    output: Path | None,
    heading: bool,
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
        figures = map(FIGURES.load, FIGURES)
        say_rows([{"figure": it.name, "of": it.source, "what": it.short} for it in figures])
        return
    if not (name and sources and output):
        raise UsageError(
            "`clipsyn plot NAME STORE -o figure.pdf` draws one, `clipsyn plot` says which there are"
        )
    import matplotlib  # noqa: F401 (an extra, asked for before anything is measured)

    from clipsyn.report.evidence import frame_of
    from clipsyn.show import files, frames
    from clipsyn.show.figure import save

    figure = FIGURES.load(name)
    data = figure.data(frame_of(figure, sources, Drawn(**selection)))
    save(figure(data, heading=heading).figure, output)
    beside, text = (output.with_name(f"{output.name}.{end}") for end in ("csv", "txt"))
    frames.write(data, csv=beside)
    with files.written_whole(text) as file:
        file.write(f"{figure.text(data)}\n".encode())
    say(f"{output}: {figure.text(data)}", err=True)
    say_written(len(data), beside)


def _folder(_context: click.Context, _parameter: click.Parameter, text: str) -> Path:
    """Raise UsageError for a URL, most likely the other argument."""
    if is_url(text):
        raise UsageError(
            f"{Address.parse(text).shown} stands where a folder is wanted: "
            "`clipsyn push STORE URL` publishes a store, `clipsyn pull URL STORE` brings one"
        )
    return Path(text)


_CARD = "README.md"
_DRY_RUN = flag(["--dry-run"], help="Say what would be copied, and stop.")
_FOLDER = click.Argument(["store"], type=click.Path(), callback=_folder)


@command(
    "push",
    _FOLDER,
    click.Argument(["url"]),
    *cell_filters(),
    _DRY_RUN,
    flag(["--replace"], help="Send all again, in the place of what is published."),
)
def push(store: Path, url: str, dry_run: bool, replace: bool, **filters: Any) -> None:
    """Publish the cells of STORE at URL: s3://, gs://, az:// or a folder.

    Cells bring their samples and class embeddings along. What is published already stays, and what
    others publish at the same time stays, too. Readers see a cell when all of it is there. After an
    interruption the same command goes on.

    \b
    clipsyn push store s3://lab/clip
    clipsyn push store s3://lab/clip --dataset emoji-food --dry-run
    """
    from clipsyn.remote.push import Push
    from clipsyn.show.progress import progress
    from clipsyn.store.features import FeatureStore

    plan = Push.plan(FeatureStore.open(store), url, filters, replace=replace)
    shown = plan.remote.shown
    names = [str(plan.store.at(*place).relative_to(store)) for place in plan.groups]
    _say_groups(shown, names, plan, dry_run)
    if plan.making_way:
        say(f"{len(plan.making_way):,} of them take the place of what is published")
    if plan.groups and not dry_run:
        with progress("groups") as counters:
            plan.carry_out(counters)
        _write_cards(plan, url)
        say(f"pushed: `{advised('ls', shown)}` shows what is there")


def _write_cards(plan: Push, url: str) -> None:
    """For people: a page on each dataset that was written to, and one that names all."""
    from clipsyn.exchange.provenance import card, contents
    from clipsyn.remote.index import part_path
    from clipsyn.remote.transport import address_of
    from clipsyn.store.features import FeatureStore

    published, shown = FeatureStore.open(address_of(url)), plan.remote.shown
    for dataset in plan.datasets:
        text = card(plan.store if plan.is_all(dataset) else published, shown, dataset)
        plan.remote.put(part_path(dataset, _CARD), text.encode())
    cards = {dataset: part_path(dataset, _CARD) for dataset in published.datasets()}
    plan.remote.put(_CARD, contents(cards, shown).encode())


@command(
    "pull", click.Argument(["sources"], nargs=-1, required=True), _FOLDER, *cell_filters(), _DRY_RUN
)
def pull(sources: Sequence[str], store: Path, dry_run: bool, **filters: Any) -> None:
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
    from clipsyn.show.progress import progress
    from clipsyn.store.merge import plan_merge

    plan = plan_merge(store, sources, filters)
    for offer in plan.offers:
        _say_groups(str(offer.store), [group.name for group in offer.take], offer, dry_run)
        for note in offer.notes:
            say(note)
    if not dry_run and any(offer.take for offer in plan.offers):
        with progress("groups") as counters:
            plan.carry_out(counters)
        say(f"pulled: `{advised('ls', store)}` shows what is there")


def _say_groups(place: str, names: Sequence[str], about: Any, dry_run: bool) -> None:
    """How many groups are copied, `about` their size and those there; each in a dry run."""
    new = f"{counted(len(names), 'group')}, {about.size / 1e6:,.1f} MB" if names else "nothing new"
    already = counted(about.there, "is", "are") if about.there else "none is"
    say(f"{place}: {new}; {already} there already")
    for name in names if dry_run else ():
        say(name)


@command(
    "export",
    STORE,
    click.Argument(["output"], type=click.Path(path_type=Path)),
    option(["--layout"], type=click.Choice(LAYOUTS), default=LAYOUTS[0], help="See above."),
    *cell_filters(),
)
def export(store: Path, output: Path, layout: str, **filters: tuple[str, ...] | None) -> None:
    """Write cells of STORE into the new folder OUTPUT, for other tools or as a data set.

    \b
    npz           one file a cell, which `clipsyn import STORE OUTPUT` reads back
    huggingface   parquet with a card, as the library datasets and the hub read

    The numbers have the bits of the store's.

    \b
    clipsyn export store embeddings -d emoji-food -b tiny-RN/zoo
    clipsyn export store for-the-hub --layout huggingface -p clean
    """
    from clipsyn.exchange.export import export as write
    from clipsyn.show.progress import progress
    from clipsyn.store.features import FeatureStore
    from clipsyn.store.select import select

    opened = FeatureStore.open(store)
    keys = select(opened, **filters)
    with progress() as counters:
        write(opened, output, keys, layout, counters)
    say(f"{counted(len(keys), 'cell')} written to {output}, with README.md")
