"""`clipsyn.store.arrays`: bytes out as they went in, readable by zarr and xarray, faults named."""

from __future__ import annotations

import math
import os
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray
import zarr
from crc32c import crc32c
from hypothesis import given, settings
from hypothesis import strategies as st

from clipsyn.errors import DamagedStore
from clipsyn.store import arrays, files
from clipsyn.store.arrays import Blocks, Layout
from clipsyn.store.files import GROUPS, ArraySpec

TEXTS = ["", "a", "crème brûlée", "犬/ねこ.png", "🦊" * 9, " \n\t", "a\0b", "x" * 3000]


def spec(dtype: str, *more: str) -> ArraySpec:
    fill = "" if dtype == "string" else 0
    return ArraySpec("values", ("sample", *more), dtype, fill, "for a test")


def some(dtype: str, rows: int, *width: int) -> np.ndarray:
    random = np.random.default_rng(rows)
    if dtype == "string":
        return np.array([TEXTS[row % len(TEXTS)] for row in range(rows)], object)
    if dtype == "bool":
        return random.random((rows, *width)) < 0.5
    if dtype.startswith("float"):
        return random.normal(size=(rows, *width)).astype(dtype)
    return random.integers(0, np.iinfo(dtype).max, (rows, *width), dtype)


Written = tuple[Path, Layout]


def write(path: Path, values: np.ndarray, dtype: str, chunk_rows: int = 8) -> Written:
    """A group at `path` with one array; returns the array's folder, and its list entry."""
    names = ("embed", "byte")[: values.ndim - 1]
    sizes = dict(zip(("sample", *names), values.shape, strict=True))
    layout = Layout.of(spec(dtype, *names), sizes, Blocks(len(values), chunk_rows).rows)
    arrays.create_group(path, [(spec(dtype, *names), layout)], {"made": "here"})
    for block in range(layout.blocks.count):
        arrays.write_block(path / "values", layout, block, layout.part(values, block))
    return path / "values", arrays.listing(path / "values", layout)


STORED = sorted({array.dtype for group in GROUPS.values() for array in group})


@pytest.mark.parametrize("rows", [1, 7, 8, 9, 20, 64, 65])
@pytest.mark.parametrize("dtype", STORED)
def test_what_is_written_is_read_by_us_and_by_zarr(tmp_path: Path, dtype: str, rows: int) -> None:
    width = () if dtype == "string" else (5,)
    values = some(dtype, rows, *width)
    path, layout = write(tmp_path / "group", values, dtype)
    ours = arrays.read(path, layout)
    assert ours.dtype == values.dtype
    assert np.array_equal(ours, values)
    theirs = np.asarray(zarr.open_array(path, mode="r")[:])
    assert np.array_equal(theirs.astype(values.dtype), values)
    assert arrays.damage(path, layout) == []


def test_special_floats_keep_their_bits(tmp_path: Path) -> None:
    bits = np.arange(65536, dtype=np.uint16)  # every float16 there is, NaN payloads included
    values = bits.view(np.float16).reshape(-1, 16)
    assert (
        arrays.read(*write(tmp_path / "group", values, "float16", 1024)).tobytes()
        == values.tobytes()
    )


@given(st.integers(1, 100_000), st.integers(1, 5_000))
def test_blocks_are_balanced_and_cover_every_row_once(samples: int, chunk_rows: int) -> None:
    blocks = Blocks(samples, chunk_rows)
    sizes = [len(blocks.range(block)) for block in range(blocks.count)]
    assert sum(sizes) == samples
    assert blocks.range(0).start == 0
    assert all(
        blocks.range(block).stop == blocks.range(block + 1).start
        for block in range(blocks.count - 1)
    )
    assert max(sizes) == blocks.rows <= chunk_rows
    assert min(sizes) >= 1
    assert blocks.count == math.ceil(samples / chunk_rows)  # no more chunks than must be
    assert blocks.count * blocks.rows - samples < blocks.count  # less than a row of padding each


@settings(max_examples=30)
@given(st.data())
def test_a_part_is_the_slice_of_the_whole(tmp_path_factory: Any, data: st.DataObject) -> None:
    rows = data.draw(st.integers(1, 60))
    chunk_rows = data.draw(st.integers(1, 20))
    dtype = data.draw(st.sampled_from(["float16", "string", "bool"]))
    values = some(dtype, rows, *(() if dtype == "string" else (3,)))
    written = write(tmp_path_factory.mktemp("part") / "group", values, dtype, chunk_rows)
    start = data.draw(st.integers(0, rows))
    stop = data.draw(st.integers(start, rows))
    assert np.array_equal(arrays.read(*written, range(start, stop)), values[start:stop])


def test_the_bytes_of_a_chunk_are_numpy_s_and_a_checksum(tmp_path: Path) -> None:
    values = some("float16", 20, 3)
    path, _ = write(tmp_path / "group", values, "float16")
    padded = np.concatenate([values, np.zeros((1, 3), np.float16)])  # 3 chunks of 7 rows
    for block in range(3):
        data = padded[7 * block : 7 * block + 7].tobytes()
        assert (path / f"c.{block}.0").read_bytes() == data + crc32c(data).to_bytes(4, "little")
    assert sorted(file.name for file in path.iterdir()) == ["c.0.0", "c.1.0", "c.2.0", "zarr.json"]


@pytest.mark.parametrize("shape", [(6, 3), (7, 3, 1)])
def test_a_block_of_another_shape_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path, layout = write(tmp_path / "group", some("float16", 14, 3), "float16")
    with pytest.raises(ValueError, match="block 0 is 7 rows"):
        arrays.write_block(path, layout, 0, np.zeros(shape, np.float16))


def test_plain_xarray_opens_a_cell_with_named_dimensions(tiny_store: Any, fakes: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cell = xarray.open_zarr(tiny_store.at("features", *fakes.key.names), consolidated=False)
    assert dict(cell.sizes) == {"sample": 20, "embed": 12}
    assert cell["image_embedding"].dims == ("sample", "embed")
    assert cell["valid"].dims == ("sample",)
    assert cell["image_embedding"].dtype == np.float16
    assert cell["image_embedding"].attrs["description"]
    embeddings = tiny_store.cell(fakes.key).embeddings()
    assert np.array_equal(cell["image_embedding"].values, embeddings)
    assert cell.attrs["fingerprint"] == tiny_store.cell(fakes.key).fingerprint()


# Faults


@pytest.fixture(params=["float16", "string"])
def written(request: pytest.FixtureRequest, tmp_path: Path) -> Written:
    """An array of three blocks of 7, 7 and 6 rows."""
    dtype = request.param
    values = some(dtype, 20, *(() if dtype == "string" else (2,)))
    return write(tmp_path / "group", values, dtype)


def chunk(written: Written, block: int) -> Path:
    return written[0] / written[1].file(block)


def assert_damaged(written: Written, block: int) -> None:
    """Reading it fails and says which chunk, the other rows are read, `damage` names the rows."""
    blocks, named = written[1].blocks, str(chunk(written, block))
    rows = blocks.range(block)
    for part in (None, rows):
        with pytest.raises(DamagedStore, match=re.escape(named)):
            arrays.read(*written, part)
    for other in {0, 1, 2} - {block}:
        arrays.read(*written, blocks.range(other))
    (problem,) = arrays.damage(*written)
    assert problem.startswith(f"block {block} (rows {rows.start}-{rows.stop - 1}): ")
    assert named in problem


@pytest.mark.parametrize("block", [0, 1, 2])
def test_a_flipped_bit_anywhere_is_found(written: Written, block: int) -> None:
    file = chunk(written, block)
    sound = file.read_bytes()
    step = 1 if len(sound) < 100 else 97
    for position in (*range(0, len(sound), step), *range(len(sound) - 5, len(sound))):
        data = bytearray(sound)
        data[position] ^= 1 << (position % 8)
        file.write_bytes(data)
        with pytest.raises(DamagedStore, match="does not match its checksum"):
            arrays.read(*written)
    assert_damaged(written, block)
    file.write_bytes(sound)
    assert arrays.damage(*written) == []


@pytest.mark.parametrize("left", [0, 3, -1, 1 << 40])
def test_a_chunk_of_another_length_is_found(written: Written, left: int) -> None:
    """Before memory is taken for one that is too long."""
    file = chunk(written, 1)
    os.truncate(file, left % file.stat().st_size if left < 0 else left)
    assert_damaged(written, 1)


def test_a_missing_chunk_is_found_where_zarr_reads_fill_values(written: Written) -> None:
    chunk(written, 0).unlink()
    assert_damaged(written, 0)
    assert not any(zarr.open_array(written[0], mode="r")[0:7].flatten())
    with pytest.raises(DamagedStore):
        arrays.listing(*written)


def test_a_chunk_of_another_array_is_found(tmp_path: Path) -> None:
    """By its size, or by the list alone: its own checksum fits."""
    wide = write(tmp_path / "wide", some("float16", 20, 3), "float16")
    like = write(tmp_path / "like", some("float16", 20, 2) + 1, "float16")
    narrow = write(tmp_path / "narrow", some("float16", 20, 2), "float16")
    for other in (wide, like):
        chunk(narrow, 1).write_bytes(chunk(other, 1).read_bytes())
        assert_damaged(narrow, 1)


METADATA = (
    b"",
    b"[]",
    b'{"zarr_format": 3}',
    b'{"shape": [19, 2], "data_type": "float16", "chunk_grid": {"configuration": {}}}',
)


@pytest.mark.parametrize("content", METADATA)
def test_damaged_metadata_is_named(written: Written, content: bytes) -> None:
    (written[0] / "zarr.json").write_bytes(content)
    (problem,) = arrays.damage(*written)
    assert "values/zarr.json" in problem


LISTED = {"shape": [20, 4], "dtype": "float32", "rows": 7, "checksums": "00000000" * 3}


@pytest.mark.parametrize(
    "changes",
    [
        {"rows": 0},
        {"rows": "7"},
        {"shape": [-20, 4]},
        {"shape": [20, 2**60]},
        {"shape": None},
        {"dtype": "object"},
        {"checksums": "00000000"},
    ],
)
def test_a_list_of_arrays_that_cannot_be_is_damage(changes: dict[str, Any]) -> None:
    """Before memory is taken by it."""
    assert Layout.parse(LISTED).rows == 7
    with pytest.raises(DamagedStore, match="the list of its arrays is damaged"):
        Layout.parse(LISTED | changes)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (None, ["c.0.0", "c.1.0", "c.2.0"]),
        (range(7), ["c.0.0"]),
        (range(6, 8), ["c.0.0", "c.1.0"]),
        (range(14, 20), ["c.2.0"]),
        (range(0), []),
    ],
)
def test_rows_lie_in_the_files_that_are_said(rows: range | None, expected: list[str]) -> None:
    assert Layout.parse(LISTED).files(rows) == expected


def test_a_file_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    files.write_file(file, b"old")

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="No space") as caught:
        files.write_file(file, b"new")
    assert caught.value.filename == str(file)
    assert file.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_file_beyond_its_limit_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    os.truncate(tmp_path / "file", 1 << 40)
    with pytest.raises(DamagedStore):
        files.read_file(tmp_path / "file")


@pytest.mark.parametrize(
    "data", [b"", b"\2\0\0\0" + b"\1\0\0\0a" * 2, b"\3\0\0\0", b"\3\0\0\0" + b"\1\0\0\0\xff" * 3]
)
def test_texts_that_are_none_or_of_another_number_are_damage(tmp_path: Path, data: bytes) -> None:
    """Though their checksum is right."""
    (tmp_path / "c.0").write_bytes(data + crc32c(data).to_bytes(4, "little"))
    with pytest.raises(DamagedStore):
        arrays.read(tmp_path, Layout((3,), "string", 3))
