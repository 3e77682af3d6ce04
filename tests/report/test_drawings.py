"""SVG on a page: what is drawn stays, what the page refuses goes."""

from __future__ import annotations

import re
from xml.etree.ElementTree import fromstring

import pytest

from clipsyn.report.drawings import inlined, picture
from clipsyn.show.figure import INK, canvas, svg

HOSTILE = '<script>alert("1")</script> $x$ &amp; b</text>'


@pytest.fixture(scope="module")
def drawn() -> str:
    with canvas() as ax:
        ax.plot([1, 2, 3], [1, 4, 2], marker="o", label=HOSTILE)
        ax.legend()
        ax.text(2, 2, "white", color="white")
        ax.set_xlabel(HOSTILE, fontweight="bold")
        return svg(ax.figure, "lines-1")


@pytest.fixture(scope="module")
def page(drawn) -> str:
    return inlined(drawn, f"A figure of {HOSTILE}")


def texts(text: str) -> list[str]:
    return [
        it.text for it in fromstring(text).iter() if it.tag.endswith("text") and it.text is not None
    ]


def test_texts_are_the_same_and_no_markup(drawn, page):
    assert texts(page) == texts(drawn)
    assert HOSTILE in texts(page)
    assert "<script" not in page


def test_marks_are_the_same(drawn, page):
    """As many lines, markers and letters as before; numbers to two decimals."""
    for tag in ("path", "use", "text", "clipPath"):
        assert len(re.findall(f"<{tag}[ >]", page)) == len(re.findall(f"<{tag}[ >]", drawn))
    before = re.findall(r'<text[^>]* x="([-\d.]+)"', drawn)
    after = re.findall(r'<text[^>]* x="([-\d.]+)"', page)
    assert [float(x) for x in after] == [pytest.approx(float(x), abs=0.006) for x in before]


def test_every_reference_has_its_element_and_no_other_id_stays(page):
    ids = re.findall(' id="([^"]*)"', page)
    used = re.findall(r'(?:href="|url\()#([^")]*)', page)
    assert set(ids) == set(used)
    assert len(ids) == len(set(ids))
    assert all(name.startswith("lines-1-") for name in ids)


def test_ink_follows_the_page_and_white_letters_stay_white(page):
    assert INK not in page
    assert "var(--ink)" in page
    (letters,) = re.findall('<text style="([^"]*)"[^>]*>white', page)
    assert "#ffffff" in letters


def test_pale_greys_follow_the_page_and_colours_do_not():
    drawn = '<svg viewBox="0 0 9 9"><path d="M 0 0" style="fill: #f2f2f2; stroke: #cfcfcf"/></svg>'
    assert 'style="fill: var(--raised); stroke: #cfcfcf"' in inlined(drawn, "")


def test_the_page_chooses_the_letters_but_not_their_size_and_weight(page):
    assert "DejaVu" not in page
    assert "font-size: 7px" in page
    assert re.search(r"font-weight: (bold|700)", page)


def test_the_shorthand_of_older_matplotlib():
    old = (
        '<svg viewBox="0 0 9 9"><text style="font: bold 8px \'DejaVu Sans\', sans-serif; '
        'text-anchor: end">a</text><text style="font: 7px \'A\'; fill: #222222">b</text></svg>'
    )
    assert re.findall('style="([^"]*)"', inlined(old, "")) == [
        "font-weight: bold; font-size: 8px; text-anchor: end",
        "font-size: 7px; fill: var(--ink)",
    ]


def test_a_screen_reader_hears_what_it_shows(page):
    root = fromstring(page)
    assert root.get("role") == "img"
    assert root.get("aria-label") == f"A figure of {HOSTILE}"


def test_a_picture_says_what_it_shows():
    assert picture("png", "QUJD", 'a "b"') == (
        '<img src="data:image/png;base64,QUJD" alt="a &quot;b&quot;">'
    )
