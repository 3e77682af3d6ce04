"""Results with the columns of CLIP_benchmark's CSV, for scripts that were written for it.

CLIP_benchmark (github.com/LAION-AI/CLIP_benchmark, `clip_benchmark build`) has a row for each model
and dataset, with accuracies as fractions. It knows backbones on their own, zero-shot or with a
linear probe: other heads, ensembles and oracles have no row. What else tells rows apart stands in
columns behind its own.
"""

from __future__ import annotations

import polars as pl

from clipsyn.errors import UsageError
from clipsyn.evaluation.results.frame import singles
from clipsyn.settings import FULL

_TASKS = {"zero-shot": "zeroshot_classification", "linear-probe": "linear_probe"}  # by head
_PREFIXES = {"zero-shot": "", "linear-probe": "lp_"}  # of its metrics
_METRICS = ("acc1", "acc5", "mean_per_class_recall")
_ABOUT = ("dataset", "split", "perturbation", "prompts", "head", "shots", "seed", "backbone")
_WHOLE = "-1"  # shots, for the whole support
_UNTAGGED = r"^(hf-hub:|local-dir:)|^[^/]*/?$|^/"  # backbones whose name is all model


def benchmark_columns(frame: pl.DataFrame) -> pl.DataFrame:
    """The rows of a tidy frame that CLIP_benchmark has; raises UsageError where there are none."""
    rows = frame.clear()
    if {*_ABOUT, "metric", "classes"} - {"backbone"} <= {*frame.columns}:
        rows = singles(frame).filter(
            pl.col("head").is_in(list(_TASKS)), pl.col("metric").is_in(_METRICS), classes="all"
        )
    if rows.is_empty():
        raise UsageError(
            "CLIP_benchmark's columns are for backbones on their own, zero-shot or with a linear "
            "probe, and there are none: a file that ends in .csv alone has what there is"
        )
    heads = rows["head"].unique(maintain_order=True).to_list()
    numbers = [f"{_PREFIXES[head]}{metric}" for head in heads for metric in _METRICS]
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
