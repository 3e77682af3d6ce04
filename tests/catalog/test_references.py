"""Published numbers: those that ship, and what is refused in a CSV file of others."""

from collections import Counter

import pytest

from clipsyn.catalog.backbones import known_backbones
from clipsyn.catalog.datasets import catalogue, collections
from clipsyn.catalog.references import find_reference, references
from clipsyn.errors import UnknownName, UsageError

HEAD = "dataset,backbone,accuracy,source\n"
NINE = {backbone.name for backbone in known_backbones()["openai"]}


@pytest.fixture
def reference(tmp_path):
    """Function from the lines of a CSV file to the numbers in it."""

    def read(text, encoding="utf-8"):
        path = tmp_path / "theirs.csv"
        path.write_text(text, encoding=encoding)
        return find_reference(str(path))

    return read


def complaint(reference, text):
    with pytest.raises(UsageError) as caught:
        reference(text)
    assert "\n" not in str(caught.value)
    assert "theirs.csv" in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", references())
def test_what_ships_has_sources_and_names_that_the_catalogue_knows(name):
    numbers = find_reference(name)
    assert all(one.source and 0 < one.accuracy < 1 for one in numbers)
    by_name = {info.name: info for info in catalogue()}
    for one in numbers:
        if one.dataset in by_name:
            assert one.metric == by_name[one.dataset].metric, one


def test_the_nine_have_a_number_on_each_of_twenty_seven_datasets():
    numbers = find_reference("openai-zeroshot")
    each = Counter(one.dataset for one in numbers)
    assert len(each) == 27
    assert set(each.values()) == {9}
    assert {one.backbone for one in numbers} == NINE
    assert {*collections()["paper"]} - {*each} == {"cub"}  # OpenCLIP does not report it
    table = {(one.dataset, one.backbone): one.accuracy for one in numbers}
    assert table["imagenet1k", "RN50/openai"] == 0.5982
    assert table["vtab/eurosat", "ViT-L-14/openai"] == pytest.approx(0.626, abs=5e-4)


def test_names_are_spelt_as_the_catalogue_has_them(reference):
    found = reference(HEAD + "pets,RN50-quickgelu/openai,0.8,A\nbirds of mine,my RN50,0.5,B\n")
    assert [(one.dataset, one.backbone) for one in found] == [
        ("vtab/pets", "RN50/openai"),
        ("birds of mine", "my RN50"),
    ]
    assert [one.metric for one in found] == ["mean_per_class_recall", "acc1"]
    assert [one.prompts for one in found] == [(), ()]


def test_further_columns_comments_and_unknown_columns(reference):
    text = (
        "# from a talk\n\nprompts,year,metric,source,accuracy,backbone,dataset,head,shots\n"
        'simple own,2024,mean_per_class_recall,"A, B",0.25,a_openai,x,lda,4\n'
        'simple own,2024,mean_per_class_recall,"A, B",0.24,a_openai,x,,\n'
    )
    few, zero = reference(text, "utf-8-sig")
    about = "x", "a/openai", "mean_per_class_recall"
    assert few == (*about, 0.25, "A, B", ("simple", "own"), "lda", "4")
    assert zero == (*about, 0.24, "A, B", ("simple", "own"), "zero-shot", "0")


@pytest.mark.parametrize(
    ("backbone", "head", "shots", "mean"),
    [  # means over eleven datasets that the sources print, in %
        ("RN101", "lda", "16", 78.06),
        ("ViT-B-32", "lda", "16", 78.06),
        ("ViT-B-16", "lda", "16", 81.85),
        ("RN50", "proker", "1", 63.77),
    ],
)
def test_few_shot_numbers_have_the_means_that_their_sources_print(backbone, head, shots, mean):
    numbers = find_reference("coop-fewshot")
    found = [
        one.accuracy
        for one in numbers
        if (one.backbone, one.head, one.shots) == (f"{backbone}/openai", head, shots)
    ]
    assert len(found) == 11
    assert 100 * sum(found) / 11 == pytest.approx(mean, abs=0.006)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("", "has no numbers"),
        ("x,a/b,0.5\n", "line 2: source is empty"),
        ("x,a/b,0.5,A\n\n,a/b,0.5,A\n", "line 4: dataset is empty"),
        ("x,a/b,61.2,A\n", "line 2: accuracy '61.2' is no fraction: write 0.612 for 61.2 %"),
        ("x,a/b,nan,A\n", "accuracy 'nan' is no fraction"),
        ("x,a/b,high,A\n", "accuracy 'high' is no fraction"),
        ("x,a/b,-0.1,A\n", "accuracy '-0.1' is no fraction"),
        ("pets,a/b,0.5,A\nx,a/b,0.1,A\nvtab/pets,a/b,0.4,B\n", "twice, in lines 2 and 4"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(reference, rows, said):
    assert said in complaint(reference, HEAD + rows)


def test_columns_that_are_needed_and_metrics_that_are_known(reference):
    assert "has no column backbone, source" in complaint(reference, "dataset,accuracy\nx,0.5\n")
    said = complaint(reference, "dataset,backbone,accuracy,source,metric\nx,a/b,0.5,A,acc5\n")
    assert "metric 'acc5' is none of" in said
    assert "cannot be read" in complaint(reference, HEAD + 'x,"a/b,0.5,A\n')


def test_a_name_that_is_none_and_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UnknownName, match="openai-zeroshot"):
        find_reference("openai-zero-shot")
    with pytest.raises(UsageError, match=r"gone\.csv cannot be read"):
        find_reference(str(tmp_path / "gone.csv"))
    with pytest.raises(UsageError, match="cannot be read"):
        find_reference(str(tmp_path))
