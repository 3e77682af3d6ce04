"""The page as a whole: what a browser may do with it, and what a reader finds in it."""

import hashlib
import re
from base64 import b64decode, b64encode
from html.parser import HTMLParser
from pathlib import Path
from xml.etree.ElementTree import fromstring

import numpy as np
import polars as pl
import pytest

import clipsyn
from clipsyn.analyses import ANALYSES
from clipsyn.errors import MissingCell, UnknownName, UsageError
from clipsyn.evaluation.loop import evaluate
from clipsyn.report import ReportSettings
from clipsyn.report.evidence import gather, without_folders
from clipsyn.report.page import caveats, rendered, write_report
from clipsyn.run.recipe import read_recipe
from clipsyn.store.features import FeatureStore

VOID = {"meta", "br", "img", "link", "hr", "input"}
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(2)>',
    "</style></title>&lt;b&gt;",
    "{{ 7*7 }}{% raw %}",
    "a\N{RIGHT-TO-LEFT OVERRIDE}gpj.exe",
    "$x^2$ `rm`",
    "\N{HEBREW LETTER ALEF}\N{HEBREW LETTER BET} 123",
    "long" * 20,
)


class Page(HTMLParser):
    """Elements with their attributes, text by element, and whether every tag is closed."""

    def __init__(self, text):
        super().__init__()
        self.text = text
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.read: list[tuple[str, str]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.read.append((self.open[-1] if self.open else "", data))

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def words(self):
        return " ".join(data for tag, data in self.read if tag not in ("style", "script"))

    @property
    def policy(self):
        (policy,) = (it["content"] for it in self.all("meta") if it.get("http-equiv"))
        return policy


@pytest.fixture
def write(tmp_path):
    """Function (store, settings) -> the page that is written."""

    def make(store, **settings):
        path = write_report(store, output=tmp_path / "page.html", **settings)
        return Page(path.read_text("utf-8"))

    return make


@pytest.fixture(scope="module")
def tiny_page(fakes, tmp_path_factory):
    """The page of a store with two backbones, two splits, clean and jpeg-3."""
    folder = tmp_path_factory.mktemp("tiny-page")
    sources = [fakes.Source(split="test"), fakes.Source(split="train", count=11)]
    store = fakes.fill(folder / "store", fakes.two(), sources, ("clean", "jpeg:3"))
    return Page(write_report(store, output=folder / "page.html").read_text("utf-8"))


@pytest.fixture
def pets(answered):
    """Two backbones that say different things of 60 images."""
    draw = np.random.default_rng(1)
    labels = draw.integers(0, 3, 60)
    answers = {
        name: np.where(draw.random(60) < skill, labels, (labels + 1) % 3)
        for name, skill in (("mine/one", 0.8), ("mine/two", 0.6))
    }
    return answered(answers, labels)


@pytest.fixture
def noisy(answered):
    """Two backbones under two perturbations."""
    for perturbation in ("fog-3", "jpeg-3", "clean"):
        store = answered({"a": [0, 1, 1], "b": [0, 1, 2]}, [0, 1, 1], perturbation=perturbation)
    return store


class TestDocument:
    def test_it_is_well_formed(self, tiny_page):
        page = tiny_page
        assert page.open == []  # every tag is closed
        ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
        assert len(ids) == len(set(ids))
        named = {
            value.lstrip("#")
            for _, attributes in page.elements
            for key in ("href", "aria-labelledby")
            if (value := attributes.get(key)) and (key != "href" or value.startswith("#"))
        }
        assert named <= set(ids)
        assert len(named) > 5

    def test_the_answer_comes_before_tables_and_figures(self, tiny_page):
        text = tiny_page.text
        body = text.index("<body>")
        places = [text.index(mark, body) for mark in ('class="headline"', "sortable", "<img ")]
        assert places == sorted(places)

    def test_figures_have_texts_and_what_is_wide_can_be_reached_by_keyboard(self, tiny_page):
        page = tiny_page
        assert len(page.all("img")) > 3
        assert all(it["alt"] for it in page.all("img"))
        assert all(it["aria-hidden"] == "true" for it in page.all("svg"))
        tags = [tag for tag, _ in page.elements]
        assert tags.count("caption") == tags.count("table")
        assert all(it.get("scope") in ("row", "col") for it in page.all("th"))
        boxes = [it for it in page.all("div") if it.get("class") == "scroll"]
        assert {(box["tabindex"], box["role"]) for box in boxes} == {("0", "region")}
        assert all(box["aria-label"] for box in boxes)

    def test_the_same_store_gives_the_same_bytes(self, pets, tmp_path):
        files = [write_report(pets, output=tmp_path / f"{name}.html") for name in "ab"]
        assert files[0].read_bytes() == files[1].read_bytes()


class TestPolicy:
    def test_no_script_but_this_and_nothing_from_elsewhere(self, tiny_page):
        page = tiny_page
        (content,) = re.findall("<script>(.*?)</script>", page.text, re.S)
        digest = b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"script-src 'sha256-{digest}';" in page.policy
        assert "default-src 'none'" in page.policy
        assert "img-src data:;" in page.policy

    def test_no_folder_of_this_machine_is_told(self, pets, write, tmp_path):
        page = write(pets)
        assert str(tmp_path) not in page.text
        assert "clipsyn import STORE FILE" in page.words  # of what clean images alone cannot show

    def test_no_folder_is_told_in_commands_that_are_advised(self, pets):
        text = f"`clipsyn import {pets.path} /home/me/a.npz -b x=local-dir:/data/x` https://a.b/c/d"
        told = without_folders(text, pets)
        assert told == "`clipsyn import STORE …/a.npz -b x=local-dir:…/x` https://a.b/c/d"

    def test_nothing_is_fetched(self, tiny_page):
        page = tiny_page
        for _, attributes in page.elements:
            for key in ("href", "src", "xlink:href", "srcset", "action"):
                assert (attributes.get(key) or "#").startswith(("#", "data:image/"))
        assert "@import" not in page.text
        assert "url(http" not in page.text


@pytest.fixture(scope="module")
def page(answered_once, tmp_path_factory):
    """The page of a store all of whose names are hostile."""
    draw = np.random.default_rng(2)
    labels = draw.integers(0, 3, 30)
    for dataset in HOSTILE[:3]:
        answers = {name: draw.integers(0, 3, 30) for name in HOSTILE}
        ids = [f"{HOSTILE[row % 8]}{row}.png" for row in range(30)]
        name = dataset.replace("/", "-")
        store = answered_once(answers, labels, dataset=name, classes=HOSTILE[3:6], ids=ids)
    path = tmp_path_factory.mktemp("hostile") / "page.html"
    return Page(write_report(store, output=path, title=HOSTILE[0]).read_text("utf-8"))


class TestHostileNames:
    def test_they_are_shown_as_text(self, page):
        assert page.open == []
        assert len(page.all("script")) == len(page.all("style")) == len(page.all("title")) == 1
        assert all(it["src"].startswith("data:image/") for it in page.all("img"))
        assert HOSTILE[0] in page.words
        assert HOSTILE[1] in page.words
        assert "{{ 7*7 }}" in page.words

    def test_overrides_of_direction_are_written_out(self, page):
        assert "\N{RIGHT-TO-LEFT OVERRIDE}" not in page.text
        assert "a\\u202egpj.exe" in page.words

    def test_names_in_other_directions_keep_to_themselves(self, page):
        name = HOSTILE[6]
        cells = [tag for tag, data in page.read if data == name]
        assert set(cells) == {"bdi"}


class TestStores:
    def test_what_one_dataset_of_imports_cannot_show_is_not_there(self, pets, write, tmp_path):
        """No mean over datasets, no support, and no column of dashes."""
        results = tmp_path / "results.parquet"
        evaluate(pets, output=results)
        page = write(pets, results=results)
        assert "which needs no labels, has" in page.words
        for absent in ("means over", "on the support", "evaluate STORE", "SHA-256", "GFLOPs"):
            assert absent not in page.words

    def test_images_without_labels_get_a_page(self, answered, write):
        words = write(answered({"mine": [0, 1, 2]}, [-1, -1, -1])).words
        assert "nothing is judged" in words
        assert "No image of" in words

    def test_an_empty_store_has_nothing_to_say(self, tmp_path, write):
        with pytest.raises(MissingCell, match="clipsyn extract"):
            write(FeatureStore.create(tmp_path / "empty"))

    def test_accuracies_are_those_of_the_store(self, pets, write):
        samples = pets.samples("pets", "test")
        page = write(pets)
        for key in pets.keys():  # noqa: SIM118 (a store is no dict)
            right = pets.cell(key).predictions("imported") == samples.labels
            row = re.search(
                rf"<th scope=\"row\"[^>]*><bdi>{key.backbone}</bdi></th>(.*?)</tr>", page.text
            )
            assert f'data-v="{100 * right.mean():.6g}"' in row[1]


class TestFiles:
    @pytest.fixture
    def results(self, tiny_store, tmp_path):
        path = tmp_path / "results.parquet"
        ensembles = ["best-single", "log-avg", "super-learner"]
        evaluate(tiny_store, ensembles=ensembles, shots=[2], seeds=2, output=path)
        return path

    def test_results_give_methods_and_a_test_of_each(self, tiny_store, results, write):
        page = write(tiny_store, results=results)
        assert 'data-name="gains"' in page.text
        assert "best on the support" in page.words
        assert ("bdi", "gain, points") in page.read
        pair = clipsyn.compare_methods(results, "best-single", perturbations=["clean"])
        (fact,) = re.findall("<b>Tested image by image</b>.*?</li>", page.text, re.DOTALL)
        (name,) = re.findall("<bdi>(.*?)</bdi>", fact)
        (row,) = pair.filter(second=name, dataset="toy").iter_rows(named=True)
        fact = " ".join(fact.split())
        assert f"leads by {-100 * row['difference']:.1f} points" in fact
        p = row["p_holm"]
        assert (f"p is {p:.3f}" if p >= 0.001 else "p is &lt;0.001") in fact
        assert ("a tie" in fact) is row["tie"]

    def test_what_was_measured_before_is_shown(self, pets, tmp_path, write):
        frame = ANALYSES.load("zeroshot")(pets)
        file = tmp_path / "zeroshot.parquet"
        changed = frame.with_columns(
            value=pl.when(pl.col("backbones") == ["mine/one"]).then(0.1234).otherwise("value")
        )
        changed.write_parquet(file)
        assert "12.3" in write(pets, measured={"zeroshot": str(file)}).words

    def test_means_over_other_perturbations_are_not_shown(self, noisy, tmp_path, write):
        file = tmp_path / "robustness.parquet"
        ANALYSES.load("robustness")(noisy).write_parquet(file)
        words = write(noisy, measured={"robustness": str(file)}, perturbations=["fog-*"]).words
        assert "file of robustness has means over other perturbations than these" in words
        words = write(noisy, measured={"robustness": str(file)}).words
        assert "Under perturbation" in words

    def test_clean_images_are_the_main_ones_where_there_are_any(self, noisy):
        settings = ReportSettings(output="x.html")
        assert gather(noisy, settings).main_settings.perturbations == ("clean",)

    def test_settings_choose_of_files_too(self, tiny_store, results, write):
        with pytest.raises(UnknownName, match="fake/none"):
            write(tiny_store, results=results, backbones=["fake/none"])

    @pytest.mark.parametrize("field", ["results", "measured"])
    def test_a_file_that_holds_no_results_is_refused(self, field, pets, tmp_path, write):
        file = tmp_path / "other.parquet"
        pl.DataFrame({"a": [1]}).write_parquet(file)
        value = {"zeroshot": str(file)} if field == "measured" else file
        with pytest.raises(UsageError, match="holds no results"):
            write(pets, **{field: value})

    def test_a_place_that_cannot_be_written_is_refused(self, pets, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(UsageError, match="cannot write"):
            write_report(pets, output=tmp_path / "file" / "page.html")


class TestImages:
    def test_pictures_are_in_the_page(self, tmp_path, write_images, fakes, write):
        from clipsyn.extract.images import open_source

        folder = write_images(count=12)
        source = open_source(f"photos={folder}", "test")
        store = fakes.fill(
            tmp_path / "store", [fakes.Encoder(), fakes.Encoder("fake/two", size=12)], [source]
        )
        page = write(store, images=folder)
        pictures = [it for it in page.all("img") if it["src"].startswith("data:image/webp;base64,")]
        assert 0 < len(pictures) <= 160
        assert all("photos/test" in it["alt"] for it in pictures)
        shown = [it for it in page.all("li") if "data-right" in it]
        assert len(shown) == len(pictures)
        assert "11" not in {it["data-right"] for it in shown}  # something is wrong


def test_a_store_whose_images_are_all_unreadable_has_a_page(fakes, tmp_path):
    bad = fakes.Source(count=6, bad=dict.fromkeys(range(6), "torn"))
    store = fakes.fill(tmp_path / "store", sources=[bad], max_bad=1.0)
    assert write_report(store, output=tmp_path / "page.html").is_file()


def told(store, **settings):
    """All caveats, without markup."""
    evidence = gather(store, ReportSettings(output="x.html", **settings))
    items = rendered("caveats.html", **caveats(evidence))
    assert "`" not in items
    return " ".join(re.sub("<[^>]*>", "", items).split())


BOTH = {"a": [0, 1, 2], "b": [0, 0, 2]}
CONTENT = np.arange(96, dtype=np.uint8).reshape(3, 32)
CAVEATS = {  # by a phrase: answers, labels and what else is known of each part of a store
    "Few labelled images, so wide intervals: pets/test (3)": [(BOTH, [0, 1, 1], {})],
    "a and b were imported": [(BOTH, [0, 1, 1], {})],
    "count for none of them: pets/test (1)": [
        (BOTH, [0, 1, 1], {"valid": {"b": np.array([True, False, True])}})
    ],
    "--backbone b --dataset pets --split test --perturb jpeg-3": [
        (BOTH, [0, 1, 1], {}),
        ({"a": [0, 1, 2]}, [0, 1, 1], {"perturbation": "jpeg-3"}),
    ],
    "No image of new/test has a label": [
        (BOTH, [0, 1, 1], {}),
        ({"a": [0, 1]}, [-1, -1], {"dataset": "new"}),
    ],
    "Images stand in several of these sets": [
        (BOTH, [0, 1, 1], {"dataset": name, "content": CONTENT}) for name in ("one", "other")
    ],
    "clipsyn diversity is not on this page: pets/test has only one backbone": [
        ({"a": [0, 1]}, [0, 1], {})
    ],
}


@pytest.mark.parametrize("phrase", CAVEATS)
def test_caveats(answered, phrase):
    for answers, labels, about in CAVEATS[phrase]:
        store = answered(answers, labels, **about)
    assert phrase in told(store)


def test_classes_that_look_alike_are_a_caveat(tmp_path, fakes):
    source = fakes.Source("toy", class_names=("owl", "owl", "cat"))
    store = fakes.fill(tmp_path / "alike", [fakes.Encoder(), fakes.Encoder("fake/two")], [source])
    assert "cannot be told apart by fake/one, fake/two" in told(store)


def test_a_figure_is_a_picture_whose_letters_are_as_they_were(tiny_page):
    """Nothing in it runs."""
    sources = [str(it["src"]) for it in tiny_page.all("img")]
    drawn = [b64decode(it.partition(",")[2]).decode() for it in sources if "svg+xml" in it]
    assert drawn
    for text in drawn:
        assert fromstring(text).tag.endswith("svg")
        assert "<script" not in text
    assert "fake/one" in " ".join(drawn)


@pytest.mark.parametrize(("name", "recipe"), [("zoo", "quickstart"), ("real", "real")])
def test_pages_that_are_committed_are_their_recipes_and_tell_no_folder(name, recipe):
    root = Path(__file__).parents[2]
    text = (root / "docs" / "examples" / f"{name}.html").read_text("utf-8")
    *_, stage = read_recipe(root / "pipelines" / f"{recipe}.yaml").stages
    assert stage.stage == "report"
    assert f"<title>{stage.title}</title>" in text
    assert not re.search(r"/(work|home|tmp|root|Users|mnt)/", text)
    assert len(text) < 1_500_000
    assert name == "zoo" or "image/webp" not in text  # no image of others
