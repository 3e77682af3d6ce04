"""`clipsyn push` and `pull`, and that commands say the same of a store at a URL."""

from pathlib import Path

import pytest

from clipsyn.analyses import ANALYSES
from clipsyn.store.features import FeatureStore
from tests.cli.test_imports import imported
from tests.remote.publish import published
from tests.remote.server import serving

# `clipsyn push` and `pull` as their users call them


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CLIPSYN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def path(tiny_store):
    return tiny_store.path


@pytest.fixture
def place(tmp_path):
    return tmp_path / "published"


def lines(result):
    found: list[str] = result.stdout.splitlines()
    return found


def test_push_says_the_size_first_and_pull_brings_it_back(clipsyn, path, place, tmp_path, fakes):
    said = lines(clipsyn("push", path, place))
    store = FeatureStore.open(path)
    groups = store.places()
    size = f"{sum(store.tree.size(store.at(*place)) for place in groups) / 1e6:,.1f} MB"
    shown = place.as_uri()
    assert said[0] == f"{shown}: {len(groups)} groups, {size}; none is there already"
    assert said[1] == f"pushed: `clipsyn ls {shown}` shows what is there"
    back = tmp_path / "back"
    said = lines(clipsyn("pull", shown, back))
    assert said[0].endswith(f"{len(groups)} groups, {size}; none is there already")
    assert fakes.unlike(path, back) == []
    assert clipsyn("verify", back).exit_code == 0


def test_dry_run_says_what_is_copied_and_does_nothing(clipsyn, path, place, tmp_path):
    clipsyn("push", path, place, "-b", "fake/one", "-p", "clean", "-s", "test")
    published = (place / "index/toy/groups.json.gz").read_bytes()
    said = lines(clipsyn("push", path, place, "-s", "test", "--dry-run"))
    assert ": 7 groups, " in said[0]
    assert said[0].endswith("; 4 are there already")
    assert len(said) == 8
    said = lines(clipsyn("pull", place, tmp_path / "back", "--dry-run"))
    assert len(said) == 5
    assert "features/toy/test/clean/fake--one" in said
    assert (place / "index/toy/groups.json.gz").read_bytes() == published
    assert not (tmp_path / "back").exists()


def test_the_card_is_of_all_that_is_published(clipsyn, path, place):
    for options, cells in ((("-b", "fake/one"), 4), ((), 8)):
        clipsyn("push", path, place, *options)
        assert f"{cells} cells over 31 images" in (place / "index/toy/README.md").read_text()
    assert "[toy](index/toy/README.md)" in (place / "README.md").read_text()


@pytest.fixture
def other(tmp_path, fakes):
    """A store in which a backbone of a known name has other weights."""
    path: Path = fakes.fill(tmp_path / "other", [fakes.Encoder(weights="other")]).path
    return path


def test_other_content_needs_a_flag(clipsyn, fails, path, place, other):
    clipsyn("push", path, place)
    said = fails(4, "push", other, place)
    assert "(identity)" in said
    assert "add --replace to put yours in its place" in said
    assert "as with --backbones" in said
    result = clipsyn("push", other, place, "--replace")
    assert "4 of them take the place of what is published" in result.stdout
    assert lines(clipsyn("push", other, place))[0].endswith("nothing new; 4 are there already")
    assert "(backbone.weights" in fails(4, "pull", place, path)


def test_damage_at_a_url_is_mended_by_the_push_that_verify_advises(clipsyn, fails, path, place):
    clipsyn("push", path, place)
    chunk = next(place.glob("features/**/image_embedding/c.0.0"))
    chunk.write_bytes(b"cut")
    assert f"`clipsyn push STORE {place.as_uri()} --replace`" in fails(4, "verify", place.as_uri())
    clipsyn("push", path, place, "--replace")
    assert clipsyn("verify", place.as_uri()).exit_code == 0


@pytest.mark.parametrize(
    "command", [("push", "s3://lab/clip", "store"), ("pull", "store", "s3://lab/clip")]
)
def test_arguments_in_the_other_order(fails, command):
    said = fails(2, *command)
    assert said.startswith("s3://lab/clip stands where a folder is wanted")


def test_what_cannot_be(fails, path, tmp_path):
    assert "Missing argument 'SOURCES...'" in fails(2, "pull", path)
    assert "cannot be merged into itself" in fails(2, "pull", path, path)
    assert "is no feature store" in fails(4, "pull", tmp_path / "absent", path)


# Every command that reads a store says the same of one at a URL; those that write refuse it


QUICK = ["--ensembles", "log-avg", "--shots", "1", "--seeds", "1"]
READING: dict[str, list[str]] = {
    **{name: ["STORE"] for name in ANALYSES},
    "search": ["STORE", "--like", "im003.png", "-s", "test"],
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
def server(_captioned, tmp_path_factory):
    with serving(published(_captioned, tmp_path_factory.mktemp("served") / "store")) as server:
        yield server


def words(name, arguments, store, out):
    places = {"STORE": str(store), "OUT": str(out)}
    for place, path in places.items():
        arguments = [argument.replace(place, path) for argument in arguments]
    return [*name.split(" "), *arguments]


@pytest.mark.parametrize("name", READING)
def test_a_command_says_the_same_of_a_url(clipsyn, captioned, server, tmp_path, name):
    said = []
    for where, store in (("local", captioned.path), ("remote", server.url)):
        (tmp_path / where).mkdir()
        result = clipsyn(*words(name, READING[name], store, tmp_path / where / "out"))
        assert result.exit_code == 0, result.output
        text = result.stdout.replace(str(tmp_path / where), "OUT").replace(str(store), "STORE")
        said.append([line for line in text.splitlines() if "MB" not in line and "kB" not in line])
    assert said[0] == said[1]
    assert "s3cret" not in "".join(said[1])


@pytest.mark.parametrize("name", WRITING)
def test_commands_that_write_refuse_a_url(fails, server, tmp_path, name):
    said = fails(4, *words(name, WRITING[name], server.url, tmp_path / "out"))
    assert said.startswith(f"{server.url} is only read: `clipsyn pull {server.url} STORE` makes")


def test_a_list_of_a_store_at_a_url_needs_neither_frames_nor_zarr(server):
    (found,) = imported([["ls", server.url]])
    assert not found & {"polars", "zarr"}


def test_secrets_of_a_url_reach_no_output(clipsyn, fails, server, tmp_path):
    url = server.url.replace("//", "//me:s3cret@") + "?token=h1dden"
    page = tmp_path / "page.html"
    said = clipsyn("report", url, "-o", page).output + clipsyn("verify", url).output
    said += fails(4, "rm", url, "-d", "toy", "-y") + page.read_text()
    for name in ("zeroshot", "ls", "info"):
        said += clipsyn("-v", name, url).output
    assert "s3cret" not in said
    assert "h1dden" not in said
