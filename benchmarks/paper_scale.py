"""Every command, ensemble and head on stores of the paper's size, against what it must cost.

    python benchmarks/paper_scale.py --folder F
    python benchmarks/paper_scale.py --folder F --datasets 21 --only zeroshot,evaluate
    python benchmarks/paper_scale.py --folder F --before ../clipsyn-of-before

The store has nine made-up backbones of OpenAI's widths: one dataset of ImageNet's shape (1,000
classes, 16 train images of each, 50,000 test images, and predictions under 75 perturbations), or 21
of the shapes of the paper's. It is made if it is not in F: 7 or 10 GB. Every line is a process of
its own, with its files in the page cache. The older checkout reads the same store.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path

import click
import polars as pl
from bounds import Bound, Counts, Rates, Shape, applying, fitting
from common import fresh_python, start, workplace
from estimates import over_truth
from processes import Ran, clipsyn, of_checkout, run
from shapes import IMAGENET, PAPER, Set
from stores import make_store, perturb, save_plain

from clipsyn.evaluation import predictions_of
from clipsyn.methods.ensembles import ENSEMBLES
from clipsyn.methods.heads import HEADS
from clipsyn.show.tables import show

HERE = Path(__file__).parent
FEW = ("--shots", "16", "--seeds", "1")
SAMPLES = 2_000  # that `representation` draws
REMARK = "remark"  # not a column: why a line failed, or what its bound counts
# run only if --only names them; the report is about what evaluate-full has written
LONG = ("evaluate-three", "evaluate-full", "report", "evaluate-heads")
CURVE = (*(1, 2, 4, 8) * 3, 16)  # draws of all shots and 3 seeds: 16 is the whole split here


@dataclass(frozen=True)
class Line:
    """One row of the table: a command, what it must cost, a plain script for the same answer."""

    name: str
    command: Sequence[str]
    bound: Bound
    plain: str = ""
    writes: Sequence[Path] = ()  # removed before, lest the command finds its work done


@dataclass
class Bench:
    """The store, what it holds, and how to run things on it."""

    store: Path
    place: Path
    sets: Sequence[Set]
    timeout: float
    before: Path | None
    counts: dict[str, Counts] = field(default_factory=dict)  # of the fits that were measured

    @cached_property
    def shapes(self) -> list[Shape]:
        return [
            Shape(one.train, one.test, one.classes, tuple(b.width for b in one.backbones))
            for one in self.sets
        ]

    @property
    def plain(self) -> Path:
        """The largest set as `.npy` files."""
        return self.place / f"plain-{self.largest.name}"

    @property
    def largest(self) -> Set:
        return max(self.sets, key=lambda one: one.test * one.classes)

    @cached_property
    def start(self) -> float:
        """Seconds that the command line needs to say its version."""
        return min(run(clipsyn("--version"), self.timeout).wall for _ in range(3))

    def total(self, of: Callable[[Shape], Bound]) -> Bound:
        """The bound of a command over all sets."""
        parts = [of(shape) for shape in self.shapes]
        return Bound(
            sum(part.operations for part in parts),
            sum(part.memory for part in parts),
            sum(part.files for part in parts),
            self.start,
            parts[0].why,
        )

    def of_largest(self, of: Callable[[Shape], Bound]) -> Bound:
        return replace(of(self.shapes[self.sets.index(self.largest)]), start=self.start)


# What commands must read and compute, for one set.


def predictions_alone(shape: Shape) -> Bound:
    return Bound(files=2 * shape.test * shape.backbones, why="predictions")


def perturbed_predictions(shape: Shape) -> Bound:
    return Bound(files=76 * 2 * shape.test * shape.backbones, why="predictions of 75 and of clean")


def test_logits(shape: Shape) -> Bound:
    return Bound(files=shape.logits(shape.test), why="logits of test")


def both_logits(shape: Shape) -> Bound:
    size = shape.logits(shape.test) + shape.logits(shape.support)
    return Bound(files=size, why="logits of train and test")


def alike(shape: Shape) -> Bound:
    """CKA needs X'Y of all pairs of backbones and of each with itself."""
    rows = min(SAMPLES, shape.test)
    pairs = [(a, b) for at, a in enumerate(shape.widths) for b in shape.widths[at:]]
    size = shape.logits(shape.support) + shape.logits(rows) + shape.embeddings(rows)
    return Bound(sum(2 * rows * a * b for a, b in pairs), files=size, why="X'Y, cells")


def cells(shape: Shape) -> Bound:
    size = shape.logits(shape.test) + shape.embeddings(shape.test)
    return Bound(files=size, why="cells of test")


def support_cells(shape: Shape) -> Bound:
    size = shape.logits(shape.support) + shape.embeddings(shape.support)
    return Bound(files=size, why="cells of train")


def lines(bench: Bench) -> Iterator[Line]:
    """All that can be run, in the order of the table."""
    store, largest = str(bench.store), bench.largest.name
    router = str(bench.place / "router")
    fit = ("-d", largest, "--ensemble", "nlc", "--shots", "16", "-o", router, "--replace")
    yield Line("ls", clipsyn("ls", store), Bound(start=bench.start, why="start"))
    whole: list[tuple[str, Callable[[Shape], Bound], str]] = [
        ("zeroshot", test_logits, "zeroshot"),
        ("oracle", predictions_alone, "oracle"),
        ("diversity", predictions_alone, "diversity"),
        ("representation", alike, ""),
        ("robustness", perturbed_predictions, ""),
        ("cascade", both_logits, ""),
    ]
    for name, bound, plain in whole:
        where = () if name == "robustness" else ("-p", "clean")
        yield Line(name, clipsyn(name, store, *where), bench.total(bound), plain)
    nlc = bench.counts.get("nlc", Counts())
    fit_bound = bench.of_largest(lambda s: support_cells(s) + fitting("nlc", s, nlc))
    yield Line("fit", clipsyn("fit", store, *fit), fit_bound, "nlc")
    csv = str(bench.place / "predictions.csv")
    predict = clipsyn("predict", router, store, "-d", largest, "-o", csv)
    yield Line("predict", predict, bench.of_largest(cells), "predict")
    yield from evaluations(bench)


def evaluations(bench: Bench) -> Iterator[Line]:
    """Of every ensemble alone, of all together, and the long ones."""

    def cost(names: Sequence[str], draws: Sequence[int], shape: Shape) -> Bound:
        total = both_logits(shape)
        for name in names:
            for shots in draws:
                drawn = replace(shape, support=shots * shape.classes)
                counts = bench.counts.get(name, Counts())
                total += fitting(name, drawn, counts) + applying(name, shape)
        return total

    def line(
        name: str,
        names: Sequence[str],
        draws: Sequence[int],
        *arguments: str,
        writes: Sequence[Path] = (),
    ) -> Line:
        bound = bench.total(lambda shape: cost(names, draws, shape))
        why = bound.why if len(names) == 1 else "sum of those of its methods"
        command = clipsyn("evaluate", str(bench.store), *arguments)
        return Line(name, command, replace(bound, why=why), writes=writes)

    for name in ENSEMBLES:
        yield line(f"evaluate/{name}", [name], [16], "--ensembles", name, *FEW)
    yield line("evaluate", list(ENSEMBLES), [16], *FEW)
    three = ("nlc", "super-learner", "log-avg")
    yield line("evaluate-three", three, CURVE, "--ensembles", ",".join(three))
    results = bench.place / f"{bench.store.name}-results.parquet"
    predictions, files = predictions_of(results), ("-o", str(results))
    yield line("evaluate-full", list(ENSEMBLES), CURVE, *files, writes=[results, predictions])
    page = ("-o", str(bench.place / "report.html"))
    both = ("--results", str(results))
    report = clipsyn("report", str(bench.store), *both, *page)
    yield Line("report", report, bench.total(predictions_alone))
    heads = ("linear-probe", "tip-adapter")
    methods = [*heads, *ENSEMBLES, *ENSEMBLES]
    yield line("evaluate-heads", methods, CURVE, "--heads", ",".join(heads))


# Running and showing


Row = dict[str, str]


def wanted(name: str, only: Sequence[str]) -> bool:
    """Whether a line is asked for: by name or pattern, or by default."""
    if only:
        return any(fnmatch(name, pattern) for pattern in only)
    return name not in LONG


def measured(bench: Bench, line: Line, rates: Rates) -> Row:
    """One row: ours, the bound, the code of before, a plain script."""
    for file in line.writes:
        shutil.rmtree(file, ignore_errors=True)
    ours = run(line.command, bench.timeout)
    bound = line.bound.seconds(rates)
    row = {"line": line.name, **shown(ours), "bound s": f"{bound:.3g}", "over bound": ""}
    if ours.worked:
        row["over bound"] = f"{ours.wall / bound:.1f}"
    if said := over_truth(ours):
        row["estimated over taken"] = said
    if bench.before:
        there = run(line.command, bench.timeout, of_checkout(bench.before))
        row |= {f"before: {name}": text for name, text in shown(there).items()}
    if line.plain:
        plain = run(answer(bench, line.plain), bench.timeout)
        row["plain s"] = seconds_of(plain)
    return {**row, REMARK: ours.error or line.bound.why}


def answer(bench: Bench, name: str) -> list[str]:
    return fresh_python(str(HERE / "plain.py"), name, str(bench.plain))


def shown(ran: Ran) -> Row:
    return {"s": seconds_of(ran), "CPU s": f"{ran.cpu:.3g}", "peak GB": f"{ran.peak / 1e9:.2f}"}


def seconds_of(ran: Ran) -> str:
    return f"{ran.wall:.3g}" if ran.worked else f"failed after {ran.wall:.3g}"


def fit_row(bench: Bench, name: str, rates: Rates) -> Row:
    """One ensemble or head: its fit and its scores, each against its bound."""
    command = fresh_python(
        str(HERE / "fits.py"), str(bench.store), name, "--dataset", bench.largest.name
    )
    ran = run(command, bench.timeout)
    row = {"method": name, "peak GB": f"{ran.peak / 1e9:.2f}"}
    if not ran.worked:
        return {**row, "fit s": seconds_of(ran), REMARK: ran.error}
    took = json.loads(ran.output)
    shape, counts = Shape(**took["shape"]), Counts(**took["counts"])
    shape = replace(shape, widths=tuple(shape.widths))
    bench.counts[name] = counts
    fit, apply = fitting(name, shape, counts), applying(name, shape)
    row["accuracy"] = f"{100 * took['accuracy']:.1f}"
    for what, key, bound in (("fit", "fit", fit), ("scores", "apply", apply)):
        least, wall = bound.seconds(rates), took[key]["wall"]
        row |= {
            f"{what} s": f"{wall:.3g}",
            f"{what} CPU s": f"{took[key]['cpu']:.3g}",
            f"{what} bound s": f"{least:.3g}",
            f"{what} over bound": f"{wall / least:.1f}" if least > 0.01 else "",
        }
    return {**row, REMARK: f"fit: {fit.why or 'nothing is learned'}; scores: {apply.why}"}


def table(rows: Sequence[Row]) -> str:
    """The rows in one table, what they lack empty, and what each bound counts below it."""
    columns = [
        name for name in dict.fromkeys(name for row in rows for name in row) if name != REMARK
    ]
    frame = pl.DataFrame([{name: row.get(name, "") for name in columns} for row in rows])
    remarks = [f"  {row[columns[0]]}: {row[REMARK]}" for row in rows]
    return "\n".join([show(frame), "Bounds:", *remarks, ""])


def run_all(bench: Bench, only: Sequence[str], rates: Rates) -> None:
    """All fits, then all commands; every row is shown at once, the tables at the end."""
    fits, commands = [], []
    for name in (*ENSEMBLES, *HEADS):
        if wanted(f"fit/{name}", only):
            fits.append(fit_row(bench, name, rates))
            click.echo(" · ".join(filter(None, fits[-1].values())), err=True)
    for line in lines(bench):
        if wanted(line.name, only):
            commands.append(measured(bench, line, rates))
            click.echo(" · ".join(filter(None, commands[-1].values())), err=True)
    if fits:
        click.echo(f"Fits on {bench.largest.train:,} images, scores of {bench.largest.test:,}\n")
        click.echo(table(fits))
    if commands:
        click.echo("Commands, whole processes\n")
        click.echo(table(commands))


def warm(folder: Path) -> None:
    """Read every file once, so that all are in the page cache, if memory holds them."""
    for file in folder.rglob("*"):
        if file.is_file():
            file.read_bytes()


@click.command()
@click.option("--folder", type=click.Path(path_type=Path), help="Keep the store there.")
@click.option("--datasets", type=click.Choice(["imagenet", "21"]), default="imagenet")
@click.option("--only", default="", help="Lines or patterns such as 'fit/*', with commas.")
@click.option("--before", type=click.Path(path_type=Path, exists=True), help="Older checkout.")
@click.option("--smaller", default=1, help="Divides widths, classes and images, to try it.")
@click.option("--timeout", default=1200.0, show_default=True, help="Seconds a process.")
def main(
    *,
    folder: Path | None,
    datasets: str,
    only: str,
    before: Path | None,
    smaller: int,
    timeout: float,
) -> None:
    """Time and memory of everything at the paper's size, and the bounds of each."""
    start("Paper's size: nine backbones, " + ("1,000 classes" if datasets != "21" else "21 sets"))
    sets = PAPER if datasets == "21" else (IMAGENET,)
    chosen = [one.smaller(smaller) for one in sets] if smaller > 1 else sets
    with workplace(folder) as place:
        bench = Bench(Path(place) / f"store-{datasets}", Path(place), chosen, timeout, before)
        store = make_store(bench.store, chosen)
        if datasets == "imagenet":
            perturb(store, bench.largest)
        save_plain(store, bench.largest, bench.plain)
        warm(bench.store)
        warm(bench.plain)
        rates = Rates.measure(bench.store)
        click.echo(f"{rates}\n")
        run_all(bench, [name for name in only.split(",") if name], rates)


if __name__ == "__main__":
    main()
