from __future__ import annotations

import polars as pl

from clipsyn.results.view import WHERE, named_parts


def test_parts_by_name():
    rows = [("birds", "test", "clean", "own"), ("cars", "test", "jpeg-3", "own")]
    frame = pl.DataFrame(rows, schema=WHERE, orient="row")
    found = named_parts(pl.concat([frame, frame]))
    assert list(found) == ["birds/test, clean, own", "cars/test, jpeg-3, own"]
    assert [part["dataset"].to_list() for part in found.values()] == [["birds"] * 2, ["cars"] * 2]
