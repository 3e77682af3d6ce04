"""Tables of diversity: by dataset, by pair of backbones, and against the gains of ensembles."""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import fill
from typing import Any

import polars as pl

from clipsyn.analyses.diversity import DiversitySettings
from clipsyn.frames import is_nan
from clipsyn.results.view import backbones, singles
from clipsyn.show.numbers import NOTHING, interval_text
from clipsyn.show.pairs import Side, pair_matrix
from clipsyn.show.tables import WIDTH, shortened, show

_WHERE = ["dataset", "split", "perturbation", "prompts"]
_OF_PAIRS = {  # metrics in the order of columns
    "error_inconsistency": "inconsistency",
    "disagreement": "disagreement",
    "double_fault": "double fault",
    "yules_q": "Q",
    "error_consistency": "kappa",
}
_OF_ALL = {"fleiss_kappa": "Fleiss", "vote_entropy": "entropy"}
_COLUMNS = _OF_PAIRS | _OF_ALL
_SHARES = ["inconsistency", "disagreement", "double fault"]  # in percent
_HEADS = {
    "inconsistency": "incon-\nsistency",
    "disagreement": "dis-\nagree",
    "double fault": "double\nfault",
    "95 % of inconsistency": "95 %",
    "95 % of kappa": "95 %",
}
_MEANING = """\
inconsistency, disagree, double fault: share of images, in %, that exactly one of two backbones
gets right, that they predict differently, that both get wrong. Q (Yule), kappa (error consistency):
1 for the same errors, 0 for as many common ones as by chance."""
_ALL_TOGETHER = """\
Fleiss: kappa of all together. entropy: of the votes, 0 where all are alike, 1 where all differ."""
_NOTES = {
    "means": f"{_MEANING} Means over pairs.\n{_ALL_TOGETHER}",
    "mean": f"Means over the pairs below.\n{_ALL_TOGETHER}",
    "pairs": f"""{_MEANING}
p: that the two are equally accurate (McNemar's test, exact; Holm over these pairs).""",
    "matrix": """\
Above the diagonal kappa, below it inconsistency, on it what one alone gets right (both in %); one
that guesses would alone get at most {guess}.""",
    "correlations": """\
Over datasets, of the diversity of zero-shot predictions with the gain of an ensemble over the best
single backbone. Q and kappas are high where backbones are alike. *: the 95 % interval leaves
0 out; nothing corrects for how many correlations are looked at.""",
}


def tables(
    frame: pl.DataFrame, settings: DiversitySettings, *, terminal: bool | None = None
) -> dict[str, str]:
    """Tables of what `clipsyn.analyses.diversity.measure` returns, by name.

    One group of dataset, split, perturbation and prompt set: "means" and "pairs", a line a pair.
    Several: "means", a line a group, and for each split, perturbation and prompt set a matrix of
    pairs, mean over datasets ("pairs, test, clean, own"). "pearson" and "spearman" where the frame
    has correlations with gains that are known: of three datasets and more.
    """
    measured = frame.filter(pl.col("dataset").is_not_null())
    groups = measured.select(_WHERE).unique(maintain_order=True)
    found = {"means": _means(measured, "mean" if len(groups) == 1 else "means", terminal)}
    if len(groups) == 1:
        found["pairs"] = _pairs(measured, terminal)
    else:
        for keys, part in measured.group_by(_WHERE[1:], maintain_order=True):
            found[f"pairs, {', '.join(map(str, keys))}"] = _matrix(part, terminal)
    correlations = frame.filter(pl.col("dataset").is_null())
    if correlations["value"].is_nan().all():  # of nothing, too
        return found
    for kind in ("pearson", "spearman"):
        found[kind] = _correlations(correlations, kind, terminal)
    return found


def notes(frame: pl.DataFrame, settings: DiversitySettings) -> Iterator[str]:
    """Why correlations with gains that were asked for are not shown."""
    correlations = frame.filter(pl.col("dataset").is_null())
    if settings.results and correlations["value"].is_nan().all():  # of nothing, too
        yield "no correlation with gains: it takes three datasets whose diversity and gains differ"


def _means(frame: pl.DataFrame, note: str, terminal: bool | None) -> str:
    """A line a group; the interval of the first measure alone, to keep it narrow."""
    keys = [name for name in _WHERE if name == "dataset" or frame[name].n_unique() > 1]
    rows = []
    for _, part in frame.group_by(_WHERE, maintain_order=True):
        of = {row["metric"].removeprefix("mean_"): row for row in _whole(part).to_dicts()}
        where = {key: part[key][0] for key in keys} | {"n": part["n"][0]}
        rows.append(where | _columns(of, _COLUMNS, ["error_inconsistency"]))
    title = " · ".join(["diversity of the backbones", *_common(frame, keys)])
    return _shown(rows, title, _NOTES[note], terminal)


def _common(frame: pl.DataFrame, keys: list[str]) -> list[str]:
    """What all rows are about, but for what is in the columns `keys`."""
    said = {name: str(frame[name][0]) for name in _WHERE[1:] if name not in keys}
    return [f"{name} {text}" if name == "prompts" else text for name, text in said.items()]


def _whole(part: pl.DataFrame) -> pl.DataFrame:
    """Rows about all backbones."""
    return part.filter(
        pl.col("metric").str.starts_with("mean_") | pl.col("metric").is_in(list(_OF_ALL))
    )


def _pairs(frame: pl.DataFrame, terminal: bool | None) -> str:
    """A line a pair, those that err most differently first; below it what each alone gets right."""
    pairs = frame.filter(pl.col("metric").is_in([*_OF_PAIRS, "mcnemar_p_holm"]))
    short, pattern = _short(frame)
    rows = []
    for (names,), part in pairs.group_by("backbones", maintain_order=True):
        of = {row["metric"]: row for row in part.to_dicts()}
        one, other = (short[name] for name in names)
        values = _columns(of, _OF_PAIRS, ["error_inconsistency", "error_consistency"])
        p = of["mcnemar_p_holm"]["value"]
        rows.append({"backbone": one, "and": other} | values | {"p": _p_value(p)})
    rows.sort(key=lambda row: 1 if is_nan(row["inconsistency"]) else -row["inconsistency"])
    dataset, split, perturbation, prompts = frame.select(_WHERE).row(0)
    about = f"n {frame['n'][0]:,}{_said(pattern)}"
    title = f"{dataset}/{split} · {perturbation} · prompts {prompts} · {about}"
    alone = [f"{short[name]} {_percent(share)}" for name, share in _unique(frame).items()]
    guess = f"one that guesses would at most get {_guess(frame)}"
    last = fill(f"What one backbone alone gets right, in %: {', '.join(alone)}; {guess}.", WIDTH)
    return _shown(rows, title, f"{_NOTES['pairs']}\n{last}", terminal)


def _guess(frame: pl.DataFrame) -> str:
    """The largest share that a guess in place of a backbone would get, in %."""
    shares = _unique(frame, "unique_correct_floor").values()
    return _percent(max((share for share in shares if share is not None), default=None))


def _unique(frame: pl.DataFrame, metric: str = "unique_correct") -> dict[str, float | None]:
    """Backbone -> share of samples that it alone gets right, mean over groups."""
    rows = singles(frame).filter(metric=metric).group_by("backbone", maintain_order=True)
    return dict(rows.agg(pl.col("value").fill_nan(None).mean()).iter_rows())


def _p_value(p: float) -> str:
    return "<0.001" if p < 0.001 else _number(p, 3)


def _columns(
    of: dict[str, dict[str, Any]], metrics: dict[str, str], with_interval: list[str]
) -> dict[str, Any]:
    columns = {}
    for metric, name in metrics.items():
        value = of[metric]["value"]
        columns[name] = value if name in _SHARES else _number(value, 2)
        if metric in with_interval:
            columns[f"95 % of {name}"] = _interval(of[metric], name in _SHARES)
    return columns


def _interval(row: dict[str, Any], percent: bool) -> str:
    low, high = row["ci_low"], row["ci_high"]
    if percent or low is None or is_nan(low):
        return interval_text(low, high)
    return f"{_number(low, 2)} to {_number(high, 2)}"


def _shown(rows: list[dict[str, Any]], title: str, note: str, terminal: bool | None) -> str:
    text = show(
        pl.DataFrame(rows, infer_schema_length=None),
        title=title,
        percent=_SHARES,
        headers=_HEADS,
        right=[*_HEADS, *_COLUMNS.values(), "p"],
        terminal=terminal,
    )
    return f"{text}\n\n{note}"


def _matrix(part: pl.DataFrame, terminal: bool | None) -> str:
    """Kappa above the diagonal, error inconsistency below, unique-correct on it: over datasets."""
    short, pattern = _short(part)
    datasets = part["dataset"].unique(maintain_order=True)
    about = f"mean over {len(datasets)} datasets" if len(datasets) > 1 else datasets[0]
    _, split, perturbation, prompts = part.select(_WHERE).row(0)
    return pair_matrix(
        part,
        short,
        above=Side("error_consistency", lambda value: _number(value, 2)),
        below=Side("error_inconsistency", _percent),
        diagonal={name: _percent(share) for name, share in _unique(part).items()},
        title=f"{split} · {perturbation} · prompts {prompts}{_said(pattern)} · {about}",
        note=_NOTES["matrix"].format(guess=_guess(part)),
        terminal=terminal,
    )


def _correlations(frame: pl.DataFrame, kind: str, terminal: bool | None) -> str:
    """A line a perturbation and ensemble, a column a measure; the first with its interval."""
    group = [name for name in _WHERE[1:] if frame[name].n_unique() > 1]
    alike = frame["n"].n_unique() == 1
    rows = []
    for _, parts in frame.group_by([*_WHERE[1:], "backbones"], maintain_order=True):
        by_ensemble = parts.partition_by("ensemble", maintain_order=True)
        for part in sorted(by_ensemble, key=lambda part: _place(part["ensemble"][0])):
            of = {row["metric"]: row for row in part.to_dicts()}
            row = {name: part[name][0] for name in (*group, "ensemble")}
            row |= {} if alike else {"datasets": part["n"][0]}
            for metric, name in _COLUMNS.items():
                row[name] = _starred(of[f"{kind}_{metric}"])
                if metric == "error_inconsistency":
                    row[f"95 % of {name}"] = _interval(of[f"{kind}_{metric}"], False)
            rows.append(row)
    said = [
        f"{kind.capitalize()}'s r with the gain",
        *_common(frame, group),
        f"head {frame['head'][0]}",
        _shots(frame),
        *([f"{frame['n'][0]} datasets"] if alike else []),
    ]
    text = show(
        pl.DataFrame(rows),
        title=" · ".join(said),
        headers=_HEADS,
        right=[*_HEADS, *_COLUMNS.values()],
        terminal=terminal,
    )
    return f"{text}\n\n{_NOTES['correlations']}"


def _starred(row: dict[str, Any]) -> str:
    value, low, high = row["value"], row["ci_low"], row["ci_high"]
    if value is None or is_nan(value):
        return f"{NOTHING} "
    return f"{round(value, 2) + 0.0:+.2f}" + ("*" if low > 0 or high < 0 else " ")


def _shots(frame: pl.DataFrame) -> str:
    """What is fitted is fitted on one number of shots."""
    fitted = frame.filter(pl.col("shots").is_null() | (pl.col("shots") > 0))["shots"]
    if fitted.is_empty():
        return "nothing fitted"
    return "the whole support" if fitted[0] is None else f"{fitted[0]} shots"


def _place(ensemble: str) -> int:
    from clipsyn.ensembles import ENSEMBLES

    order = ["oracle", *ENSEMBLES]
    name = ensemble.split(":", maxsplit=1)[0]
    return order.index(name) if name in order else len(order)


def _short(frame: pl.DataFrame) -> tuple[dict[str, str], str]:
    return shortened(backbones(singles(frame)))


def _said(pattern: str) -> str:
    return f" · backbones {pattern}" if pattern else ""


def _percent(share: float | None) -> str:
    return _number(share, 1, 100)


def _number(value: float | None, digits: int, factor: float = 1) -> str:
    if value is None or is_nan(value):
        return NOTHING
    return f"{round(factor * value, digits) + 0.0:.{digits}f}"  # no -0.00
