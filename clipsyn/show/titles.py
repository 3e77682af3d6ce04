"""What a table is about, as text: its title, and what all its lines have in common."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from clipsyn.settings import UNFITTED
from clipsyn.show.table import Cell, shots_text, wrapped

if TYPE_CHECKING:
    import polars as pl

_PHRASES = {"prompts": "prompts {}", "head": "head {}", "n": "n {:,}"}
WIDTH = 100  # characters of a paragraph
_MANY = 6  # backbones, beyond which columns are narrow
MARKED, UNMARKED = Cell("\N{BLACK CIRCLE}", True), Cell("\N{MIDDLE DOT}", False)
_PLURALS = {"prompts": "prompt sets"}


def title(*phrases: str | None) -> str:
    """ "birds/test · clean · prompts own": phrases that are empty are left out."""
    return " · ".join(phrase for phrase in phrases if phrase)


def where(row: Mapping[str, Any], columns: Sequence[str]) -> list[str]:
    """What a row of results is about, a phrase for each of the columns, null left out.

    "birds/test" for dataset and split together, "prompts own", "head zero-shot", "n 1,500"; values
    of other columns stand for themselves.
    """
    about = {name: row[name] for name in columns if row[name] is not None}
    if "dataset" in about and "split" in about:
        about["dataset"] = f"{about['dataset']}/{about.pop('split')}"
    return [_PHRASES.get(name, "{}").format(value) for name, value in about.items()]


def common(frame: pl.DataFrame, columns: Sequence[str]) -> dict[str, str]:
    """Those of the columns that have one value in all rows, with that value."""
    return {name: str(frame[name][0]) for name in columns if frame[name].n_unique() == 1}


def mean_over(frame: pl.DataFrame, columns: Sequence[str]) -> str:
    """ "mean over 3 datasets": what differs between the rows; empty where nothing does.

    "mean over 6 combinations of dataset, split" where several columns differ.
    """
    kinds = [name for name in columns if frame[name].n_unique() > 1]
    if not kinds:
        return ""
    count = frame.select(kinds).n_unique()
    if len(kinds) > 1:
        return f"mean over {count} combinations of {', '.join(kinds)}"
    return f"mean over {count} {_PLURALS.get(kinds[0], f'{kinds[0]}s')}"


def subject(frame: pl.DataFrame, columns: Sequence[str]) -> str:
    """What means over datasets are of, or the one dataset: "mean over 3 datasets · test · clean".

    frame: has the number of datasets in a column `datasets`, and no `dataset` where that is over 1.
    """
    over: Any = frame["datasets"].max()
    mean = f"mean over {over} datasets" if frame["dataset"][0] is None else ""
    return title(mean, *where(frame.row(0, named=True), columns))


def typical_interval(frame: pl.DataFrame) -> str:
    """ "95 % interval about ±2.1": half of the width of the median one; empty where none is known.

    frame: values are shares, and the text is in points.
    """
    half = (frame["ci_high"] - frame["ci_low"]).fill_nan(None).median()
    return "" if half is None else f"95 % interval about ±{50 * float(half):.1f}"  # type: ignore[arg-type]


def fitted_on(frame: pl.DataFrame) -> str:
    """ "16 shots": what the ensembles of a frame were fitted on; empty where nothing is fitted."""
    shots = frame["shots"].filter(frame["shots"] != UNFITTED)
    return "" if shots.is_empty() else shots_text(shots[0])


class ShortNames(NamedTuple):
    """What backbones are shown as, by name in order, and what was cut off: "tiny-*/zoo"."""

    short: dict[str, str]
    pattern: str

    @property
    def phrase(self) -> str:
        """ "backbones tiny-*/zoo" for a title; empty where nothing was cut off."""
        return f"backbones {self.pattern}" if self.pattern else ""

    @property
    def columns(self) -> dict[str, str]:
        """Backbone -> the name of the column about it, which is the name of no other column."""
        return {name: f"backbone {number}" for number, name in enumerate(self.short, 1)}

    @property
    def heads(self) -> dict[str, str]:
        """Column -> what stands above it, narrower where there are many."""
        width = 9 if len(self.short) <= _MANY else 7
        heads = (wrapped(text, width) for text in self.short.values())
        return dict(zip(self.columns.values(), heads, strict=True))

    def cell(self, name: str) -> Cell:
        """A backbone in a row: by its short name, which stands for the whole one."""
        return Cell(self.short[name], name)

    def marked(self, some: Collection[str]) -> dict[str, Cell]:
        """A cell for the column of each backbone: whether it is one of these."""
        return {
            column: MARKED if name in some else UNMARKED for name, column in self.columns.items()
        }


def shortened(names: Sequence[str]) -> ShortNames:
    """Names without what all begin with, up to a hyphen, and end with, from a slash."""
    prefix, tag = _pattern(names)
    short = {name: name.removeprefix(prefix).removesuffix(tag) for name in names}
    return ShortNames(short, f"{prefix}*{tag}" if prefix or tag else "")


def _pattern(names: Sequence[str]) -> tuple[str, str]:
    """What all names begin with, up to a hyphen, and end with, from a slash: "tiny-", "/zoo".

    What is left of each name begins with a letter: "ViT-B-16" and "ViT-B-32" share "ViT-" only.
    """
    if len(names) < 2:
        return "", ""
    prefix = ""
    for parts in zip(*(name.split("-")[:-1] for name in names), strict=False):
        longer = f"{prefix}{parts[0]}-"
        if len(set(parts)) > 1:
            break
        if all(name.removeprefix(longer)[:1].isalpha() for name in names):
            prefix = longer
    tags = {"/" + name.rpartition("/")[2] if "/" in name else "" for name in names}
    return prefix, tags.pop() if len(tags) == 1 else ""
