"""Whether ensembles gain more on datasets where the backbones differ more."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import polars as pl

from clipsyn.errors import UsageError
from clipsyn.results.files import ensembles_in
from clipsyn.results.frame import Row, frame
from clipsyn.settings import Shots
from clipsyn.specs import fingerprint, parse_perturbation
from clipsyn.stats import Interval, pearson, spearman

CORRELATIONS = {"pearson": pearson, "spearman": spearman}
_GROUP = ["split", "perturbation", "prompts"]


def correlations(
    means: pl.DataFrame, path: Path, head: str = "zero-shot", shots: Shots | None = None
) -> pl.DataFrame:
    """Correlations over datasets of measures of diversity with the gains of ensembles.

    means: rows of `RESULT`, of one measure of all backbones of a dataset each. path: a file of
    `clipsyn evaluate`, of which the gains over the best single backbone count, of the same
    backbones and on `head`: means over seeds, at `shots` images a class ("full" is the whole
    support; None takes the most there are), and those of ensembles that learn nothing.

    Returns the columns of `RESULT`: metrics pearson_NAME and spearman_NAME for mean_NAME or NAME,
    `dataset` null, `n` the number of datasets, with an interval over datasets; NaN for fewer than
    three.

    Raises UsageError where the results are no such gains, or of other samples; UnknownName for a
    head that is not there.
    """
    return frame(_rows(means, _gains(path, head, shots), path))


class _Gains(NamedTuple):
    frame: pl.DataFrame  # dataset, _GROUP, ensemble, backbones (sorted), shots, gain, n, prints
    head: str


def _gains(path: Path, head: str, shots: Shots | None) -> _Gains:
    """Gains over the best single backbone: a row each dataset and ensemble, means over seeds."""
    line = f"clipsyn evaluate STORE -o {path}"
    gains = ensembles_in(path, ("gain",), head, shots, line).with_columns(_sorted("backbones"))
    keys = ["dataset", *_GROUP, "ensemble", "backbones"]
    found = gains.group_by(*keys, maintain_order=True).agg(
        pl.col("shots", "n").first(),
        gain=pl.col("value").mean(),
        supports=pl.struct("support", "support_prompts").n_unique(),
        prints=pl.col("fingerprint"),
    )
    if (found["supports"] > 1).any():
        raise UsageError(
            f"{path} has the same ensembles fitted on several splits or prompt sets: give a file "
            "with one of them"
        )
    return _Gains(found, head)


def _rows(means: pl.DataFrame, gains: _Gains, path: Path) -> Iterator[Row]:
    keys = ["dataset", *_GROUP]
    both = means.join(
        gains.frame,
        left_on=[*keys, _sorted("backbones")],
        right_on=[*keys, "backbones"],
        suffix=" there",
        maintain_order="left",
    )
    if both.is_empty():
        names, dataset, split = means.select("backbones", "dataset", "split").row(0)
        raise UsageError(
            f"{path} has no gains of {', '.join(names)} on {dataset}/{split}, nor on what else is "
            f"shown: add them with `clipsyn evaluate STORE --backbones {','.join(names)} -o {path}`"
        )
    other = both.filter(pl.col("n") != pl.col("n there"))
    if not other.is_empty():
        row = other.row(0, named=True)
        raise UsageError(
            f"{path} is of other samples: {row['n there']:,} of {row['dataset']}/{row['split']}, "
            f"here {row['n']:,}; evaluate this store into another file"
        )
    by = [*_GROUP, "backbones", "ensemble there", "metric"]
    for _, part in both.group_by(*by, maintain_order=True):
        for kind, correlation in CORRELATIONS.items():
            found = correlation(part["value"].to_numpy(), part["gain"].to_numpy())
            yield _row(part, gains.head, kind, found.value, found.interval)


def _sorted(column: str) -> pl.Expr:
    return pl.col(column).list.sort()


def _row(part: pl.DataFrame, head: str, kind: str, value: float, interval: Interval) -> Row:
    """part: a measure and the gain of an ensemble, a row a dataset."""
    first = part.row(0, named=True)
    prints = [part["fingerprint"].to_list(), part["prints"].to_list()]
    return {
        "dataset": None,
        **{name: first[name] for name in (*_GROUP, "backbones", "classes")},
        "severity": parse_perturbation(first["perturbation"]).severity,
        "head": head,
        "ensemble": first["ensemble there"],
        "support": None,
        "support_prompts": None,
        "shots": first["shots there"],
        "seed": None,
        "metric": f"{kind}_{first['metric'].removeprefix('mean_')}",
        "value": value,
        "ci_low": interval.low,
        "ci_high": interval.high,
        "n": len(part),
        "fingerprint": fingerprint({"over": prints}),
    }
