"""The site of the documentation in a real Chromium: the search finds pages, dark mode is readable.

CLIPSYN_TEST_SITE is the folder of the site, as `sphinx-build` has written it; without it nothing is
tested here. `.ci/run` builds the site and sets it.
"""

import os
from pathlib import Path

import pytest

from tests.browser.test_report import LIGHTNESS, serious

SITE = "CLIPSYN_TEST_SITE"
# a text with links, tables, formulas, code with its output, and signatures
PAGES = ("README", "docs/tables", "docs/methods", "docs/notebooks/zoo", "docs/api")


@pytest.fixture(scope="module")
def site():
    if SITE not in os.environ:
        pytest.skip(f"no site: `sphinx-build -b html -c docs . runs/site`, and set {SITE} to it")
    return Path(os.environ[SITE])


@pytest.mark.parametrize(
    ("words", "page"),
    [("CLIP_benchmark columns", "docs/tables.html"), ("FeatureStore", "docs/api.html")],
)
def test_the_search_finds_the_page(site, shown, words, page):
    shown_page = shown(site / "docs" / "faq.html").page
    shown_page.locator("input[name=q]").fill(words)
    shown_page.keyboard.press("Enter")
    # results come one after another: the page that is looked for may be the last of them
    shown_page.locator(f"#search-results a[href*='{page}']").first.wait_for()


def test_the_search_says_that_nothing_is_found(site, shown):
    page = shown(site / "docs" / "faq.html").page
    page.locator("input[name=q]").fill("qqzzqx")
    page.keyboard.press("Enter")
    page.get_by_text("did not match any documents").wait_for()
    assert page.locator("#search-results li").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_each_scheme_has_its_ground(site, shown, scheme):
    page = shown(site / "README.html", color_scheme=scheme).page
    lightness = page.evaluate(LIGHTNESS)
    light, dark = sorted(lightness.values(), reverse=True)
    assert light - dark > 0.5
    assert (lightness["ground"] == light) is (scheme == "light")


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_is_enough(site, shown, axe, page, scheme):
    opened = shown(site / f"{page}.html", color_scheme=scheme)
    assert [it for it in serious(opened.page, axe) if it.startswith("color-contrast")] == []
