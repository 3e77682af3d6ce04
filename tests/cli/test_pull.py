"""`clipsyn pull` from stores in folders: what it says, and how it ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def alice(tmp_path: Path, fakes: Any) -> Path:
    return fakes.fill(tmp_path / "alice", perturbations=("clean", "jpeg:3")).path


@pytest.fixture
def bob(tmp_path: Path, fakes: Any) -> Path:
    return fakes.fill(tmp_path / "bob", [fakes.Encoder(), fakes.Encoder("fake/two")]).path


def test_it_says_what_each_store_adds(clipsyn, alice, bob, tmp_path, fakes):
    lab = tmp_path / "lab"
    result = clipsyn("pull", alice, bob, lab)
    assert result.exit_code == 0
    first, second, last = result.stdout.splitlines()
    assert first.startswith(
        f"{alice}: sample tables 1, class embeddings 1, image embeddings 2, logits 1, predictions "
        "without logits 1 ("
    )
    assert first.endswith(" MB); 0 groups are there already")
    assert second.startswith(f"{bob}: class embeddings 1, image embeddings 1, logits 1 (")
    assert second.endswith("; 4 groups are there already")
    assert last == f"added 9 groups to {lab}"
    assert "cells: 3; backbones: fake/one, fake/two" in clipsyn("ls", lab).stdout
    assert clipsyn("verify", lab, "--deep").exit_code == 0
    again = clipsyn("pull", bob, lab)
    assert again.stdout == f"{bob}: nothing new; 7 groups are there already\n"


def test_a_dry_run_lists_the_groups_and_writes_nothing(clipsyn, alice, bob, fakes):
    before = fakes.contents(alice)
    _, *groups = clipsyn("pull", bob, alice, "--dry-run").stdout.splitlines()
    assert groups == [
        "classes/toy/simple/fake--two",
        "features/toy/test/clean/fake--two",
        "logits/toy/test/clean/fake--two/simple",
    ]
    assert fakes.contents(alice) == before


def test_filters_choose_what_comes_along(clipsyn: Any, fails: Any, alice: Path, bob: Path) -> None:
    lab = alice.parent / "lab"
    clipsyn("pull", alice, bob, lab, "-b", "*/two", "-p", "clean")
    assert clipsyn("ls", lab).stdout.splitlines()[-1] == "cells: 1; backbones: fake/two"
    assert clipsyn("verify", lab, "--deep").exit_code == 0
    said = fails(2, "pull", alice, lab, "-b", "fake/two")
    assert f"unknown backbone 'fake/two': did you mean fake/one? `clipsyn ls {alice}`" in said
    said = fails(4, "pull", alice, bob, lab, "-b", "fake/two", "-p", "jpeg:3")
    assert "nothing in STORE matches" in said


def test_linked_files_are_the_same_files(clipsyn: Any, alice: Path, tmp_path: Path) -> None:
    assert clipsyn("pull", alice, tmp_path / "lab", "--link").exit_code == 0
    for chunk in alice.rglob("c.*"):
        assert chunk.samefile(tmp_path / "lab" / chunk.relative_to(alice))


def test_every_conflict_is_named_and_nothing_is_merged(clipsyn, fails, alice, tmp_path, fakes):
    other = fakes.fill(tmp_path / "other", [fakes.Encoder(weights="x")]).path
    said = fails(4, "pull", alice, other, tmp_path / "lab")
    assert said.startswith(f"nothing was merged into {tmp_path / 'lab'}: classes/toy/simple/fake--")
    assert "(backbone.weights: " in said
    assert "(and 2 more); give one of the two another name" in said
    assert not (tmp_path / "lab").exists()
    listed = clipsyn("pull", alice, other, tmp_path / "lab").stdout.splitlines()
    assert [line.split(" is made")[0] for line in listed] == [
        "classes/toy/simple/fake--one",
        "features/toy/test/clean/fake--one",
        "logits/toy/test/clean/fake--one/simple",
    ]


def test_what_cannot_be(fails: Any, clipsyn: Any, alice: Path, tmp_path: Path) -> None:
    assert "Missing argument 'SOURCES...'" in fails(2, "pull", alice)
    assert "cannot be merged into itself" in fails(2, "pull", alice, alice)
    assert "there is no published store at" in fails(4, "pull", tmp_path / "absent", alice)
