"""`clipsyn ls`, `verify`, `rm` and `gc`, and how any command meets what is no store."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from clipsyn.store import inventory
from clipsyn.store.features import FeatureStore
from tests.remote.copying import push
from tests.remote.server import serving

# `clipsyn ls`, `info`, `verify`, `rm`, on a store of 20 images in blocks of seven


READERS = ("ls", "info", "ls --status", "verify")


@pytest.fixture
def path(tiny_store: FeatureStore) -> Path:
    return tiny_store.path


@pytest.fixture
def interrupted(tmp_path: Path, fakes: Any) -> Path:
    """A store whose only cell has one block of three."""
    encoder = fakes.Encoder()

    def stop() -> None:
        if encoder.encoded:
            raise KeyboardInterrupt

    encoder.before_batch = stop
    with pytest.raises(KeyboardInterrupt):
        fakes.fill(tmp_path / "store", [encoder])
    return tmp_path / "store"


class TestAnyCommand:
    @pytest.mark.parametrize("command", [*READERS, "rm", "zeroshot"])
    def test_not_a_store(self, fails: Any, tmp_path: Path, command: str) -> None:
        said = fails(4, *command.split(), tmp_path)
        assert said.startswith(f"{tmp_path} is no feature store")

    @pytest.mark.parametrize("command", [*READERS, "rm", "zeroshot"])
    def test_a_newer_format(self, fails: Any, path: Path, command: str) -> None:
        marker = json.loads((path / "clipsyn.json").read_bytes())
        (path / "clipsyn.json").write_text(json.dumps(marker | {"format": "7.2"}))
        said = fails(4, *command.split(), path)
        assert "has format 7.2" in said
        assert "pip install --upgrade clipsyn" in said

    @pytest.mark.parametrize("command", READERS)
    def test_the_store_from_the_environment(self, clipsyn: Any, path: Path, command: str) -> None:
        named = clipsyn(*command.split(), path)
        assert named.exit_code == 0
        assert clipsyn(*command.split(), env={"CLIPSYN_STORE": str(path)}).stdout == named.stdout

    @pytest.mark.parametrize("command", READERS)
    def test_reading_writes_nothing(self, clipsyn, path, fakes, command):
        before = {file: file.stat().st_mtime_ns for file in path.rglob("*")}
        clipsyn(*command.split(), path)
        assert {file: file.stat().st_mtime_ns for file in path.rglob("*")} == before


class TestLs:
    def test_a_line_for_each_dataset_split_and_perturbation(self, clipsyn: Any, path: Path) -> None:
        header, _, *rows, last = clipsyn("ls", path).stdout.splitlines()
        assert header.split()[:5] == ["dataset", "split", "perturbation", "images", "bad"]
        assert [row.split()[:7] for row in rows] == [
            ["toy", "test", "clean", "20", "0", "2", "simple"],
            ["toy", "test", "jpeg-3", "20", "0", "2", "simple"],
            ["toy", "train", "clean", "11", "0", "2", "simple"],
            ["toy", "train", "jpeg-3", "11", "0", "2", "simple"],
        ]
        assert last == "cells: 8; backbones: fake/one, fake/two"

    def test_json_has_every_cell(self, clipsyn: Any, path: Path, tiny_store: Any) -> None:
        rows = json.loads(clipsyn("ls", path, "-o", "-").stdout)
        keys = tiny_store.keys()
        assert [(r["dataset"], r["split"], r["perturbation"], r["backbone"]) for r in rows] == [
            (key.dataset, key.split, key.perturbation, key.backbone) for key in keys
        ]
        assert [row["fingerprint"] for row in rows] == [tiny_store.fingerprint(k) for k in keys]
        places = ("features/*/*/*/*/", "logits/*/*/*/*/*/", "predictions/*/*/*/*/*/")
        cells = [cell for place in places for cell in path.glob(place)]
        files = [file for cell in cells for file in cell.rglob("*") if file.is_file()]
        assert sum(row["bytes"] for row in rows) == sum(file.stat().st_size for file in files)

    def test_copies(self, clipsyn: Any, tmp_path: Path, fakes: Any) -> None:
        class Copies(fakes.Source):
            def _pixels(self, index: int) -> Any:
                if index == 11:  # of the sixth image, a little brighter here and there
                    return super()._pixels(5) | 1
                return super()._pixels(index % 10)

        path = fakes.fill(tmp_path / "copies", sources=[Copies(count=12)]).path
        result = clipsyn("ls", path, "--copies", "-o", tmp_path / "copies.csv")
        assert (tmp_path / "copies.csv").read_text().splitlines() == [
            "dataset,split,image,copy,of_split,of",
            "toy,test,im010.png,exact,test,im000.png",
            "toy,test,im011.png,near,test,im005.png",
        ]
        assert clipsyn("ls", path, "--copies").stdout.splitlines()[-1] == "copies: 1 exact, 1 near"
        assert result.exit_code == 0

    def test_an_empty_store(self, clipsyn: Any, tmp_path: Path) -> None:
        FeatureStore.create(tmp_path / "new")
        said = clipsyn("ls", tmp_path / "new").stdout
        assert f"fill it with `clipsyn extract {tmp_path / 'new'}" in said
        assert json.loads(clipsyn("ls", tmp_path / "new", "-o", "-").stdout) == []


class TestStatus:
    def test_everything_finished(self, clipsyn: Any, path: Path) -> None:
        assert clipsyn("ls", "--status", path).stdout == (
            "finished: sample tables 2, class embeddings 2, image embeddings 8, logits 4, "
            "predictions without logits 4\n"
        )
        found = json.loads(clipsyn("ls", "--status", path, "-o", "-").stdout)
        assert found == {
            "finished": {
                "samples": 2,
                "classes": 2,
                "features": 8,
                "logits": 4,
                "predictions": 4,
            },
            "damaged": [],
            "stale": [],
            "unfinished": [],
            "leftovers": 0,
        }

    def test_what_an_interruption_left(self, clipsyn: Any, interrupted: Path) -> None:
        (interrupted / ".wip" / "new-abc").mkdir()
        said = clipsyn("ls", "--status", interrupted).stdout
        assert "unfinished: features/toy/test/clean/fake--one, 1 of 3 blocks done" in said
        assert f"`clipsyn gc {interrupted}` drops all that" in said
        assert "commands that were killed, or are running: 1" in said
        found = json.loads(clipsyn("ls", "--status", interrupted, "-o", "-").stdout)
        assert found["unfinished"] == [
            {"target": "features/toy/test/clean/fake--one", "done": 1, "blocks": 3}
        ]
        assert found["leftovers"] == 1


class TestVerify:
    def test_a_whole_store(self, clipsyn: Any, path: Path) -> None:
        result = clipsyn("verify", path)
        assert result.exit_code == 0
        assert result.stdout == f"20 groups of {path} are as they were written\n"
        assert json.loads(clipsyn("verify", path, "-o", "-").stdout) == {
            "groups": 20,
            "problems": [],
        }

    def test_a_flipped_bit_and_a_missing_chunk_are_named(
        self, clipsyn: Any, fails: Any, path: Path, tiny_store: Any, fakes: Any
    ) -> None:
        cell = tiny_store.features_path(fakes.key)
        chunk = cell / "image_embedding" / "c.1.0"
        content = bytearray(chunk.read_bytes())
        content[5] ^= 4
        chunk.write_bytes(content)
        (tiny_store.at("logits", *fakes.key.names, "simple") / "prediction" / "c.2").unlink()
        result = clipsyn("verify", path)
        assert result.exit_code == 4
        flipped, missing = result.stdout.splitlines()
        assert flipped.startswith("features/toy/test/clean/fake--one: block 1 (rows 7-13)")
        assert "does not match its checksum" in flipped
        assert missing.startswith("logits/toy/test/clean/fake--one/simple: block 2 (rows 14-19)")
        assert "is missing" in missing
        said = fails(4, "verify", path)
        assert "2 in all" in said
        assert f"`clipsyn rm {path}" in said
        found = clipsyn("verify", path, "-o", "-")
        assert found.exit_code == 4
        assert json.loads(found.stdout)["problems"] == [flipped, missing]


class TestRm:
    def test_it_lists_and_asks(self, clipsyn: Any, path: Path, tiny_store: Any, fakes: Any) -> None:
        before = fakes.contents(path)
        options = ("rm", path, "--backbones", "fake/two", "--perturb", "jpeg-3")
        result = clipsyn(*options, input="n\n")
        assert result.exit_code == 1
        assert result.stdout.splitlines()[:2] == [
            "features/toy/test/jpeg-3/fake--two",
            "features/toy/train/jpeg-3/fake--two",
        ]
        assert f"Remove 4 groups from {path}? [y/N]" in result.output
        assert fakes.contents(path) == before
        assert clipsyn(*options, input="y\n").exit_code == 0
        assert len(tiny_store.keys()) == 6
        assert not tiny_store.keys(backbone=["fake/two"], perturbation=["jpeg-3"])

    def test_a_backbone_goes_with_all_that_was_made_with_it(self, clipsyn: Any, path: Path) -> None:
        assert clipsyn("rm", path, "-b", "fake/one", "-y").exit_code == 0
        groups = [file.parent for file in path.rglob("*/zarr.json") if "fake--one" in str(file)]
        assert not [group for group in groups if list(group.glob("*/c.*"))]
        found = json.loads(clipsyn("ls", "--status", path, "-o", "-").stdout)["finished"]
        assert found == {
            "samples": 2,
            "classes": 1,
            "features": 4,
            "logits": 2,
            "predictions": 2,
        }
        assert clipsyn("verify", path).exit_code == 0

    def test_a_dataset_goes_with_its_samples(self, clipsyn: Any, path: Path) -> None:
        clipsyn("rm", path, "-d", "toy", "-y")
        assert clipsyn("ls", "--status", path).stdout == (
            "finished: sample tables 0, class embeddings 0, image embeddings 0, logits 0, "
            "predictions without logits 0\n"
        )

    def test_a_filter_is_needed(self, fails: Any, path: Path) -> None:
        assert "rm needs a filter" in fails(2, "rm", path)
        assert "rm needs a filter" in fails(2, "rm", path, "--yes")

    def test_a_store_that_may_not_be_written_to(self, fails, path, monkeypatch):
        def refuse(*_: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "rename", refuse)
        said = fails(4, "rm", path, "-b", "fake/one", "-y")
        assert "you may not write there" in said


# `clipsyn gc`: what it lists, what it leaves, what it removes


DRAFT = "features/toy/test/clean/fake--one, 1 of 3 blocks done"


@pytest.fixture
def killed(tmp_path: Path, fakes: Any) -> Path:
    """A store of which a job has left a draft and a file."""
    path = fakes.fill(tmp_path / "store", shard=(0, 3)).path
    (path / ".wip" / "zarr.json.0a.partial").write_bytes(bytes(10))
    return path


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Function (seconds): so much time has passed."""
    now = time.time()

    def wait(seconds: float) -> None:
        monkeypatch.setattr(inventory.time, "time", lambda: now + seconds)

    return wait


def test_it_lists_and_asks(clipsyn: Any, killed: Path, later: Any, fakes: Any) -> None:
    before = fakes.contents(killed)
    later(3 * 86_400 + 60)
    result = clipsyn("gc", killed, input="n\n")
    assert result.exit_code == 1
    draft, partial, *_ = result.stdout.splitlines()
    assert draft == f"{DRAFT}: 0.0 MB, last written to 3 days ago"
    assert partial.startswith(".wip/zarr.json.0a.partial, of a command that was writing or remov")
    assert f"Remove 2 unfinished groups and leftovers from {killed}? [y/N]" in result.output
    assert len(fakes.draft_folders(killed)) == 2
    said = clipsyn("gc", killed, input="y\n").stdout.splitlines()
    assert said[-1].endswith(f"removed 2 of 2 unfinished groups and leftovers from {killed}")
    assert fakes.draft_folders(killed) == []
    assert fakes.contents(killed) == before
    assert clipsyn("gc", killed).stdout == f"nothing to remove from {killed}\n"


def test_what_a_job_may_still_write_to_stays(clipsyn, killed, later, fakes):
    later(86_000)
    result = clipsyn("gc", killed, "-y")
    assert result.stdout.splitlines() == [
        "2 more were last written to less than 1 day ago: they stay",
        f"nothing to remove from {killed}",
    ]
    assert len(fakes.draft_folders(killed)) == 2
    assert (
        clipsyn("gc", killed, "-y", "--older-than", "23h")
        .stdout.splitlines()[0]
        .endswith("last written to 23 hours ago")
    )
    assert fakes.draft_folders(killed) == []


def test_age_0_is_all(clipsyn: Any, killed: Path, fakes: Any) -> None:
    said = clipsyn("gc", killed, "--older-than", "0", "--dry-run").stdout
    assert said.count("last written to moments ago") == 2
    assert len(fakes.draft_folders(killed)) == 2
    assert clipsyn("gc", killed, "--older-than", "0", "--yes").exit_code == 0
    assert fakes.draft_folders(killed) == []


@pytest.mark.parametrize("age", ["1", "-1d", "1w", "٣d", "9999999d"])
def test_what_is_no_age(fails: Any, killed: Path, age: str) -> None:
    assert f"'{age}' is no age: write 30m, 12h, 7d or 0" in fails(
        2, "gc", killed, f"--older-than={age}"
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
    assert not [file for file in published.glob("*/**/fake--one/**/*") if file.is_file()]
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
    assert not [path for path in published.rglob("*") if path.is_file()]
