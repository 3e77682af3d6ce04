"""The card of a published store: a README.md that says what it holds, on whose terms, citing whom.

It is made of the store alone, so the same store has the same card. Commands and machines stay out:
they may name folders and hosts, and `clipsyn info --provenance` has them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from clipsyn.catalog.citations import Work
from clipsyn.exchange.origins import Citations, Made, citations, made
from clipsyn.show.formats import escaped, markdown_of
from clipsyn.show.table import NOTHING, Table
from clipsyn.show.tables import table_of
from clipsyn.store.features import FeatureStore
from clipsyn.text import counted, printable

_DIGITS = 12  # of a digest, enough to tell two apart
_TAGS = ("clip", "clipsyn", "embeddings", "zero-shot-classification")
_TASKS = ("zero-shot-image-classification", "image-feature-extraction")


def card(store: FeatureStore, where: str = "STORE") -> str:
    """The card of all cells; `where` is the URL at which they will be read."""
    cells, where = made(store), printable(where)
    read = [
        "## Read it",
        f"```sh\npip install 'clipsyn[remote]'\nclipsyn ls {where}\nclipsyn zeroshot {where}\n```",
        f'```python\nfrom clipsyn import FeatureStore\n\nstore = FeatureStore.open("{where}")\n```',
        "Each folder of arrays is a Zarr v3 group with named dimensions, which xarray opens.",
    ]
    return page(cells, read, {})


def page(cells: Sequence[Made], read: Sequence[str], more: Mapping[str, Any]) -> str:
    """A card of cells. `read` are the paragraphs on how to read what is beside it.

    more: what the head says beside licence and tags, as YAML.
    """
    parts = [_head(more), f"# {escaped(_title(cells))}", _about(cells), *read]
    if cells:
        parts += ["## Images", markdown_of([images_table(cells)])]
        parts += ["## Weights", markdown_of([weights_table(cells)])]
    return "\n\n".join([*parts, *_end(citations(cells))]) + "\n"


def _head(more: Mapping[str, Any]) -> str:
    """What Hugging Face's hub reads: the terms are those of many, so no one licence is named."""
    import yaml

    about = {
        "license": "other",
        "license_name": "terms-of-the-images-and-the-weights",
        "task_categories": list(_TASKS),
        "tags": list(_TAGS),
        **more,
    }
    text = yaml.safe_dump(about, sort_keys=False, allow_unicode=True, width=1000)
    return f"---\n{text}---"


def _title(cells: Sequence[Made]) -> str:
    backbones = list(dict.fromkeys(cell.key.backbone for cell in cells))
    datasets = list(dict.fromkeys(cell.key.dataset for cell in cells))
    if not cells:
        return "An empty feature store"
    of = datasets[0] if len(datasets) == 1 else f"{len(datasets)} datasets"
    return f"{of} by {backbones[0] if len(backbones) == 1 else f'{len(backbones)} backbones'}"


def _about(cells: Sequence[Made]) -> str:
    images = sum(it.count for it in dict.fromkeys(cell.images for cell in cells))
    labels = len({cell.key.perturbation for cell in cells})
    return (
        f"Features of frozen CLIP backbones, made with clipsyn: {counted(len(cells), 'cell')} over "
        f"{counted(images, 'image')}, under {counted(labels, 'condition')}. A cell is one backbone "
        "on one split under one perturbation. There are no images and no weights here: ids, "
        "labels, embeddings and what follows from them."
    )


def _end(found: Citations) -> Iterator[str]:
    yield "## Terms"
    yield (
        "The numbers were computed from images and weights whose terms the tables above name; "
        f"{NOTHING} stands where clipsyn does not know them. Whether they allow what you have in "
        "mind is for you to see to. A SHA-256 is of the weights, or of the images' ids and "
        f"contents, in its first {_DIGITS} digits."
    )
    yield "## Cite"
    yield f"```bibtex\n{found.bibtex()}\n```"
    if found.unknown:
        yield "\n".join(f"- {escaped(sentence)}" for sentence in found.unknown)


def weights_table(cells: Sequence[Made]) -> Table:
    """A line a backbone: where its weights come from, their digest, licence and works to cite."""
    rows = [
        {
            "backbone": weights.backbone,
            "weights from": weights.shown or _elsewhere(weights.files),
            "SHA-256": weights.digest and weights.digest[:_DIGITS],
            "precision": weights.precision,
            "licence": weights.licence,
            "cite": _keys(weights.cited),
        }
        for weights in dict.fromkeys(cell.weights for cell in cells)
    ]
    return table_of(_printable(rows))


def images_table(cells: Sequence[Made]) -> Table:
    """A line a split: its images, their digest, licence and works to cite."""
    rows = [
        {
            "images": images.name,
            "n": images.count,
            "SHA-256": images.digest[:_DIGITS],
            "licence": images.licence or None,
            "cite": _keys(images.cited),
        }
        for images in dict.fromkeys(cell.images for cell in cells)
    ]
    return table_of(_printable(rows))


def _elsewhere(files: Sequence[str]) -> str:
    more = f" and {len(files) - 3} more" if len(files) > 3 else ""
    return f"imported: {', '.join(files[:3])}{more}" if files else "imported"


def _keys(works: Sequence[Work]) -> str | None:
    return ", ".join(work.key for work in works) or None


def _printable(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        {name: printable(value) if isinstance(value, str) else value for name, value in row.items()}
        for row in rows
    ]
