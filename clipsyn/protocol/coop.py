"""CoOp's few-shot subsets: which images its seeds draw, read from the files it leaves.

CoOp (and what descends from it) pickles its subsets as ``split_fewshot/shot_K-seed_S.pkl``:
``{"train": [Datum(impath, label, classname), …], "val": […]}``. No code in such a file is run:
its one class is replaced by a plain container, and all others are refused.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipsyn.documents import check_pickle, parse_json
from clipsyn.errors import DatasetError
from clipsyn.store.samples import SampleTable

Item = tuple[str, int]  # path of an image, CoOp's label
_FOREIGN = (  # what a damaged or foreign file raises when it is read
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RecursionError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
)


def read_indices(
    folder: Path, samples: SampleTable, wanted: Iterable[tuple[int, int]]
) -> dict[tuple[int, int], NDArray[np.intp]]:
    """Sorted rows of `samples` for each wanted (shots, seed).

    folder: has the files, or a folder ``split_fewshot`` with them, or a folder for each dataset.
    Images are found by the end of their path; CoOp's labels must group them as the store's do.
    Raises DatasetError for a missing or foreign file, and for an image that is not there.
    """
    place = _place(folder, samples.dataset)
    rows = {name: row for row, name in enumerate(samples.ids)}
    rows |= {_without_suffix(PurePosixPath(name)): row for name, row in rows.items()}
    return {
        (shots, seed): _rows(_file(place, shots, seed), samples, rows) for shots, seed in wanted
    }


def _place(folder: Path, dataset: str) -> Path:
    for candidate in (folder / dataset, folder):
        for place in (candidate / "split_fewshot", candidate):
            if any(place.glob("shot_*-seed_*.*")):
                return place
    raise DatasetError(
        f"{folder} has no shot_K-seed_S.pkl or .json for {dataset}: give CoOp's split_fewshot "
        "folder, or one with a folder for each dataset"
    )


def _file(place: Path, shots: int, seed: int) -> Path:
    for suffix in (".pkl", ".json"):
        if (path := place / f"shot_{shots}-seed_{seed}{suffix}").exists():
            return path
    there = ", ".join(sorted(path.name for path in place.glob("shot_*-seed_*.*")))
    raise DatasetError(
        f"{place} has no shot_{shots}-seed_{seed}.pkl: give the shots and seeds of {there}"
    )


def _rows(path: Path, samples: SampleTable, rows: dict[str, int]) -> NDArray[np.intp]:
    drawn: list[int] = []
    ours: dict[int, int] = {}  # CoOp's label -> the store's
    for image, label in _items(path):
        row = next((rows[name] for name in _endings(image) if name in rows), None)
        if row is None:
            raise DatasetError(f"{path}: {image} is not among the images of {samples.name}")
        truth = int(samples.labels[row])
        if ours.setdefault(label, truth) != truth:
            raise DatasetError(
                f"{path}: {image} has CoOp's label {label}, whose other images have label "
                f"{ours[label]} in the store, not {truth}: these are other classes"
            )
        drawn.append(row)
    return np.unique(np.array(drawn, np.intp))


def _endings(image: str) -> Iterator[str]:
    """Ends of a path, the longest first, with and without the suffix."""
    parts = PurePosixPath(image.replace("\\", "/")).parts
    for start in range(len(parts)):
        end = PurePosixPath(*parts[start:])
        yield end.as_posix()
        yield _without_suffix(end)


def _without_suffix(path: PurePosixPath) -> str:
    return (path.with_suffix("") if path.name else path).as_posix()  # "/" has no name


def _items(path: Path) -> list[Item]:
    try:
        if path.suffix == ".json":
            train = parse_json(path.read_text(encoding="utf-8"))["train"]
            items = train["data"] if isinstance(train, dict) else train
            return [_json_item(item) for item in items]
        pickled = path.read_bytes()
        check_pickle(pickled)
        content = _Reader(BytesIO(pickled)).load()
        return [(str(d["_impath"]), int(d["_label"])) for d in map(vars, content["train"])]
    except _FOREIGN as error:
        why = str(error) or type(error).__name__
        raise DatasetError(f"{path} is no few-shot file of CoOp: {why}") from error


def _json_item(item: Any) -> Item:
    """``[path, label, name]`` as in CoOp's splits, or an object as in cross-modal adaptation's."""
    if isinstance(item, dict):
        return str(item["impath"]), int(item["label"])
    return str(item[0]), int(item[1])


class _Datum:
    """Stands for Dassl's class of that name: attributes, no code."""


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if name == "Datum" and module.startswith("dassl."):
            return _Datum
        raise pickle.UnpicklingError(f"it holds {module}.{name}, which is not read")
