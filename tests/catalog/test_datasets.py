"""The dataset catalogue: complete, unambiguous, and agreeing with what ships."""

import pytest

from clipsyn.catalog.datasets import catalogue, collections, find_dataset, resolve_datasets

# Classes and test images of VTAB's and OpenAI's splits, as in DataComp's tasklist.yml.
TEST_SIZES = {
    "imagenet1k": (1000, 50_000), "vtab/caltech101": (102, 6_085), "cars": (196, 8_041),
    "cifar10": (10, 10_000), "vtab/cifar100": (100, 10_000), "vtab/clevr_count_all": (8, 15_000),
    "country211": (211, 21_100), "cub": (200, 5_794), "vtab/dtd": (47, 1_880),
    "vtab/eurosat": (10, 5_400), "fgvc_aircraft": (100, 3_333), "vtab/flowers": (102, 6_149),
    "food101": (101, 25_250), "gtsrb": (43, 12_630), "mnist": (10, 10_000),
    "vtab/pcam": (2, 32_768), "vtab/pets": (37, 3_669), "renderedsst2": (2, 1_821),
    "vtab/resisc45": (45, 6_300), "stl10": (10, 8_000), "sun397": (397, 108_754),
}  # fmt: skip


def test_the_21_of_the_paper():
    found = {
        info.name: (info.classes, info.splits["test"].n) for info in catalogue() if not info.shipped
    }
    assert found == TEST_SIZES
    per_class = {i.name for i in catalogue() if i.metric == "mean_per_class_recall"}
    assert per_class == {"vtab/caltech101", "fgvc_aircraft", "vtab/flowers", "vtab/pets"}
    assert {info.metric for info in catalogue()} == {"acc1", "mean_per_class_recall"}


def test_all_of_the_paper_can_be_fitted_on_and_planned():
    """Also those of which torchvision has no splits."""
    for name in collections()["paper"]:
        splits = find_dataset(name).splits
        assert splits["train"].n, name
        assert splits["test"].n, name


def test_sets_that_torchvision_does_not_split_offer_only_all():
    for name in ("eurosat", "sun397", "caltech101"):
        splits = find_dataset(name).splits
        assert [key for key, split in splits.items() if split.args is not None] == ["all"]


@pytest.mark.parametrize(
    "name", ["vtab/dtd", "wds/vtab/dtd", "wds_vtab-dtd", "vtab-dtd", "dtd", "DTD"]
)
def test_spellings_of_one_name(name):
    assert find_dataset(name).name == "vtab/dtd"


def test_collections_are_resolved_to_their_datasets():
    assert len(collections()["paper"]) == 21
    emoji = ["emoji-category", "emoji-animals", "emoji-food"]
    emoji += ["emoji-objects", "emoji-travel", "emoji-faces"]
    assert resolve_datasets(["emoji"]) == emoji
    assert resolve_datasets(["shipped"]) == [*emoji, "fashion-mnist"]
    assert not set(collections()) & {info.name for info in catalogue()}


def test_resolving_expands_canonicalises_and_keeps_first_mentions():
    texts = ["dtd, mnist", "emoji-food,emoji", "vtab/dtd", "mine=./folder", "typo"]
    emoji = [name for name in collections()["emoji"] if name != "emoji-food"]
    # "typo" is for open_source to answer: it may be a path
    expected = ["vtab/dtd", "mnist", "emoji-food", *emoji, "mine=./folder", "typo"]
    assert resolve_datasets(texts) == expected


def test_a_path_with_a_comma_is_one_path(tmp_path):
    folder = tmp_path / "a,b"
    folder.mkdir()
    assert resolve_datasets([str(folder)]) == [str(folder)]
    assert resolve_datasets([f"x={folder}"]) == [f"x={folder}"]


def test_remarks_on_other_counts_than_expected():
    info = find_dataset("eurosat")
    assert info.remarks("test", 5400, 10) == []
    assert info.remarks("all", 27000, 10) == []
    few, other = info.remarks("test", 5000, 9)
    assert "5,000 images where its test split usually has 5,400" in few
    assert "8,100 (CoOp)" in few
    assert "9 classes where it usually has 10" in other
    assert info.remarks("mine", 3, 0) == []  # an unknown split of unlabelled images
