"""Rows of results made by hand, frames of them, and what their tables say."""

import re
from itertools import chain

import polars as pl

from clipsyn.evaluation.results.frame import frame
from clipsyn.exchange import ImportSettings
from clipsyn.exchange.importing import import_files
from clipsyn.show.formats import text_of
from clipsyn.store.features import FeatureStore

DASH = "\N{EN DASH}"
BOLD = re.compile(r"\x1b\[1m *(.*?)\x1b\[0m")


def row(metric, value, backbones, ensemble=None, *, off=(0.01, 0.02), **about):
    """A row about forty clean birds; off: how far from the value its interval ends."""
    low, high = (value - off[0], value + off[1]) if off else (None, None)
    usual = {"dataset": "birds", "split": "test", "perturbation": "clean", "severity": 0}
    usual |= {"head": "zero-shot", "classes": "all", "prompts": "own", "shots": "0"}
    usual |= {"ensemble": ensemble or ("single" if len(backbones) == 1 else None)}
    usual |= {"metric": metric, "value": value, "backbones": list(backbones)}
    return usual | {"ci_low": low, "ci_high": high, "n": 40, "fingerprint": "f"} | about


def tidy(*rows, columns=None):
    return frame(map(dict, rows), columns)


def bring(path, table, dataset="toy", split="test", *, name="answers", **settings):
    """The store at `path`, into which a table that others made is imported: columns, or rows."""
    pl.DataFrame(table).write_csv(path.with_name(f"{name}.csv"))
    wanted = ImportSettings(dataset, split, **settings)
    import_files(path, [path.with_name(f"{name}.csv")], wanted)
    return FeatureStore.open(path)


def about(backbones, ensemble=None):
    """Which rows are about an ensemble of these backbones, or one alone; "ab" are a and b."""
    names = [backbones] if isinstance(backbones, str) and "/" in backbones else [*backbones]
    alone = "single" if len(names) == 1 else None
    same = pl.col("backbones") == pl.lit(names, pl.List(pl.String))
    return same & pl.col("ensemble").eq_missing(pl.lit(ensemble or alone, pl.String))


def only(frame, metric, backbones, ensemble=None, **where):
    """The only row of a metric about these, in which columns have these values, or none."""
    same = (pl.col(name).eq_missing(pl.lit(value)) for name, value in where.items())
    rows = frame.filter(about(backbones, ensemble), *same, metric=metric).to_dicts()
    assert len(rows) == 1, (metric, backbones, ensemble, where, len(rows))
    return rows[0]


def cells(text):
    """Rows of a table as `read_table` has them: cells between bars, below a row of heads.

    What is too wide for a line goes on after an empty one.
    """
    parts = [[row.split("|") for row in part.split("\n")] for part in text.strip().split("\n\n")]
    heads, *rows = ([cell.strip() for cell in chain(*row)] for row in zip(*parts, strict=True))
    return [dict(zip(heads, row, strict=True)) for row in rows]


def untimed(frame):
    """The rows that another run has, too."""
    return frame.filter(~pl.col("metric").str.ends_with("seconds"))


def texts(by_name, *, terminal=False):
    each = {name: of if isinstance(of, tuple) else (of,) for name, of in by_name.items()}
    return {name: text_of(some, terminal=terminal) for name, some in each.items()}
