"""Tables of the oracle: how far it goes, with how few backbones, and what each adds to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from clipsyn.analyses.oracle import OracleSettings
from clipsyn.frames import is_nan
from clipsyn.results.view import backbones, singles
from clipsyn.show.numbers import NOTHING, interval_text
from clipsyn.show.tables import column_heads, legend, shortened, show

_WHERE = ["dataset", "split", "perturbation", "prompts"]
_OF_SUBSETS = ["acc1", "acc1_independent", "gain", "gain_relative"]
RIGHT, WRONG = "\N{BLACK CIRCLE}", "\N{MIDDLE DOT}"

_NOTES = {
    "oracle": """\
oracle: share of images that at least one backbone gets right, in %. indep.: what it would be
if errors were independent within each class, an upper mark; with few images a class it says little.
gain: the lead of the oracle over the best single backbone of each row, in points with a 95 %
interval, and in % of that backbone's accuracy. none, all: share that no backbone, and every
backbone, gets right.""",
    "choices": """\
Accuracy in % of the best backbone for all images, of the best for each class, and of the best for
each image (oracle), chosen on these very images. left out: of the best for each image's class on
the other images of that class. share: part of the oracle's gain over the best backbone, in %.""",
    "shapley": """\
Shapley values of the oracle, in points: what a backbone adds to it, on average over all orders in
which the backbones may join. The values of a row sum to its oracle. guess: what a backbone that
guesses would have in place of one of these, at most.""",
    "unique_correct": """\
Share of images that this backbone alone gets right, in %: what the oracle loses without it.
guess: what a backbone that guesses would have in place of one of these, at most:
(1 - oracle of the others) / classes.""",
    "sizes": """\
Oracle of the best backbones of each number, in %. They are chosen on these very images.""",
}
_WEIGHTS = """
weights: share that some weighted sum of the backbones' logits gets right, with weights that are not
negative and free for each image."""


def tables(
    frame: pl.DataFrame, settings: OracleSettings, *, terminal: bool | None = None
) -> dict[str, str]:
    """Tables of what `clipsyn.analyses.oracle.measure` returns, by name.

    One group of dataset, split, perturbation and prompt set gets "backbones", "subsets" and
    "regions", with the `top` sizes and largest regions. Several get an overview, a line a group:
    "oracle", "choices", "shapley", "unique_correct" and "sizes"; with `details` also the tables of
    each group, its name behind a comma ("regions, birds/test, clean, own").
    """
    groups = {
        ", ".join([f"{dataset}/{split}", *rest]): part
        for (dataset, split, *rest), part in frame.group_by(_WHERE, maintain_order=True)
    }
    top = settings.top
    if len(groups) == 1:
        (part,) = groups.values()
        return _details(part, top, terminal)
    found = _overview(frame, top, terminal) if groups else {}
    for name, part in groups.items() if settings.details else ():
        found |= {f"{kind}, {name}": text for kind, text in _details(part, top, terminal).items()}
    return found


def _overview(frame: pl.DataFrame, top: int, terminal: bool | None) -> dict[str, str]:
    short, pattern = _short(frame)
    common = [name for name in ("split", "prompts") if frame[name].n_unique() == 1]
    about = "; ".join(
        [f"{name} {frame[name][0]}" for name in common]
        + ([f"backbones {pattern}"] if pattern else [])
    )
    about = f"\n{about}." if about else ""
    keys = [name for name in _WHERE if name not in common]
    found = {
        "oracle": _oracles(frame, keys, short, terminal),
        "choices": _choices(frame, keys, terminal),
    }
    for metric in ("shapley", "unique_correct"):
        found[metric] = _by_backbone(frame, metric, keys, short, terminal)
    found["sizes"] = _sizes(frame, keys, top, terminal)
    return {name: f"{text}{about}" for name, text in found.items()}


def _by_backbone(
    frame: pl.DataFrame, metric: str, keys: list[str], short: dict[str, str], terminal: bool | None
) -> str:
    """A line a group, a column a backbone, and the floor."""
    alone = singles(frame)
    floors = alone.filter(metric=f"{metric}_floor").group_by(keys).agg(guess=pl.col("value").max())
    table = (
        alone.filter(metric=metric)
        .pivot(on="backbone", index=keys, values="value", maintain_order=True)
        .join(floors, on=keys, how="left", maintain_order="left")
        .select(*keys, *short, "guess")
    )
    text = show(
        table,
        percent=[*short, "guess"],
        headers=column_heads(short),
        bold=_largest(table, list(short)),
        terminal=terminal,
    )
    return f"{text}\n\n{_NOTES[metric]}{legend(short)}"


def _oracles(
    frame: pl.DataFrame, keys: list[str], short: dict[str, str], terminal: bool | None
) -> str:
    rows = []
    for _, part in frame.group_by(_WHERE, maintain_order=True):
        best, whole = _best(part), _whole(part)
        gain = whole["gain"]
        rows.append(
            {
                **{key: part[key][0] for key in keys},
                "n": best["n"],
                "best": None if is_nan(best["value"]) else short[best["backbone"]],
                "top-1": best["value"],
                "oracle": whole["acc1"]["value"],
                "indep.": whole["acc1_independent"]["value"],
                "gain": gain["value"],
                "95 %": interval_text(gain["ci_low"], gain["ci_high"]),
                "gain %": whole["gain_relative"]["value"],
                "none": whole["none_correct"]["value"],
                "all": whole["all_correct"]["value"],
            }
        )
    text = show(
        pl.DataFrame(rows, infer_schema_length=None),
        percent=["top-1", "oracle", "indep.", "gain", "gain %", "none", "all"],
        right=["95 %"],
        terminal=terminal,
    )
    return f"{text}\n\n{_NOTES['oracle']}"


def _choices(frame: pl.DataFrame, keys: list[str], terminal: bool | None) -> str:
    """A line a group: one backbone for all images, one for each class, one for each image."""
    rows = []
    for _, part in frame.group_by(_WHERE, maintain_order=True):
        by_class, whole = _by_metric(part.filter(ensemble="class-oracle")), _whole(part)
        rows.append(
            {
                **{key: part[key][0] for key in keys},
                "best": _best(part)["value"],
                "class": by_class["acc1"]["value"],
                "left out": by_class["acc1_left_out"]["value"],
                "oracle": whole["acc1"]["value"],
                "share": _part(by_class["gain"], whole["gain"]),
                "share left out": _part(by_class["gain_left_out"], whole["gain"]),
                "weights": _weights(part),
            }
        )
    table = pl.DataFrame(rows, infer_schema_length=None)
    weighed = table["weights"].null_count() < len(table)
    text = show(
        table if weighed else table.drop("weights"),
        percent=[name for name in table.columns if name not in keys],
        headers={"share left out": "share\nleft out"},
        terminal=terminal,
    )
    return f"{text}\n\n{_NOTES['choices']}{_WEIGHTS if weighed else ''}"


def _part(gain: dict[str, Any], of: dict[str, Any]) -> float | None:
    """The part of one gain that another is; None where there is none to have a part of."""
    return gain["value"] / of["value"] if of["value"] > 0 else None


def _sizes(frame: pl.DataFrame, keys: list[str], top: int, terminal: bool | None) -> str:
    rows = []
    for _, part in frame.group_by(_WHERE, maintain_order=True):
        found = {str(size): row["acc1"]["value"] for size, _, row in _subsets(part)}
        rows.append({key: part[key][0] for key in keys} | found)
    table = pl.DataFrame(rows, infer_schema_length=None)
    sizes = sorted(set(table.columns) - set(keys), key=int)[:top]
    text = show(table.select(*keys, *sizes), percent=sizes, terminal=terminal)
    return f"{text}\n\n{_NOTES['sizes']}"


def _details(part: pl.DataFrame, top: int, terminal: bool | None) -> dict[str, str]:
    short, pattern = _short(part)
    dataset, split, *rest = part.select(_WHERE).row(0)
    title = f"{dataset}/{split} · {rest[0]} · prompts {rest[1]} · n {part['n'][0]:,}"
    title += f" · backbones {pattern}" if pattern else ""
    return {
        "backbones": f"{title}\n{_backbones(part, short, terminal)}",
        "subsets": f"{title}\n{_best_subsets(part, short, top, terminal)}",
        "regions": f"{title}\n{_regions(part, short, top, terminal)}",
    }


def _backbones(part: pl.DataFrame, short: dict[str, str], terminal: bool | None) -> str:
    """A line a backbone, the oracle below."""
    rows = []
    for name, text in short.items():
        of = _by_metric(singles(part).filter(backbone=name))
        shapley, only = of["shapley"], of["unique_correct"]
        rows.append(
            {
                "backbone": text,
                "top-1": of["acc1"]["value"],
                "95 %": interval_text(of["acc1"]["ci_low"], of["acc1"]["ci_high"]),
                "Shapley": shapley["value"],
                "95 % ": interval_text(shapley["ci_low"], shapley["ci_high"]),
                "guess": of["shapley_floor"]["value"],
                "only it right": only["value"],
                "guess ": of["unique_correct_floor"]["value"],
                "images": _images(only),
            }
        )
    best, oracle = _best(part), _whole(part)["acc1"]
    by_class = part.filter(ensemble="class-oracle", metric="acc1").row(0, named=True)
    for name, row in (("class oracle", by_class), ("oracle", oracle)):
        interval = interval_text(row["ci_low"], row["ci_high"])
        rows.append({"backbone": name, "top-1": row["value"], "95 %": interval})
    rows[-1]["Shapley"] = oracle["value"]
    table = pl.DataFrame(rows, infer_schema_length=None)
    text = show(
        table,
        percent=["top-1", "Shapley", "guess", "only it right", "guess "],
        headers={"only it right": "only it\nright"},
        right=["95 %", "95 % "],
        bold={(row, "top-1") for row in range(len(short)) if rows[row]["top-1"] == best["value"]},
        terminal=terminal,
    )
    return "\n".join([text, *_said(part, short[best["backbone"]])])


def _said(part: pl.DataFrame, best: str) -> list[str]:
    """What is no line of the table: gain, images that none and all get right, weights."""
    whole = _whole(part)
    gain, relative = whole["gain"], whole["gain_relative"]
    none, every = whole["none_correct"], whole["all_correct"]
    mark = whole["acc1_independent"]["value"]
    if is_nan(gain["value"]):
        return ["no image counts: none has a label and a prediction of every backbone"]
    points = f"{100 * gain['value']:+.1f} points ({interval_text(gain['ci_low'], gain['ci_high'])})"
    percent = ""
    if not is_nan(relative["value"]):
        interval = interval_text(relative["ci_low"], relative["ci_high"])
        percent = f", {100 * relative['value']:+.1f} % ({interval})"
    lines = [
        f"oracle: {points}{percent} over the best single backbone here, {best};\n"
        f"if errors were independent within each class it would be {100 * mark:.1f} %",
        _said_of_classes(part),
        f"no backbone gets {_images(none):,} images right ({100 * none['value']:.1f} %), "
        f"all get {_images(every):,} right ({100 * every['value']:.1f} %)",
        "Shapley: what a backbone adds to the oracle, on average over all orders; they sum to it",
        "guess: what a backbone that guesses would have in its place",
    ]
    if (weights := _weights(part)) is not None:
        lines.append(
            f"weighted sums of logits, weights not negative and free for each image, could get "
            f"{100 * weights:.1f} %"
        )
    return lines


def _said_of_classes(part: pl.DataFrame) -> str:
    of = _by_metric(part.filter(ensemble="class-oracle"))
    gain, left_out = of["gain"]["value"], of["gain_left_out"]
    interval = interval_text(left_out["ci_low"], left_out["ci_high"])
    return (
        f"class oracle: {100 * gain:+.1f} points, the best backbone of each class chosen on these "
        f"very images; chosen\non the other images of the class: "
        f"{100 * left_out['value']:+.1f} points ({interval})"
    )


def _best_subsets(
    part: pl.DataFrame, short: dict[str, str], top: int, terminal: bool | None
) -> str:
    """A line a size, a column a backbone."""
    rows: list[dict[str, Any]] = []
    every = _subsets(part)
    for size, names, of in every[:top]:
        before = rows[-1]["oracle"] if rows and rows[-1]["size"] == size - 1 else None
        gain = of.get("gain")
        rows.append(
            {
                "size": size,
                "oracle": of["acc1"]["value"],
                "indep.": of["acc1_independent"]["value"] if gain else None,
                "step": None if before is None else of["acc1"]["value"] - before,
                "gain": gain["value"] if gain else None,
                "95 %": interval_text(gain["ci_low"], gain["ci_high"]) if gain else NOTHING,
                **_marks(names, short),
            }
        )
    text = show(
        pl.DataFrame(rows, infer_schema_length=None),
        percent=["oracle", "indep.", "step", "gain"],
        headers=column_heads(short),
        right=["95 %"],
        terminal=terminal,
    )
    lines = [
        text,
        "the best backbones of each number, chosen on these very images; indep.: if errors "
        "were, within each\nclass; step: over one backbone fewer; gain: over the best single "
        "backbone, in points",
    ]
    if len(every) > len(rows):
        lines.append(f"{len(every) - len(rows):,} more numbers of backbones: --top {len(every)}")
    return "\n".join(lines) + legend(short)


def _regions(part: pl.DataFrame, short: dict[str, str], top: int, terminal: bool | None) -> str:
    """A line a region, a column a backbone."""
    every = part.filter(pl.col("metric") == "region")
    shown = [
        {"images": _images(row), "%": row["value"]} | _marks(row["backbones"], short)
        for row in every.head(top).iter_rows(named=True)
    ]
    kinds = {"images": pl.Int64, "%": pl.Float64, **dict.fromkeys(short, pl.String)}
    text = show(
        pl.DataFrame(shown, schema=kinds),
        percent=["%"],
        headers=column_heads(short),
        terminal=terminal,
    )
    lines = [text, f"images that these backbones ({RIGHT}) get right, and no others"]
    if rest := len(every) - len(shown):
        count = every["n"][0] * every["value"][top:].sum()
        lines.append(f"{rest:,} more regions with {count:,.0f} images: --top {len(every)}")
    return "\n".join(lines) + legend(short)


def _marks(names: Sequence[str], short: dict[str, str]) -> dict[str, str]:
    return {name: RIGHT if name in names else WRONG for name in short}


def _subsets(part: pl.DataFrame) -> list[tuple[int, tuple[str, ...], dict[str, Any]]]:
    """Size, names and rows by metric of the best single backbone and the best of each size."""
    single = _best(part)
    found: list[tuple[int, tuple[str, ...], dict[str, Any]]]
    found = [(1, (str(single["backbone"]),), {"acc1": single})]
    oracles = part.filter(pl.col("ensemble") == "oracle", pl.col("metric").is_in(_OF_SUBSETS))
    for (names,), rows in oracles.group_by("backbones", maintain_order=True):
        chosen = tuple(names)
        if len(chosen) > 1:
            found.append((len(chosen), chosen, _by_metric(rows)))
    return found


def _best(part: pl.DataFrame) -> dict[str, Any]:
    """The accuracy of the best single backbone, the first of equals."""
    accuracies = singles(part).filter(metric="acc1")
    return max(accuracies.to_dicts(), key=lambda row: -1 if is_nan(row["value"]) else row["value"])


def _whole(part: pl.DataFrame) -> dict[str, dict[str, Any]]:
    """The rows of the oracle of all backbones, by metric."""
    count = len(backbones(singles(part)))
    return _by_metric(
        part.filter(
            pl.col("ensemble") == "oracle",
            pl.col("backbones").list.len() == count,
            pl.col("metric") != "region",
        )
    )


def _weights(part: pl.DataFrame) -> float | None:
    found = part.filter(pl.col("ensemble") == "weight-oracle", pl.col("metric") == "acc1")
    return found["value"][0] if len(found) else None


def _by_metric(rows: pl.DataFrame) -> dict[str, dict[str, Any]]:
    return {row["metric"]: row for row in rows.iter_rows(named=True)}


def _short(part: pl.DataFrame) -> tuple[dict[str, str], str]:
    return shortened(backbones(singles(part)))


def _images(row: dict[str, Any]) -> int | None:
    """How many images a share is."""
    return None if is_nan(row["value"]) else round(row["value"] * row["n"])


def _largest(table: pl.DataFrame, columns: list[str]) -> set[tuple[int, str]]:
    rows = enumerate(table.select(columns).iter_rows(named=True))
    known = ((r, {k: v for k, v in row.items() if v is not None}) for r, row in rows)
    return {(r, name) for r, row in known for name in row if row[name] == max(row.values())}
