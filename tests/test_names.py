"""`clipsyn.names`: names, places and shares are read; fingerprints follow what decides numbers."""

import hashlib
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from clipsyn.errors import UsageError
from clipsyn.names import (
    CLEAN,
    Address,
    Backbone,
    Perturbation,
    PromptSet,
    canonical_json,
    differences,
    fingerprint,
    is_url,
    parse_perturbation,
    parse_shard,
)

# `clipsyn.names`: names read, fingerprints that follow what decides the numbers


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc"), inner, max_size=3),
    max_leaves=8,
)
IDENTITIES = st.dictionaries(st.text("abcd", min_size=1), JSON, max_size=4)


def test_a_fingerprint_is_that_of_sorted_compact_json():
    text = '{"a":[1,"é"],"b":{"c":null,"d":true}}'
    identity = {"b": {"d": True, "c": None}, "a": [1, "é"]}
    assert canonical_json(identity) == text
    assert fingerprint(identity) == hashlib.sha256(text.encode()).hexdigest()


@given(IDENTITIES)
def test_the_order_of_fields_does_not_matter(identity):
    turned = dict(reversed(identity.items()))
    assert fingerprint(turned) == fingerprint(identity)
    assert list(differences(identity, turned)) == []


@given(IDENTITIES, IDENTITIES)
@example({"a": None}, {})
@example({"a": 1}, {"a": True})
@example({"a": 1}, {"a": 1.0})
@example({"a": (1, 2)}, {"a": [1, 2]})
def test_fingerprints_differ_just_where_differences_are_found(one, other):
    assert bool(list(differences(one, other))) == (fingerprint(one) != fingerprint(other))


def test_nan_is_no_identity():
    with pytest.raises(ValueError, match="not JSON compliant"):
        fingerprint({"a": float("nan")})


def test_differences_name_the_leaf():
    old = {"backbone": {"weights": "a", "size": [1, 2]}, "gone": 1, "same": {"x": 1}}
    new = {"backbone": {"weights": "b", "size": [1, 3]}, "new": 2, "same": {"x": 1}}
    assert list(differences(old, new)) == [
        ("backbone.size", [1, 2], [1, 3]),
        ("backbone.weights", "a", "b"),
        ("gone", 1, None),
        ("new", None, 2),
    ]


@pytest.mark.parametrize(
    ("text", "name", "source"),
    [
        ("ViT-B-32/openai", "ViT-B-32/openai", "ViT-B-32/openai"),
        (" ViT-B-32,openai ", "ViT-B-32/openai", "ViT-B-32/openai"),
        ("RN50-quickgelu/openai", "RN50/openai", "RN50/openai"),
        ("RN50-quickgelu/yfcc15m", "RN50-quickgelu/yfcc15m", "RN50-quickgelu/yfcc15m"),
        ("mine=RN50/openai", "mine", "RN50/openai"),
        ("hf-hub:org/repo", "hf-hub:org/repo", "hf-hub:org/repo"),
        ("b=hf-hub:org/repo", "b", "hf-hub:org/repo"),
        ("local-dir:/a/run7/", "run7", "local-dir:/a/run7"),
        ("x=local-dir:run7", "x", "local-dir:run7"),
        ("ViT-B-32@ckpt/epoch_3.pt", "ViT-B-32@epoch_3", "ViT-B-32@ckpt/epoch_3.pt"),
        ("timm:resnet50.a1_in1k", "timm:resnet50.a1_in1k", "timm:resnet50.a1_in1k"),
        ("timm:vit:logits@a/b.pt", "timm:vit:logits@b", "timm:vit:logits@a/b.pt"),
        ("hf:org/repo", "hf:org/repo", "hf:org/repo"),
        ("hf:./a/run7", "run7", "hf:./a/run7"),
        ("own=py:a.b:make", "own", "py:a.b:make"),
    ],
)
def test_every_form_of_a_backbone_is_read(text, name, source):
    assert Backbone.parse(text) == Backbone(name, source)


@pytest.mark.parametrize("text", ["", "ViT-B-32", "/openai", "ViT-B-32/", "mine=", "=RN50/openai"])
def test_what_is_no_backbone_is_refused(text):
    with pytest.raises(UsageError, match="backbone"):
        Backbone.parse(text)


@pytest.mark.parametrize("name", ["", " "])
def test_a_backbone_has_a_name(name):
    with pytest.raises(UsageError, match="has an empty name"):
        Backbone(name, "RN50/openai")


PERTURBATIONS = st.builds(
    Perturbation,
    st.sampled_from(["jpeg", "gaussian_noise", "fog2"]),
    st.integers(1, 5),
    st.integers(0, 10**6),
    st.integers(1, 1000),
)


@given(PERTURBATIONS)
def test_a_perturbation_is_read_from_its_label(perturbation):
    assert parse_perturbation(perturbation.label) == perturbation


@given(PERTURBATIONS, PERTURBATIONS)
def test_labels_and_identities_tell_perturbations_apart(one, other):
    assert (one.label == other.label) == (one == other)
    assert (one.identity() == other.identity()) == (one == other)


@pytest.mark.parametrize(
    ("text", "perturbation"),
    [
        ("clean", CLEAN),
        ("jpeg:3", Perturbation("jpeg", 3)),
        ("jpeg-3", Perturbation("jpeg", 3)),
        ("jpeg:3:seed=1:canvas=64", Perturbation("jpeg", 3, 1, 64)),
        ("gaussian_noise:2:canvas=64", Perturbation("gaussian_noise", 2, 0, 64)),
    ],
)
def test_perturbations_are_read(text, perturbation):
    assert parse_perturbation(text) == perturbation


@pytest.mark.parametrize(
    "text",
    [
        *["", "jpeg", "jpeg:", "jpeg:x", "jpeg:-1", "JPEG:3", "jpeg:3:speed=2", "jpeg:3:seed"],
        *["jpeg:3:seed=1:seed=2", "jpeg:3:seed=1:canvas=64:seed=1", "jpeg:3:seed=" + "9" * 5000],
    ],
)
def test_what_is_no_perturbation_is_refused(text):
    with pytest.raises(UsageError):
        parse_perturbation(text)


def test_clean_is_one_whatever_it_says():
    assert CLEAN.label == "clean"
    assert Perturbation("clean", 0, 5, 64).identity() == CLEAN.identity() == {"name": "clean"}


def test_the_version_of_a_perturbation_is_in_its_identity_only():
    one, two = Perturbation("jpeg", 3), Perturbation("jpeg", 3, version=2)
    assert one.label == two.label
    assert one.identity() != two.identity()


def test_templates_are_filled():
    prompts = PromptSet("two", ("a {c}.", "{c}, a {c}"))
    assert prompts.prompts("{cat}") == ("a {cat}.", "{cat}, a {cat}")


def test_a_template_without_its_place_is_refused():
    with pytest.raises(UsageError, match=r"template 'a photo' has no \{c\}"):
        PromptSet("bad", ("a photo",))


def test_prompts_per_class_stand_for_themselves():
    prompts = PromptSet("cupl", per_class={"cat": ("it purrs",)})
    assert prompts.prompts("cat") == ("it purrs",)
    with pytest.raises(UsageError, match="no prompts for class 'dog'"):
        prompts.prompts("dog")


# `clipsyn evaluate`


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s3://bucket/store", True),
        ("https://host/store", True),
        ("file:///data/store", True),
        ("ftp://host/store", True),  # a URL, though one that is refused
        ("store", False),
        ("/data/store", False),
        ("./s3:/bucket", False),
        ("C://data", False),
        ("://x", False),
        (Path("store"), False),
        ("", False),
    ],
)
def test_a_url_has_a_scheme_of_two_letters_and_more(text, expected):
    assert is_url(text) is expected


def test_an_address_is_shown_without_user_and_query():
    address = Address.parse("https://me:s%40cret@host:8080/a/b/?token=hidden#top")
    assert address.shown == "https://host:8080/a/b"
    assert address.user == "me:s@cret"
    assert address.url == "https://host:8080/a/b?token=hidden"
    assert "cret" not in address.url


def test_a_file_url_is_a_folder():
    assert Address.parse("file:///data/my%20store/").folder == Path("/data/my store")
    assert Address.parse("file://localhost/data").folder == Path("/data")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ftp://me:secret@host/x", "ftp://host/x: a store is read from file, http, https"),
        ("file://data/store", "a file URL has three slashes"),
        ("s3:///store", "names no host or bucket"),
        ("http://[::1/x", "this is no URL"),
        ("http://me:secret@host:80x/", "this is no URL"),
    ],
)
def test_other_urls_are_refused_in_a_sentence_without_secrets(text, said):
    with pytest.raises(UsageError) as error:
        Address.parse(text)
    assert said in str(error.value)
    assert "secret" not in str(error.value)


# Which of several workers this one is


@pytest.mark.parametrize(
    ("text", "shard"), [(None, (0, 1)), ("1/1", (0, 1)), ("2/8", (1, 8)), ("8/8", (7, 8))]
)
def test_shards_count_from_one(text, shard):
    assert parse_shard(text) == shard


@pytest.mark.parametrize("text", ["0/3", "4/3", "3", "a/b", "1/0", "-1/3", "1/3/5", "", "1.0/3"])
def test_impossible_shards_are_refused(text):
    with pytest.raises(UsageError, match=r"write I/N with 1 <= I <= N"):
        parse_shard(text)
