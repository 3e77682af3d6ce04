"""Every command that reads a store says the same of one at a URL; those that write refuse it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clipsyn.analyses import ANALYSES
from tests.cli.test_imports import imported
from tests.remote.publish import published
from tests.remote.server import Server, serving

QUICK = ["--ensembles", "log-avg", "--shots", "1", "--seeds", "1"]
READING: dict[str, list[str]] = {
    **{name: ["STORE"] for name in ANALYSES},
    "ls": ["STORE"],
    "info": ["STORE"],
    "info --provenance": ["STORE", "--provenance"],
    "ls --status": ["STORE"],
    "verify": ["STORE", "--deep"],
    "evaluate": ["STORE", *QUICK],
    "plot": ["accuracy-matrix", "STORE", "-o", "OUT.svg"],
    "report": ["STORE", "-o", "OUT.html"],
    "fit": ["STORE", "-d", "toy", "--ensemble", "log-avg", "-o", "OUT"],
    "export": ["STORE", "OUT"],
}
WRITING: dict[str, list[str]] = {
    "extract": ["STORE", "-b", "local-dir:checkpoint", "-d", "photos"],
    "import": ["STORE", "answers.csv", "-d", "new"],
    "rm": ["STORE", "-d", "toy", "-y"],
}


@pytest.fixture(scope="module")
def server(_filled: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(published(_filled, tmp_path_factory.mktemp("served") / "published")) as server:
        yield server


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CLIPSYN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def words(name: str, arguments: list[str], store: object, out: Path) -> list[str]:
    places = {"STORE": str(store), "OUT": str(out)}
    for place, path in places.items():
        arguments = [argument.replace(place, path) for argument in arguments]
    return [*name.split(" "), *arguments]


@pytest.mark.parametrize("name", READING)
def test_a_command_says_the_same_of_a_url(clipsyn, tiny_store, server, tmp_path, name):
    said = []
    for where, store in (("local", tiny_store.path), ("remote", server.url)):
        (tmp_path / where).mkdir()
        result = clipsyn(*words(name, READING[name], store, tmp_path / where / "out"))
        assert result.exit_code == 0, result.output
        text = result.stdout.replace(str(tmp_path / where), "OUT").replace(str(store), "STORE")
        said.append([line for line in text.splitlines() if "MB" not in line])
    assert said[0] == said[1]
    assert "s3cret" not in "".join(said[1])


@pytest.mark.parametrize("name", WRITING)
def test_commands_that_write_refuse_a_url(fails, server, tmp_path, name):
    said = fails(4, *words(name, WRITING[name], server.url, tmp_path / "out"))
    assert said.startswith(f"{server.url} is only read: `clipsyn pull {server.url} STORE` makes")


def test_a_list_of_a_store_at_a_url_needs_no_arrays(server: Server) -> None:
    assert not imported(["ls", server.url]) & {"numpy", "polars", "zarr"}


def test_a_router_predicts_a_store_at_a_url(clipsyn, tiny_store, server, tmp_path):
    router = tmp_path / "router"
    clipsyn("fit", tiny_store.path, "-d", "toy", "--ensemble", "log-avg", "-o", router)
    ours = clipsyn("predict", router, tiny_store.path).stdout
    result = clipsyn("predict", router, server.url)
    assert result.stdout == ours, result.output


def test_a_recipe_reads_a_store_at_a_url(clipsyn, server, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    stage = f"{{stage: zeroshot, output: {tmp_path / 'table'}}}"
    recipe.write_text(f"store: {server.url}\nstages: [{stage}]\n")
    for _ in range(2):
        result = clipsyn("run", recipe)
        assert result.exit_code == 0, result.output
    assert "already there" in result.stdout
    assert f"store: {server.url}" in result.stdout


def test_secrets_of_a_url_reach_no_output(clipsyn, fails, server, tmp_path):
    url = server.url.replace("//", "//me:s3cret@") + "?token=h1dden"
    page = tmp_path / "page.html"
    said = clipsyn("report", url, "-o", page).output + clipsyn("verify", url).output
    said += fails(4, "rm", url, "-d", "toy", "-y") + page.read_text()
    for name in ("zeroshot", "ls", "info"):
        said += clipsyn("-v", name, url).output
    assert "s3cret" not in said
    assert "h1dden" not in said


@pytest.mark.parametrize("url", ["ftp://me:s3cret@host/x", "s3://", "http://host:port/x"])
def test_urls_that_cannot_be_are_one_sentence(fails: Callable[..., str], url: str) -> None:
    assert "s3cret" not in fails(2, "ls", url)


def test_the_cache_is_listed_and_cleared(clipsyn, fails, server, own_cache):
    assert f"nothing to remove from {own_cache}" in clipsyn("gc", "--cache").stdout
    clipsyn("zeroshot", server.url)
    assert "nothing to remove" in clipsyn("gc", "--cache", "--older-than", "1d", "-y").stdout
    listed = clipsyn("gc", "--cache", "--older-than", "0", "--dry-run").stdout
    assert int(listed.split()[0]) > 5
    assert f"from {own_cache}" in clipsyn("gc", "--cache", "--older-than", "0", "-y").stdout
    assert "nothing to remove" in clipsyn("gc", "--cache", "--older-than", "0").stdout
    assert "--cache" in fails(2, "gc")
