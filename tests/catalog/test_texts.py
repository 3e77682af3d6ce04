"""Class names in files, and which prompts a dataset gets."""

import json

import open_clip
import pytest

from clipsyn.catalog import datasets as texts
from clipsyn.errors import DatasetError, UsageError
from clipsyn.names import PromptSet

CLASSES = ("cat", "dog")


@pytest.fixture(autouse=True)
def nothing_installed(monkeypatch):
    """As if clip-benchmark were not there, whatever this machine has."""
    texts._benchmark_json.cache_clear()
    monkeypatch.setattr(texts, "find_spec", lambda name: None)
    yield
    texts._benchmark_json.cache_clear()


@pytest.fixture
def clip_benchmark(tmp_path, monkeypatch):
    """A package of that name whose import fails: reading its lists must not need it."""
    folder = tmp_path / "site" / "clip_benchmark"
    (folder / "datasets").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise ImportError('transformers is missing')")
    templates = {"dtd": ["a {c} texture.", "{c}."], "imagenet1k": ["never as fallback {c}"]}
    names = {"eurosat": ["crop", "sea"], "pets": ["in another order"]}
    for file, content in (
        ("en_zeroshot_classification_templates.json", templates),
        ("en_classnames.json", names),
    ):
        (folder / "datasets" / file).write_text(json.dumps(content))
    monkeypatch.undo()
    texts._benchmark_json.cache_clear()
    monkeypatch.syspath_prepend(str(tmp_path / "site"))


def resolve(spec="auto", dataset="dtd", own=()):
    return texts.resolve_prompts(spec, dataset, CLASSES, own)


@pytest.mark.parametrize("spec", ["auto", "own"])
def test_own_templates_come_first(spec, clip_benchmark):
    prompt_set, note = resolve(spec, own=["the {c}", "{c}!"])
    assert prompt_set == PromptSet("own", ("the {c}", "{c}!"))
    assert prompt_set.prompts("cat") == ("the cat", "cat!")
    assert note == ""


@pytest.mark.parametrize("dataset", ["dtd", "vtab/dtd", "wds/vtab/dtd"])
@pytest.mark.parametrize("spec", ["auto", "clip-benchmark"])
def test_clip_benchmarks_templates_come_second(spec, dataset, clip_benchmark):
    expected = PromptSet("clip-benchmark", ("a {c} texture.", "{c}."))
    assert resolve(spec, dataset) == (expected, "")


def test_other_datasets_get_one_simple_prompt_and_a_note(clip_benchmark):
    prompt_set, note = resolve("auto", "my-own-images")
    assert prompt_set == PromptSet("simple", ("a photo of a {c}.",))
    assert "my-own-images" in note
    assert "a photo of a {c}." in note
    assert "prompts=" in note


@pytest.mark.parametrize("spec", ["own", "clip-benchmark"])
def test_a_set_that_is_not_to_be_had(spec):
    with pytest.raises(UsageError, match=f"no '{spec}' prompts for dataset 'dtd'"):
        resolve(spec)


def test_class_names_only_where_they_fit_torchvisions_order(clip_benchmark):
    assert texts.benchmark_class_names("vtab/eurosat") == ("crop", "sea")
    assert texts.benchmark_class_names("pets") == ()  # listed there in another dataset's order
    assert texts.benchmark_class_names("my-own-images") == ()
    assert texts.benchmark_templates("my-own-images") == ()


# --- files ---


@pytest.fixture
def file(tmp_path):
    return tmp_path / "mine.json"


@pytest.mark.parametrize(
    "content",
    [
        ["a {c}.", "{c}"],
        {"dtd": ["a {c}.", "{c}"], "mnist": ["{c}"]},
        {"vtab/dtd": ["a {c}.", "{c}"]},
    ],
)
def test_templates_from_a_file(content, file):
    file.write_text(json.dumps(content))
    assert resolve(str(file), own=["{c}"]) == (PromptSet("mine", ("a {c}.", "{c}")), "")


@pytest.mark.parametrize("wrapped", [False, True])
def test_prompts_per_class_from_a_file(wrapped, file):
    content = {"dog": ["it barks", "a dog"], "cat": ["it purrs"], "cow": ["unused"]}
    file.write_text(json.dumps({"dtd": content} if wrapped else content))
    prompt_set, note = resolve(str(file))
    assert prompt_set.name == "mine"
    assert prompt_set.prompts("dog") == ("it barks", "a dog")
    assert prompt_set.prompts("cat") == ("it purrs",)
    assert list(prompt_set.per_class) == ["cat", "dog"]
    assert note == ""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "holds neither templates nor prompts per class"),
        ("3", "holds neither"),
        ('{"dtd": 3}', "holds neither"),
        ('["a photo"]', r"template 'a photo' has no \{c\}"),
        ('{"cat": ["it purrs"]}', "no prompts for 1 of the 2 classes of 'dtd', for instance 'dog'"),
        ('{"mnist": ["{c}"]}', "has nothing for dataset 'dtd': its keys are 'mnist'"),
    ],
)
def test_bad_files(content, message, file):
    file.write_text(content)
    with pytest.raises(UsageError, match=message):
        resolve(str(file))


# OpenAI's templates for ImageNet


@pytest.mark.parametrize("spec", ["auto", "openai"])
@pytest.mark.parametrize("name", ["imagenet1k", "imagenet"])
def test_imagenet_has_openais_eighty(name, spec):
    prompt_set, note = texts.resolve_prompts(spec, name, ("tench",), ())
    assert prompt_set.name == "openai"
    expected = tuple(write("tench") for write in open_clip.OPENAI_IMAGENET_TEMPLATES)
    assert prompt_set.prompts("tench") == expected
    assert note == ""
    assert texts.resolve_prompts("openai", "imagenet-v2", ("tench",), ())[0].name == "openai"


def test_imagenets_names_are_open_clips():
    assert list(texts.imagenet_names()) == list(open_clip.IMAGENET_CLASSNAMES)


def test_lines_are_stripped_and_blank_ends_dropped(tmp_path):
    file = tmp_path / "names.txt"
    file.write_bytes("\ufeffcat \r\n  große Katze\r\n\r\n".encode())
    assert texts.read_lines(file) == ("cat", "große Katze")
    with pytest.raises(DatasetError, match=r"cannot be read: .*No such file"):
        texts.read_lines(tmp_path / "nowhere.txt")


@pytest.mark.parametrize("content", ['["cat", " dog"]', '{"b": "dog", "a": "cat"}'])
def test_json_is_a_list_or_by_folder(content, tmp_path):
    (tmp_path / "names.json").write_text(content)
    assert texts.read_class_names(tmp_path / "names.json", ["a", "b"]) == ("cat", "dog")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("names.json", '{"cat": 1}', "does not name each class"),
        ("names.json", "[1, 2]", "does not name each class"),
        ("names.json", '["cat", ""]', "does not name each class"),
        ("names.json", "[cat", "is not JSON"),
        ("names.json", "[]", "is empty: write class names"),
        ("names.txt", "\n \n", "is empty: write class names"),
    ],
)
def test_what_holds_no_names(file, content, message, tmp_path):
    (tmp_path / file).write_text(content)
    with pytest.raises(DatasetError, match=message):
        texts.read_class_names(tmp_path / file)
