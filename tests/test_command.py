"""The command line as cells record it: exact, but for secrets."""

from __future__ import annotations

import logging
import shlex
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipsyn.cli import _narrating
from clipsyn.errors import ClipsynError
from clipsyn.names import FeatureKey
from clipsyn.store.features import FeatureStore
from clipsyn.store.select import choose, select
from clipsyn.text import advised, line_of, recorded, running, scrubbed


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["extract", "store", "-b", "zoo"], "clipsyn extract store -b zoo"),
        (["extract", "my store"], "clipsyn extract 'my store'"),
        (["push", "s", "https://me:pass@host/a"], "clipsyn push s https://host/a"),
        (["push", "s", "--to=s3://k:s@b/x"], "clipsyn push s --to=s3://b/x"),
        (["pull", "https://h/a?X-Amz-Signature=1f"], "clipsyn pull 'https://h/a?…'"),
        (["x", "--token", "abc", "more"], "clipsyn x --token '…' more"),
        (["x", "--hf-token=abc"], "clipsyn x '--hf-token=…'"),
        (["x", "AWS_SECRET_ACCESS_KEY=abc"], "clipsyn x 'AWS_SECRET_ACCESS_KEY=…'"),
        (["x", "--password", "--secret", "y"], "clipsyn x --password '…' y"),
        (["x", "-d", "hf_abcdefghijklmnopqrst"], "clipsyn x -d '…'"),
        (["x", "AKIAABCDEFGHIJKLMNOP"], "clipsyn x '…'"),
        (["x", "mine=local-dir:runs/token-7/"], "clipsyn x mine=local-dir:runs/token-7/"),
        (["x", "--tokenizer", "bert"], "clipsyn x --tokenizer bert"),
        (["x", "-p", "jpeg:3:seed=1"], "clipsyn x -p jpeg:3:seed=1"),
    ],
)
def test_the_line_is_what_was_typed_without_secrets(words, line):
    assert line_of(words) == line


@given(st.lists(st.text(st.characters(categories=["L", "N"]), min_size=1), max_size=5))
def test_a_shell_reads_the_same_words_again(words):
    assert shlex.split(line_of(words)) == ["clipsyn", *words]


def test_bytes_that_are_no_text_can_be_stored():
    assert line_of(["extract", "caf\udce9"]) == "clipsyn extract 'caf\\udce9'"
    line_of(["extract", "caf\udce9"]).encode()


def test_a_thousand_files_are_counted_not_listed():
    line = line_of(["import", "store", *(f"file-{number}.csv" for number in range(1000))])
    assert len(line) < 2100
    assert line.endswith("… (1002 words)")


def test_it_is_seen_by_threads_and_gone_afterwards():
    assert running() is None
    seen: list[str | None] = []
    with recorded(["ls", "store"]):
        thread = threading.Thread(target=lambda: seen.append(running()))
        thread.start()
        thread.join()
        with recorded(["inner"]):
            assert running() == "clipsyn inner"
    assert seen == ["clipsyn ls store"]
    assert running() is None


def test_a_line_for_people_has_no_secrets() -> None:
    line = scrubbed("hf-hub:org/repo?token=h1dden&revision=2, https://me:s3cret@host/x?sig=h1dden")
    assert "h1dden" not in line
    assert "s3cret" not in line
    assert "hf-hub:org/repo?token=" in line
    assert "&revision=2" in line


def test_what_is_logged_has_no_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    with _narrating(logging.INFO, {}):
        logging.getLogger("clipsyn").warning("note: %s is old", "hf-hub:org/repo?token=h1dden")
    said = capsys.readouterr().err
    assert "hf-hub:org/repo" in said
    assert "h1dden" not in said


@given(st.lists(st.text(min_size=1), max_size=5))
def test_a_shell_reads_the_words_that_are_advised(words: list[str]) -> None:
    assert shlex.split(advised(*words)) == ["clipsyn", *words]


def test_what_a_reader_fills_in_is_not_quoted() -> None:
    assert advised("import", Path("a b"), "FILE…", "-d", "…") == "clipsyn import 'a b' FILE… -d …"


HOSTILE = "b'; touch X #`$(touch Y)"
_READS: dict[str, tuple[Callable[[FeatureStore], object], list[str]]] = {
    "no cell": (
        lambda store: store.embeddings(FeatureKey("toy", "test", "clean", HOSTILE)),
        ["extract", "{}", "--backbones", HOSTILE, "--dataset", "toy", "--split", "test"],
    ),
    "no samples": (
        lambda store: store.samples(HOSTILE, "te st"),
        ["extract", "{}", "--dataset", HOSTILE, "--split", "te st"],
    ),
    "no classes": (
        lambda store: store.classes(HOSTILE, "a b", "fake/one"),
        ["extract", "{}", "--dataset", HOSTILE, "--backbones", "fake/one", "--prompts", "a b"],
    ),
    "no match": (lambda store: choose((), {}, str(store.path)), ["ls", "{}"]),
    "nothing": (
        lambda store: select(FeatureStore.open(store.path)),
        ["extract", "{}", "--backbones", "…", "--dataset", "…"],
    ),
}


@pytest.mark.parametrize("name", _READS)
def test_messages_quote_names_for_a_shell(name: str, tmp_path: Path) -> None:
    read, words = _READS[name]
    store = FeatureStore.create(tmp_path / "my; store")
    with pytest.raises(ClipsynError) as error:
        read(store)
    assert advised(*(word.format(store.path) for word in words)) in str(error.value)
