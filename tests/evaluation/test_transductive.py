"""Transductive ensembles stand apart: in tables, and from whatever chooses, ranks and fits."""

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from clipsyn.analyses import ANALYSES
from clipsyn.errors import UsageError
from clipsyn.evaluation.figures import few_shot, gains
from clipsyn.evaluation.loop import evaluate
from clipsyn.evaluation.paired import compare_methods
from clipsyn.evaluation.tables import tables
from clipsyn.methods.ensembles import ENSEMBLES, TRANSDUCTIVE
from clipsyn.report.standings import leading, methods
from clipsyn.report.tables import method_table
from clipsyn.router.fit import fit_router
from tests.results import row, untimed
from tests.results import tidy as frame_of

NAMES = ENSEMBLES.groups[TRANSDUCTIVE]
SETTINGS = {"heads": ["zero-shot", "lda"], "shots": (2, 4), "seeds": 2}


@pytest.fixture
def tidy():
    """Transductive ones are better than all others."""
    values = {"sota:batch=9": 0.99, "log-avg": 0.6, "oracle": 0.9, "nlc": 0.7, "best-single": 0.5}
    content = [row("acc1", 0.4, [name]) for name in "ab"]
    for name, value in values.items():
        fit = {"shots": "16", "seed": 0} if name in ("nlc", "best-single") else {}
        content += [
            row("acc1", value, "ab", name, **fit),
            row("gain", value - 0.5, "ab", name, shots="16", seed=0),
        ]
    return frame_of(*content)


def test_a_section_of_their_own_in_which_none_is_best(tidy):
    (table,) = tables(tidy)["by dataset, zero-shot, test, own, all"]
    of = {column.name: column for column in table.columns}
    names = [cell.text for cell in of["method"].cells]
    assert names == [
        *("best-single", "log-avg", "nlc"),
        "sota:batch=9 (transductive)",
        *("best on test", "oracle"),
    ]
    assert of["birds"].best == {names.index("nlc")}
    assert "ransductive" in tables(tidy)["what they mean"][0].notes
    others = tidy.filter(pl.col("ensemble") != "sota:batch=9")
    assert "ransductive" not in tables(others)["what they mean"][0].notes


def test_the_report_ranks_and_draws_the_others(tidy):
    compared = methods(tidy)
    assert [it.name for it in compared][2:4] == ["nlc", "sota:batch=9"]
    assert not compared[3].is_fair
    assert leading(compared[3:]) is None
    best = next(it for it in method_table(compared, "").columns if it.name == "top-1, %").best
    assert best == {2}
    assert set(gains.data(tidy)["method"]) == {"oracle", "log-avg", "nlc"}
    more = tidy.filter(pl.col("shots") == "16").with_columns(shots=pl.lit("1"))
    assert not few_shot.data(pl.concat([tidy, more]))["method"].str.contains("sota").any()


def test_they_are_asked_for_by_name_or_as_a_group(tiny_store):
    frame = evaluate(tiny_store, ensembles="all", heads="zero-shot", shots=["full"])
    assert frame["ensemble"].unique().is_in(NAMES).sum() == 0
    group = evaluate(tiny_store, ensembles="transductive", **SETTINGS)
    assert set(group["ensemble"]) == {"single", "oracle", "best-single", *NAMES}
    named = evaluate(tiny_store, ensembles=NAMES, **SETTINGS)
    assert_frame_equal(untimed(named), untimed(group))


def test_numbers_are_those_of_the_whole_split(tiny_store):
    frame = evaluate(tiny_store, ensembles=["sota"], heads=["zero-shot"])
    test = tiny_store.pool("toy", "test")
    found = frame.filter(metric="acc1", ensemble="sota", dataset="toy")["value"].item()
    assert found == pytest.approx(ENSEMBLES.load("sota")().score(test))


def test_they_are_never_chosen_nor_opponents(tiny_store, tmp_path):
    path = tmp_path / "results.parquet"
    alone = evaluate(tiny_store, ensembles=["log-avg", "chosen"], **SETTINGS)
    ensembles = ["sota", "transclip-fs", "log-avg", "chosen"]
    both = evaluate(tiny_store, ensembles=ensembles, output=path, **SETTINGS)
    chosen = [set(it.filter(head="chosen")["fingerprint"]) for it in (alone, both)]
    assert chosen[0] == chosen[1]
    pairs = compare_methods(path, shots=4)
    assert not {*pairs["first"], *pairs["second"]} & {*NAMES}
    assert {*compare_methods(path, "sota", shots=4)["first"]} == {"sota"}


@pytest.mark.parametrize(
    "ask",
    [
        lambda store: fit_router(store, "toy", "zlap:batch=9"),
        lambda store: ANALYSES.load("selective")(store, ensembles=["zlap"]),
        lambda store: ANALYSES.load("cascade")(store, ensembles=["zlap"]),
    ],
    ids=["fit", "selective", "cascade"],
)
def test_what_answers_for_each_image_refuses_them(ask, tiny_store):
    with pytest.raises(UsageError, match=r"zlap.* sees all test images together"):
        ask(tiny_store)
