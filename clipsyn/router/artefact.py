"""A fitted router as a folder: `router.json` says what it is, `router.safetensors` has its arrays.

The folder is complete or not there. Reading it runs no code from it: classes are found by their
names in the registries, and what they learned is numbers, texts and arrays. Classes of other
packages are loaded only if the user names them.

What was learned stands in the JSON if it is a number, a text or a tuple of them. An array lies in
the other file as ``ensemble/NAME``, one for each backbone as ``ensemble/NAME/BACKBONE``; those of
the head begin with ``head/``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from clipsyn import __version__
from clipsyn.errors import DamagedStore, InputError, UsageError
from clipsyn.methods.ensembles import ENSEMBLES
from clipsyn.methods.ensembles.base import Ensemble
from clipsyn.methods.estimator import Estimator
from clipsyn.methods.heads import HEADS
from clipsyn.methods.heads.base import Head
from clipsyn.methods.numerics import Array
from clipsyn.methods.pool import Pool
from clipsyn.names import ROUTER, fingerprint
from clipsyn.registry import Registry
from clipsyn.router.fit import FittedBackbone, FittedRouter, Support
from clipsyn.show.files import folder_whole
from clipsyn.store.files import check_format, read_file, write_file
from clipsyn.text import advised, foreign, parse_json

ROUTER_FORMAT = "1.0"  # readers refuse another major version
DESCRIPTION, ARRAYS = ROUTER, "router.safetensors"
_SEEN = "seen"  # the array of marks of the images that it was fitted on
_CLASSES = "classes/"  # begins the name of a backbone's array of class embeddings
_OF_BACKBONE = ("name", "source", "identity", "logit_scale")  # beside these
Arrays = dict[str, Array]
_MOST_ARRAYS = 4 << 30  # bytes: no method learns from more than 1 GiB of images


def save_router(
    path: Path | str,
    ensemble: Ensemble,
    support: Pool,
    *,
    head: Head | None = None,
    shots: int | None = None,
    seed: int | None = None,
    replace: bool = False,
) -> FittedRouter:
    """Write a fitted ensemble, its head, and what there is to know of their `support`.

    shots, seed: how `support` was chosen, for the record. Raises UsageError if something is at
    `path` and `replace` is not set.

    >>> from clipsyn import FeatureStore, SuperLearner, save_router
    >>> support = FeatureStore.open("store").pool("toy", "train")
    >>> save_router("router", SuperLearner().fit(support), support)
    <FittedRouter super-learner: 2 backbones, 3 classes, fitted on 11 images of toy/train>
    """
    router = FittedRouter.of(ensemble, support, head=head, shots=shots, seed=seed)
    write(Path(path), router, replace=replace)
    return router


def write(path: Path, router: FittedRouter, *, replace: bool = False) -> None:
    """Write the folder, which is there whole or not at all."""
    check_vacant(path, replace=replace)
    text, binary = _content(router)
    with folder_whole(path) as draft:
        write_file(draft / ARRAYS, binary)
        write_file(draft / DESCRIPTION, text.encode())


def check_vacant(path: Path, *, replace: bool) -> None:
    """Raise UsageError unless a router may be written there; only a router is ever replaced."""
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if not (path / DESCRIPTION).is_file():
        raise UsageError(f"{path} holds something else than a router: choose another folder")
    if not replace:
        raise UsageError(
            f"{path} holds a router already: add replace=True, or choose another folder"
        )


def load_router(path: Path | str) -> FittedRouter:
    """The router in a folder.

    Raises InputError if it is none, UnsupportedFormat if it was written by a newer clipsyn,
    DamagedStore if it is not what was written.

    >>> from clipsyn import FeatureStore, LogAverage, load_router, save_router
    >>> support = FeatureStore.open("store").pool("toy", "train")
    >>> saved = save_router("router", LogAverage().fit(support), support)
    >>> load_router("router").support.samples  # images that it was fitted on
    11
    """
    from safetensors.numpy import load

    path = Path(path)
    content = _read_description(path)
    with foreign(lambda reason: DamagedStore(f"{path / ARRAYS} cannot be read: {reason}")):
        binary = read_file(path / ARRAYS, _MOST_ARRAYS)
    if hashlib.sha256(binary).hexdigest() != content.get("arrays"):
        raise DamagedStore(
            f"{path / ARRAYS} is damaged or of another router: its SHA-256 is not the one in "
            f"{DESCRIPTION}"
        )
    with foreign(lambda reason: DamagedStore(f"{path} describes no router: {reason}")):
        # copies: what numpy allocates is aligned as it was after fitting, and can be written to
        return _router(content, {name: array.copy() for name, array in load(binary).items()})


def _read_description(path: Path) -> dict[str, Any]:
    file = path / DESCRIPTION
    with foreign(lambda reason: DamagedStore(f"{file} is damaged: {reason}")):
        try:
            content: dict[str, Any] = parse_json(read_file(file))
        except (FileNotFoundError, NotADirectoryError):
            raise InputError(
                f"{path} is no router: make one with "
                f"`{advised('fit', 'STORE', '-d', 'DATASET', '-o', path)}`"
            ) from None
        version = content.get("format") if isinstance(content, dict) else None
        if not isinstance(version, str):
            raise InputError(f"{file} describes no router: it names no format")
        check_format(str(path), version, ROUTER_FORMAT)
        if content.pop("fingerprint", None) != fingerprint(content):
            raise DamagedStore(
                f"{file} is damaged or was edited: its content does not have the fingerprint that "
                "it states; fit the router again"
            )
    return content


def _content(router: FittedRouter) -> tuple[str, bytes]:
    """What the two files hold; raises UsageError for what cannot be written without pickle."""
    from safetensors.numpy import save

    arrays: Arrays = {_SEEN: router.seen}
    for backbone in router.backbones:
        if backbone.class_embedding is not None:
            arrays[f"{_CLASSES}{backbone.name}"] = backbone.class_embedding
    licence = router.support.licence or "licence unknown"
    content = {
        "format": ROUTER_FORMAT,
        "clipsyn": __version__,
        "ensemble": _estimator(ENSEMBLES, router.ensemble, arrays),
        "head": _estimator(HEADS, router.head, arrays),
        "backbones": [
            {name: getattr(it, name) for name in _OF_BACKBONE} for it in router.backbones
        ],
        "n_classes": router.n_classes,
        "class_names": list(router.class_names),
        "prompts": router.prompts,
        "support": asdict(router.support),
        "licence": "The arrays are derived from the backbones' weights and from the support "
        f"images ({licence}); the licences of both apply.",
    }
    try:
        if name := next((it for it in sorted(arrays) if not np.isfinite(arrays[it]).all()), None):
            raise ValueError(f"numbers in {name} are not finite")
        binary = save(arrays)
        content["arrays"] = hashlib.sha256(binary).hexdigest()
        content["fingerprint"] = fingerprint(content)
        return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False), binary
    except (LookupError, TypeError, ValueError) as error:
        raise UsageError(
            f"{router.method} has learned what cannot be saved ({error}): fit it with less extreme "
            "parameters; a method of your own learns arrays, finite numbers and texts"
        ) from error


def _estimator(registry: Registry, estimator: Estimator, arrays: Arrays) -> dict[str, Any]:
    learned = estimator.learned()
    for name, value in list(learned.items()):
        parts = {f"/{key}": part for key, part in value.items()} if isinstance(value, dict) else {}
        if isinstance(value, np.ndarray):
            parts = {"": value}
        for key, part in parts.items():
            arrays[f"{registry.kind}/{name}{key}"] = np.asarray(part, order="C")
        if parts:
            del learned[name]
    return {
        "name": registry.name_of(type(estimator)),
        "parameters": _plain(estimator.get_params()),
        "learned": _plain(learned),
    }


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: it.item() if isinstance(it, np.generic) else it for key, it in values.items()}


def _router(content: Mapping[str, Any], arrays: Arrays) -> FittedRouter:
    backbones = [
        FittedBackbone(**said, class_embedding=arrays.get(f"{_CLASSES}{said['name']}"))
        for said in content["backbones"]
    ]
    support = content["support"]
    return FittedRouter(
        ensemble=_read_estimator(ENSEMBLES, content["ensemble"], arrays),
        head=_read_estimator(HEADS, content["head"], arrays),
        backbones=tuple(backbones),
        n_classes=content["n_classes"],
        class_names=tuple(content["class_names"]),
        prompts=content["prompts"],
        support=Support(**{**support, "views": tuple(support["views"])}),
        seen=arrays[_SEEN],
    )


def _read_estimator(registry: Registry, content: Mapping[str, Any], arrays: Arrays) -> Any:
    estimator = registry.load(content["name"], plugins=False)(**content["parameters"])
    estimator.check_parameters()
    learned: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in content["learned"].items()
    }
    for place, array in arrays.items():
        kind, name, backbone = (*place.split("/", 2), "", "")[:3]
        if kind == registry.kind and backbone:
            learned.setdefault(name, {})[backbone] = array
        elif kind == registry.kind:
            learned[name] = array
    for name, value in learned.items():
        if name.startswith("_") or not name.endswith("_"):
            raise ValueError(f"'{name}' is no learned attribute")
        setattr(estimator, name, value)
    return estimator
