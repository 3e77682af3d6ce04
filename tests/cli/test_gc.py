"""`clipsyn gc`: what it lists, what it leaves, what it removes."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest

from clipsyn.store import unfinished
from clipsyn.store.features import FeatureStore
from tests.remote.copying import push
from tests.remote.server import serving

DRAFT = "features/toy/test/clean/fake--one, 1 of 3 blocks done"


@pytest.fixture
def interrupted(tmp_path: Path, fakes: Any) -> Path:
    """A store of which a job has left a draft and a file."""
    path = fakes.fill(tmp_path / "store", shard=(0, 3)).path
    (path / ".wip" / "zarr.json.0a.partial").write_bytes(bytes(10))
    return path


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Function (seconds): so much time has passed."""
    now = time.time()

    def wait(seconds: float) -> None:
        monkeypatch.setattr(unfinished.time, "time", lambda: now + seconds)

    return wait


def test_it_lists_and_asks(clipsyn: Any, interrupted: Path, later: Any, fakes: Any) -> None:
    before = fakes.contents(interrupted)
    later(3 * 86_400 + 60)
    result = clipsyn("gc", interrupted, input="n\n")
    assert result.exit_code == 1
    draft, partial, *_ = result.stdout.splitlines()
    assert draft == f"{DRAFT}: 0.0 MB, last written to 3 days ago"
    assert partial.startswith(".wip/zarr.json.0a.partial, of a command that was writing or remov")
    assert f"Remove 2 unfinished groups and leftovers from {interrupted}? [y/N]" in result.output
    assert len(fakes.draft_folders(interrupted)) == 2
    said = clipsyn("gc", interrupted, input="y\n").stdout.splitlines()
    assert said[-1].endswith(f"removed 2 of 2 unfinished groups and leftovers from {interrupted}")
    assert fakes.draft_folders(interrupted) == []
    assert fakes.contents(interrupted) == before
    assert clipsyn("gc", interrupted).stdout == f"nothing to remove from {interrupted}\n"


def test_what_a_job_may_still_write_to_stays(clipsyn, interrupted, later, fakes):
    later(86_000)
    result = clipsyn("gc", interrupted, "-y")
    assert result.stdout.splitlines() == [
        "2 more were last written to less than 1 day ago: they stay",
        f"nothing to remove from {interrupted}",
    ]
    assert len(fakes.draft_folders(interrupted)) == 2
    assert (
        clipsyn("gc", interrupted, "-y", "--older-than", "23h")
        .stdout.splitlines()[0]
        .endswith("last written to 23 hours ago")
    )
    assert fakes.draft_folders(interrupted) == []


def test_age_0_is_all(clipsyn: Any, interrupted: Path, fakes: Any) -> None:
    said = clipsyn("gc", interrupted, "--older-than", "0", "--dry-run").stdout
    assert said.count("last written to moments ago") == 2
    assert len(fakes.draft_folders(interrupted)) == 2
    assert clipsyn("gc", interrupted, "--older-than", "0", "--yes").exit_code == 0
    assert fakes.draft_folders(interrupted) == []


@pytest.mark.parametrize("age", ["1", "d", "-1d", "1 d", "1w", "٣d", "", "9999999d"])
def test_what_is_no_age(fails: Any, interrupted: Path, age: str) -> None:
    assert f"'{age}' is no age: write 30m, 12h, 7d or 0" in fails(
        2, "gc", interrupted, f"--older-than={age}"
    )


@pytest.fixture
def published(tiny_store: FeatureStore, tmp_path: Path) -> Path:
    """A folder to which one backbone was pushed; the push of another was killed."""
    place = tmp_path / "published"
    push(tiny_store, place, {"backbone": ["fake/two"]})
    index = (place / "index.json.gz").read_bytes()
    push(tiny_store, place)
    (place / "index.json.gz").write_bytes(index)
    return place


def test_what_a_killed_push_has_sent(clipsyn: Any, published: Path, later: Any) -> None:
    url = published.as_uri()
    count = len(list(published.glob("*/**/fake--one/**/manifest.json")))
    assert clipsyn("gc", url, "-y").stdout.splitlines() == [
        f"{count} more were last written to less than 1 day ago: they stay",
        f"nothing to remove from {url}",
    ]
    later(2 * 86_400 + 60)
    result = clipsyn("gc", published, input="n\n")
    assert result.exit_code == 1
    first = result.stdout.splitlines()[0]
    assert re.fullmatch(
        r"classes/toy/simple/fake--one/[0-9a-f]{16}, which no index names: \d\.\d MB, last written "
        "to 2 days ago",
        first,
    )
    assert (
        f"Remove {count} unfinished groups and leftovers from {published}? [y/N]" in result.output
    )
    assert "removed" not in clipsyn("gc", url, "--dry-run").stdout
    assert len(list(published.glob("*/**/fake--one/**/manifest.json"))) == count
    assert clipsyn("gc", url, "-y").stdout.splitlines()[-1] == (
        f"removed {count} of {count} unfinished groups and leftovers from {url}"
    )
    assert list(published.glob("*/**/fake--one/*")) == []
    assert clipsyn("verify", url).exit_code == 0
    assert clipsyn("gc", url).stdout == f"nothing to remove from {url}\n"


def test_a_web_server_lists_nothing(fails: Any, published: Path) -> None:
    with serving(published) as server:
        said = fails(2, "gc", server.url, "-y")
    assert f"{server.url} can only be read" in said


def test_a_first_push_to_a_folder_that_was_killed(clipsyn, fails, published):
    """It has no index and no marker yet: so it must be named by its URL, lest others' files go."""
    (published / "index.json.gz").unlink()
    (published / "clipsyn.json").unlink()
    assert "holds something else than a feature store" in fails(4, "gc", published)
    assert clipsyn("gc", published.as_uri(), "-y", "--older-than", "0").exit_code == 0
    left = sorted(path.name for path in published.rglob("*") if path.is_file())
    assert left == ["clipsyn.json.lock", "index.json.gz.lock"]


def test_what_is_no_store(fails: Any, tmp_path: Path) -> None:
    assert "is no feature store" in fails(4, "gc", tmp_path)
