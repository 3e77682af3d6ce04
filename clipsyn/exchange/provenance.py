"""Where the numbers of a store come from, what to cite for them, and the card that says both.

Of a cell it is a row, as `clipsyn info --provenance` writes it as JSON. A cell that was made
elsewhere recorded less: what it does not say is None, never a guess.

The card is a README.md beside what is published, one for each dataset. It is made of the store
alone, so the same store has the same card. Commands and machines stay out, for they may name
folders and hosts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any
from urllib.parse import quote

from clipsyn.catalog.datasets import find_dataset
from clipsyn.catalog.references import (
    ENCODERS,
    METHOD,
    SOFTWARE,
    Work,
    of_dataset,
    of_perturbation,
    of_weights,
    terms_of_weights,
    work,
)
from clipsyn.names import FeatureKey, by_severity, parse_perturbation
from clipsyn.show.formats import escaped, markdown_of
from clipsyn.show.table import NOTHING, Table
from clipsyn.show.tables import table_of
from clipsyn.store.features import FeatureStore
from clipsyn.store.groups import Group
from clipsyn.text import counted, printable

Made = dict[str, Any]  # of a cell: its names, and who made it of what
_PACKAGES = ("clipsyn", "python", "torch", "open_clip", "timm", "torchvision", "pillow", "numpy")
_RUN = ("commands", "made_by", "versions", "device")  # the machine does not matter
_DIGITS = 12  # of a digest, enough to tell two apart


def made(store: FeatureStore, keys: Iterable[FeatureKey] | None = None) -> list[Made]:
    """Where cells come from, all of the store if `keys` is None; by severity within a split."""
    ordered = _ordered(store.keys() if keys is None else keys)
    images = _images(store, ordered)
    store.tree.expect(store.cell(key).path for key in ordered)
    return [_made(store, key, images[key.dataset, key.split]) for key in ordered]


def _ordered(keys: Iterable[FeatureKey]) -> list[FeatureKey]:
    return sorted(keys, key=lambda key: (key.dataset, key.split, by_severity(key.perturbation)))


def _made(store: FeatureStore, key: FeatureKey, images: Mapping[str, Any]) -> Made:
    cell = store.cell(key)
    group = cell.group()
    known = group.provenance
    workers, encoder = known.get("workers") or [known], known.get("encoder") or {}
    return {
        **vars(key),
        "fingerprint": str(group["fingerprint"]),
        "imported": cell.imported_as,  # what an imported cell holds
        "made": known.get("finished") or known.get("written"),
        "commands": _told(workers, "command"),  # none from Python
        "made_by": known.get("made_by"),  # a note of who wrote an imported cell
        "versions": {  # both where workers had different ones
            name: " and ".join(told)
            for name in _PACKAGES
            if (told := _told((*workers, encoder), name))
        },
        "device": encoder.get("device"),
        "peak_memory_mb": encoder.get("peak_memory_mb"),  # of a GPU
        "hosts": _told(workers, "host"),
        "weights": _weights(key.backbone, group, cell.imported_as),
        "images": images,
    }


def _told(places: Iterable[Mapping[str, Any]], name: str) -> list[str]:
    return list(dict.fromkeys(str(place[name]) for place in places if place.get(name)))


def _weights(backbone: str, group: Group, imported: str | None) -> dict[str, Any]:
    """As far as the store says: of an import files, and what its name makes it cite."""
    identity = group["identity"]["backbone"]
    source, digest, precision, files = None, None, None, []
    if imported:
        files = [str(file["file"]) for file in group["source"]]
    else:
        named = [identity.get(name) for name in ("architecture", "pretrained")]
        source = "/".join(named) if all(named) else group.source or backbone
        digest, precision = str(identity["weights"]), str(identity["precision"])
    terms = terms_of_weights(source) if source else None
    return {
        "source": source,
        "sha256": digest,
        "precision": precision,
        "files": files,
        "licence": terms.licence if terms else None,
        "cite": [known.key for known in of_weights(source or backbone)],
    }


def _images(store: FeatureStore, keys: Iterable[FeatureKey]) -> dict[tuple[str, str], Any]:
    """By split; sample tables are not read."""
    paths = {key.names[:2]: store.at("samples", *key.names[:2]) for key in keys}
    store.tree.expect(paths.values())
    return {split: _images_of(split[0], store.group(path)) for split, path in paths.items()}


def _images_of(dataset: str, group: Group) -> dict[str, Any]:
    info = find_dataset(dataset)
    return {
        "count": group.sizes["sample"],
        "samples": str(group["identity"]["samples"]),
        "licence": str(group["licence"]) or None,
        "cite": [known.key for known in of_dataset(info.name)] if info else [],
    }


def portable(source: str) -> str:
    """Where weights come from, of a path its last part: what is handed on names no folders."""
    for mark in ("local-dir:", "hf:/", "@"):
        kind, found, path = source.partition(mark)
        if found:
            return f"{kind}{mark}{PurePath(path).name}"
    return source


def runs(cells: Sequence[Made]) -> list[list[Made]]:
    """Cells by how they were made, in order."""
    found: dict[str, list[Made]] = {}
    for cell in cells:
        found.setdefault(str([cell[name] for name in _RUN]), []).append(cell)
    return list(found.values())


# Citations


def cited(cells: Sequence[Made]) -> list[tuple[Work, list[str]]]:
    """Works with what of the cells each is cited for, in order: the method, the software, weights,
    datasets, perturbations.
    """
    extracted = any(cell["imported"] is None for cell in cells)
    loaded = [(ENCODERS, "loading the backbones")] if extracted else []
    names = [parse_perturbation(cell["perturbation"]).name for cell in cells]
    found = [
        *((METHOD, "the method"), (SOFTWARE, "the software"), *loaded),
        *((key, cell["backbone"]) for cell in cells for key in cell["weights"]["cite"]),
        *((key, cell["dataset"]) for cell in cells for key in cell["images"]["cite"]),
        *((known.key, name) for name in names for known in of_perturbation(name)),
    ]
    reasons: dict[str, dict[str, None]] = {}
    for key, reason in found:
        reasons.setdefault(key, {})[reason] = None
    return [(work(key), list(names)) for key, names in reasons.items()]


def bibtex(cells: Sequence[Made]) -> str:
    """Each entry below a line that says what it is for; there @ would begin an entry."""
    return "\n\n".join(
        f"% for {printable(', '.join(reasons)).replace('@', '(at)')}\n{known.bibtex()}"
        for known, reasons in cited(cells)
    )


def not_cited(cells: Sequence[Made]) -> list[str]:
    """Sentences: what no work is known for, or by its name alone."""
    weights = filter(None, map(_about_weights, cells))
    images = (
        f"no citation is known for the dataset {cell['dataset']}: see its source"
        for cell in cells
        if not cell["images"]["cite"]
    )
    return list(dict.fromkeys((*weights, *images)))


def _about_weights(cell: Made) -> str | None:
    name, weights = cell["backbone"], cell["weights"]
    if cell["imported"]:
        cited = "is cited by its name, which nothing proves"
        unknown = "is not cited, for the store does not know who made it"
        return (
            f"{name} was imported ({cell['imported']}): it {cited if weights['cite'] else unknown}"
        )
    if weights["cite"]:
        return None
    where = portable(weights["source"])
    return f"no citation is known for the weights {name} ({where}): see their source"


# Tables, and the card


def weights_table(cells: Sequence[Made], title: str = "") -> Table:
    """A line a backbone: where its weights come from, their digest, licence and works to cite."""
    files: dict[str, list[str]] = {}  # that it was imported from
    for cell in cells:
        files.setdefault(cell["backbone"], []).extend(cell["weights"]["files"])
    rows = (
        {
            "backbone": cell["backbone"],
            "weights from": _source(cell["weights"], list(dict.fromkeys(files[cell["backbone"]]))),
            "SHA-256": cell["weights"]["sha256"] and cell["weights"]["sha256"][:_DIGITS],
            "precision": cell["weights"]["precision"],
            "licence": cell["weights"]["licence"],
            "cite": ", ".join(cell["weights"]["cite"]) or None,
        }
        for cell in cells
    )
    return _table(rows, title)


def images_table(cells: Sequence[Made]) -> Table:
    """A line a split: its images, their digest, licence and works to cite."""
    return _table(
        {
            "images": f"{cell['dataset']}/{cell['split']}",
            "n": cell["images"]["count"],
            "SHA-256": cell["images"]["samples"][:_DIGITS],
            "licence": cell["images"]["licence"],
            "cite": ", ".join(cell["images"]["cite"]) or None,
        }
        for cell in cells
    )


def _source(weights: Mapping[str, Any], files: Sequence[str]) -> str:
    if weights["source"]:
        return portable(weights["source"])
    more = f" and {len(files) - 3} more" if len(files) > 3 else ""
    return f"imported: {', '.join(files[:3])}{more}" if files else "imported"


def _table(rows: Iterable[Mapping[str, Any]], title: str = "") -> Table:
    """Each row once."""
    return table_of(
        [
            {name: printable(it) if isinstance(it, str) else it for name, it in row}
            for row in dict.fromkeys(tuple(row.items()) for row in rows)
        ],
        title=title,
    )


def card(store: FeatureStore, where: str = "STORE", dataset: str | None = None) -> str:
    """The card of all cells, or of those of a dataset; `where` is the URL to read them at.

    A backbone has the same weights in all cells of a dataset, or readers refuse them, so one of
    these is looked at.
    """
    ordered = _ordered(store.keys(dataset=None if dataset is None else [dataset]))
    first: dict[tuple[str, ...], FeatureKey] = {}
    for key in ordered:
        first.setdefault(_weights_in(store, key), key)
    told = dict(zip(first, made(store, first.values()), strict=True))
    images = _images(store, ordered)
    cells = [
        {**told[_weights_in(store, key)], **vars(key), "images": images[key.dataset, key.split]}
        for key in ordered
    ]
    return page(cells, _how_to_read(printable(where)), {})


def contents(cards: Mapping[str, str], where: str) -> str:
    """What a store at a URL holds. cards: dataset -> the path of its card there."""
    parts = [
        _head({}),
        f"# Features of {counted(len(cards), 'dataset')}",
        "Made with clipsyn by frozen CLIP backbones. Each dataset has a card with its images, the "
        "weights, terms, and works to cite:",
        "\n".join(f"- [{escaped(name)}]({quote(cards[name])})" for name in sorted(cards)),
        *_how_to_read(printable(where)),
    ]
    return "\n\n".join(parts) + "\n"


def _how_to_read(where: str) -> list[str]:
    return [
        "## Read it",
        f"```sh\npip install 'clipsyn[remote]'\nclipsyn ls {where}\nclipsyn zeroshot {where}\n```",
        f'```python\nfrom clipsyn import FeatureStore\n\nstore = FeatureStore.open("{where}")\n```',
        "Each folder of arrays is a Zarr v3 group with named dimensions, which xarray opens.",
    ]


def _weights_in(store: FeatureStore, key: FeatureKey) -> tuple[str, ...]:
    """The same for cells of the same weights; of an import nothing is known before it is read."""
    return key.names if store.cell(key).imported_as else (key.dataset, key.backbone)


def page(cells: Sequence[Made], read: Sequence[str], more: Mapping[str, Any]) -> str:
    """A card of cells. `read` are the paragraphs on how to read what is beside it.

    more: what the head says beside licence and tags, as YAML.
    """
    parts = [_head(more), f"# {escaped(_title(cells))}", _about(cells), *read]
    if cells:
        parts += ["## Images", markdown_of([images_table(cells)])]
        parts += ["## Weights", markdown_of([weights_table(cells)])]
    return "\n\n".join([*parts, *_end(cells)]) + "\n"


def _head(more: Mapping[str, Any]) -> str:
    """What Hugging Face's hub reads: the terms are those of many, so no one licence is named."""
    import yaml

    about = {
        "license": "other",
        "license_name": "terms-of-the-images-and-the-weights",
        "task_categories": ["zero-shot-image-classification", "image-feature-extraction"],
        "tags": ["clip", "clipsyn", "embeddings", "zero-shot-classification"],
        **more,
    }
    text = yaml.safe_dump(about, sort_keys=False, allow_unicode=True, width=1000)
    return f"---\n{text}---"


def _title(cells: Sequence[Made]) -> str:
    backbones, datasets = ({cell[name] for cell in cells} for name in ("backbone", "dataset"))
    if not cells:
        return "An empty feature store"
    of = min(datasets) if len(datasets) == 1 else f"{len(datasets)} datasets"
    return f"{of} by {min(backbones) if len(backbones) == 1 else f'{len(backbones)} backbones'}"


def _about(cells: Sequence[Made]) -> str:
    splits = {(cell["dataset"], cell["split"]): cell["images"]["count"] for cell in cells}
    labels = len({cell["perturbation"] for cell in cells})
    return (
        f"Features of frozen CLIP backbones, made with clipsyn: {counted(len(cells), 'cell')} over "
        f"{counted(sum(splits.values()), 'image')}, under {counted(labels, 'condition')}. A cell "
        "is one backbone on one split under one perturbation. There are no images and no weights "
        "here: ids, labels, embeddings and what follows from them."
    )


def _end(cells: Sequence[Made]) -> Iterator[str]:
    yield "## Terms"
    yield (
        "The numbers were computed from images and weights whose terms the tables above name; "
        f"{NOTHING} stands where clipsyn does not know them. Whether they allow what you have in "
        "mind is for you to see to. A SHA-256 is of the weights, or of the images' ids and "
        f"contents, in its first {_DIGITS} digits."
    )
    yield "## Cite"
    yield f"```bibtex\n{bibtex(cells)}\n```"
    if unknown := not_cited(cells):
        yield "\n".join(f"- {escaped(sentence)}" for sentence in unknown)
