"""A real Chromium. Where there is none its tests are skipped and say so.

CLIPSYN_TEST_CHROMIUM is the browser to start, else one that is on the PATH. CLIPSYN_TEST_AXE is
axe-core's ``axe.min.js``. What is set there must work: then nothing is skipped.
"""

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

CHROMIUM, AXE = "CLIPSYN_TEST_CHROMIUM", "CLIPSYN_TEST_AXE"
NAMES = ("chromium", "chromium-browser", "google-chrome")
QUIET = ("--disable-gpu", "--disable-quic", "--disable-sync")  # beside what Playwright gives
DESK = {"width": 1440, "height": 900}


def chromium():
    given = os.environ.get(CHROMIUM)
    path = given or next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip(f"no {' or '.join(NAMES)} on the PATH: install one, or set {CHROMIUM}")
    if not given:
        pytest.importorskip("playwright", reason="no playwright: pip install 'clipsyn[test]'")
    return path


@pytest.fixture(scope="session")
def browser():
    path = chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=[*QUIET])
        yield started
        started.close()


@pytest.fixture(scope="session")
def axe():
    """The source of axe-core."""
    if AXE not in os.environ:
        pytest.skip(f"no axe-core: `npm install axe-core`, and set {AXE} to its axe.min.js")
    return Path(os.environ[AXE]).read_text("utf-8")


@dataclass
class Opened:
    """A page as it is shown, and what went wrong meanwhile."""

    page: Any  # of playwright
    errors: list[str] = field(default_factory=list)  # of the console, scripts and dialogs
    requests: list[str] = field(default_factory=list)

    def __post_init__(self):
        self.page.on("console", lambda said: self.errors.append(f"{said.type}: {said.text}"))
        self.page.on("pageerror", lambda error: self.errors.append(f"error: {error}"))
        self.page.on("dialog", self._dismiss)
        self.page.on("request", self._note)

    def _dismiss(self, dialog):
        self.errors.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _note(self, request):
        self.requests.append(request.url)


@pytest.fixture
def shown(browser):
    """Function (file, size of the window, options of the context) -> the page, opened."""
    contexts = []

    def show(file, size=DESK, **options):
        context = browser.new_context(viewport=size, **options)  # type: ignore[arg-type]
        contexts.append(context)
        opened = Opened(context.new_page())
        opened.page.goto(file.as_uri())
        return opened

    yield show
    for context in contexts:
        context.close()
