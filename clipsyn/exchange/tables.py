"""CSV and Parquet: a row an image, or, with a column of backbones, an image and backbone."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from polars import selectors as cs

from clipsyn.errors import DatasetError, UsageError
from clipsyn.exchange import ImportSettings, npz
from clipsyn.exchange.parts import INDEX, NOTHING, Part, as_logits, severity_label
from clipsyn.show.frames import read_parquet, scan_parquet, unguarded
from clipsyn.store.given import Made, Rows, made_of, one_after_another
from clipsyn.text import few, foreign

SUFFIXES = (".csv", ".parquet")
ROLES: dict[str, tuple[str, ...]] = {  # what columns are called, by what they are for
    "id": ("id", "sample_id", "image", "filename", "image_path"),
    "prediction": ("prediction", "predicted", "pred", "predicted_class"),
    "confidence": ("confidence",),
    "label": ("label", "target", "true_class"),
    "backbone": ("backbone", "model"),
    "perturbation": ("perturbation", "corruption"),
    "severity": ("severity", "condition"),
}
_BATCH = 1 << 13  # rows of a table that are read at once
_UNNAMED = re.compile(r"|Unnamed: \d+|__index_level_\d+__")  # pandas' index
_TWICE = re.compile(r"(.*)_duplicated_\d+")  # what polars calls a column whose name was there
_NUMBERED = re.compile(r"(.*?)(\d{1,9})")
_EMBEDDED = re.compile(r"(e|emb|embedding|feat|feature)s?[_.-]?0", re.IGNORECASE)


class Held(NamedTuple):
    """What a table holds beside lists."""

    texts: pl.DataFrame  # the columns that are for something
    rows: Rows  # (row, column) float32, NaN where a cell holds nothing
    columns: Mapping[str, int]  # of numbers: where each lies in the rows
    wrong: Mapping[str, tuple[int, str]]  # row and text of the first of its cells that are none


def read_table(path: Path, wanted: ImportSettings, known: Sequence[str]) -> list[Part]:
    """The parts of one file; `known` are class names, where there are any."""
    return Table(path, wanted, known, *scanned(path)).parts()


def is_clip_retrieval(path: Path) -> bool:
    return (path / "img_emb").is_dir()


def read_clip_retrieval(path: Path, wanted: ImportSettings, known: Sequence[str]) -> list[Part]:
    """What clip-retrieval's inference has written, ``img_emb/*.npy`` beside ``metadata/*.parquet``,
    as one table.
    """
    files = tuple(_numbered_files(path / "img_emb", "npy"))
    told = f"{path} cannot be read as embeddings of clip-retrieval"
    with foreign(lambda reason: DatasetError(f"{told}: {reason}")):
        embeddings = one_after_another([array for it in files for array in npz.load(it).values()])
        scan = pl.concat(map(scan_parquet, _numbered_files(path / "metadata", "parquet")))
    kind = "embeddings" if wanted.kind == "auto" else wanted.kind
    wanted = wanted.replaced(kind=kind, backbone=wanted.backbone or path.resolve().name)
    table = Table(path, wanted, known, scan, {"img_emb": embeddings}, files)
    if len(table) != len(embeddings):
        raise DatasetError(f"{told}: {len(table):,} rows have embeddings {embeddings.shape}")
    return table.parts()


def _numbered_files(folder: Path, ending: str) -> list[Path]:
    """img_emb_0.npy, img_emb_1.npy, … img_emb_10.npy: by number, not by name."""
    return sorted(folder.glob(f"*.{ending}"), key=lambda path: (len(path.name), path.name))


@dataclass(frozen=True)
class Table:
    """A table; `known` are class names, where there are any."""

    path: Path
    wanted: ImportSettings
    known: Sequence[str]
    scan: pl.LazyFrame
    lists: Mapping[str, Rows]  # columns of embeddings
    files: tuple[Path, ...] = ()  # if it is not the one at `path`

    def __len__(self) -> int:
        return len(self.held.rows)

    @cached_property
    def columns(self) -> list[str]:
        with readable(self.path):
            return self.scan.collect_schema().names()

    @cached_property
    def held(self) -> Held:
        texts = list({name for role, name in self.roles.items() if role != "confidence"})
        with readable(self.path):
            held = _read(self.scan, texts, csv=self.path.suffix == ".csv")
        if not len(held.rows):
            raise DatasetError(f"{self.path} has no rows")
        return held

    def parts(self) -> list[Part]:
        kind, columns, values = self._values()
        ids, labels = self._ids(), self._labels()
        confidence = self._confidence() if kind == "predictions" else None
        of_rows = list(zip(self._backbones(), self._perturbations(), strict=True))
        groups: dict[tuple[str, str], list[int]] = {}
        for row, group in enumerate(of_rows):
            groups.setdefault(group, []).append(row)
        return [
            Part(
                backbone,
                perturbation,
                kind,
                tuple(ids[row] for row in rows) if ids else None,
                values if len(groups) == 1 else np.asarray(values)[rows],
                tuple(labels[row] for row in rows) if labels else None,
                columns,
                self.files or (self.path,),
                of_condition=bool({"severity", "perturbation"} & self.roles.keys()),
                confidence=None if confidence is None else confidence[rows],
                prompts=self.wanted.prompts,
            )
            for (backbone, perturbation), rows in groups.items()
        ]

    def required(self, role: str) -> str:
        """The column of that role; raises DatasetError, naming the columns there are."""
        if role not in self.roles:
            names = " or ".join(ROLES[role])
            raise DatasetError(
                f"{self.path} has no column {names}: say which it is with columns=… ({role}=NAME); "
                f"its columns are {few(self.columns)}"
            )
        return self.roles[role]

    def texts(self, column: str) -> tuple[str, ...]:
        """A column as texts, "" where there is nothing; DatasetError for one that holds none."""
        cells = self.held.texts[column]
        if cells.dtype.is_nested() or cells.dtype in (pl.Binary, pl.Duration, pl.Object):
            raise DatasetError(
                f"{self.path}: column {column} holds {cells.dtype}, where texts or numbers are "
                "needed"
            )
        return tuple(cells.cast(pl.String).fill_null("").str.strip_chars())

    def _filled(self, role: str) -> tuple[str, ...]:
        """The texts of a role that no row may lack."""
        texts = self.texts(self.required(role))
        if "" in texts:
            raise DatasetError(f"{self.path}: row {texts.index('')} has no {self.roles[role]}")
        return texts

    @cached_property
    def roles(self) -> dict[str, str]:
        """The columns by what they are for."""
        by_name = {name.strip().lower(): name for name in reversed(self.columns)}
        roles = {}
        for role, guesses in ROLES.items():
            asked = self.wanted.columns.get(role)
            if asked and asked.lower() not in by_name:
                raise DatasetError(
                    f"{self.path} has no column {asked} for {role}, as columns=… has it; its "
                    f"columns are {few(self.columns)}"
                )
            names = [asked.lower()] if asked else guesses
            if found := [by_name[name] for name in names if name in by_name]:
                roles[role] = found[0]
        return roles

    def _ids(self) -> tuple[str, ...] | None:
        if self.wanted.row_order and "id" not in self.roles:
            return None
        return self._filled("id")

    def _labels(self) -> tuple[str, ...] | None:
        return self.texts(self.roles["label"]) if "label" in self.roles else None

    def _confidence(self) -> NDArray[np.float32] | None:
        """(row,) NaN where the cell holds nothing."""
        if "confidence" not in self.roles:
            return None
        column = self.roles["confidence"]
        if column not in self.held.columns:
            raise DatasetError(f"{self.path}: column {column} is no column of numbers")
        return np.asarray(self._matrix([column]))[:, 0]

    def _backbones(self) -> Sequence[str]:
        wanted = self.wanted.backbone
        if "backbone" not in self.roles:
            return [wanted or self.path.stem] * len(self)
        names = self._filled("backbone")
        if wanted and len(set(names)) > 1:
            raise UsageError(
                f"{self.path} has several backbones ({few(sorted(set(names)))}), called as its "
                "column says: leave backbone=… away"
            )
        return [wanted] * len(names) if wanted else names

    def _perturbations(self) -> Sequence[str]:
        named, levels = self.roles.get("perturbation"), self.roles.get("severity")
        alone, none = [self.wanted.perturbation] * len(self), [""] * len(self)
        names = self.texts(named) if named else alone
        rows = list(zip(names, self.texts(levels) if levels else none, strict=True))
        of_row = bool(named) or not levels
        labels = {
            row: severity_label(*row, self.path, of_row=of_row) for row in dict.fromkeys(rows)
        }
        return [labels[row] for row in rows]

    def _values(self) -> tuple[str, tuple[str, ...], Rows]:
        """Kind, names of the columns where they are classes, and a value or row for each row."""
        kind = self.wanted.kind
        if kind == "predictions" or (kind == "auto" and "prediction" in self.roles):
            texts = self.texts(self.required("prediction"))
            return "predictions", (), np.array(texts, object)
        if kind in ("auto", "embeddings") and self.lists:
            if len(self.lists) > 1:
                raise DatasetError(f"{self.path} has several columns of lists: keep one")
            (values,) = self.lists.values()
            return "embeddings", (), values
        used = {*self.roles.values(), *filter(_UNNAMED.fullmatch, self.columns)}
        if not (named := [name for name in self.held.columns if name not in used]):
            raise DatasetError(
                f"{self.path} has neither a column of predictions ({few(ROLES['prediction'])}) "
                f"nor one of numbers for each class; its columns are {few(self.columns)}"
            )
        order = _numbered(named)
        if kind == "embeddings" or (kind == "auto" and order and _EMBEDDED.fullmatch(order[0])):
            return "embeddings", (), self._matrix(order or named)
        classes = self._class_columns(named, order)
        values = as_logits(self._matrix(classes), kind, str(self.path))
        return "logits", () if classes is order or self.known else tuple(classes), values

    def _class_columns(self, named: list[str], order: list[str] | None) -> list[str]:
        """One column a class, by index: called after the classes, or numbered from 0."""
        if not self.known:
            labels = self.texts(self.roles["label"]) if "label" in self.roles else ()
            if order is None:
                self._check_columns(named, set(labels) - {""})
            return order or named
        lacking = [name for name in self.known if name not in named]
        if not lacking and len(set(self.known)) == len(self.known):
            return list(self.known)
        if order is None or len(order) != len(self.known):
            example = f" (there is none for '{lacking[0]}')" if lacking else ""
            raise DatasetError(
                f"{self.path}: {len(self.known)} classes need a column each, called after the "
                f"class or its index{example}; its columns of numbers are {few(named)}"
            )
        return order

    def _check_columns(self, named: list[str], labels: set[str]) -> None:
        """Refuse columns of numbers that no label calls a class, such as a confidence.

        Without labels that is told by a column of texts, which may be what was predicted.
        """
        used = {*named, *self.roles.values(), *filter(_UNNAMED.fullmatch, self.columns)}
        texts = [name for name in self.columns if name not in used]
        by_index = labels and all(map(INDEX.fullmatch, labels))
        strange = [name for name in named if name not in labels and not by_index]
        if strange and (labels or texts):
            raise DatasetError(
                f"{self.path}: no label calls the columns {few(strange)} a class: name the "
                "prediction with columns=… (prediction=NAME), or the classes with classes=FILE"
            )

    def _matrix(self, columns: list[str]) -> Rows:
        """(row, column) NaN where a cell holds nothing; DatasetError for any other text."""
        _, rows, places, wrong = self.held
        for name in filter(wrong.__contains__, columns):
            row, text = wrong[name]
            raise DatasetError(f"{self.path}: '{text}' in row {row} of column {name} is no number")
        at = [places[name] for name in columns]
        return made_of(rows, np.float32, lambda part: part[:, at])


def scanned(path: Path) -> tuple[pl.LazyFrame, dict[str, Made]]:
    """A table without its columns of lists of numbers, and these, (row, embed) by name.

    Neither need fit into memory: rows of lists are read when they are asked for.
    """
    with readable(path):
        if path.suffix == ".csv":  # every cell as it is written: 007 keeps its zeros
            scan, lists = pl.scan_csv(path, infer_schema=False, glob=False), []
        else:
            scan, of_numbers = scan_parquet(path), cs.list(cs.numeric()) | cs.array(cs.numeric())
            lists = scan.select(of_numbers).collect_schema().names()
            scan = scan.select(pl.exclude(lists))
        columns = scan.collect_schema().names()
        count = scan_parquet(path).select(pl.len()).collect().item() if lists else 0
    for again in filter(None, map(_TWICE.fullmatch, columns)):
        if again[1] in columns:
            raise DatasetError(f"{path} has two columns called '{again[1]}'")
    return scan, {name: _lists(path, name, count) for name in lists}


def _read(scan: pl.LazyFrame, texts: list[str], *, csv: bool) -> Held:
    """Some columns as they are, and the numbers of others, which go through a temporary file."""
    kinds = cs.numeric().exclude(texts), (cs.numeric() | cs.string()).exclude(texts)
    numeric, named = (scan.select(kind).collect_schema().names() for kind in kinds)
    frames, counts, wrong, count = [], Counter(numeric), dict[str, tuple[int, str]](), 0
    with NamedTemporaryFile(prefix="clipsyn-") as file:
        for given in scan.collect_batches(chunk_size=_BATCH):
            numbers = given.select(pl.col(named).cast(pl.Float32, strict=False))
            for name in [it.name for it in numbers if it.null_count()]:
                column = unguarded(given.select(name))[name] if csv else given[name]
                numbers = numbers.with_columns(found := _numbers_in(column))
                if len(rows := (found.is_null() & ~_is_nothing(column)).arg_true()):
                    counts[name] -= len(rows)
                    wrong.setdefault(name, (count + rows[0], str(column[rows[0]])))
            counts.update({it.name: it.count() for it in numbers})
            file.write(numbers.fill_null(np.nan).to_numpy(order="c").tobytes())
            frames.append(unguarded(given.select(texts)) if csv else given.select(texts))
            count += len(given)
        file.flush()
        single, shape = np.dtype(np.float32), (count, len(named))
        values = npz.Lying(Path(file.name)).rows(0, shape, single)
    columns = {name: at for at, name in enumerate(named) if counts[name] > 0}  # more than texts
    return Held(pl.concat(frames) if frames else pl.DataFrame(), values, columns, wrong)


def _numbers_in(column: pl.Series) -> pl.Series:
    """As float32, null for what is none."""
    texts = column.str.strip_chars() if column.dtype == pl.String else column
    return texts.cast(pl.Float32, strict=False)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    with foreign(lambda reason: DatasetError(f"{path} cannot be read as a table: {reason}")):
        try:
            yield
        except pl.exceptions.PanicException as error:  # which is no Exception
            raise pl.exceptions.ComputeError(f"it is damaged: {error}") from error


def _lists(path: Path, name: str, count: int) -> Made:
    """(row, embed) of a column of lists, NaN where there is none; they are of one length."""
    column = pl.col(name).cast(pl.List(pl.Float32))
    with readable(path):
        lengths = read_parquet(path, column.list.len().drop_nulls().unique())
    if len(lengths) != 1 or not (width := lengths.item()):
        raise DatasetError(f"{path}: the lists of column {name} are not of one length")

    def read(rows: slice) -> NDArray[np.float32]:
        with readable(path):
            lists = read_parquet(path, column, rows=rows)[name]
        out = np.full((len(lists), width), np.nan, np.float32)
        values = lists.drop_nulls().explode().fill_null(float("nan")).to_numpy()
        out[~lists.is_null().to_numpy()] = values.reshape(-1, width)
        return out

    return Made((count, width), np.dtype(np.float32), read)


def _is_nothing(texts: pl.Series) -> pl.Series:
    return (
        texts.cast(pl.String)
        .fill_null("")
        .str.strip_chars()
        .str.to_lowercase()
        .is_in(list(NOTHING))
    )


def _numbered(columns: list[str]) -> list[str] | None:
    """The columns in the order of their numbers, if they are numbered 0, 1, 2, … after one word."""
    matches = [_NUMBERED.fullmatch(name) for name in columns]
    if not all(matches) or len({match[1] for match in matches if match}) != 1:
        return None
    by_number = {int(match[2]): match[0] for match in matches if match}
    if sorted(by_number) != list(range(len(columns))):
        return None
    return [by_number[number] for number in range(len(columns))]
