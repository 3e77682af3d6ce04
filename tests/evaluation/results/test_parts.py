"""Rows that several processes add to one file, without a lock: none is lost, whatever happens."""

import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path

import polars as pl
import pytest

from clipsyn.errors import ConflictingResults, UsageError
from clipsyn.evaluation.results import files
from clipsyn.evaluation.results.files import RowsFile, collect
from clipsyn.evaluation.results.frame import RESULT
from tests.evaluation.results.test_files import row

STEPS = [(files, "sync"), (pl.LazyFrame, "sink_parquet")] + [
    (Path, name) for name in ("mkdir", "rename", "unlink")
]


class Killed(BaseException):
    pass


@contextmanager
def at_step(number, happens, *, for_good=False):
    """Before a step of what is done here on the disk, something happens; for good: before each."""
    steps, patch = iter(range(1_000_000)), pytest.MonkeyPatch()

    def before(there):
        def call(*arguments, **options):
            step = next(steps)
            if step == number or (for_good and step > number):
                happens()
            return there(*arguments, **options)

        return call

    try:
        for owner, name in STEPS:
            patch.setattr(owner, name, before(getattr(owner, name)))
        yield
    finally:
        patch.undo()


def killed():
    raise Killed


@pytest.fixture(autouse=True)
def _at_once(monkeypatch):
    monkeypatch.setattr(files, "_LONGEST", 0.0)
    monkeypatch.setattr(files, "sync", lambda path: path.stat())


def fit(name, **changes):
    about = {"head": name, "fingerprint": name} | changes
    return pl.DataFrame([row(**about, metric=metric) for metric in ("acc1", "nll")], schema=RESULT)


def run(path, *names):
    """What `evaluate` does."""
    with RowsFile(path) as results:
        for name in names:
            results.add(fit(name))


def expected(*names):
    return pl.concat([pl.DataFrame(schema=RESULT), *map(fit, names)])


def there(path):
    frame = collect(path).sort("head", "metric")
    names = sorted({*frame["head"]})
    assert frame.equals(expected(*names))  # each once, with all of its rows
    return names


def steps_of(work):
    count = []
    with at_step(-1, lambda: count.append(1), for_good=True):
        work()
    return len(count)


def test_a_kill_at_any_step_loses_what_was_being_added_and_nothing_else(tmp_path):
    steps = steps_of(lambda: run(tmp_path / "whole.parquet", "one", "two"))
    kept = set()
    for step in range(steps):
        path = tmp_path / f"{step}.parquet"
        run(path, "zero")
        with suppress(Killed), at_step(step, killed, for_good=True):
            run(path, "one", "two")
        run(path)
        kept.add(len(there(path)))
        run(path, "one", "two")
        assert there(path) == ["one", "two", "zero"]
        assert len([*path.iterdir()]) == 1  # polars reads it as it is
        assert len(pl.read_parquet(path)) == 6
    assert kept == {1, 2, 3}


def test_runs_that_overtake_each_other_at_any_step_lose_nothing(tmp_path):
    """The second does all that it does, or is killed at any step, between two of the first."""
    steps = steps_of(lambda: run(tmp_path / "whole.parquet", "one", "two"))
    for of_first in range(steps):
        for of_second in (None, (steps // 3, steps // 2, steps - 3)[of_first % 3]):
            path = tmp_path / f"{of_first}-{of_second}.parquet"

            def overtakes(path=path, at=of_second):
                with suppress(Killed):
                    if at is None:
                        run(path, "three")
                        return
                    with at_step(at, killed, for_good=True):
                        run(path, "three")

            with at_step(of_first, overtakes):
                run(path, "one", "two")
            run(path)
            assert {*there(path)} >= ({"one", "two"} | ({"three"} if of_second is None else set()))


def test_processes_without_locks_lose_nothing(tmp_path):
    script = """
import sys
from pathlib import Path
from clipsyn.evaluation.results.files import RowsFile
from tests.evaluation.results.test_parts import fit
print("ready", flush=True)
sys.stdin.readline()
for number in range(12):
    with RowsFile(Path(sys.argv[1])) as results:
        results.add(fit(f"{sys.argv[2]}-{number:02}"))
"""
    path = tmp_path / "r.parquet"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, path, f"{number}"],
            cwd=Path(__file__).parents[3],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(4)
    ]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    assert [process.communicate() and process.returncode for process in processes] == [0] * 4
    assert there(path) == [f"{one}-{number:02}" for one in range(4) for number in range(12)]
    assert [it.name for it in tmp_path.iterdir()] == ["r.parquet"]


@pytest.mark.parametrize("room", [2_000, 10_000])
def test_what_does_not_fit_on_the_disk_is_said_and_made_again(tmp_path, room):
    """A file may not have more bytes: a part, or the file that has the rows of all of them."""
    script = f"""
import resource, sys
from pathlib import Path
from clipsyn.errors import UsageError
from tests.evaluation.results.test_parts import run
resource.setrlimit(resource.RLIMIT_FSIZE, ({room}, {room}))
try:
    for number in range(300):
        run(Path(sys.argv[1]), f"{{number:03}}", *(f"{{number:03}}-{{it}}" for it in range(20)))
        print(number, flush=True)
except UsageError as error:
    sys.exit(2)
"""
    path = tmp_path / "r.parquet"
    command = [sys.executable, "-c", script, path]
    ended = subprocess.run(
        command, cwd=Path(__file__).parents[3], stdout=subprocess.PIPE, check=False
    )
    assert ended.returncode == 2
    done = len(ended.stdout.splitlines())
    kept = there(path) if path.exists() else []
    assert len(kept) >= 21 * done
    run(path, "more")
    assert there(path) == [*kept, "more"]
    assert [it.name for it in tmp_path.iterdir()] == ["r.parquet"]


@pytest.fixture
def left(tmp_path):
    """A file of two fits, of which the second was added by a run that was killed."""
    path = tmp_path / "r.parquet"
    run(path, "one")
    RowsFile(path).add(fit("two"))
    assert len([*path.iterdir()]) == 2
    return path


def test_what_two_have_put_together_is_read_once(left):
    for part in [*left.iterdir()]:
        (left / f"again-{part.name}").write_bytes(part.read_bytes())
    assert there(left) == ["one", "two"]
    run(left)
    assert there(left) == ["one", "two"]
    assert len(pl.read_parquet(left)) == 4


def test_runs_that_contradict_each_other_are_refused(tmp_path):
    path = tmp_path / "r.parquet"
    first, second = RowsFile(path), RowsFile(path)
    first.add(fit("one"))
    second.add(fit("one", fingerprint="another", value=0.25))
    for refused in (lambda: run(path, "two"), lambda: collect(path)):
        with pytest.raises(ConflictingResults):
            refused()


def test_a_part_that_is_damaged_is_said(left):
    part = max(left.iterdir())
    part.write_bytes(part.read_bytes()[:-40])
    for refused in (lambda: run(left), lambda: collect(left)):
        with pytest.raises(UsageError):
            refused()


def test_a_long_run_puts_its_parts_together_once_in_so_many(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_MOST", 3)
    path, seen = tmp_path / "results.parquet", []
    results = RowsFile(path)
    for number in range(10):
        results.add(fit(f"{number}"))
        seen.append(len([*path.iterdir()]))
    assert max(seen) <= 3
    assert len(collect(path)) == 20
