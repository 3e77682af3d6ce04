"""`clipsyn report` and `plot`."""

import sys

import polars as pl
import pytest

import clipsyn as package
from clipsyn.report import FIGURES

# `clipsyn report`: the page is written, and what it says


def test_it_says_where_the_page_is(clipsyn, tiny_store, tmp_path):
    page = tmp_path / "page.html"
    done = clipsyn("report", tiny_store.path, "-o", page, "--title", "mine")
    assert done.exit_code == 0, done.output
    assert f"{page}: " in done.output
    assert "<title>mine</title>" in page.read_text("utf-8")


def test_a_file_without_a_name_is_refused(fails, tiny_store, tmp_path):
    line = ("report", tiny_store.path, "-o", tmp_path / "page.html", "--measured", "oracle.parquet")
    assert "ANALYSIS=FILE" in fails(2, *line)


# `clipsyn plot`


@pytest.fixture
def run(clipsyn, tiny_store, tmp_path):
    def run(*options, name="accuracy-matrix", source=tiny_store.path, output="figure.svg"):
        return clipsyn("plot", name, source, "-o", tmp_path / output, *options)

    return run


def test_the_numbers_stand_beside_it(run, tmp_path, tiny_store):
    result = run("-p", "clean")
    numbers = pl.read_csv(tmp_path / "figure.svg.csv")
    expected = package.zeroshot(tiny_store, perturbations="clean").filter(
        ensemble="single", metric="acc1"
    )
    assert numbers["value"].to_list() == expected["value"].to_list()
    assert result.stdout == ""
    text = (tmp_path / "figure.svg.txt").read_text("utf-8")
    assert text.startswith("Zero-shot top-1 accuracy in percent; the best")
    assert f"{tmp_path / 'figure.svg'}: {text[:50]}" in result.stderr


def test_the_list_names_every_figure_and_its_command(clipsyn, read_table):
    result = clipsyn("plot")
    table = read_table(result.stdout)
    assert result.exit_code == 0
    assert table.column("figure") == [*FIGURES]
    assert table.row("few-shot")["of"] == "evaluate"


# bad input


def test_several_perturbations_where_one_is_shown(fails, tmp_path, tiny_store):
    words = fails(2, "plot", "upset", tiny_store.path, "-o", tmp_path / "a.svg")
    assert "clean, jpeg-3" in words
    assert "--perturb" in words  # the flag, not Python's argument
    assert not (tmp_path / "a.svg").exists()


@pytest.mark.parametrize("words", [["upset"], ["upset", "store"], ["-o", "a.svg"]], ids=str)
def test_what_is_missing_is_said(fails, words):
    assert fails(2, "plot", *words).startswith("`clipsyn plot NAME STORE")


def test_without_the_extra_a_sentence_says_what_to_install(fails, tmp_path, monkeypatch):
    """Before anything is read."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    said = fails(1, "plot", "accuracy-matrix", "nowhere", "-o", tmp_path / "a.svg")
    assert said == "this needs matplotlib: run `pip install 'clipsyn[report]'` first"
