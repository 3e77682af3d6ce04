"""A published group of another store comes to the same place in this one.

A copy is made under `.wip`, compared chunk by chunk with the list of its group, and renamed into
place: the first of several processes wins. One that was interrupted is left to `clipsyn gc`.
"""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from clipsyn.errors import DamagedStore, StaleCell, StoreError
from clipsyn.names import differences
from clipsyn.store import arrays, files
from clipsyn.store.drafts import describe_changes, make_groups, new_folder
from clipsyn.store.groups import Group, replaced_meanwhile
from clipsyn.text import advised

_NO_LINK = (  # why a file may only be copied: another file system or owner, no links, too many
    errno.EXDEV,
    errno.EPERM,
    errno.EACCES,
    errno.EOPNOTSUPP,
    errno.EMLINK,
)


def copy_group(group: Group, store: Path, *, link: bool = False) -> None:
    """Copy a group of another store, unless it has come to its place meanwhile.

    link: files get a second name instead of being copied, where the file system can do it. Of such
    a file only the checksum at its end is read. Raises DamagedStore or StaleCell where the group is
    not, or no longer, what it was said to be, and StaleCell where other content is at the place.
    """
    target = store / group.name
    with files.writing(store):
        copy = new_folder(store)
        try:
            with files.locked(group.path, shared=True):  # labels may be being corrected
                _fill(copy, group, link)
            make_groups(store, target.parent)
            if not files.rename_unless_taken(copy, target):
                _check_same(group, target)
            files.sync(target.parent)
        except FileNotFoundError as error:
            raise StoreError(
                f"what was being copied of {group.name} into {store} is gone, as `clipsyn gc` does "
                "it: run the same command again"
            ) from error
        finally:
            shutil.rmtree(copy, ignore_errors=True)


def _fill(copy: Path, group: Group, link: bool) -> None:
    """Raise for a group that is not, or no longer, as it was written."""
    sizes = {arrays.METADATA: files.MOST_METADATA}  # the most that each file has
    for name, listed in group.arrays.items():
        (copy / name).mkdir()
        sizes[f"{name}/{arrays.METADATA}"] = files.MOST_METADATA
        sizes |= {f"{name}/{file}": listed.file_bytes for file in listed.files()}
    try:
        for file, most in sizes.items():
            if not (link and _linked(group.path / file, copy / file)):
                files.copy_file(group.path / file, copy / file, most)
        is_same = arrays.read_attributes(copy) == group.attributes
    except (FileNotFoundError, DamagedStore):
        if files.exists(copy):
            raise _fault(group) from None
        raise
    if not (is_same and all(_is_sound(copy / name, group, name, link) for name in group.arrays)):
        raise _fault(group)
    _sync(copy, files_too=not link)


def _linked(source: Path, path: Path) -> bool:
    """Give a file a second name; False where that cannot be."""
    try:
        os.link(source, path)
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        return False
    return True


def _is_sound(path: Path, group: Group, name: str, link: bool) -> bool:
    listed = group.arrays[name]
    try:
        return arrays.listing(path) == listed if link else not arrays.damage(path, listed)
    except DamagedStore:
        return False


def _fault(group: Group) -> StoreError:
    """The error for a group that is not what it was said to be."""
    try:
        if arrays.read_attributes(group.path) != group.attributes:
            return replaced_meanwhile(group.store, group.name)
    except DamagedStore:
        return replaced_meanwhile(group.store, group.name)
    return DamagedStore(
        f"{group.name} in {group.store} is not as it was written: "
        f"`{advised('verify', group.store)}` says what is damaged, and how to make it again"
    )


def _check_same(group: Group, target: Path) -> None:
    """Raise StaleCell unless what came to the place meanwhile was made from the same."""
    there = arrays.read_attributes(target)["identity"]
    if changes := list(differences(there, group["identity"])):
        raise StaleCell(
            f"{target} has come from something else meanwhile ({describe_changes(changes)}): run "
            "the same command again",
            tuple(name for name, _, _ in changes),
        )


def _sync(folder: Path, *, files_too: bool) -> None:
    """Make a folder survive a power cut; linked files have been synced when they were written."""
    for entry in files.entries(folder):
        if entry.is_dir():
            _sync(Path(entry), files_too=files_too)
        elif files_too:
            files.sync(Path(entry))
    files.sync(folder)
