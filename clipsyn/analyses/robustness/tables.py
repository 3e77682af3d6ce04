"""Tables of robustness: what is lost to perturbations, by whom, and who is best under what."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import polars as pl

from clipsyn.analyses.robustness import RobustnessSettings
from clipsyn.analyses.robustness.view import ALL, CLEAN, ORACLE, Part, names, parts
from clipsyn.frames import is_nan
from clipsyn.show.numbers import NOTHING, interval_text
from clipsyn.show.tables import column_heads, legend, show

BARS = "▁▂▃▄▅▆▇█"
_FEW = 6  # backbones whose curves stand beside the numbers
_MOST = 8  # severities, or ensembles, in the columns of one table
_Rows = list[dict[str, Any]]

_NOTES = {
    "independent": """
independent: the oracle if errors were independent within each class, an upper mark; with few images
a class it says little.""",
    "summary": """\
perturbed: mean over perturbations of the mean over their severities. drop: points lost of clean.
relative: perturbed in % of clean. mCE: mean over perturbations of the errors, summed over
severities, in % of those of {reference} (Hendrycks & Dietterich 2019).""",
    "accuracy": """\
Top-1 accuracy in %, mean over severities; all: mean over perturbations.""",
    "drop": "Points lost of the clean accuracy, mean over severities; all: over perturbations.",
    "relative_robustness": "Accuracy in % of the clean accuracy, mean over severities.",
    "errors": """\
Corruption error: errors, summed over severities, in % of those of {reference}; below 100 is better
than it. mCE: their mean.""",
    "order": """\
lead: of the best backbone over the second best, in points. switch: over the one that is best on
clean images, {best}. tau: Kendall's, of the order of the backbones there with that on clean
images; 1 the same, -1 the opposite. The best are chosen on these very images.""",
    "gains": """\
Gain of {methods} over the backbone that is best under that perturbation, in points;
negative: worse.""",
    "severities": """\
Mean accuracy of the backbones in % by severity. Bars: each backbone from clean, the first, to the
highest severity, all on one scale from 0 to {top:.0f} %.""",
    "every severity": "Top-1 accuracy in %.",
    "datasets": """\
clean, perturbed: the best backbone of each and its accuracy; perturbed is the mean over all
perturbations. drop: points that the clean best loses. gain: of the oracle over the best. tau:
Kendall's, of the order of the backbones clean and perturbed.""",
}


def tables(
    frame: pl.DataFrame, settings: RobustnessSettings, *, terminal: bool | None = None
) -> dict[str, str]:
    """Tables of what `clipsyn.analyses.robustness.measure` returns, by name.

    "summary", a line a method; "accuracy" and "errors", a line a perturbation; "order", which
    backbone is best where; "gains" of oracle and ensembles; "severities", curves. Several
    datasets have these of their mean, and "datasets", a line each; with `details` those of each
    too, its name behind a comma ("order, birds/test, own"), and "drop", "relative_robustness" and
    "every severity".
    """
    details = settings.details
    single, shown = parts(frame)
    found: dict[str, str] = {}
    if len(single) > 1:
        found["datasets"] = _datasets(single, terminal)
    for part, name in zip(shown, names(shown), strict=True):
        found |= {f"{kind}{name}": text for kind, text in _of(part, details, terminal).items()}
    if details and single != shown:
        for part, name in zip(single, names(single), strict=True):
            found |= {f"{kind}{name}": text for kind, text in _of(part, True, terminal).items()}
    return found


def _of(part: Part, details: bool, terminal: bool | None) -> dict[str, str]:
    several = part.has_oracle
    found = {
        "summary": _summary(part, terminal),
        "accuracy": _by_perturbation(part, "acc1", [CLEAN, *part.severities, ALL], terminal),
    }
    if details:
        for metric in ("drop", "relative_robustness"):
            found[metric] = _by_perturbation(part, metric, [*part.severities, ALL], terminal)
    found["errors"] = _by_perturbation(part, "ce", [*part.severities, ALL], terminal)
    if several:
        found["order"] = _order(part, terminal)
    if several or part.ensembles:
        found["gains"] = _gains(part, terminal)
    found["severities"] = _severities(part, terminal)
    if details:
        labels = [label for of in part.severities.values() for label in of.values()]
        found["every severity"] = _by_perturbation(part, "acc1", [CLEAN, *labels], terminal)
    return {name: f"{part.title}\n{text}" for name, text in found.items()}


def _summary(part: Part, terminal: bool | None) -> str:
    """A line a method."""
    rows: _Rows = []
    for method, text in _methods(part).items():
        clean, over = part.row("acc1", CLEAN, method), part.row("acc1", ALL, method)
        drop, error = part.row("drop", ALL, method), part.row("mce", ALL, method)
        rows.append(
            {
                "": text,
                "clean": clean.get("value"),
                "95 %": _interval(clean),
                "perturbed": over.get("value"),
                "95 % ": _interval(over),
                "drop": drop.get("value"),
                "95 %  ": _interval(drop),
                "relative": part.value("relative_robustness", ALL, method),
                "mCE": error.get("value"),
                "95 %   ": NOTHING if method == part.reference else _interval(error),
            }
        )
    if part.has_oracle:
        columns = {"clean": CLEAN, "perturbed": ALL}
        mark = {name: part.value("acc1_independent", of, ORACLE) for name, of in columns.items()}
        rows.insert(len(part.backbones) + 1, {"": "independent"} | mark)
    singles = rows[: len(part.backbones)]
    bold = _best(singles, ["clean", "perturbed", "relative"], max)
    text = _shown(
        rows,
        percent=["clean", "perturbed", "drop", "relative", "mCE"],
        bold=bold | _best(singles, ["drop", "mCE"], min),
        terminal=terminal,
    )
    note = _NOTES["summary"].format(reference=_reference(part))
    return f"{text}\n\n{note}{_NOTES['independent'] if part.has_oracle else ''}{_fitted(part)}"


def _by_perturbation(
    part: Part, metric: str, settings: Sequence[str], terminal: bool | None
) -> str:
    """A line a perturbation, a column a backbone, and the oracle."""
    columns = {name: name for name in part.backbones} | (
        {ORACLE: ORACLE} if part.has_oracle else {}
    )
    rows, bold, mark = [], set(), "acc1_independent"
    marked = metric == "acc1" and part.has_oracle
    for line, setting in enumerate(settings):
        of = "mce" if (metric, setting) == ("ce", ALL) else metric
        values = {name: part.value(of, setting, name) for name in columns}
        known = {n: v for n in part.backbones if (v := values[n]) is not None and not is_nan(v)}
        wanted = (min if metric in ("ce", "drop") else max)(known.values(), default=None)
        bold |= {(line, name) for name, value in known.items() if value == wanted}
        if marked:
            values[mark] = part.value(mark, setting, ORACLE)
        rows.append({"perturbation": "mCE" if of == "mce" else setting} | values)
    text = _shown(
        rows,
        percent=[*columns, mark],
        headers=column_heads(part.short) | {mark: "indep."},
        bold=bold,
        terminal=terminal,
    )
    if metric == "acc1":
        note = _NOTES["accuracy" if ALL in settings else "every severity"]
    else:
        note = _NOTES["errors" if metric == "ce" else metric]
    return f"{text}\n\n{note.format(reference=_reference(part))}{legend(part.short)}"


def _order(part: Part, terminal: bool | None) -> str:
    """A line a perturbation: who is best there."""
    rows = []
    for setting in (CLEAN, *part.severities, ALL):
        lead, switch, tau = (part.only(m, setting) for m in ("lead", "switch", "kendall_tau"))
        best = lead["backbones"][0]
        accuracy = part.value("acc1", setting, best)
        rows.append(
            {
                "perturbation": setting,
                "best": NOTHING if is_nan(accuracy) else part.short[best],
                "top-1": accuracy,
                "lead": lead["value"],
                "95 %": _interval(lead),
                "switch": switch.get("value"),
                "95 % ": _interval(switch) if switch.get("value") else NOTHING,
                "tau": _number(tau.get("value")),
                "95 %  ": _correlation_interval(tau),
            }
        )
    text = _shown(rows, percent=["top-1", "lead", "switch"], right=["tau"], terminal=terminal)
    return f"{text}\n\n{_NOTES['order'].format(best=rows[0]['best'])}"


def _gains(part: Part, terminal: bool | None) -> str:
    """A line a perturbation; ensembles in tables of a few."""
    blocks = [part.ensembles[at : at + _MOST] for at in range(0, len(part.ensembles), _MOST)]
    texts = []
    for number, ensembles in enumerate(blocks or [()]):
        rows = []
        for setting in (CLEAN, *part.severities, ALL):
            gain = part.row("gain", setting, ORACLE)
            oracle = {"oracle": gain.get("value"), "95 %": _interval(gain)}
            values = {name: part.value("gain", setting, name) for name in ensembles}
            first = oracle if number == 0 and part.has_oracle else {}
            rows.append({"perturbation": setting} | first | values)
        heads = column_heads({name: name for name in ensembles})
        percent = ["oracle", *ensembles]
        texts.append(_shown(rows, percent=percent, headers=heads, terminal=terminal))
    methods = ["the oracle"] * part.has_oracle + ["ensembles"] * bool(part.ensembles)
    note = _NOTES["gains"].format(methods=" and ".join(methods))
    return "\n\n".join([*texts, note + _fitted(part)])


def _severities(part: Part, terminal: bool | None) -> str:
    """A line a perturbation: curves of numbers, and of bars."""
    levels = sorted({level for of in part.severities.values() for level in of})
    levels = levels if len(levels) <= _MOST else []
    settings = [CLEAN, *(label for of in part.severities.values() for label in of.values())]
    accuracy = {name: [part.value("acc1", s, name) for s in settings] for name in part.backbones}
    known = [v for of in accuracy.values() for v in of if v is not None and not is_nan(v)]
    top = max(known, default=0.0)
    numbers: _Rows = []
    bars: _Rows = []
    for perturbation, of in part.severities.items():
        means: dict[str, float | None] = {CLEAN: _mean_of(part, CLEAN)}
        means |= {str(n): _mean_of(part, of[n]) if n in of else None for n in levels}
        numbers.append({"perturbation": perturbation} | (means if levels else {}))
        curves = {  # a backbone may be called as a severity is
            f"of {name}": "".join(
                _bar(part.value("acc1", s, name), top) for s in (CLEAN, *of.values())
            )
            for name in part.backbones
        }
        bars.append({"perturbation": perturbation} | curves)
    narrow = not levels or len(part.backbones) <= _FEW
    tables = [_beside(numbers, bars)] if narrow else [numbers, bars]
    percent = [CLEAN, *map(str, levels)]
    heads = {f"of {name}": head for name, head in column_heads(part.short).items()}
    texts = [_shown(rows, percent=percent, headers=heads, terminal=terminal) for rows in tables]
    note = _NOTES["severities"].format(top=100 * top)
    return "\n\n".join([*texts, f"{note}{legend(part.short)}"])


def _beside(left: _Rows, right: _Rows) -> _Rows:
    return [one | other for one, other in zip(left, right, strict=True)]


def _datasets(found: Sequence[Part], terminal: bool | None) -> str:
    """A line a dataset."""
    keys = [name for name in ("split", "prompts") if len({getattr(p, name) for p in found}) > 1]
    rows = []
    for part in found:
        best, under = part.only("lead", CLEAN), part.only("lead", ALL)
        first = (best.get("backbones") or part.backbones)[0]
        second = (under.get("backbones") or part.backbones)[0]
        drop = part.row("drop", ALL, first)
        rows.append(
            {
                "dataset": part.dataset,
                **{key: getattr(part, key) for key in keys},
                "n": part.n,
                "clean": part.short[first],
                "top-1": part.value("acc1", CLEAN, first),
                "drop": drop.get("value"),
                "95 %": _interval(drop),
                "perturbed": part.short[second],
                "top-1 ": part.value("acc1", ALL, second),
                "gain clean": part.value("gain", CLEAN, ORACLE),
                "gain perturbed": part.value("gain", ALL, ORACLE),
                "tau": _number(part.only("kendall_tau", ALL).get("value")),
            }
        )
    text = _shown(
        rows,
        percent=["top-1", "drop", "top-1 ", "gain clean", "gain perturbed"],
        headers={"gain clean": "gain\nclean", "gain perturbed": "gain\nperturbed"},
        right=["tau"],
        terminal=terminal,
    )
    return f"{text}\n\n{_NOTES['datasets']}"


def _shown(
    rows: _Rows,
    *,
    percent: Iterable[str],
    headers: Mapping[str, str] | None = None,
    right: Sequence[str] = (),
    bold: set[tuple[int, str]] | None = None,
    terminal: bool | None,
) -> str:
    table = pl.DataFrame(rows, infer_schema_length=None)
    numbers = set(percent) & set(table.columns)
    casts = [pl.col(name).cast(pl.Float64) for name in numbers]  # without any number, too
    intervals = [name for name in table.columns if name.startswith("95 %")]
    empty = [name for name in intervals if set(table[name]) <= {NOTHING, None}]
    return show(
        table.with_columns(casts).drop(empty),
        percent=numbers,
        headers=headers,
        right=[*right, *intervals],
        bold=bold or set(),
        terminal=terminal,
    )


def _methods(part: Part) -> dict[str, str]:
    """Method -> what it is called."""
    oracle = {ORACLE: ORACLE} if part.has_oracle else {}
    return part.short | oracle | {name: name for name in part.ensembles}


def _reference(part: Part) -> str:
    return part.short[part.reference]


def _fitted(part: Part) -> str:
    """On what ensembles are fitted."""
    of = part.frame.filter(pl.col("ensemble").is_in(part.ensembles))
    if of.is_empty():
        return ""
    fitted = of.filter(pl.col("shots").is_null() | (pl.col("shots") > 0))
    seeds = of["seed"].n_unique()
    shots = fitted["shots"][0] if len(fitted) else 0
    said = [f"head {of['head'][0]}"]
    if len(fitted):
        said.append("the whole support" if shots is None else f"{shots} shot{'s' * (shots > 1)}")
    return f"\nEnsembles: {', '.join(said)}{', means over seeds' if seeds > 1 else ''}."


def _best(rows: _Rows, columns: Sequence[str], most: Any) -> set[tuple[int, str]]:
    found = set()
    for name in columns:
        known = {r: v for r, row in enumerate(rows) if not is_nan(v := row[name])}
        found |= {(r, name) for r, v in known.items() if v == most(known.values())}
    return found


def _mean_of(part: Part, setting: str) -> float:
    """Mean accuracy of the backbones."""
    values = [part.value("acc1", setting, name) for name in part.backbones]
    return sum(math.nan if v is None else v for v in values) / len(values)


def _bar(value: float | None, top: float) -> str:
    if value is None or is_nan(value) or not top:
        return " "
    return BARS[round(value / top * (len(BARS) - 1))]


def _interval(row: Mapping[str, Any]) -> str:
    return interval_text(row.get("ci_low"), row.get("ci_high"))


def _correlation_interval(row: Mapping[str, Any]) -> str:
    low, high = _number(row.get("ci_low")), _number(row.get("ci_high"))
    return NOTHING if NOTHING in (low, high) else f"{low} to {high}"


def _number(value: float | None) -> str:
    return NOTHING if value is None or is_nan(value) else f"{value:.2f}"
