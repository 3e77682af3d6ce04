"""`clipsyn ls`, `verify`, `rm` and `gc`, and how any command meets what is no store."""

import json
import time
from typing import Any

import pytest

from clipsyn.store import inventory
from tests.remote.copying import push

# `clipsyn ls`, `info`, `verify`, `rm`, on a store of 20 images in blocks of seven


READERS = ("ls", "info", "ls --status", "verify")


@pytest.fixture
def path(tiny_store):
    return tiny_store.path


@pytest.fixture
def interrupted(tmp_path, fakes):
    """A store whose only cell has one block of three."""
    return fakes.fill_some(tmp_path / "store", 1).path


class TestAnyCommand:
    @pytest.mark.parametrize("command", [*READERS, "rm", "zeroshot"])
    def test_not_a_store(self, fails, tmp_path, command):
        said = fails(4, *command.split(), tmp_path)
        assert said.startswith(f"{tmp_path} is no feature store")

    @pytest.mark.parametrize("command", [*READERS, "rm", "zeroshot"])
    def test_a_newer_format(self, fails, path, command):
        marker = json.loads((path / "clipsyn.json").read_bytes())
        (path / "clipsyn.json").write_text(json.dumps(marker | {"format": "7.2"}))
        said = fails(4, *command.split(), path)
        assert "has format 7.2" in said
        assert "pip install --upgrade clipsyn" in said

    @pytest.mark.parametrize("command", READERS)
    def test_the_store_from_the_environment_is_read_alone(self, clipsyn, path, command):
        before = {file: file.stat().st_mtime_ns for file in path.rglob("*")}
        named = clipsyn(*command.split(), path)
        assert named.exit_code == 0
        assert clipsyn(*command.split(), env={"CLIPSYN_STORE": str(path)}).stdout == named.stdout
        assert {file: file.stat().st_mtime_ns for file in path.rglob("*")} == before


class TestLs:
    def test_a_line_for_each_dataset_split_and_perturbation(self, clipsyn, path):
        header, _, *rows, last = clipsyn("ls", path).stdout.splitlines()
        assert header.split()[:5] == ["dataset", "split", "perturbation", "images", "bad"]
        assert [row.split()[:7] for row in rows] == [
            ["toy", "test", "clean", "20", "0", "2", "simple"],
            ["toy", "test", "jpeg-3", "20", "0", "2", "simple"],
            ["toy", "train", "clean", "11", "0", "2", "simple"],
            ["toy", "train", "jpeg-3", "11", "0", "2", "simple"],
        ]
        assert last == "cells: 8; backbones: fake/one, fake/two"

    def test_filters_choose_cells(self, clipsyn, fails, path):
        _, _, *rows, last = clipsyn(
            "ls", path, "-s", "test", "-b", "*/one", "-p", "clean"
        ).stdout.splitlines()
        assert [row.split()[:6] for row in rows] == [["toy", "test", "clean", "20", "0", "1"]]
        assert last == "cells: 1; backbones: fake/one"
        fails(2, "ls", path, "-d", "toi")
        fails(2, "ls", path, "-d", "toy", "--status")

    def test_json_has_every_cell(self, clipsyn, path, tiny_store):
        rows = json.loads(clipsyn("ls", path, "-o", "-").stdout)
        keys = tiny_store.keys()
        assert [(r["dataset"], r["split"], r["perturbation"], r["backbone"]) for r in rows] == [
            (key.dataset, key.split, key.perturbation, key.backbone) for key in keys
        ]
        assert [row["fingerprint"] for row in rows] == [
            tiny_store.cell(k).fingerprint() for k in keys
        ]
        places = ("features/*/*/*/*/", "logits/*/*/*/*/*/", "predictions/*/*/*/*/*/")
        cells = [cell for place in places for cell in path.glob(place)]
        files = [file for cell in cells for file in cell.rglob("*") if file.is_file()]
        assert sum(row["bytes"] for row in rows) == sum(file.stat().st_size for file in files)

    def test_copies_are_listed_exact_and_near(self, clipsyn, tmp_path, fakes):
        class Copies(fakes.Source):
            def _pixels(self, index):
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


def states(clipsyn, path):
    """What `ls --status` lists, by state: number of groups, by what they are."""
    found: dict[str, dict[str, Any]] = {}
    for row in json.loads(clipsyn("ls", "--status", path, "-o", "-").stdout):
        found.setdefault(row["state"], {})[row["what"]] = row["groups"]
    return found


KINDS = ("samples", "captions", "classes", "texts", "features", "logits", "predictions")


class TestStatus:
    def test_everything_finished(self, clipsyn, path):
        assert states(clipsyn, path) == {
            "finished": dict(zip(KINDS, (2, 0, 2, 0, 8, 4, 4), strict=True))
        }

    def test_what_an_interruption_left(self, clipsyn, interrupted):
        (interrupted / ".wip" / "new-abc").mkdir()
        found = states(clipsyn, interrupted)
        assert [*found["unfinished"]] == ["features/toy/test/clean/fake--one, 1 of 3 blocks done"]
        assert len(found["left over"]) == 1
        assert f"`clipsyn gc {interrupted}`" in clipsyn("ls", "--status", interrupted).stdout


class TestVerify:
    def test_a_flipped_bit_and_a_missing_chunk_are_named(self, clipsyn, path, tiny_store, fakes):
        cell = tiny_store.at("features", *fakes.key.names)
        chunk = cell / "image_embedding" / "c.1.0"
        content = bytearray(chunk.read_bytes())
        content[5] ^= 4
        chunk.write_bytes(content)
        (tiny_store.at("logits", *fakes.key.names, "simple") / "prediction" / "c.2").unlink()
        result = clipsyn("verify", path)
        assert result.exit_code == 4
        flipped, missing = result.stdout.splitlines()
        assert flipped.startswith("features/toy/test/clean/fake--one: block 1 (rows 7-13)")
        assert missing.startswith("logits/toy/test/clean/fake--one/simple: block 2 (rows 14-19)")
        assert "2 in all" in result.stderr
        assert f"`clipsyn rm {path}" in result.stderr


class TestRm:
    def test_it_lists_and_asks(self, clipsyn, path, tiny_store, fakes):
        before = fakes.contents(path)
        options = ("rm", path, "--backbones", "fake/two", "--perturb", "jpeg-3")
        result = clipsyn(*options, input="n\n")
        assert result.exit_code == 1
        assert {*result.stdout.splitlines()} > {
            "features/toy/test/jpeg-3/fake--two",
            "features/toy/train/jpeg-3/fake--two",
        }
        assert f"Remove 4 groups from {path}? [y/N]" in result.output
        assert fakes.contents(path) == before
        assert clipsyn(*options, input="y\n").exit_code == 0
        assert len(tiny_store.keys()) == 6
        assert not tiny_store.keys(backbone=["fake/two"], perturbation=["jpeg-3"])

    def test_a_backbone_or_dataset_goes_with_all_that_was_made_with_it(self, clipsyn, path):
        assert clipsyn("rm", path, "-b", "fake/one", "-y").exit_code == 0
        groups = [file.parent for file in path.rglob("*/zarr.json") if "fake--one" in str(file)]
        assert not [group for group in groups if list(group.glob("*/c.*"))]
        left = dict(zip(KINDS, (2, 0, 1, 0, 4, 2, 2), strict=True))
        assert states(clipsyn, path)["finished"] == left
        assert clipsyn("verify", path).exit_code == 0
        clipsyn("rm", path, "-d", "toy", "-y")
        assert states(clipsyn, path)["finished"] == dict.fromkeys(KINDS, 0)


# `clipsyn gc`: what it lists, what it leaves, what it removes


@pytest.fixture
def killed(tmp_path, fakes):
    """A store of which a job has left a draft and a file."""
    path = fakes.fill_some(tmp_path / "store", 1).path
    (path / ".wip" / "zarr.json.0a.partial").write_bytes(bytes(10))
    return path


@pytest.fixture
def later(monkeypatch):
    """Function (seconds): so much time has passed."""
    now = time.time()

    def wait(seconds):
        monkeypatch.setattr(inventory.time, "time", lambda: now + seconds)

    return wait


def test_it_lists_and_asks(clipsyn, killed, later, fakes):
    before = fakes.contents(killed)
    later(3 * 86_400 + 60)
    result = clipsyn("gc", killed, input="n\n")
    assert result.exit_code == 1
    draft, partial, *_ = result.stdout.splitlines()
    assert draft.startswith("features/toy/test/clean/fake--one, 1 of 3 blocks done: 0.0 MB")
    assert draft.endswith("72.0 hours ago")
    assert partial.startswith(".wip/zarr.json.0a.partial")
    assert len(fakes.draft_folders(killed)) == 2
    assert "removed 2 of 2 unfinished groups" in clipsyn("gc", killed, input="y\n").stdout
    assert fakes.draft_folders(killed) == []
    assert fakes.contents(killed) == before
    assert clipsyn("gc", killed).stdout == f"nothing to remove from {killed}\n"


def test_what_a_job_may_still_write_to_stays(clipsyn, fails, killed, later, fakes):
    later(86_000)
    assert clipsyn("gc", killed, "-y").stdout.splitlines()[-1] == f"nothing to remove from {killed}"
    assert len(fakes.draft_folders(killed)) == 2
    for age in ("-1", "1d"):
        fails(2, "gc", killed, f"--older-than={age}")
    assert clipsyn("gc", killed, "-y", "--older-than", "23.5").exit_code == 0
    assert fakes.draft_folders(killed) == []


@pytest.fixture
def published(tiny_store, tmp_path):
    """A folder to which one backbone was pushed; the push of another was killed."""
    place = tmp_path / "published"
    push(tiny_store, place, {"backbone": ["fake/two"]})
    part = (place / "index/toy/groups.json.gz").read_bytes()
    push(tiny_store, place)
    (place / "index/toy/groups.json.gz").write_bytes(part)
    return place


def test_what_a_killed_push_has_sent(clipsyn, published, later):
    url = published.as_uri()
    count = len(list(published.glob("*/**/fake--one/**/zarr.json")))
    assert "nothing to remove" in clipsyn("gc", url, "-y").stdout
    later(2 * 86_400 + 60)
    assert f"Remove {count} unfinished" in clipsyn("gc", published, input="n\n").output
    assert f"removed {count} of {count} unfinished" in clipsyn("gc", url, "-y").stdout
    assert not [file for file in published.glob("*/**/fake--one/**/*") if file.is_file()]
    assert clipsyn("verify", url).exit_code == 0


def test_a_first_push_to_a_folder_that_was_killed(clipsyn, fails, published):
    """It has no index yet: so it must be named by its URL, lest others' files go."""
    (published / "index.json.gz").unlink()
    (published / "index/toy/groups.json.gz").unlink()
    assert "holds something else than a feature store" in fails(4, "gc", published)
    assert clipsyn("gc", published.as_uri(), "-y", "--older-than", "0").exit_code == 0
    assert [path.name for path in published.rglob("*") if path.is_file()] == ["probe.json"]
