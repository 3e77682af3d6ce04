"""`clipsyn plot`."""

from __future__ import annotations

import subprocess
import sys

import polars as pl
import pytest

import clipsyn as package
from clipsyn.report import FIGURES


@pytest.fixture
def run(clipsyn, tiny_store, tmp_path):
    def run(*options, name="accuracy-matrix", source=tiny_store.path, output="figure.svg"):
        return clipsyn("plot", name, source, "-o", tmp_path / output, *options)

    return run


@pytest.mark.parametrize(
    ("output", "begins"),
    [("a.svg", b"<?xml"), ("a.pdf", b"%PDF"), ("a.png", b"\x89PNG"), ("b.c.PNG", b"\x89PNG")],
)
def test_a_file_of_each_format(run, tmp_path, output, begins):
    assert run(output=output).exit_code == 0
    assert (tmp_path / output).read_bytes().startswith(begins)


def test_the_numbers_stand_beside_it(run, tmp_path, tiny_store):
    result = run("-p", "clean")
    numbers = pl.read_csv(tmp_path / "figure.svg.csv")
    expected = package.zeroshot(tiny_store, perturbations="clean").filter(
        ensemble="single", metric="acc1"
    )
    assert numbers["value"].to_list() == expected["value"].to_list()
    assert result.stdout == ""
    assert (
        f"{tmp_path / 'figure.svg'}: Zero-shot top-1 accuracy in percent; the best backbone of"
        in (result.stderr)
    )
    text = (tmp_path / "figure.svg.txt").read_text("utf-8")
    assert text.startswith("Zero-shot top-1 accuracy in percent; the best")
    assert f"2 rows written to {tmp_path / 'figure.svg.csv'}" in result.stderr


def test_of_a_file_as_of_the_store(run, clipsyn, tmp_path, tiny_store):
    clipsyn("zeroshot", tiny_store.path, "-o", tmp_path / "numbers.parquet")
    run(output="a.svg")
    run(source=tmp_path / "numbers.parquet", output="b.svg")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


@pytest.mark.parametrize("name", ["severity", "corruptions"])
def test_perturbations_of_a_file_stand_beside_clean_images(
    run, clipsyn, tmp_path, tiny_store, name
):
    numbers = tmp_path / "numbers.parquet"
    clipsyn("robustness", tiny_store.path, "-o", numbers)
    assert run("-p", "jpeg-*", name=name, output="store.svg").exit_code == 0
    assert run("-p", "jpeg-*", name=name, source=numbers, output="file.svg").exit_code == 0
    assert (tmp_path / "file.svg.csv").read_text() == (tmp_path / "store.svg.csv").read_text()


def test_of_several_files(clipsyn, tmp_path, tiny_store):
    for name in ("clean", "jpeg-3"):
        file = tmp_path / f"{name}.parquet"
        clipsyn("zeroshot", tiny_store.path, "-p", name, "-o", file)
    files = [tmp_path / "clean.parquet", tmp_path / "jpeg-3.parquet"]
    assert clipsyn("plot", "accuracy-matrix", *files, "-o", tmp_path / "a.svg").exit_code == 0
    assert set(pl.read_csv(tmp_path / "a.svg.csv")["perturbation"]) == {"clean", "jpeg-3"}


def test_the_list_names_every_figure_and_its_command(clipsyn, read_table):
    result = clipsyn("plot")
    table = read_table(result.stdout)
    assert result.exit_code == 0
    assert table.column("figure") == [*FIGURES]
    assert table.row("few-shot")["of"] == "evaluate"


# bad input


def test_another_ending_is_refused_before_anything_is_measured(fails, tmp_path):
    words = fails(2, "plot", "accuracy-matrix", tmp_path / "nowhere", "-o", tmp_path / "a.jpg")
    assert words.endswith("give a name that ends in .svg, .pdf or .png")


def test_several_perturbations_where_one_is_shown(fails, tmp_path, tiny_store):
    words = fails(2, "plot", "upset", tiny_store.path, "-o", tmp_path / "a.svg")
    assert "clean, jpeg-3" in words
    assert "--perturb" in words  # the flag, not Python's argument
    assert not (tmp_path / "a.svg").exists()


@pytest.mark.parametrize("words", [["upset"], ["upset", "store"], ["-o", "a.svg"]], ids=str)
def test_what_is_missing_is_said(fails, words):
    assert fails(2, "plot", *words).startswith("say which figure, of what and where to: `clipsyn")


@pytest.mark.parametrize("missing", ["matplotlib", "jinja2"])
def test_without_the_extra_a_sentence_says_what_to_install(tmp_path, missing):
    """Before anything is read; jinja2, which no figure needs, as any code of a command would."""
    script = (
        f"import sys; sys.modules['{missing}'] = None\n"
        "from clipsyn.cli import main, show\n"
        f"def draw(*_, **__): import {missing}\n"
        "show._draw = draw if 'jinja2' in sys.modules else show._draw\n"
        "main(sys.argv[1:])"
    )
    line = ["plot", "accuracy-matrix", "nowhere", "-o", str(tmp_path / "a.svg")]
    done = subprocess.run(
        [sys.executable, "-c", script, *line], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    words = f"this needs {missing}: run `pip install 'clipsyn[report]'` first"
    assert done.stderr.strip() == f"Error: {words}"
