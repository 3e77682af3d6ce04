"""The nearest images of a store to a text, to one of its images, or to an image in a file.

What is near is told by cosines. Nothing is run for an image of the store.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl

from clipsyn.catalog.backbones import known_backbones
from clipsyn.errors import InputError, MissingCell, StaleCell
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
from clipsyn.text import few, one_line

if TYPE_CHECKING:
    from PIL.Image import Image

    from clipsyn.extract.encoder import Encoder

_LOG = logging.getLogger("clipsyn")


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
    dataset = asked.dataset or only(store, "dataset")
    split = asked.split or only(store, "split", dataset=dataset)
    samples = store.samples(dataset, split)
    keys = select(
        store, dataset=dataset, split=split, perturbation=CLEAN.label, backbone=asked.backbones
    )
    frame = _nearest(samples, _queries([*map(store.cell, keys)], samples, asked), asked)
    if asked.output:
        _write_page(frame, samples, asked)
    return frame


def _nearest(
    samples: SampleTable, queries: Sequence[_Query], asked: SearchSettings
) -> pl.DataFrame:
    """A row an image; of equal scores the first image in the store comes first."""
    found = np.stack(side_by_side(_Query.cosines, queries))
    scores = np.average(found, axis=0, weights=[query.weight for query in queries])
    if asked.like is not None:
        scores[samples.ids.index(asked.like)] = np.nan
    order = np.argsort(-scores, kind="stable")  # NaN comes last
    rows = order[: min(asked.most, np.count_nonzero(~np.isnan(scores)))]
    columns = zip(queries, found[:, rows], strict=True)
    return pl.DataFrame(
        {
            "id": [samples.ids[row] for row in rows],
            "class": pl.Series([_class_of(samples, row) for row in rows], dtype=pl.String),
            "score": scores[rows],
            **{f"cosine {query.cell.key.backbone}": cosines for query, cosines in columns},
        }
    )


def _class_of(samples: SampleTable, row: int) -> str | None:
    """The name of its class; None where it has no label."""
    label = samples.labels[row]
    return samples.class_names[label] if label >= 0 else None


def _queries(cells: Sequence[Cell], samples: SampleTable, asked: SearchSettings) -> list[_Query]:
    """What is looked for, as each backbone sees it that can; the others are named in a note."""
    embedded = [cell for cell in cells if cell.has_embeddings]
    queries = [*(_of_store(embedded, samples, asked.like) if asked.like else _run(embedded, asked))]
    seen = {query.cell.key.backbone for query in queries}
    lacking = few([cell.key.backbone for cell in cells if cell.key.backbone not in seen], 9)
    what = "embeddings of images" if asked.like else "weights that are known, or no such tower"
    if not queries:
        raise MissingCell(f"{samples.name}: {lacking} has no {what}: choose others by backbones=…")
    if lacking:
        _LOG.warning("note: left out, without %s: %s", what, lacking)
    return queries


def _of_store(cells: Sequence[Cell], samples: SampleTable, name: str) -> Iterator[_Query]:
    if name not in samples.ids:
        raise unknown_name("image", name, samples.ids, f"Looked for in {samples.name}.")
    row = samples.ids.index(name)
    for cell in cells:
        embedding = cell.embeddings(range(row, row + 1))[0].astype(np.float32)
        if np.isnan(embedding[0]):
            raise InputError(f"{name} of {samples.name} could not be read, so nothing is like it")
        yield _Query(cell, embedding)


def _run(cells: Sequence[Cell], asked: SearchSettings) -> Iterator[_Query]:
    """A text or an image file, through one backbone after the other."""
    image = _decoded(asked.image) if asked.image else None
    for cell in cells:
        if cell.imported_as:
            continue
        encoder = _encoder(cell, asked.device)
        if image is None:
            (embedding,) = encoder.encode_text([str(asked.text)])
            yield _Query(cell, embedding, encoder.logit_scale)
        else:
            pixels = encoder.preprocess(image)[None]
            (embedding,) = encoder.to_host([encoder.encode_images(pixels)])
            yield _Query(cell, embedding.astype(np.float32))


def _decoded(path: Path) -> Image:
    from clipsyn.images.source import UndecodableImage, decode, read_at

    try:
        return decode(read_at(path))
    except (OSError, UndecodableImage) as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise InputError(f"{path} is no image that can be read: {reason}") from error


def _encoder(cell: Cell, device: str) -> Encoder:
    """The encoder that made a cell, from the weights that are here."""
    from clipsyn.extract import PIXELS_VERSION, tune_process_memory

    tune_process_memory()
    from clipsyn.extract.encoder import load_encoder

    name, (identity, source) = cell.key.backbone, cell.encoder()
    shipped = {it.name: it for it in known_backbones()["zoo"]}  # whose folder is known here
    backbone = shipped.get(name) or Backbone(name, source)
    encoder = load_encoder(backbone, device=device, precision=identity["precision"])
    loaded = {**encoder.identity, "pixels": PIXELS_VERSION}
    if fields := tuple(field for field, *_ in differences(identity, loaded)):
        line = cell.store.extract_line(cell.key, "--replace")
        raise StaleCell(
            f"{cell.key} is not of the weights that are here ({', '.join(fields)}): run `{line}`, "
            "or choose others with backbones=…",
            fields,
        )
    return encoder


def _write_page(frame: pl.DataFrame, samples: SampleTable, asked: SearchSettings) -> None:
    """The images of a frame, the nearest first; UsageError where none of the split is there."""
    from clipsyn.report.page import rendered
    from clipsyn.report.tables import Example, Thumbnails
    from clipsyn.show.files import check_place, written_whole

    assert asked.output
    assert asked.images
    check_place(asked.output)
    there, shown = Thumbnails(asked.images, [(samples.dataset, samples.split)]), []
    for name, truth, score in frame.select("id", "class", "score").iter_rows():
        content = samples.content[samples.ids.index(name)].tobytes()
        image = Example(samples.dataset, samples.split, name, content, truth or "", ())
        shown.append((image, there.of(image), score))
    what = asked.text or f"Images like {asked.like or asked.image}"
    text = rendered("search.html", title=what, images=shown, place=samples.name)
    with written_whole(asked.output) as file:
        file.write(text.encode())
