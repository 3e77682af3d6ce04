"""`clipsyn.store.files`: what is opened in a store is a regular file of a size that is known."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from clipsyn.cli import main
from clipsyn.errors import DamagedStore, StoreError
from clipsyn.store import files
from clipsyn.store.features import FeatureStore

CELL = "features/toy/test/clean/fake--one"
LABEL = "samples/toy/test/label"


def link(path: Path) -> None:
    """To what was there: the content is right, and still it may be any file of the machine."""
    path.rename(aside := path.with_name(f"{path.name}-aside"))
    path.symlink_to(aside.name)


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def endless(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def listening(path: Path) -> None:
    path.unlink()
    os.mknod(path, stat.S_IFSOCK | 0o600)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def sparse(path: Path) -> None:
    os.truncate(path, 1 << 40)


INSTEAD: list[Callable[[Path], None]] = [link, pipe, endless, listening, folder, sparse]


@pytest.mark.parametrize("instead", INSTEAD)
def test_what_is_no_file_of_that_size_is_not_read(
    tmp_path: Path, instead: Callable[[Path], None]
) -> None:
    file = tmp_path / "zarr.json"
    file.write_text("{}")
    assert files.read_file(file) == b"{}"
    instead(file)
    with pytest.raises(DamagedStore):
        files.read_file(file)
    with pytest.raises(DamagedStore):
        files.copy_file(file, tmp_path / "copy", 9)


@pytest.mark.parametrize("instead", [link, pipe])
@pytest.mark.parametrize(
    "file", ["clipsyn.json", f"{CELL}/zarr.json", f"{LABEL}/zarr.json", f"{LABEL}/c.0"]
)
def test_readers_refuse_it_in_a_store(
    tiny_store: FeatureStore, file: str, instead: Callable[[Path], None]
) -> None:
    instead(tiny_store.path / file)
    for command in ("verify", "zeroshot", "ls"):
        result = CliRunner().invoke(main, [command, str(tiny_store.path)])
        if command != "ls" or not file.startswith(LABEL):  # of which it reads nothing
            assert result.exit_code == 4, (command, result.output)
            assert isinstance(result.exception, SystemExit)


def test_a_store_may_be_named_by_a_link(tiny_store: FeatureStore, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tiny_store.path)
    assert FeatureStore.open(tmp_path / "link").pool("toy", "test")


def test_a_missing_file_is_told_from_one_that_may_not_be_read(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        files.read_file(tmp_path / "nowhere")
    (tmp_path / "file").touch(0o000)
    if os.geteuid():
        with pytest.raises(StoreError):
            files.read_file(tmp_path / "file")


@pytest.mark.parametrize("where", ["features", "features/toy/test", CELL, f"{CELL}/valid"])
def test_a_folder_that_is_a_link_is_damage(tiny_store: FeatureStore, where: str) -> None:
    link(tiny_store.path / where)
    for command in ("verify", "zeroshot"):
        result = CliRunner().invoke(main, [command, str(tiny_store.path), "-o", "-"])
        assert result.exit_code == 4 or (command == "zeroshot" and where.endswith("valid"))
        assert isinstance(result.exception, SystemExit | None)
