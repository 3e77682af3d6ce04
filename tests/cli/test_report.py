"""`clipsyn report`: the page is written, and what it says."""

from __future__ import annotations

from click.testing import CliRunner

from clipsyn.cli import main


def run(*arguments):
    return CliRunner().invoke(main, ["report", *map(str, arguments)])


def test_it_says_where_the_page_is(tiny_store, tmp_path):
    page = tmp_path / "page.html"
    done = run(tiny_store.path, "-o", page, "--title", "mine")
    assert done.exit_code == 0, done.output
    assert f"{page}: " in done.output
    assert "<title>mine</title>" in page.read_text("utf-8")


def test_files_of_analyses_have_their_names(tiny_store, tmp_path):
    table = tmp_path / "oracle.parquet"
    assert (
        CliRunner()
        .invoke(main, ["oracle", str(tiny_store.path), "-p", "clean", "-o", str(table)])
        .exit_code
        == 0
    )
    done = run(tiny_store.path, "-o", tmp_path / "page.html", "--measured", f"oracle={table}")
    assert done.exit_code == 0, done.output


def test_a_file_without_a_name_is_refused(tiny_store, tmp_path):
    done = run(tiny_store.path, "-o", tmp_path / "page.html", "--measured", "oracle.parquet")
    assert done.exit_code == 2
    assert "ANALYSIS=FILE" in done.output
