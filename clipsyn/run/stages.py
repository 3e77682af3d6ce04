"""What the stages of a recipe do, what they would do, and when they are skipped."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from clipsyn import __version__
from clipsyn.analyses import ANALYSES
from clipsyn.errors import UsageError
from clipsyn.extract import Cost, ExtractSettings, Plan
from clipsyn.extract.plan import plan_job, unanswered
from clipsyn.names import FeatureKey, fingerprint
from clipsyn.run.jobs import Jobs, evaluated, extracted
from clipsyn.run.recipe import Recipe, Stage
from clipsyn.settings import PATH, declared
from clipsyn.store.features import FeatureStore
from clipsyn.store.files import file_at
from clipsyn.text import LOG

if TYPE_CHECKING:
    from polars import DataFrame

Made = dict[FeatureKey, set[str]]  # cells that earlier stages would make, under which prompts


@dataclass(frozen=True)
class Outcome:
    """What a stage came to, or what a dry run says that it would."""

    stage: str
    skipped: bool
    did: str
    report: str = ""  # to show at the end
    seconds: float = 0.0
    plan: Plan | None = None  # of an extraction
    cost: Cost | None = None


def plan_recipe(recipe: Recipe, made: Made | None = None) -> Iterator[Outcome]:
    """What each stage would do after those before it, told without weights, images or writing.

    made: cells that other recipes make before, to which those of this one are added. Raises as an
    extraction would for names that are not known.
    """
    made = {} if made is None else made
    for stage in recipe.stages:
        if stage.declares is ExtractSettings:
            yield _plan_extraction(recipe.store, stage.settings(), made)
            continue
        read = [*getattr(stage, "files", ()), *filter(None, [getattr(stage, "results", None)])]
        written = [f"{'renews' if path.exists() else 'writes'} {path}" for path in stage.written()]
        did = ", ".join([*(f"reads {path}" for path in read), *written])
        yield Outcome(stage.stage, False, did)


def _plan_extraction(store: Path, settings: ExtractSettings, made: Made) -> Outcome:
    plan = plan_job(store, settings)
    every = plan.keys
    answered = every & {key for key, names in made.items() if settings.prompts not in names}
    answered |= unanswered(store, plan, settings.prompts) - {*made}
    plan = replace(plan, done={*plan.done, *made})
    answers = plan.cost_of_answers(answered)
    for key in every:
        made.setdefault(key, set()).add(settings.prompts)
    what = plan.summary()
    if answered:
        what += f"; {len(answered):,} get answers of these prompts: {answers.megabytes:,.1f} MB"
    is_there = every <= {*plan.done} and not answered
    return Outcome("extract", is_there, what, plan=plan, cost=Cost.sum([plan.cost(), answers]))


# Doing it


def run_recipe(
    recipe: Recipe, started: Callable[[int, str], None], jobs: Jobs | None = None
) -> list[Outcome]:
    """Run every stage in order; `started` is told number and name of each before it runs.

    jobs: does the work of the stages that can be shared, if not this process.
    """
    outcomes = []
    for number, stage in enumerate(recipe.stages, 1):
        started(number, stage.stage)
        start = time.monotonic()
        run = _DOES.get(stage.stage, _analyse)
        outcome = run(stage, recipe.store, jobs)
        outcomes.append(replace(outcome, seconds=time.monotonic() - start))
    return outcomes


def _extract(stage: Stage, store: Path, jobs: Jobs | None) -> Outcome:
    made, did = extracted(store, stage.settings(), jobs, partial(LOG.info, "note: %s"))
    return Outcome("extract", not made, did)


def _import(stage: Stage, store: Path, _jobs: Jobs | None) -> Outcome:
    """Skipped where all that the files hold is there."""
    from clipsyn.exchange.importing import import_files

    frame = import_files(store, vars(stage)["files"], stage.settings())
    new = int((frame["was"] != "there").sum())
    did = f"{new:,} of {len(frame):,} cells imported"
    return Outcome("import", not new, did if new else f"all {len(frame):,} cells are there")


def _evaluate(stage: Stage, store: Path, jobs: Jobs | None) -> Outcome:
    """The results file knows itself what it has; skipped where nothing was added to it."""
    from clipsyn.evaluation.tables import tables
    from clipsyn.show.formats import written as as_text
    from clipsyn.show.frames import printable_frame
    from clipsyn.store.overlap import image_notes, sample_tables

    opened, settings = FeatureStore.open(store), stage.settings()
    files = [file for file in (settings.output, settings.predictions_file) if file]
    before = [*map(file_at, files)]
    frame = evaluated(opened, settings, jobs)
    shown = tables(printable_frame(frame))
    stage.renew(shown, vars(stage)["section"])
    skipped = None not in before and [*map(file_at, files)] == before
    report = "\n\n".join([as_text(shown, "text"), *image_notes(sample_tables(opened, frame))])
    return Outcome("evaluate", skipped, f"{len(frame):,} rows in {settings.output}", report)


def _analyse(stage: Stage, store: Path, _jobs: Jobs | None) -> Outcome:
    from clipsyn.show.files import check_place
    from clipsyn.show.formats import written as as_text
    from clipsyn.show.frames import printable_frame, write

    analysis = ANALYSES.load(stage.stage)
    opened, settings = FeatureStore.open(store), stage.settings()
    csv, table, *_ = stage.written()
    made_from = _made_from(stage, opened)
    frame = _read(table) if _is_current(stage, made_from) else None
    skipped = frame is not None
    if frame is None:
        check_place(table)
        frame = analysis.measure(opened, settings)
        write(frame, csv=csv, parquet=table)
        stage.beside(".made-from").write_text(made_from)
    shown = analysis.tables(printable_frame(frame), settings)
    stage.renew(shown, vars(stage)["section"] or stage.stage)
    notes = analysis.notes(opened, frame, settings)
    report = "\n\n".join([*filter(None, [as_text(shown, "text")]), *notes])
    return Outcome(stage.stage, skipped, f"{csv} and .parquet", report)


def _report(stage: Stage, store: Path, _jobs: Jobs | None) -> Outcome:
    from clipsyn.report.page import write_report

    opened = FeatureStore.open(store)
    made_from = _made_from(stage, opened)
    skipped = _is_current(stage, made_from)
    if not skipped:
        write_report(opened, **vars(stage.settings()))
        stage.beside(".made-from").write_text(made_from)
    return Outcome("report", skipped, f"{stage.output}, open it in a browser")


_DOES = {"extract": _extract, "import": _import, "evaluate": _evaluate, "report": _report}


def _is_current(stage: Stage, made_from: str) -> bool:
    """Whether its files are there, made from the same, as the note OUTPUT.made-from says."""
    note = stage.beside(".made-from")
    noted = note.read_text("utf-8", "replace") if note.exists() else None
    return noted == made_from and all(map(Path.exists, stage.written()))


def _made_from(stage: Stage, store: FeatureStore) -> str:
    """Changes whenever the settings, the files that are read, the store or clipsyn do."""
    kinds = {name: it.kind for name, it in declared(stage.declares).items()}
    values = {name: getattr(stage, name) for name in kinds}
    paths = [values[name] for name in kinds if kinds[name] is PATH and name != "images"]
    files = [content(path) for path in [*paths, *values.get("measured", {}).values()] if path]
    asked = json.dumps([stage.stage, values], default=str)
    return fingerprint({"settings": asked, "files": files, "store": digest(store)})


def digest(store: FeatureStore) -> str:
    """Changes whenever anything in the store that a table could depend on does."""
    from clipsyn.store.inventory import group_digest

    paths = [store.at(*place) for place in store.places()]
    groups = {str(path): group_digest(store, path) for path in paths}
    return fingerprint({"clipsyn": __version__, "groups": groups})


def content(path: str | Path) -> str:
    """Digest of a file, or of a folder of results."""
    path = Path(path)
    try:
        files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
        return fingerprint({"files": [sha256(file.read_bytes()).hexdigest() for file in files]})
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read: {error.strerror}; an evaluate stage before this one makes it"
        ) from None


def _read(table: Path) -> DataFrame | None:
    """None for a file that is damaged."""
    import polars as pl

    from clipsyn.show.frames import read_parquet

    try:
        return read_parquet(table)
    except (OSError, pl.exceptions.PolarsError):
        return None
