"""How entries get into an index that others write, too."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from clipsyn.errors import StaleCell, StoreError
from clipsyn.remote import index
from clipsyn.remote.index import (
    INDEX,
    Entry,
    Index,
    add_to_index,
    check_conditions,
    dump_part,
    parse_part,
    part_path,
)
from clipsyn.remote.transport import Changed, MissingObject

MARKER = {"format": "2.0", "store_id": "ab" * 16, "chunk_rows": 8}
PETS = part_path("pets")


class FakeRemote:
    """A bucket in memory; before each write of a part `others` may write theirs."""

    shown = "s3://lab/clip"

    def __init__(self, *entries: Entry) -> None:
        self.objects: dict[str, bytes] = {}
        self.written: list[str] = []  # a path for each write
        self.others: list[list[Entry]] = []
        self.lost = False
        if entries:
            self._write(PETS, dump_part(entries))
            self._write(INDEX, Index(MARKER, ["pets"]).dumps())

    def get(self, path: str, most: int = 0) -> tuple[bytes, str | None]:
        if path not in self.objects:
            raise MissingObject(path)
        return self.objects[path], self._etag(path)

    def put_if(self, path: str, data: bytes, etag: str | None) -> None:
        if self.others and path == PETS:
            new = {it.place: it for it in self.others.pop(0)}
            self._write(PETS, dump_part({**self.part(), **new}.values()))
        if etag != self._etag(path):
            raise Changed(path)
        self._write(path, data)
        if self.lost:
            self.lost = False
            raise Changed(path)

    def list(self, folder: str) -> list[str]:
        return [path for path in self.objects if path.startswith(f"{folder}/")]

    def part(self, dataset: str = "pets") -> dict[tuple[str, ...], Entry]:
        return parse_part(self.objects.get(part_path(dataset)), self.shown, dataset)

    @property
    def index(self) -> Index:
        return Index.parse(self.objects[INDEX], self.shown)

    def _etag(self, path: str) -> str | None:
        return str(self.written.count(path)) if path in self.objects else None

    def _write(self, path: str, data: bytes) -> None:
        self.written.append(path)
        self.objects[path] = data
        if INDEX in self.objects:  # at every moment
            assert all(part_path(it) in self.objects for it in self.index.datasets)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index.time, "sleep", lambda seconds: None)


def entry(name: str, content: str = "a", manifest: str = "0", dataset: str = "pets") -> Entry:
    place = ("samples", dataset, name)
    return Entry(place, manifest * 64, 5, "1" * 64, content * 64)


def add(remote: FakeRemote, *entries: Entry, gone: Sequence[Entry] = ()) -> None:
    making_way = [entry.manifest for entry in gone]
    add_to_index(remote, MARKER, entries, making_way)  # type: ignore[arg-type]


def there(remote: FakeRemote, dataset: str = "pets") -> dict[str, Entry]:
    return {place[2]: entry for place, entry in remote.part(dataset).items()}


def test_the_first_makes_the_index() -> None:
    remote = FakeRemote()
    add(remote, entry("one"), entry("two"), entry("three", dataset="cars"))
    assert set(there(remote)) == {"one", "two"}
    assert set(there(remote, "cars")) == {"three"}
    assert remote.index == Index(MARKER, ["cars", "pets"])


def test_a_part_alone_is_written_where_its_dataset_is_known() -> None:
    remote = FakeRemote(entry("zero"))
    before = remote.objects[INDEX]
    add(remote, entry("cars", dataset="cars"))
    named = remote.objects[INDEX], remote.objects[part_path("cars")]
    remote.written.clear()
    add(remote, entry("one"))
    assert remote.written == [PETS]
    assert (remote.objects[INDEX], remote.objects[part_path("cars")]) == named != (before, before)


def test_what_was_killed_before_its_dataset_was_named_is_named_by_the_next() -> None:
    remote = FakeRemote()
    add(remote, entry("zero", dataset="cars"))
    del remote.objects[INDEX]
    add(remote, entry("one"))
    assert remote.index.datasets == ["cars", "pets"]


def test_two_who_name_datasets_at_once_lose_none() -> None:
    """The other one writes between the look and the write."""
    remote = FakeRemote(entry("zero"))
    put_if = remote.put_if

    def late(path: str, data: bytes, etag: str | None) -> None:
        if path == INDEX:
            remote.put_if = put_if  # type: ignore[method-assign]
            add(remote, entry("late", dataset="late"))
        put_if(path, data, etag)

    remote.put_if = late  # type: ignore[method-assign]
    add(remote, entry("cars", dataset="cars"))
    assert remote.index.datasets == ["cars", "late", "pets"]


@pytest.mark.parametrize("first", [[], [entry("zero")]])
def test_what_others_write_meanwhile_stays(first: list[Entry]) -> None:
    remote = FakeRemote(*first)
    remote.others = [[entry("others")], [entry("more")], [entry("last")]]
    add(remote, entry("one"))
    assert set(there(remote)) == {entry.place[2] for entry in first} | {
        "others",
        "more",
        "last",
        "one",
    }


def test_of_equal_content_the_first_stays() -> None:
    """They were made at other times, so their manifests differ."""
    remote = FakeRemote()
    remote.others = [[entry("one", manifest="1")]]
    add(remote, entry("one", manifest="2"))
    assert there(remote)["one"].manifest == "1" * 64
    assert remote.written.count(PETS) == 1  # not written again


def test_other_content_that_comes_meanwhile_is_refused() -> None:
    remote = FakeRemote()
    remote.others = [[entry("one", content="b")]]
    with pytest.raises(StaleCell, match="samples/pets/one in s3://lab/clip was published"):
        add(remote, entry("one"), entry("two"))
    assert set(there(remote)) == {"one"}


def test_what_was_seen_makes_way() -> None:
    old = entry("one", content="b", manifest="3")
    remote = FakeRemote(old, entry("two"))
    add(remote, entry("one"), entry("two"), gone=[old])
    assert there(remote)["one"] == entry("one")


def test_what_makes_way_is_known_where_the_answer_was_lost() -> None:
    """The write has happened, and the second look finds nothing to do."""
    old = entry("one", content="b", manifest="3")
    remote = FakeRemote(old)
    remote.lost = True
    add(remote, entry("one"), gone=[old])
    assert there(remote)["one"] == entry("one")
    assert remote.written.count(PETS) == 2


class Careless(FakeRemote):
    """Heeds not all conditions of a write; `refuses` are the ETags that it does."""

    def __init__(self, *refuses: str | None) -> None:
        super().__init__()
        self.refuses = refuses

    def put_if(self, path: str, data: bytes, etag: str | None) -> None:
        if etag in self.refuses:
            raise Changed(path)


def test_a_place_is_asked_for_writes_that_it_has_to_refuse() -> None:
    check_conditions(Careless(None, '"0"'))  # type: ignore[arg-type]
    for refuses in ((), (None,), ('"0"',)):
        with pytest.raises(StoreError):
            check_conditions(Careless(*refuses))  # type: ignore[arg-type]


def test_it_gives_up_at_last() -> None:
    remote = FakeRemote()
    remote.others = [[entry(str(number))] for number in range(1000)]
    with pytest.raises(StoreError, match="what was sent is kept"):
        add(remote, entry("one"))
