"""Results beside published numbers, and with the columns of CLIP_benchmark's CSV.

A number of ours is compared where one is published for the same backbone, dataset, metric, head and
number of shots, and under the same prompts if the reference names them. It is of clean images of
the test split.

CLIP_benchmark (github.com/LAION-AI/CLIP_benchmark, `clip_benchmark build`) has a row for each model
and dataset, with accuracies as fractions. It knows backbones on their own, zero-shot or with a
linear probe: other heads, ensembles and oracles have no row. What else tells rows apart stands in
columns behind its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from textwrap import fill
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
from clipsyn.evaluation import CompareSettings
from clipsyn.evaluation.results.files import read_results
from clipsyn.evaluation.results.frame import Row, singles
from clipsyn.settings import FULL, takes
from clipsyn.show.table import Tables, paragraph
from clipsyn.show.tables import Measure, measures_table, notes_beside
from clipsyn.show.titles import WIDTH
from clipsyn.text import few

COMPARED: dict[str, Any] = {
    "dataset": pl.String,
    "split": pl.String,
    "prompts": pl.String,
    "backbone": pl.String,
    "head": pl.String,
    "shots": pl.String,
    "metric": pl.String,
    "value": pl.Float64,  # ours, mean over draws, with the mean of their intervals over images
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
_DIFFERENCES = {"value": "difference", "ci_low": "difference_low", "ci_high": "difference_high"}
_TASKS = {"zero-shot": "zeroshot_classification", "linear-probe": "linear_probe"}  # by head
_PREFIXES = {"zero-shot": "", "linear-probe": "lp_"}  # of its metrics
_BENCHMARKED = ("acc1", "acc5", "mean_per_class_recall")
_ABOUT = ("dataset", "split", "perturbation", "prompts", "head", "shots", "seed", "backbone")
_WHOLE = "-1"  # shots, for the whole support
_UNTAGGED = r"^(hf-hub:|local-dir:)|^[^/]*/?$|^/"  # backbones whose name is all model


@takes(CompareSettings)
def compare(results: pl.DataFrame | Path | str, **settings: Any) -> pl.DataFrame:
    """Accuracies and recalls of single backbones minus published ones.

    results: a tidy frame, or the Parquet file of `clipsyn zeroshot -o`, `clipsyn evaluate -o` or
    `clipsyn retrieval -o`. settings: `reference` and `tolerance`, as `clipsyn compare` has them.
    Returns a row for each number that is published; `COMPARED` has its columns. Raises UsageError
    where there is none, UnknownName for a reference with near matches.

    >>> from pathlib import Path
    >>> import clipsyn
    >>> lines = ["dataset,backbone,accuracy,source", "toy,fake/one,0.36,a talk of mine"]
    >>> written = Path("theirs.csv").write_text("\\n".join(lines))
    >>> accuracies = clipsyn.zeroshot(clipsyn.FeatureStore.open("store"))
    >>> compared = clipsyn.compare(accuracies, reference="theirs.csv")
    >>> compared.select("backbone", "published", "beyond").row(0)
    ('fake/one', 0.36, True)
    """
    asked = CompareSettings(**settings)
    frame = results if isinstance(results, pl.DataFrame) else read_results(Path(results))
    numbers = find_reference(asked.reference)
    rows = [*_rows(_measured(frame), numbers, asked.tolerance / 100)]
    if not rows:
        known = few(sorted({f"{one.backbone} on {one.dataset}" for one in numbers}), 9)
        raise UsageError(
            "the results have no accuracy or recall of a single backbone on clean images of a test "
            f"split that {asked.reference} has with the same head and shots, under its prompts if "
            f"it names some: it has {known}; give another reference=…, or results of "
            "`clipsyn zeroshot STORE -o FILE.parquet`"
        )
    return pl.DataFrame(rows, schema=COMPARED)


_SUBJECT = ("dataset", "split", "prompts", "backbone", "head", "shots", "metric", "n")


def _measured(frame: pl.DataFrame) -> pl.DataFrame:
    """Accuracies and recalls of single backbones on clean images of test splits, over all draws."""
    if "direction" in frame.columns:
        metric = pl.concat_str("direction", "metric", separator=" ", ignore_nulls=True)
        frame = frame.with_columns(metric=metric)
    is_known = pl.col("metric").is_in(METRICS) & pl.col("value").is_not_nan()
    rows = singles(frame).filter(is_known, classes="all", perturbation="clean")
    tested = [_is_test(*place) for place in rows.select("dataset", "split").iter_rows()]
    rows = rows.filter(pl.Series(tested, dtype=pl.Boolean))
    return rows.group_by(_SUBJECT, maintain_order=True).agg(pl.col([*_DIFFERENCES]).mean())


def _is_test(dataset: str, split: str) -> bool:
    """Whether a split is the test split, perhaps by another name, as ImageNet's val."""
    info = find_dataset(dataset)
    if split == "test" or info is None:
        return split == "test"
    return split in info.splits and info.splits[split] == info.splits.get("test")


def _rows(ours: pl.DataFrame, numbers: Iterable[Published], tolerance: float) -> Iterator[Row]:
    published: dict[tuple[str, ...], list[Published]] = {}
    for one in numbers:
        about = one.dataset, one.backbone, one.metric, one.head, one.shots
        published.setdefault(about, []).append(one)
    for row in ours.iter_rows(named=True):
        names = dataset_name(row["dataset"]), backbone_name(row["backbone"])
        subject = *names, row["metric"], row["head"], row["shots"]
        for one in published.get(subject, ()):
            if one.prompts and row["prompts"] not in one.prompts:
                continue
            info = find_dataset(one.dataset)
            usual = info.splits.get(row["split"]) if info else None
            less = {
                name: None if row[of] is None else row[of] - one.accuracy
                for of, name in _DIFFERENCES.items()
            }
            yield {name: row[name] for name in COMPARED if name in row} | {
                **less,
                "usual_n": usual.n if usual else None,
                "published": one.accuracy,
                "beyond": abs(row["value"] - one.accuracy) > tolerance + 1e-9,
                "source": one.source,
            }


# tables

_METRICS = {"acc1": "top-1", "mean_per_class_recall": "mean per class"}
_COLUMNS = (
    Measure("ours", "ours", interval=True),
    Measure("published", "published"),
    Measure("difference", "difference", interval=True),
)
_NOTES = notes_beside(__file__)


def tables(frame: pl.DataFrame, tolerance: float) -> dict[str, Tables]:
    """A line for each number that is beyond the tolerance, and how many are within."""
    beyond, sources = frame.filter("beyond"), frame["source"].unique(maintain_order=True)
    summary = (
        f"{len(frame) - len(beyond)} of {len(frame)} numbers are within {tolerance:g} "
        f"points of the published ones ({'; '.join(sources)})."
    )
    if beyond.is_empty():
        return {"numbers": (paragraph(fill(summary, WIDTH)),)}
    lines = []
    for row in beyond.iter_rows(named=True):
        about = {name: row[name] for name in _SUBJECT[:6]}
        about["metric"] = _METRICS.get(row["metric"], row["metric"])
        about |= {"n": row["n"], "usual n": row["usual_n"]}
        less = {name: row[of] for name, of in _DIFFERENCES.items()}
        numbers = {"ours": row, "published": {"value": row["published"]}, "difference": less}
        lines.append((about, numbers))
    notes = fill(f"{summary} {_NOTES['published']}", WIDTH)
    about_all = "accuracies that differ from the published ones"
    table = measures_table(lines, (*_COLUMNS, "n", "usual n"), title=about_all, notes=notes)
    return {"numbers": (table,)}


def benchmark_columns(frame: pl.DataFrame) -> pl.DataFrame:
    """The rows of a tidy frame that CLIP_benchmark has; raises UsageError where there are none."""
    rows = frame.clear()
    if {*_ABOUT, "metric", "classes"} - {"backbone"} <= {*frame.columns}:
        rows = singles(frame).filter(
            pl.col("head").is_in(list(_TASKS)), pl.col("metric").is_in(_BENCHMARKED), classes="all"
        )
    if rows.is_empty():
        raise UsageError(
            "CLIP_benchmark's columns are for backbones on their own, zero-shot or with a linear "
            "probe, and there are none: a file that ends in .csv alone has what there is"
        )
    heads = rows["head"].unique(maintain_order=True).to_list()
    numbers = [f"{_PREFIXES[head]}{metric}" for head in heads for metric in _BENCHMARKED]
    name = pl.col("head").replace_strict(_PREFIXES) + pl.col("metric")
    value = pl.col("value").fill_nan(None)
    wide = rows.group_by(_ABOUT, maintain_order=True).agg(
        *(value.filter(name == number).first().alias(number) for number in numbers),
        pl.col("n").max(),
    )
    backbone, is_model = pl.col("backbone"), pl.col("backbone").str.contains(_UNTAGGED)
    model, tag = (backbone.str.splitn("/", 2).struct.field(f"field_{at}") for at in range(2))
    wide = wide.with_columns(
        model=pl.when(is_model).then(backbone).otherwise(model),
        pretrained=pl.when(is_model).then(pl.lit("")).otherwise(tag),
        task=pl.col("head").replace_strict(_TASKS),
        fewshot_k=pl.when(head="linear-probe").then(
            pl.col("shots").replace(FULL, _WHOLE).cast(pl.Int32)
        ),
    ).with_columns(model_fullname=pl.format("{} {}", "model", "pretrained"))
    probed = ["fewshot_k", "seed"] if "linear-probe" in heads else []
    return wide.select(
        *(*numbers, "dataset", "model", "pretrained", "task", *probed, "model_fullname"),
        *("split", "perturbation", "prompts", "n"),
    )
