"""What ensembles gain on each dataset, and whether it is more where the backbones differ more."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from clipsyn.analyses.diversity.measures import MEANS
from clipsyn.errors import UsageError
from clipsyn.evaluation.results.data import check_data
from clipsyn.evaluation.results.files import ensembles_in
from clipsyn.evaluation.results.frame import Measured, Row, frame, row
from clipsyn.methods.numerics.metrics import Score
from clipsyn.names import fingerprint, parse_perturbation
from clipsyn.settings import Shots
from clipsyn.stats.correlation import Correlation, pearson, spearman
from clipsyn.stats.intervals import Interval
from clipsyn.store.features import FeatureStore
from clipsyn.text import advised

CORRELATIONS = {"pearson": pearson, "spearman": spearman}
_GROUP = ["split", "perturbation", "prompts"]


def correlations(pairs: pl.DataFrame, head: str = "zero-shot") -> pl.DataFrame:
    """Correlations over datasets of the diversity of backbones with the gains of ensembles.

    pairs: those of `pairs_of`. Returns the columns of `RESULT`: metrics pearson_NAME and
    spearman_NAME for each measure NAME, `dataset` null, `n` the number of datasets, with an
    interval over datasets; NaN for fewer than three.
    """
    by = [*_GROUP, "backbones", "gaining", "metric"]
    rows = [
        _row(part, head, kind, correlation(part["value"].to_numpy(), part["gain"].to_numpy()))
        for _, part in pairs.group_by(*by, maintain_order=True)
        for kind, correlation in CORRELATIONS.items()
    ]
    return frame(rows)


def gains(pairs: pl.DataFrame, head: str = "zero-shot") -> pl.DataFrame:
    """The gains that `correlations` takes: rows of metric "gain".

    Their n is that of the results; there is an interval where they are no means over seeds.
    """
    each = pairs.unique(["dataset", *_GROUP, "backbones", "gaining"], maintain_order=True)
    return frame(_gain_row(pair, head) for pair in each.iter_rows(named=True))


def _gain_row(pair: Row, head: str) -> Row:
    alone = pair["gain_low"] is not None
    interval = Interval(pair["gain_low"], pair["gain_high"]) if alone else None
    return row(
        Measured("gain", Score(pair["gain"], pair["gain_n"]), interval),
        **{name: pair[name] for name in ("dataset", *_GROUP, "severity", "backbones")},
        **{name: pair[f"gain_{name}"] for name in ("support", "support_prompts", "shots", "seed")},
        head=head,
        ensemble=pair["gaining"],
        fingerprint=fingerprint({"over": pair["gain_prints"]}),
    )


def pairs_of(
    measured: pl.DataFrame, path: Path, head: str = "zero-shot", shots: Shots | None = None
) -> pl.DataFrame:
    """A row for each dataset, measure over all backbones, and ensemble with its gain.

    measured: rows about diversity; the metrics in `MEANS` count. path, head, shots: which gains, as
    `ensembles_in` takes them; means over seeds of those that are of the same backbones count.
    Raises UsageError where the results are no such gains, UnknownName for a head that is not there.
    """
    means = measured.filter(pl.col("metric").is_in(list(MEANS)))
    pairs = means.with_columns(pl.col("backbones").list.sort().alias("members")).join(
        _gains(path, head, shots), on=["dataset", *_GROUP, "members"], maintain_order="left"
    )
    if pairs.is_empty():
        names, dataset, split = means.select("backbones", "dataset", "split").row(0)
        options = "--backbones", ",".join(names), "-o", path
        raise UsageError(
            f"{path} has no gains of {', '.join(names)} on {dataset}/{split}, nor on what else is "
            f"shown: add them with `{advised('evaluate', 'STORE', *options)}`"
        )
    return pairs


def check_gains(store: FeatureStore, pairs: pl.DataFrame, path: Path) -> None:
    """Raise UsageError where gains were measured on something else than the store holds."""
    fitted = {name: f"gain_{name}" for name in ("support", "support_prompts")}
    check_data(store, pairs.with_columns(**fitted, data="gain_data").explode("data"), path)


def _gains(path: Path, head: str, shots: Shots | None) -> pl.DataFrame:
    """Gains over the best single backbone: a row each dataset and ensemble, means over seeds.

    Columns: dataset, `_GROUP`, members (the backbones, sorted), gaining (the ensemble), gain,
    gain_low, gain_high and gain_seed (null for a mean), gain_n, gain_prints (fingerprints),
    gain_data, and what it was fitted on.
    """
    words = "evaluate", "STORE", "-o", path
    gains = (
        ensembles_in(path, ("gain",), head, shots, words)
        .with_columns(pl.col("backbones").list.sort().alias("members"))
        .group_by(
            "dataset", *_GROUP, "members", pl.col("ensemble").alias("gaining"), maintain_order=True
        )
        .agg(
            gain=pl.col("value").mean(),
            gain_low=_alone("ci_low"),
            gain_high=_alone("ci_high"),
            gain_seed=_alone("seed"),
            gain_shots=pl.col("shots").first(),
            gain_support=pl.col("support").first(),
            gain_support_prompts=pl.col("support_prompts").first(),
            gain_n=pl.col("n").first(),
            gain_prints=pl.col("fingerprint"),
            gain_data=pl.col("data"),
            supports=pl.struct("support", "support_prompts").n_unique(),
        )
    )
    if (gains["supports"] > 1).any():
        raise UsageError(
            f"{path} has the same ensembles fitted on several splits or prompt sets: give a file "
            "with one of them"
        )
    return gains


def _alone(name: str) -> pl.Expr:
    """A column of a group of one row, null for more."""
    return pl.when(pl.len() == 1).then(pl.col(name).first())


def _row(part: pl.DataFrame, head: str, kind: str, correlation: Correlation) -> Row:
    """part: a measure and the gain of an ensemble, a row a dataset."""
    first = part.row(0, named=True)
    prints = [part["fingerprint"].to_list(), part["gain_prints"].to_list()]
    metric = f"{kind}_{MEANS[first['metric']]}"
    return row(
        Measured(metric, Score(correlation.value, len(part)), correlation.interval),
        dataset=None,
        **{name: first[name] for name in (*_GROUP, "backbones")},
        severity=parse_perturbation(first["perturbation"]).severity,
        head=head,
        ensemble=first["gaining"],
        shots=first["gain_shots"],
        fingerprint=fingerprint({"over": prints}),
    )
