"""Results with the columns of CLIP_benchmark's CSV, for scripts that were written for it.

CLIP_benchmark (github.com/LAION-AI/CLIP_benchmark, `clip_benchmark build`) has a row for each model
and dataset, with accuracies as fractions. It knows backbones on their own, zero-shot or with a
linear probe: other heads, ensembles and oracles have no row. What else tells rows apart stands in
columns behind its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from clipsyn.errors import UsageError
from clipsyn.evaluation.results.frame import singles
from clipsyn.settings import FULL
from clipsyn.show.frames import guarded

_TASKS = {"zero-shot": "zeroshot_classification", "linear-probe": "linear_probe"}  # by head
_PREFIXES = {"zero-shot": "", "linear-probe": "lp_"}  # of its metrics
_METRICS = ("acc1", "acc5", "mean_per_class_recall")
_ABOUT = ("dataset", "split", "perturbation", "prompts", "head", "shots", "seed", "backbone")
_WHOLE = "-1"  # shots, for the whole support
_WHOLE_NAMES = ("hf-hub:", "local-dir:")  # their slashes are no tags


def benchmark_csv(frame: pl.DataFrame) -> str:
    """The rows of a tidy frame that CLIP_benchmark has, as its CSV.

    Raises UsageError where there are none.
    """
    rows = singles(frame).filter(
        pl.col("head").is_in(list(_TASKS)),
        pl.col("metric").is_in(_METRICS),
        classes="all",
    )
    if rows.is_empty():
        raise UsageError(
            "CLIP_benchmark's columns are for backbones on their own, zero-shot or with a linear "
            "probe, and there are none: another format than clip-benchmark shows what there is"
        )
    heads = rows["head"].unique(maintain_order=True).to_list()
    numbers = [f"{_PREFIXES[head]}{metric}" for head in heads for metric in _METRICS]
    wide = _named(_wide(rows, numbers))
    probed = ["fewshot_k", "seed"] if "linear-probe" in heads else []
    columns = [*numbers, "dataset", "model", "pretrained", "task", *probed, "model_fullname"]
    return guarded(wide.select(*columns, "split", "perturbation", "prompts", "n")).write_csv()


def _wide(rows: pl.DataFrame, numbers: Sequence[str]) -> pl.DataFrame:
    """A row for each backbone and what it was measured on, a column for each number."""
    value, name = pl.col("value").fill_nan(None), pl.col("metric")
    prefixed = rows.with_columns(metric=pl.col("head").replace_strict(_PREFIXES) + name)
    return prefixed.group_by(_ABOUT, maintain_order=True).agg(
        *(value.filter(name == number).first().alias(number) for number in numbers),
        pl.col("n").max(),
    )


def _named(wide: pl.DataFrame) -> pl.DataFrame:
    """With what CLIP_benchmark calls them."""
    pairs = [model_of(backbone) for backbone in wide["backbone"]]
    return wide.with_columns(
        pl.Series("model", [model for model, _ in pairs]),
        pl.Series("pretrained", [pretrained for _, pretrained in pairs]),
        pl.Series("model_fullname", [" ".join(pair) for pair in pairs]),
        task=pl.col("head").replace_strict(_TASKS),
        fewshot_k=pl.when(head="linear-probe").then(
            pl.col("shots").replace(FULL, _WHOLE).cast(pl.Int32)
        ),
    )


def model_of(backbone: str) -> tuple[str, str]:
    """CLIP_benchmark's model and pretrained: "ViT-B-32", "openai"; "mine", "" without a tag."""
    model, _, pretrained = backbone.partition("/")
    if backbone.startswith(_WHOLE_NAMES) or not (model and pretrained):
        return backbone, ""
    return model, pretrained
