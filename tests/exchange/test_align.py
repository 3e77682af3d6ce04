"""`clipsyn.exchange.align`: parts become rows of a sample table, found by id."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from clipsyn.errors import DatasetError
from clipsyn.exchange.align import (
    align,
    check_ids,
    labels_of,
    new_table,
    with_ids,
)
from clipsyn.exchange.export import Split
from clipsyn.exchange.parts import Part
from clipsyn.store.given import matrix
from clipsyn.store.groups import ELSEWHERE
from clipsyn.store.samples import SampleTable

NAMES = ("cat", "dog", "bee")
TABLE = SampleTable(
    "toy",
    "test",
    ("a", "b", "c", "d"),
    np.array([0, 1, 2, -1], np.int32),
    np.zeros((4, 32), np.uint8),
    NAMES,
    "acc1",
    "",
)


def part(ids, values, kind="predictions", **options):
    """ids: a letter each."""
    array = np.array(values, object if kind == "predictions" else np.float32)
    names = {"backbone": "mine", "perturbation": "clean", "labels": None} | options
    files = (Path("mine.csv"),)
    return Part(
        kind=kind, ids=tuple(ids) if ids else None, values=array, **{"files": files, **names}
    )


def aligned(*parts, intersect=False):
    named = with_ids(parts, TABLE)
    check_ids(named, TABLE, intersect=intersect)
    return align(named, TABLE)


def only(*parts, intersect=False):
    (cell,) = aligned(*parts, intersect=intersect)
    return cell


def looked_at(cell):
    """Its rows as a writer has them, which have a value, and why the others have none."""
    values, valid = cell.values, cell.values[:] >= 0
    if cell.part.kind != "predictions":
        unit = cell.part.kind == "embeddings"
        dtype = np.float16 if unit else np.float32
        made, valid = matrix("x", values, cell.given, dtype, unit=unit, mended=True)
        values = made[:]
    return values, valid.tolist(), cell.invalid(valid)


def test_rows_are_found_by_id_in_any_order():
    cell = only(part("cadb", ["bee", "cat", "", "dog"]))
    assert str(cell.key) == "toy/test · clean · mine"
    values, valid, invalid = looked_at(cell)
    np.testing.assert_array_equal(values, [0, 1, 2, -1])
    assert (valid, invalid) == ([True, True, True, False], {"no prediction": 1})


def test_rows_without_ids_are_in_the_tables_order():
    cell = only(part(None, ["0", "1", "2", "0"]))
    np.testing.assert_array_equal(cell.values, [0, 1, 2, 0])
    with pytest.raises(DatasetError, match="3 rows without ids, where toy/test has 4"):
        aligned(part(None, ["0", "1", "2"]))


def test_rows_logits_that_are_not_finite_are_no_values():
    values = [[1, 2, 3], [np.nan, 0, 0], [9, 0, 9], [0, np.inf, 0]]
    logits, valid, invalid = looked_at(only(part("dcba", values, "logits")))
    np.testing.assert_array_equal(logits[[1, 3]], [[9, 0, 9], [1, 2, 3]])
    assert (valid, invalid) == ([False, True, False, True], {"not finite": 2})


def test_rows_embeddings_are_normalised():
    values = [[3, 4], [0, 0], [1e30, 1e30], [np.nan, 1]]
    embedding, valid, invalid = looked_at(only(part("abcd", values, "embeddings")))
    assert embedding.dtype == np.float16
    np.testing.assert_allclose(embedding[[0, 2]], [[0.6, 0.8], [0.5**0.5] * 2], atol=1e-3)
    assert np.isnan(embedding[[1, 3]]).all()
    assert (valid, invalid) == ([True, False, True, False], {"not finite, or of norm 0": 2})


def test_rows_embeddings_that_are_almost_of_unit_norm_are_normalised():
    """Unless they have half precision already, of which rounding takes as much."""
    row = np.array([0.6001, 0.8007, 0])
    half = np.array([0.6, 0.8, 0], np.float16)
    values = [row, row[::-1], half, row * 2]
    embedding, *_ = looked_at(only(part("abcd", values, "embeddings")))
    expected = (row / np.linalg.norm(row)).astype(np.float16)
    np.testing.assert_array_equal(embedding, [expected, expected[::-1], half, expected])


def test_ids_those_in_common(caplog):
    with caplog.at_level("INFO", "clipsyn"):
        cell = only(part("axyb", ["cat", "dog", "dog", "bee"]), intersect=True)
    np.testing.assert_array_equal(cell.values, [0, 2, -1, -1])
    assert looked_at(cell)[2] == {"not in the source": 2}
    assert "2 ids that are no samples are left out" in caplog.text


# Parts whose perturbation came from a column: an image is shown under one condition.


def test_conditions_need_what_others_show_under_the_same():
    shown = {"perturbation": "fog-1", "of_condition": True}
    cells = aligned(
        part("ab", ["cat"] * 2, backbone="one", **shown),
        part("ba", ["dog", ""], backbone="two", **shown),
        part("cd", ["bee"] * 2, backbone="one", of_condition=True),
    )
    assert [(c.key.perturbation, c.key.backbone) for c in cells] == [
        ("clean", "one"),
        ("fog-1", "one"),
        ("fog-1", "two"),
    ]
    assert [looked_at(cell)[2] for cell in cells] == [
        {ELSEWHERE: 2},
        {ELSEWHERE: 2},
        {ELSEWHERE: 2, "no prediction": 1},
    ]


def test_conditions_severities_go_by_number():
    labels = ("fog-10", "clean", "fog-3", "blur-9")
    cells = aligned(*(part("abcd", ["cat"] * 4, perturbation=label) for label in labels))
    assert [c.key.perturbation for c in cells] == ["clean", "blur-9", "fog-3", "fog-10"]


SPLIT = Split("toy", "test", NAMES, "acc1", "")


def test_new_table_ids_and_labels_of_all_parts():
    one = part("ba", ["cat", "dog"], labels=("dog", ""))
    two = part("ca", ["bee", "dog"], labels=("cat", "dog"))
    table = new_table([one, two], SPLIT)
    assert (table.ids, table.class_names) == (tuple("bac"), NAMES)
    np.testing.assert_array_equal(table.labels, [1, 1, 0])
    assert not table.content.any()


def test_new_table_rows_in_order_are_numbered():
    table = new_table(with_ids([part(None, ["cat"] * 11)], None), SPLIT)
    assert (table.ids[0], table.ids[10], table.class_names) == ("row-00", "row-10", NAMES)


def test_new_table_labels_that_contradict():
    one, two = (part("a", ["cat"], labels=(label,)) for label in ("cat", "dog"))
    with pytest.raises(DatasetError, match=r"1 label is another .* \(a: dog, not cat\)"):
        new_table([one, two], SPLIT)


def test_labels_other_than_the_tables():
    def check(ids, *labels):
        labelled = part(ids, ["cat"] * len(ids), labels=labels)
        labels_of([labelled], TABLE.ids, TABLE.labels, TABLE.class_names)

    check("xad", "bee", "", "dog")
    with pytest.raises(DatasetError, match=r"\(b: bee, not dog\): mend them, or leave labels away"):
        check("ba", "bee", "cat")
    with pytest.raises(DatasetError, match="unknown class 'cow'"):
        check("a", "cow")
