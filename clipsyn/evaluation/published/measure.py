"""Results beside published numbers: the difference, its interval, and whether it is tolerated.

A number of ours is compared where one is published for the same backbone, dataset and metric, and
under the same prompts if the reference names them. It is of clean images of the test split.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import polars as pl

from clipsyn.catalog.datasets import find_dataset
from clipsyn.catalog.references import (
    METRICS,
    Published,
    backbone_name,
    dataset_name,
    find_reference,
)
from clipsyn.errors import UsageError
from clipsyn.evaluation.published import CompareSettings
from clipsyn.evaluation.results.files import read_results
from clipsyn.evaluation.results.frame import Row
from clipsyn.evaluation.results.view import singles
from clipsyn.settings import takes
from clipsyn.text import few

COMPARED: dict[str, Any] = {
    "dataset": pl.String,
    "split": pl.String,
    "prompts": pl.String,
    "backbone": pl.String,
    "metric": pl.String,
    "value": pl.Float64,  # ours, with its interval over images
    "ci_low": pl.Float64,
    "ci_high": pl.Float64,
    "n": pl.Int64,
    "usual_n": pl.Int64,  # images of that split by the catalogue; null where it does not say
    "published": pl.Float64,
    "difference": pl.Float64,  # ours minus the published one, which has no interval
    "difference_low": pl.Float64,
    "difference_high": pl.Float64,
    "beyond": pl.Boolean,  # the tolerance
    "source": pl.String,
}
_MADE_BY = "`clipsyn zeroshot STORE -o FILE.parquet` makes them"


@takes(CompareSettings)
def compare(results: pl.DataFrame | Path | str, **settings: Any) -> pl.DataFrame:
    """Zero-shot accuracies of single backbones minus published ones.

    results: a tidy frame, or the Parquet file of `clipsyn zeroshot -o` or `clipsyn evaluate
    -o`. settings: `reference` and `tolerance`, as `clipsyn compare` has them. Returns a row for
    each number that is published; `COMPARED` has its columns. Raises UsageError where there is
    none, UnknownName for a reference with near matches.

    >>> from pathlib import Path
    >>> import clipsyn
    >>> lines = ["dataset,backbone,accuracy,source", "toy,fake/one,0.36,a talk of mine"]
    >>> written = Path("theirs.csv").write_text("\\n".join(lines))
    >>> accuracies = clipsyn.zeroshot(clipsyn.FeatureStore.open("store"))
    >>> compared = clipsyn.compare(accuracies, reference="theirs.csv")
    >>> compared.select("backbone", "published", "beyond").row(0)
    ('fake/one', 0.36, True)
    """
    frame = results if isinstance(results, pl.DataFrame) else read_results(Path(results))
    return measure(frame, CompareSettings(**settings))


def measure(frame: pl.DataFrame, settings: CompareSettings) -> pl.DataFrame:
    """`compare`, of results and settings that have been read."""
    ours, numbers = zero_shot(frame), find_reference(settings.reference)
    rows = list(_rows(ours, numbers, settings.tolerance / 100))
    if not rows:
        raise UsageError(_nothing_shared(ours, numbers, settings.reference))
    return pl.DataFrame(rows, schema=COMPARED)


def zero_shot(frame: pl.DataFrame) -> pl.DataFrame:
    """The zero-shot accuracies of single backbones on clean images of test splits."""
    rows = singles(frame).filter(
        pl.col("metric").is_in(METRICS),
        pl.col("value").is_not_nan(),
        head="zero-shot",
        classes="all",
        shots=0,
        perturbation="clean",
    )
    places = rows.select("dataset", "split").unique().iter_rows()
    tested = [place for place in places if _is_test(*place)]
    there = pl.DataFrame(tested, schema=["dataset", "split"], orient="row")
    there = there.cast({"dataset": pl.String, "split": pl.String})
    return rows.join(there, on=["dataset", "split"], how="semi", maintain_order="left")


def unpublished(frame: pl.DataFrame, compared: pl.DataFrame) -> Iterator[str]:
    """Sentences that name what results have and the reference does not."""
    ours = zero_shot(frame)
    for column, kind in (("dataset", ""), ("backbone", ""), ("prompts", "prompt set ")):
        missing = sorted({*ours[column]} - {*compared[column]})
        if missing:
            yield f"no number is published for {kind}{few(missing, 12)}: not compared"


def _is_test(dataset: str, split: str) -> bool:
    """Whether a split is the test split, perhaps by another name, as ImageNet's val."""
    info = find_dataset(dataset)
    if split == "test" or info is None:
        return split == "test"
    return split in info.splits and info.splits[split] == info.splits.get("test")


def _rows(ours: pl.DataFrame, numbers: Iterable[Published], tolerance: float) -> Iterator[Row]:
    published: dict[tuple[str, str, str], list[Published]] = {}
    for one in numbers:
        published.setdefault((one.dataset, one.backbone, one.metric), []).append(one)
    for row in ours.iter_rows(named=True):
        subject = dataset_name(row["dataset"]), backbone_name(row["backbone"]), row["metric"]
        for one in published.get(subject, ()):
            if not one.prompts or row["prompts"] in one.prompts:
                yield _compared(row, one, tolerance)


def _compared(row: Row, one: Published, tolerance: float) -> Row:
    info = find_dataset(one.dataset)
    usual = info.splits.get(row["split"]) if info else None
    values = {"difference": "value", "difference_low": "ci_low", "difference_high": "ci_high"}
    differences = {
        name: None if row[of] is None else row[of] - one.accuracy for name, of in values.items()
    }
    return {
        **{name: row[name] for name in COMPARED if name in row},
        **differences,
        "usual_n": usual.n if usual else None,
        "published": one.accuracy,
        "beyond": abs(row["value"] - one.accuracy) > tolerance + 1e-9,
        "source": one.source,
    }


def _nothing_shared(ours: pl.DataFrame, numbers: Iterable[Published], reference: str) -> str:
    """Why no number of ours is published there."""
    if ours.is_empty():
        return (
            "the results have no zero-shot accuracy of a single backbone on clean images of a test "
            f"split: {_MADE_BY}"
        )
    known = {
        "backbone": ({one.backbone for one in numbers}, backbone_name),
        "dataset": ({one.dataset for one in numbers}, dataset_name),
    }
    for column, (theirs, spelt) in known.items():
        names = sorted({*ours[column]})
        if not theirs & {spelt(name) for name in names}:
            return (
                f"{reference} has no number of a {column} of the results ({few(names, 5)}): it has "
                f"{few(sorted(theirs), 9)}; another reference=… may"
            )
    prompts = sorted({name for one in numbers for name in one.prompts})
    return (
        f"{reference} has numbers under the prompts {', '.join(prompts)}, the results under "
        f"{few(sorted({*ours['prompts']}), 5)}: extract with other prompts=…, or give another "
        "reference=…"
        if prompts
        else f"{reference} has no number of these backbones on these datasets in that metric"
    )
