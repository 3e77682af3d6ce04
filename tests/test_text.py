"""`clipsyn.text`: command lines as cells record them, names and documents of others."""

import json
import logging
import shlex
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipsyn import text as texts
from clipsyn.cli import _narrating
from clipsyn.errors import ClipsynError, DatasetError, UsageError
from clipsyn.names import FeatureKey
from clipsyn.store.features import FeatureStore
from clipsyn.store.select import choose, select

# The command line as cells record it: exact, but for secrets


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
    assert texts.line_of(words) == line


@given(st.lists(st.text(st.characters(categories=["L", "N"]), min_size=1), max_size=5))
def test_a_shell_reads_the_same_words_again(words):
    assert shlex.split(texts.line_of(words)) == ["clipsyn", *words]


def test_bytes_that_are_no_text_can_be_stored():
    assert texts.line_of(["extract", "caf\udce9"]) == "clipsyn extract 'caf\\udce9'"
    texts.line_of(["extract", "caf\udce9"]).encode()


def test_it_is_seen_by_threads_and_gone_afterwards():
    assert texts.running() is None
    seen: list[str | None] = []
    with texts.recorded(["ls", "store"]):
        thread = threading.Thread(target=lambda: seen.append(texts.running()))
        thread.start()
        thread.join()
        with texts.recorded(["inner"]):
            assert texts.running() == "clipsyn inner"
    assert seen == ["clipsyn ls store"]
    assert texts.running() is None


def test_a_line_for_people_has_no_secrets():
    line = texts.scrubbed(
        "hf-hub:org/repo?token=h1dden&revision=2, https://me:s3cret@host/x?sig=h1dden"
    )
    assert "h1dden" not in line
    assert "s3cret" not in line
    assert "hf-hub:org/repo?token=" in line
    assert "&revision=2" in line


def test_what_is_logged_has_no_secrets(capsys):
    with _narrating(logging.INFO):
        logging.getLogger("clipsyn").warning("note: %s is old", "hf-hub:org/repo?token=h1dden")
    said = capsys.readouterr().err
    assert "hf-hub:org/repo" in said
    assert "h1dden" not in said


@given(st.lists(st.text(min_size=1), max_size=5))
def test_a_shell_reads_the_words_that_are_advised(words):
    assert shlex.split(texts.advised(*words)) == ["clipsyn", *words]


def test_what_a_reader_fills_in_is_not_quoted():
    assert (
        texts.advised("import", Path("a b"), "FILE…", "-d", "…")
        == "clipsyn import 'a b' FILE… -d …"
    )


HOSTILE = "b'; touch X #`$(touch Y)"
_READS: dict[str, tuple[Callable[[FeatureStore], object], list[str]]] = {
    "no cell": (
        lambda store: store.cell(FeatureKey("toy", "test", "clean", HOSTILE)).embeddings(),
        ["extract", "{}", "--backbones", HOSTILE, "--dataset", "toy=…", "--split", "test"],
    ),
    "no samples": (
        lambda store: store.samples(HOSTILE, "te st"),
        ["extract", "{}", "--backbones", "…", "--dataset", f"{HOSTILE}=…", "--split", "te st"],
    ),
    "no classes": (
        lambda store: store.classes("emoji-food", "a b", "fake/one"),
        ["extract", "{}", "--backbones", "fake/one", "--dataset", "emoji-food", "--prompts", "a b"],
    ),
    "no match": (lambda store: choose((), {}, str(store.path)), ["ls", "{}"]),
    "nothing": (
        lambda store: select(FeatureStore.open(store.path)),
        ["extract", "{}", "--backbones", "…", "--dataset", "…"],
    ),
}


@pytest.mark.parametrize("name", _READS)
def test_messages_quote_names_for_a_shell(name, tmp_path):
    read, words = _READS[name]
    store = FeatureStore.create(tmp_path / "my; store")
    with pytest.raises(ClipsynError) as error:
        read(store)
    assert texts.advised(*(word.format(store.path) for word in words)) in str(error.value)


# What reaches a terminal from names that others chose


UNSAFE = [
    *map(chr, range(0x20)),
    *map(chr, range(0x7F, 0xA0)),
    *"\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\udcff",
]


def test_an_unsafe_character_is_written_out():
    for character in UNSAFE:
        assert texts.printable(f"a{character}b") == f"a\\u{ord(character):04x}b"


@pytest.mark.parametrize("text", ["", "crème brûlée", "犬", "👩\u200d🚀", "[red]", "a\\nb", "كلب"])
def test_other_text_stays_as_it_is(text):
    assert texts.printable(text) == texts.printable_lines(text) == text


def test_lines_keep_breaks_tabs_and_colours_and_nothing_else():
    ours = "\x1b[1mbest\x1b[0m\n\tn"
    assert texts.printable_lines(ours) == ours
    assert texts.printable_lines("\x1b]0;title\x07\r\x1b[2J") == (
        "\\u001b]0;title\\u0007\\u000d\\u001b[2J"
    )


def test_a_number_with_what_it_is_of():
    said = [texts.counted(count, "group") for count in (0, 1, 2, 1200)]
    assert said == ["0 groups", "1 group", "2 groups", "1,200 groups"]
    assert [texts.counted(count, "is", "are") for count in (1, 3)] == ["1 is", "3 are"]


def test_json_stays_json_of_the_same():
    value = {"name": "".join(UNSAFE)}
    shown = texts.printable_lines(json.dumps(value, ensure_ascii=False))
    assert json.loads(shown) == value
    assert texts.printable(shown) == shown


# JSON and YAML from others


@pytest.mark.parametrize("parse", [texts.parse_json, texts.parse_yaml])
@pytest.mark.parametrize("text", ["[" * 99_000, '{"a":' * 50_000, "[" * 99_000 + "]" * 99_000])
def test_nesting_ends_in_a_sentence(parse, text):
    with pytest.raises(ValueError, match="nested too deeply"):
        parse(text)  # type: ignore[operator]


@pytest.mark.parametrize("text", ["a: 1\nb: 2\na: 3", "{a: 1, 'a': 1}", "x: [{1: a, 1: b}]"])
def test_a_key_that_stands_twice_is_refused(text):
    with pytest.raises(ValueError, match=r"the key '.' stands twice.* line "):
        texts.parse_yaml(text)


@pytest.mark.parametrize(
    "text",
    ["a: [", "!!python/object:os.system {}", "2024-13-45", "!!bool x", "!!int ''", "9" * 5000],
)
def test_what_is_no_yaml_is_a_value_error_on_one_line(text):
    with pytest.raises(ValueError) as caught:
        texts.parse_yaml(text)
    assert "\n" not in str(caught.value)


def test_a_device_that_never_ends_is_no_text():
    with pytest.raises(ValueError):
        texts.read_text(Path("/dev/zero"))


def test_what_a_foreign_parser_raises_is_one_error_on_one_line():
    with pytest.raises(DatasetError, match=r"^mine: it is\.$"), texts.foreign(told):
        raise Unlisted("it is.\nand more")
    with pytest.raises(DatasetError, match="mine: EOFError"), texts.foreign(told):
        raise EOFError
    with pytest.raises(UsageError, match="ours"), texts.foreign(told):
        raise UsageError("ours")


class Unlisted(Exception):
    """Of no kind that anybody would list."""


def told(reason):
    return DatasetError(f"mine: {reason}")
