"""The page of `clipsyn report` in a real Chromium: what its readers see, hear and type."""

import csv
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from click.testing import CliRunner

from clipsyn.cli import main

PHONE, DESK = {"width": 390, "height": 844}, {"width": 1440, "height": 900}
WINDOWS = pytest.mark.parametrize(
    ("size", "scheme"), [(PHONE, "light"), (DESK, "dark")], ids=["phone", "desk"]
)
SCRIPT = "<script>window.hacked = 1</script>"
IMAGE = "<img src=x onerror=window.hacked=1>"
BIDI = "ab\u202ecod.exe"  # its second half would be written backwards
LONG = "n" * 60
Show = Callable[..., Any]


@pytest.fixture(scope="module")
def report(tmp_path_factory, fakes):
    """The page of a store whose names are HTML, script and bidi text, with all that it can show."""
    folder = tmp_path_factory.mktemp("report")
    encoders = [fakes.Encoder(name) for name in (f"fake/{SCRIPT}", f"fake/{BIDI}", f"fake/{LONG}")]
    classes = (SCRIPT, IMAGE, BIDI)
    sources = [
        fakes.Source(name=name, split=split, count=40, class_names=classes)
        for name in (f"pets {IMAGE}", 26 * "W")
        for split in ("train", "test")
    ]
    fakes.fill(folder / "store", encoders, sources, ("clean", "jpeg:1", "jpeg:3"))
    run(
        *("evaluate", folder / "store", "-o", folder / "results.parquet"),
        *("--ensembles", "log-avg,super-learner", "--shots", "1,4", "--seeds", "2"),
    )
    run(
        *("report", folder / "store", "-o", folder / "report.html"),
        *("--results", folder / "results.parquet"),
    )
    return folder / "report.html"


def run(*arguments):
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output


# --- what goes wrong in silence ---


@WINDOWS
def test_nothing_is_said_on_the_console_and_nothing_is_fetched(report, shown, size, scheme):
    opened = shown(report, size, color_scheme=scheme)
    opened.page.evaluate(OPEN_DETAILS)
    assert opened.page.evaluate(BEYOND) == []  # nothing is wider than the window
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= size["width"]
    opened.page.evaluate(SORTED)  # clicks on all there is to click on
    assert opened.errors == []
    assert opened.requests == [report.as_uri()]


OPEN_DETAILS = """() => {
    const all = [...document.querySelectorAll("details")];
    all.forEach((one) => { one.open = true; });
    return all.length;
}"""
BEYOND = """(inside) => [...document.body.querySelectorAll("*")]
    .filter((it) => !it.closest("svg") || it.tagName === "svg")
    .filter((it) => inside || !it.closest(".scroll") || it.matches(".scroll"))
    .filter((it) => it.checkVisibility())
    .filter((it) => getComputedStyle(it).position !== "absolute")
    .filter((it) => it.getBoundingClientRect().right > innerWidth + 0.5
                 || it.getBoundingClientRect().left < -0.5)
    .map((it) => it.outerHTML.slice(0, 120))"""


@WINDOWS
def test_axe_finds_nothing_serious(report, shown, axe, size, scheme):
    page = shown(report, size, color_scheme=scheme).page
    page.evaluate(OPEN_DETAILS)
    assert serious(page, axe) == []


def serious(page, axe):
    """What axe-core calls serious or critical, each with the first element that has it."""
    page.evaluate(axe)
    found = page.evaluate("() => axe.run()")
    assert found["passes"]
    return [
        f"{issue['id']}: {len(issue['nodes'])} of {issue['nodes'][0]['html'][:200]}"
        for issue in found["violations"]
        if issue["impact"] in ("serious", "critical")
    ]


# --- names of strangers ---


def test_names_are_shown_as_text(report, shown):
    opened = shown(report)
    page = opened.page
    assert page.evaluate("window.hacked") is None
    assert page.locator("img[src=x]").count() == 0
    assert page.locator("script").count() == 1
    text = page.evaluate("document.body.textContent")
    assert SCRIPT in text
    assert IMAGE in text
    assert "ab\\u202ecod.exe" in text
    assert "\u202e" not in page.content()


def test_a_script_that_got_in_would_not_run(report, shown, tmp_path):
    """The page's policy stands even where escaping failed."""
    text = report.read_text("utf-8")
    bad = tmp_path / "bad.html"
    bad.write_text(text.replace("</main>", f"{SCRIPT}{IMAGE}</main>"), "utf-8")
    assert SCRIPT in bad.read_text("utf-8")
    opened = shown(bad)
    assert opened.page.evaluate("window.hacked") is None
    assert any("Content Security Policy" in error for error in opened.errors)


# --- sorting ---


SORTED = """() => [...document.querySelectorAll("table.sortable")].flatMap((table) => {
    const rows = () => [...table.tBodies[0].rows];
    return [...table.tHead.rows[0].cells].map((head, column) => ({
        before: rows().map((row) => row.textContent),
        clicks: [1, 2].map(() => {
            head.querySelector("button").click();
            return {
                order: head.getAttribute("aria-sort"),
                marked: table.querySelectorAll("[aria-sort$=scending]").length,
                cells: rows().map((row) => row.cells[column]),
                rows: rows().map((row) => row.textContent),
            };
        }).map((click) => ({...click, cells: click.cells.map((it) => it.dataset.v ?? null)})),
    }));
})"""


def test_tables_are_sorted_by_their_heads(report, shown):
    """By a click on each head of each table, and by another click the other way."""
    columns = shown(report).page.evaluate(SORTED)
    numeric = 0
    for column in columns:
        assert {click["order"] for click in column["clicks"]} == {"ascending", "descending"}
        for click in column["clicks"]:
            assert click["marked"] == 1
            assert sorted(click["rows"]) == sorted(column["before"])  # rows stay whole
            if None in click["cells"]:
                continue  # names
            numeric += len(click["cells"]) > 1
            known = [float(text) for text in click["cells"] if text]
            assert click["cells"][: len(known)] == [text for text in click["cells"] if text]
            assert known == sorted(known, reverse=click["order"] == "descending")
    assert numeric > 4


# --- reading it in other ways ---


def test_the_keyboard_reaches_and_works_everything(report, shown):
    page = shown(report).page
    page.evaluate(OPEN_DETAILS)
    expected = page.locator("a[href], button, summary, .scroll[tabindex='0']").count()
    seen = []
    for _ in range(expected + 5):
        page.keyboard.press("Tab")
        focused = page.evaluate(FOCUSED)
        if focused["tag"] == "BODY" or focused["number"] in {one["number"] for one in seen}:
            break
        seen.append(focused)
    assert len(seen) == expected
    assert [one["html"] for one in seen if not one["visible"]] == []
    button = page.locator("table.sortable th button").first
    button.focus()
    for key in ("Enter", "Space"):
        before = page.locator("table.sortable th").first.get_attribute("aria-sort")
        page.keyboard.press(key)
        assert page.locator("table.sortable th").first.get_attribute("aria-sort") != before


FOCUSED = """() => {
    const it = document.activeElement, style = getComputedStyle(it);
    return {
        tag: it.tagName, html: it.outerHTML.slice(0, 120),
        number: [...document.querySelectorAll("*")].indexOf(it),
        visible: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 1,
    };
}"""


def test_the_colour_scheme_of_the_reader_is_followed(report, shown):
    seen = {}
    for scheme in ("light", "dark"):
        page = shown(report, color_scheme=scheme).page
        seen[scheme] = page.evaluate(LIGHTNESS)
    assert seen["light"]["ground"] - seen["light"]["text"] > 0.6
    assert seen["dark"]["text"] - seen["dark"]["ground"] > 0.6


LIGHTNESS = """() => {
    const of = (colour) => {
        const [r, g, b] = colour.match(/[\\d.]+/g).map(Number);
        return (0.299 * r + 0.587 * g + 0.114 * b) / 255;
    };
    const style = getComputedStyle(document.body);
    return {ground: of(style.backgroundColor), text: of(style.color)};
}"""


def test_a_screen_reader_gets_an_outline_and_words_for_every_figure(report, shown):
    page = shown(report).page
    levels = page.evaluate(
        "() => [...document.querySelectorAll('h1,h2,h3,h4')].map((it) => +it.tagName[1])"
    )
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(below - above <= 1 for above, below in pairwise(levels))
    assert page.locator("html[lang]").count() == page.locator("main").count() == 1
    figures = page.locator("figure.drawing img")
    assert figures.count() > 0
    for figure in figures.all():
        assert (figure.get_attribute("alt") or "").strip()


def test_without_scripts_everything_is_there(report, shown):
    page = shown(report, java_script_enabled=False).page
    assert page.locator("table tbody tr").count() > 0
    assert page.locator("th button").count() == 0  # a button that does nothing is worse than none
    assert page.locator("figure.drawing img").first.is_visible()


def test_it_prints_all_that_it_has(report, shown):
    opened = shown(report, {"width": 794, "height": 1123}, color_scheme="dark")
    opened.page.emulate_media(media="print")
    assert opened.page.evaluate(LIGHTNESS)["ground"] > 0.9
    assert opened.page.evaluate(BEYOND, True) == []  # paper does not scroll
    assert opened.page.pdf(format="A4").startswith(b"%PDF")
    assert opened.errors == []


# --- images ---


def test_images_are_chosen_by_who_is_right_and_saved(shown, fakes, write_images, tmp_path):
    from clipsyn.extract.images import open_source

    folder = write_images(count=12)
    support = fakes.Source(name="photos", split="train", count=40, class_names=("cat", "dog"))
    sources = [open_source(f"photos={folder}", "test"), support]
    encoders = [fakes.Encoder(), fakes.Encoder("fake/two", size=12)]
    fakes.fill(tmp_path / "store", encoders, sources)
    page, results = tmp_path / "page.html", tmp_path / "results.parquet"
    run("evaluate", tmp_path / "store", "--shots", "1", "-o", results)
    run("report", tmp_path / "store", "-o", page, "--images", folder, "--results", results)
    opened = shown(page)
    form, every = opened.page.locator("form.filters"), opened.page.locator(".gallery > li")
    marks = every.evaluate_all("(all) => all.map((it) => it.dataset.right)")
    tests: dict[tuple[str, str], Callable[[str], bool]] = {
        ("none", ""): lambda it: it[:2] == "00",
        ("some", ""): lambda it: "1" in it[:2],
        ("some", "2"): lambda it: "1" in it[:2] and it[2] == "0",  # the oracle, and not chosen
        ("0", "1"): lambda it: it[:2] == "10",
        ("1", "others"): lambda it: it[:2] == "01",
        ("2", "others"): lambda it: it == "001",
        ("", "1"): lambda it: it[1] == "0",
    }
    for (right, wrong), fits in tests.items():
        form.locator("[name=right]").select_option(right)
        form.locator("[name=wrong]").select_option(wrong)
        visible = opened.page.locator(".gallery > li:visible")
        assert visible.count() == sum(map(fits, marks))
        assert form.locator("[role=status]").inner_text().startswith(f"{visible.count()} of ")
    with opened.page.expect_download() as download:
        form.locator("a").click()
    with download.value.path().open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * visible.count()
    assert {row["by"] for row in rows} == {"fake/one", "fake/two", "chosen"}
    assert all(0 < float(row["confidence"]) <= 1 for row in rows)
    assert {row["right"] for row in rows if row["by"] == "fake/two"} <= {"no"}
    visible.first.hover()
    assert visible.first.locator(".said").is_visible()
    assert opened.errors == []
