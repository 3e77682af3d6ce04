"""Backbones may be called whatever a path can hold: every analysis tells them apart."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest
from click.testing import CliRunner

from clipsyn.cli import main

NAMES = ["a+b", "best", "n", "oracle", "x,y"]


@pytest.fixture(scope="module")
def store(fakes: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("names") / "store"
    sources = [fakes.Source(split=split, count=30) for split in ("train", "test")]
    fakes.fill(path, [fakes.Encoder(name) for name in NAMES], sources, ["clean", "jpeg:3"])
    return path


def run(*arguments: object) -> str:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize(
    "analysis", ["zeroshot", "oracle", "diversity", "representation", "cascade", "robustness"]
)
def test_an_analysis_has_rows_of_each(analysis: str, store: Path, tmp_path: Path) -> None:
    run(analysis, store, "-o", tmp_path / "out.parquet")
    frame = pl.read_parquet(tmp_path / "out.parquet")
    named = frame["backbones"].explode(empty_as_null=False).unique().sort()
    assert named.to_list() == NAMES


def test_samples_and_subsets_have_columns_of_each(store: Path, tmp_path: Path) -> None:
    run("oracle", store, "--samples", tmp_path / "samples.csv")
    columns = pl.read_csv(tmp_path / "samples.csv").columns
    assert len(set(columns)) == len(columns)
    assert all(any(name in column for column in columns) for name in NAMES)


def test_a_pattern_names_what_a_comma_list_cannot(store: Path) -> None:
    shown = run("zeroshot", store, "-b", "x?y,n", "-p", "clean")
    assert "\nx,y " in shown
    assert "\na+b " not in shown
