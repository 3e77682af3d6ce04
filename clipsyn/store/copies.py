"""Published groups of another store on their way to the same place in this one.

A copy is made under `.wip`, compared chunk by chunk with the list of its group, and renamed into
place. One that was interrupted goes on with the files that are there. Several processes may make
the same copy: a file appears when it is whole, and the first to finish wins.
"""

from __future__ import annotations

import errno
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from clipsyn.errors import DamagedStore, StaleCell, StoreError
from clipsyn.names import differences, fingerprint
from clipsyn.store import arrays, files
from clipsyn.store.drafts import (
    WIP,
    begin,
    describe_changes,
    discard,
    make_groups,
    read_fingerprint,
)
from clipsyn.store.groups import Group, replaced_meanwhile
from clipsyn.text import advised

_LOOKS = 3
_PAUSE = 0.05  # seconds: labels that are being corrected fit their list a moment later
_NO_LINK = (  # why a file may only be copied: another file system or owner, no links, too many
    errno.EXDEV,
    errno.EPERM,
    errno.EACCES,
    errno.EOPNOTSUPP,
    errno.EMLINK,
)


@dataclass(frozen=True)
class GroupCopy:
    """A group of another store, which `publish` brings into `store`.

    link: files get a second name instead of being copied, where the file system can do it. Of such
    a file only the checksum at its end is read.
    """

    source: Group
    store: Path
    link: bool = False

    @property
    def target(self) -> Path:
        return self.store / self.source.name

    @property
    def _folder(self) -> Path:
        """The same for all who make this copy."""
        of = {"copy of": self.source.attributes, "at": self.source.name}
        return self.store / WIP / fingerprint(of)[:20]

    @property
    def _group(self) -> Path:
        return self._folder / "group"

    @property
    def _arrays(self) -> list[str]:
        """The names of its arrays, the largest last."""
        return list(self.source.arrays)[::-1]

    def publish(self) -> None:
        """Copy what is missing, compare all of it, and rename it into place.

        Raises DamagedStore or StaleCell where the source is not, or no longer, what it was said to
        be, and StaleCell where other content has come to the place meanwhile.
        """
        with files.writing(self.store):
            for _ in range(_LOOKS):
                try:
                    self._fill()
                    self._move_in()
                    break
                except FileNotFoundError:  # taken away
                    if self._is_there():  # by a faster process
                        break
            else:
                raise StoreError(
                    f"what was being copied of {self.source.name} into {self.store} vanishes again "
                    "and again: run the same command again when `clipsyn gc` does not run"
                )
        shutil.rmtree(self._folder, ignore_errors=True)

    def _is_there(self) -> bool:
        try:
            return bool(read_fingerprint(self.target) == self.source["fingerprint"])
        except DamagedStore:
            return False

    def _fill(self) -> None:
        """Make the copy whole; from the start if something in it is not as it was written."""
        for _ in range(_LOOKS):
            begin(self.store, self._folder, self.target, self._make_folders)
            self._bring_all()
            if self._is_sound():
                return
            discard(self.store, self._folder)
            time.sleep(_PAUSE)
        raise self._fault()

    def _make_folders(self, group: Path) -> None:
        """All folders of a copy, and what says of its arrays how large they are."""
        for name in self._arrays:
            (group / name).mkdir(parents=True)
            self._bring(Path(name, arrays.METADATA), group)

    def _bring_all(self) -> None:
        for name in self._arrays:
            listed = self.source.arrays[name]
            for number, file in enumerate(listed.files()):
                self._bring(Path(name, file), self._group, listed.file_bytes)
                if name == self._arrays[-1]:
                    (self._folder / "done" / str(number)).touch()
        self._bring(Path(arrays.METADATA), self._group)

    def _bring(self, file: Path, group: Path, most: int = files.MOST_METADATA) -> None:
        """Give a copy one file, unless it has it."""
        source, path = self.source.path / file, group / file
        if files.exists(path):
            return
        try:
            if not (self.link and _linked(source, path)):
                files.copy_file(source, path, group.parent, most)
        except FileNotFoundError:
            if files.exists(source):
                raise
            raise self._fault() from None

    def _is_sound(self) -> bool:
        try:
            if arrays.read_attributes(self._group) != self.source.attributes:
                return False
            return all(map(self._is_sound_array, self._arrays))
        except DamagedStore:
            return False

    def _is_sound_array(self, name: str) -> bool:
        path, listed = self._group / name, self.source.arrays[name]
        if self.link:
            return arrays.listing(path) == listed
        return not arrays.damage(path, listed)

    def _fault(self) -> StoreError:
        """The error for a source that is not what it was said to be."""
        name, store = self.source.name, self.source.store
        try:
            if arrays.read_attributes(self.source.path) != self.source.attributes:
                return replaced_meanwhile(store, name)
        except DamagedStore:
            return replaced_meanwhile(store, name)
        return DamagedStore(
            f"{name} in {store} is not as it was written: `{advised('verify', store)}` says what "
            "is damaged, and how to make it again"
        )

    def _move_in(self) -> None:
        _sync(self._group, files_too=not self.link)
        make_groups(self.store, self.target.parent)
        if not files.rename_unless_taken(self._group, self.target):
            there = arrays.read_attributes(self.target)["identity"]
            if changes := list(differences(there, self.source["identity"])):
                raise StaleCell(
                    f"{self.source.name} has come into {self.store} from something else meanwhile "
                    f"({describe_changes(changes)}): run the same command again",
                    tuple(name for name, _, _ in changes),
                )
        files.sync(self.target.parent)


def _linked(source: Path, path: Path) -> bool:
    """Give a file a second name; False where that cannot be."""
    try:
        os.link(source, path)
    except FileExistsError:
        return True
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        return False
    return True


def _sync(folder: Path, *, files_too: bool) -> None:
    """Make a folder survive a power cut; linked files have been synced when they were written."""
    for entry in files.entries(folder):
        if entry.is_dir():
            _sync(Path(entry), files_too=files_too)
        elif files_too:
            files.sync(Path(entry))
    files.sync(folder)
