"""The page: one HTML file that needs nothing else, and asks for nothing."""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any

from clipsyn import __version__
from clipsyn.report.answer import answer
from clipsyn.report.evidence import Evidence, gather
from clipsyn.report.html import Html, rendered
from clipsyn.report.page_settings import ReportSettings
from clipsyn.report.provenance import places, summary, title
from clipsyn.report.sections import sections
from clipsyn.report.vector import StyleSheet
from clipsyn.settings import signature_of
from clipsyn.show.frames import check_place, written_whole
from clipsyn.store.features import FeatureStore

MADE_FROM = "clipsyn-made-from"  # the name of the page's note of what it was made from


def write_report(store: FeatureStore, **settings: Any) -> Path:
    """Write one HTML page about a store, for a reader who has five minutes; returns its path.

    settings: those of `clipsyn.report.page_settings.ReportSettings`; `output` is needed. The page
    opens from a file and asks for nothing else. The same store and files give the same bytes.
    Raises UsageError for a place that cannot be written to and for files that hold no results.

    >>> import clipsyn
    >>> store = clipsyn.FeatureStore.open("store")
    >>> clipsyn.write_report(store, output="report.html")
    PosixPath('report.html')
    """
    return write_page(store, ReportSettings(**settings))


vars(write_report)["__signature__"] = signature_of(ReportSettings)


def write_page(store: FeatureStore, settings: ReportSettings, made_from: str = "") -> Path:
    """`write_report`, with settings that have been read. made_from: a digest to note in it."""
    check_place(settings.output)
    text = page(gather(store, settings), made_from)
    with written_whole(settings.output) as file:
        file.write(text.encode())
    return settings.output


def page(evidence: Evidence, made_from: str = "") -> str:
    """The text of the page."""
    sheet = StyleSheet()
    parts = {"answer": answer(evidence), "sections": sections(evidence, sheet)}
    shown = places(evidence)
    style = Html(f"\n{_file('page.css')}{sheet.css()}\n")
    script = Html(f"\n{_file('page.js')}")
    return rendered(
        "page.html",
        **parts,
        title=evidence.settings.title or title(shown),
        summary=summary(shown),
        has_images=evidence.settings.images is not None,
        source="/".join(evidence.store.path.parts[-2:]),
        version=__version__,
        made_from=made_from,
        style=style,
        script=script,
        policy=Html(_policy(style, script)),
    )


def _file(name: str) -> str:
    return (files("clipsyn.report") / "page" / name).read_text("utf-8")


def _policy(style: str, script: str) -> str:
    """Nothing but this very style and script, and pictures that are in the page."""
    return (
        f"default-src 'none'; style-src {_digest(style)}; script-src {_digest(script)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"
