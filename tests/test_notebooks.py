"""The notebooks of the documentation: what they show is what their cells give.

CLIPSYN_RUNS names a folder that holds runs/quickstart/store and runs/real/store, or one of them.
There the cells run again, as Jupyter would run them; to write what they show anew, with the extra
docs: ``CLIPSYN_RUNS=FOLDER python tests/test_notebooks.py``.
"""

import json
import os
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
RUNS = os.environ.get("CLIPSYN_RUNS")
TOLERANCE = 0.03  # another processor rounds otherwise, and a few images change sides

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(path):
    cells = json.loads(path.read_text("utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def store_of(path):
    found = re.search(r'open\("(.*?)"\)', "".join(code_cells(path)[0]["source"]))
    assert found
    return found[1]


def text_of(cell):
    """What a cell shows as text."""
    parts = [
        output.get("text") or output.get("data", {}).get("text/plain", [])
        for output in cell["outputs"]
    ]
    return "".join("".join(part) for part in parts)


def test_there_are_notebooks():
    assert {path.stem for path in NOTEBOOKS} >= {"zoo", "real"}


@each_notebook
def test_all_cells_were_run_in_their_order(path):
    cells = code_cells(path)
    assert [cell["execution_count"] for cell in cells] == [*range(1, len(cells) + 1)]
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} <= {"execute_result", "display_data"}
    assert all(cell["outputs"] for cell in cells)


@each_notebook
def test_a_notebook_is_small_and_names_no_folder_of_its_machine(path):
    text = path.read_text("utf-8")
    assert len(text) < 1_500_000
    assert re.findall(r'["( ](/(?:home|root|tmp|usr|work)/\S*)', text) == []


@each_notebook
def test_what_a_notebook_shows_comes_out_again(path, tmp_path, monkeypatch):
    if RUNS is None or not (Path(RUNS) / store_of(path)).is_dir():
        pytest.skip(f"CLIPSYN_RUNS names no folder that holds {store_of(path)}")
    (tmp_path / "runs").symlink_to(Path(RUNS, "runs").absolute())
    monkeypatch.chdir(tmp_path)
    again = executed(path, tmp_path)
    for old, new in zip(code_cells(path), code_cells(again), strict=True):
        assert like(text_of(new)) == like(text_of(old)), "".join(old["source"])


def executed(path, folder):
    """A copy of a notebook in `folder`, where its cells were run by Jupyter."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    notebook = nbformat.read(path, as_version=4)
    where = {"metadata": {"path": folder}}
    nbclient.NotebookClient(notebook, timeout=None, resources=where).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # when it ran
    nbformat.write(notebook, folder / path.name)
    return folder / path.name


class About(float):
    """A number that equals others nearby."""

    def __eq__(self, other):
        return isinstance(other, float) and abs(float(self) - float(other)) <= TOLERANCE

    __hash__ = None  # type: ignore[assignment]


def like(text):
    """Words and numbers of a text, each sorted: rows of about equal numbers may change places."""
    words = re.findall(r"[^\s│┌┐└┘─═╞╡┬┴┆┼(){}\[\],:]+", re.sub(r"<Figure[^>]*>", "figure", text))
    numbers = [word for word in words if re.fullmatch(r"-?\d+(\.\d+)?", word)]
    others = sorted(word for word in words if word not in numbers)
    return others, [About(number) for number in sorted(map(float, numbers))]


def test_texts_are_alike_where_their_numbers_are_near():
    assert like("│ a ┆ 0.51 │\n│ b ┆ 0.50 │") == like("│ b ┆ 0.51 │\n│ a ┆ 0.52 │")
    assert like("│ a ┆ 0.51 │") != like("│ a ┆ 0.56 │")
    assert like("│ a ┆ 0.51 │") != like("│ b ┆ 0.51 │")
    assert like("0.5 0.5") != like("0.5")
    assert like("<Figure size 348x189 with 2 Axes>") == like("<Figure size 335x361 with 1 Axes>")


if __name__ == "__main__":
    assert RUNS, __doc__
    for notebook in NOTEBOOKS:
        executed(notebook, Path(RUNS)).replace(notebook)
