"""`clipsyn push` and `pull` as their users call them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from clipsyn.store.features import FeatureStore
from clipsyn.store.inventory import find_groups


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPSYN_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def path(tiny_store: FeatureStore) -> Path:
    return tiny_store.path


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "published"


def lines(result: Any) -> list[str]:
    found: list[str] = result.stdout.splitlines()
    return found


def test_push_says_the_size_first_and_pull_brings_it_back(clipsyn, path, place, tmp_path, fakes):
    said = lines(clipsyn("push", path, place))
    groups = find_groups(FeatureStore.open(path), {})
    size = f"{sum(group.bytes for group in groups) / 1e6:,.1f} MB"
    shown = place.as_uri()
    assert said[0] == f"{len(groups)} groups to push to {shown}, {size}; none is there yet"
    assert said[1] == f"pushed: `clipsyn ls {shown}` shows what is there"
    back = tmp_path / "back"
    said = lines(clipsyn("pull", shown, back))
    assert said[0] == f"{len(groups)} groups to pull from {shown}, {size}; none is there yet"
    assert said[1] == f"pulled: `clipsyn ls {back}` shows what is there"
    assert fakes.unlike(path, back) == []
    assert clipsyn("verify", back).exit_code == 0


def test_again_there_is_nothing_to_do(clipsyn, path, place, tmp_path):
    for command in (("push", path, place), ("pull", place, tmp_path / "back")):
        clipsyn(*command)
        said = lines(clipsyn(*command))
        count = len(find_groups(FeatureStore.open(path), {}))
        assert len(said) == 1
        assert re.fullmatch(f"nothing to .*: {count} are there already", said[0])


def test_dry_run_says_what_is_copied_and_does_nothing(clipsyn, path, place, tmp_path, read_table):
    clipsyn("push", path, place, "-b", "fake/one", "-p", "clean", "-s", "test")
    published = (place / "index.json.gz").read_bytes()
    push = ("push", path, place, "-s", "test")
    pull = ("pull", place, tmp_path / "back")
    for command, counts in (
        (push, [(1, 1), (0, 1), (2, 2), (4, 0)]),
        (pull, [(1, 0)] * 2 + [(2, 0)]),
    ):
        said = clipsyn(*command, "--dry-run").stdout
        table = read_table(said)
        shown = list(zip(table.column("groups"), table.column("there"), strict=True))
        assert shown == [(str(groups), str(there)) for groups, there in counts]
        total = sum(groups for groups, _ in counts)
        assert said.splitlines()[-1].startswith(f"{total} groups to {command[0]} ")
    assert (place / "index.json.gz").read_bytes() == published
    assert not (tmp_path / "back").exists()


def test_the_card_is_of_all_that_is_published(clipsyn, path, place, tmp_path, fakes):
    clipsyn("push", path, place, "-b", "fake/one")
    card = (place / "README.md").read_text()
    assert "4 cells over 31 images" in card
    assert f"clipsyn ls {place.as_uri()}" in card
    clipsyn("push", path, place)
    assert "8 cells over 31 images" in (place / "README.md").read_text()
    more = fakes.fill(tmp_path / "more", [fakes.Encoder("fake/three")]).path
    clipsyn("push", more, place)
    assert "9 cells over 31 images" in (place / "README.md").read_text()


@pytest.fixture
def other(tmp_path: Path, fakes: Any) -> Path:
    """A store in which a backbone of a known name has other weights."""
    path: Path = fakes.fill(tmp_path / "other", [fakes.Encoder(weights="other")]).path
    return path


def test_other_content_needs_a_flag(clipsyn, fails, path, place, other):
    clipsyn("push", path, place)
    said = fails(4, "push", other, place)
    assert "(backbone.weights)" in said
    assert "add --replace to put yours in its place" in said
    assert "as with --backbones" in said
    result = clipsyn("push", other, place, "--replace")
    assert "other content of 3 of them is replaced" in result.stdout
    assert lines(clipsyn("push", other, place))[0].startswith("nothing to push")
    said = fails(4, "pull", place, path)
    assert "other content than at" in said
    (line,) = re.findall("`clipsyn (rm [^`]*)`", said)
    assert line == f"rm {path} -d toy --prompts simple -b fake/one"
    assert clipsyn(*line.split(), "-y").exit_code == 0


def test_damage_at_a_url_is_mended_by_the_push_that_verify_advises(clipsyn, fails, path, place):
    clipsyn("push", path, place)
    chunk = next(place.glob("features/**/image_embedding/c.0.0"))
    chunk.write_bytes(b"cut")
    assert f"`clipsyn push STORE {place.as_uri()}`" in fails(4, "verify", place.as_uri())
    assert "1 of them are published damaged" in clipsyn("push", path, place).stdout
    assert clipsyn("verify", place.as_uri()).exit_code == 0


@pytest.mark.parametrize(
    "command", [("push", "s3://lab/clip", "store"), ("pull", "store", "s3://lab/clip")]
)
def test_arguments_in_the_other_order(fails: Any, command: tuple[str, ...]) -> None:
    said = fails(2, *command)
    assert said.startswith("s3://lab/clip stands where a folder is wanted")


def test_a_destination_that_can_only_be_read(fails: Any, path: Path) -> None:
    said = fails(2, "push", path, "https://name:secret@lab.org/clip")
    assert said.startswith("https://lab.org/clip can only be read")


def test_unknown_names_have_near_matches(fails: Any, clipsyn: Any, path: Path, place: Path) -> None:
    assert "fake/two?" in fails(2, "push", path, place, "-b", "fake/tow")
    clipsyn("push", path, place)
    assert "known: toy" in fails(2, "pull", place, path, "-d", "yot")


def test_nothing_is_published_there(fails: Any, tmp_path: Path) -> None:
    said = fails(4, "pull", tmp_path / "nowhere", tmp_path / "back")
    assert said.startswith(f"there is no published store at {(tmp_path / 'nowhere').as_uri()}")


@pytest.mark.parametrize(
    ("command", "kept"), [("push", "files that were sent"), ("pull", "files that were copied")]
)
def test_an_interruption_says_what_is_kept(fails, path, monkeypatch, command, kept):
    from clipsyn.remote.pull import Pull
    from clipsyn.remote.push import Push

    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Push, "plan", interrupt)
    monkeypatch.setattr(Pull, "plan", interrupt)
    said = fails(130, command, path if command == "push" else path.as_uri(), path)
    assert said == f"interrupted; {kept} are kept, run the same command again"
