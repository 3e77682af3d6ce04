"""The command line, in this process and in its own; a tiny checkpoint for it to load."""

import shutil

import polars as pl
import pytest

from clipsyn.evaluation.results.frame import RESULT
from tests.extract.conftest import saved

__all__ = ["saved"]

NAMES = pl.List(pl.String)


@pytest.fixture
def fails(clipsyn):
    """Run a command that must fail with this exit code and one line of `Error: …`; the line."""

    def run(code, *arguments, **options):
        result = clipsyn(*arguments, **options)
        assert result.exit_code == code, result.output
        errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
        assert len(errors) == 1, result.stderr
        assert result.stderr.rstrip().endswith(errors[0])
        return errors[0].removeprefix("Error: ")

    return run


@pytest.fixture(scope="session")
def checkpoint(saved, tmp_path_factory):
    """A folder for ``local-dir:``, called tiny: a CLIP with random weights."""
    return shutil.copytree(saved("clipsyn-vit").folder, tmp_path_factory.mktemp("own") / "tiny")


@pytest.fixture
def read_results():
    """Function (a CSV file of results): the frame it was written from."""

    def read(path):
        written = {name: kind for name, kind in RESULT.items() if name != "data"}  # a struct
        kinds = {name: pl.String if kind == NAMES else kind for name, kind in written.items()}
        return pl.read_csv(path, schema=kinds).with_columns(
            pl.col(name).str.json_decode(NAMES) for name, kind in RESULT.items() if kind == NAMES
        )

    return read
