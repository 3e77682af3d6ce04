"""Tables inside a document: renewed in place, nothing else touched."""

from __future__ import annotations

import pytest

from clipsyn.errors import UsageError
from clipsyn.show.formats import renew
from clipsyn.show.table import paragraph

TEXT = """# Results

Before.

<!-- clipsyn: accuracy -->
old
<!-- clipsyn end -->

Between \\1 and $0.

<!-- clipsyn: by shots, nlc -->
<!-- clipsyn end -->
<!-- clipsyn: other -->
kept
<!-- clipsyn end -->
"""


@pytest.fixture
def document(tmp_path):
    path = tmp_path / "results.md"
    path.write_text(TEXT, encoding="utf-8")
    return path


def test_tables_stand_between_their_marks(document):
    found = renew(
        document,
        {
            "accuracy": (paragraph("a  b\n1  \\2"),),
            "by shots, nlc": (paragraph("x"),),
            "more": (paragraph("y"),),
        },
    )
    assert found == ["accuracy", "by shots, nlc"]
    text = document.read_text(encoding="utf-8")
    assert "<!-- clipsyn: accuracy -->\n```text\na  b\n1  \\2\n```\n<!-- clipsyn end -->" in text
    assert "old" not in text
    assert "kept" in text
    assert "Between \\1 and $0." in text
    assert text.startswith("# Results\n\nBefore.\n")


def test_a_document_without_marks_says_which_would_do(tmp_path, document):
    with pytest.raises(UsageError, match=r"no mark for a table: .* one of these .*: gains, nlc"):
        renew(document, {"gains, nlc": (paragraph("1"),)})
    assert document.read_text(encoding="utf-8") == TEXT
    with pytest.raises(UsageError, match=r"document .*none\.md cannot be read"):
        renew(tmp_path / "none.md", {"accuracy": (paragraph("1"),)})
