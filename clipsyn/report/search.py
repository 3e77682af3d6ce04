"""The nearest images of a store to a text, to one of its images, or to an image in a file.

What is near is told by cosines. Nothing is run for an image of the store.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl

from clipsyn.catalog.backbones import known_backbones
from clipsyn.errors import InputError, MissingCell
from clipsyn.methods.numerics import Floats
from clipsyn.methods.numerics.blocks import side_by_side
from clipsyn.methods.numerics.logits import cosines
from clipsyn.names import CLEAN, Backbone, differences
from clipsyn.registry import unknown_name
from clipsyn.report import SearchSettings
from clipsyn.settings import takes
from clipsyn.store.cell import Cell
from clipsyn.store.features import FeatureStore, opened
from clipsyn.store.samples import SampleTable
from clipsyn.store.select import only, select
from clipsyn.text import LOG, few, one_line

if TYPE_CHECKING:
    from PIL.Image import Image

    from clipsyn.extract.encoder import Encoder


class _Query(NamedTuple):
    """What is looked for, as a backbone sees it: (embed,) unit norm; its part in the mean."""

    cell: Cell
    embedding: Floats
    weight: float = 1.0

    def cosines(self) -> Floats:
        """(sample,), NaN where there is no embedding."""
        blocks = self.cell.holding("image_embedding").arrays["image_embedding"].blocks
        parts = (self.cell.embeddings(blocks.range(block)) for block in range(blocks.count))
        return np.concatenate([cosines(part, self.embedding) for part in parts])


@takes(SearchSettings)
def search(store: FeatureStore | Path | str, **settings: Any) -> pl.DataFrame:
    """The nearest images of a split to a text, an image of it (`like`) or an image file.

    Returns a row an image, the nearest first: id, class, score, and the cosine of each backbone.
    The score is the mean of the cosines; for a text it is weighted by the backbones' logit scales,
    so that it orders images as the mean of their scaled similarities does. Backbones that cannot
    embed what is looked for are left out with a note. Raises UsageError for what is not said in one
    way, UnknownName for an id with near matches, InputError for a file that is no image, and
    StaleCell where the weights that are here did not make the embeddings.

    >>> import clipsyn
    >>> clipsyn.search("store", like="im003.png", split="test", most=2)["id"].to_list()
    ['im004.png', 'im015.png']
    """
    store, asked = opened(store), SearchSettings(**settings)
    place = {"dataset": asked.dataset or only(store, "dataset")}
    place["split"] = asked.split or only(store, "split", **place)
    samples = store.samples(**place)
    keys = select(store, **place, perturbation=CLEAN.label, backbone=asked.backbones)
    row = _row(samples, asked.like) if asked.like else None
    image = _decoded(asked.image) if asked.image else None
    each = (_query(store.cell(key), row, image or str(asked.text)) for key in keys)
    queries = [query for query in each if query]
    _note_left_out([key.backbone for key in keys], queries)
    frame = _nearest(samples, row, queries, asked.most)
    _write_page(frame, samples, asked)
    return frame


def _row(samples: SampleTable, name: str) -> int:
    if name not in samples.ids:
        raise unknown_name("image", name, samples.ids, f"Looked for in {samples.name}.")
    return samples.ids.index(name)


def _decoded(path: Path) -> Image:
    from clipsyn.images.source import UndecodableImage, decode, read_at

    try:
        return decode(read_at(path))
    except (OSError, UndecodableImage) as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise InputError(f"{path} is no image that can be read: {reason}") from error


def _query(cell: Cell, row: int | None, what: Image | str) -> _Query | None:
    """What is looked for as a backbone sees it; None for one that cannot. row: of the store."""
    if not cell.has_embeddings or (row is None and cell.imported_as):
        return None
    if row is not None:
        return _Query(cell, cell.embeddings(range(row, row + 1))[0].astype(np.float32))
    encoder = _encoder(cell)
    if encoder is None or (isinstance(what, str) and not encoder.reads_texts):
        return None
    if isinstance(what, str):
        return _Query(cell, encoder.encode_text([what])[0], encoder.logit_scale)
    pixels = encoder.preprocess(what)[None]
    return _Query(cell, encoder.to_host([encoder.encode_images(pixels)])[0].astype(np.float32))


def _note_left_out(backbones: Sequence[str], queries: Sequence[_Query]) -> None:
    """Name the backbones that take no part; raises MissingCell where none does."""
    seen = {query.cell.key.backbone for query in queries}
    left_out = few([name for name in backbones if name not in seen], 9)
    why = f"{left_out}: no embeddings of images, or no weights that may be loaded, or no text tower"
    if not seen:
        raise MissingCell(f"nothing can be looked for with {why}; choose others by backbones=…")
    if left_out:
        LOG.warning("note: left out: %s", why)


def _nearest(
    samples: SampleTable, row: int | None, queries: Sequence[_Query], most: int
) -> pl.DataFrame:
    """A row an image; of equal scores the first image in the store comes first."""
    found = np.stack(side_by_side(_Query.cosines, queries))
    scores = np.average(found, axis=0, weights=[query.weight for query in queries])
    if row is not None:
        if np.isnan(scores[row]):
            raise InputError(f"{samples.ids[row]} could not be read, so nothing is like it")
        scores[row] = np.nan
    order = np.argsort(-scores, kind="stable")  # NaN comes last
    rows = order[: min(most, np.count_nonzero(~np.isnan(scores)))]
    classes = np.array([*samples.class_names, None], object)  # the last where there is no label
    frame = pl.DataFrame({"id": [samples.ids[row] for row in rows], "score": scores[rows]})
    frame.insert_column(1, pl.Series("class", classes[samples.labels[rows]].tolist(), pl.String))
    names = [f"cosine {query.cell.key.backbone}" for query in queries]
    return frame.with_columns(**dict(zip(names, found[:, rows], strict=True)))


def _encoder(cell: Cell) -> Encoder | None:
    """The encoder that made a cell, from the weights that are here; None for a program."""
    from clipsyn.extract import PIXELS_VERSION, tune_process_memory

    name, (identity, source) = cell.key.backbone, cell.encoder()
    shipped = {it.name: it for it in known_backbones()["zoo"]}  # whose folder is known here
    backbone = shipped.get(name) or Backbone(name, source)
    if backbone.kind == "py":  # a store, perhaps of others, starts none
        return None
    tune_process_memory()
    from clipsyn.extract.encoder import load_encoder

    encoder = load_encoder(backbone, precision=identity["precision"])
    loaded = {**encoder.identity, "pixels": PIXELS_VERSION}
    if fields := [field for field, *_ in differences(identity, loaded)]:
        raise cell.stale(f"{cell.key} is not of the weights that are here", *fields)
    return encoder


def _write_page(frame: pl.DataFrame, samples: SampleTable, asked: SearchSettings) -> None:
    """The images of a frame, the nearest first, if a page is asked for."""
    if not (asked.output and asked.images):
        return
    from clipsyn.report.page import rendered
    from clipsyn.report.tables import Example, Thumbnails
    from clipsyn.show.files import written_whole

    there, shown = Thumbnails(asked.images, [(samples.dataset, samples.split)]), []
    for name, truth, score in frame.select("id", "class", "score").iter_rows():
        content = samples.content[samples.ids.index(name)].tobytes()
        image = Example(samples.dataset, samples.split, name, content, truth or "", ())
        shown.append((image, there.of(image), score))
    title = asked.text or f"Images like {asked.like or asked.image}"
    with written_whole(asked.output) as file:
        page = rendered("search.html", title=title, images=shown, place=samples.name)
        file.write(page.encode())
