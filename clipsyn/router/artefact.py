"""A fitted router as a folder: `router.json` says what it is, `router.safetensors` has its arrays.

The folder is complete or not there. Reading it runs no code from it: classes are found by their
names in the registries, and what they learned is numbers, texts and arrays. Classes of other
packages are loaded only if the user allows it.

Texts, truth values, None and finite numbers stand in the JSON as they are. Everything else is an
object with one entry that says what it is: ``{"array": NAME}``, ``{"fortran": NAME}`` (its
transpose is stored: BLAS rounds differently for the two memory layouts), ``{"scalar": NAME}`` (a
number with a numpy type), ``{"float": "inf"}``, ``{"tuple": […]}``, ``{"mapping": {…}}``.
"""

from __future__ import annotations

import hashlib
import json
import math
import secrets
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from numbers import Integral, Real
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray

from clipsyn import __version__
from clipsyn.errors import DamagedStore, InputError, UsageError
from clipsyn.methods.ensembles import ENSEMBLES
from clipsyn.methods.ensembles.base import Ensemble
from clipsyn.methods.estimator import Estimator
from clipsyn.methods.heads import HEADS
from clipsyn.methods.heads.base import Head
from clipsyn.methods.numerics.logits import NO_PREDICTION, is_scale
from clipsyn.methods.pool import Pool
from clipsyn.names import ROUTER, fingerprint
from clipsyn.registry import Registry
from clipsyn.router.fitted import FittedBackbone, FittedRouter, Support
from clipsyn.store.files import read_file, write_file
from clipsyn.store.schema import check_format
from clipsyn.text import advised, foreign, parse_json

ROUTER_FORMAT = "1.0"  # readers refuse another major version
DESCRIPTION, ARRAYS = ROUTER, "router.safetensors"
_SEEN = "seen"  # the array of marks of the images that it was fitted on
_OF_BACKBONE = ("name", "source", "identity", "logit_scale")  # beside its class embeddings
Arrays = dict[str, NDArray[Any]]
_NUMERIC = "biuf"  # kinds of numpy types that safetensors holds
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
    """Write the folder under another name, then rename it into place."""
    from safetensors.numpy import save

    check_vacant(path, replace=replace)
    arrays: Arrays = {}
    content = _description(router, arrays)
    if name := next((it for it in sorted(arrays) if not np.isfinite(arrays[it]).all()), None):
        raise UsageError(
            f"{router.method} has learned numbers in {name} that are not finite: fit it with less "
            "extreme parameters"
        )
    binary = save(arrays)
    content["arrays"] = hashlib.sha256(binary).hexdigest()
    content["fingerprint"] = fingerprint(content)
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        draft.mkdir(parents=True)
        write_file(draft / ARRAYS, binary)
        write_file(draft / DESCRIPTION, text.encode())
        _move(draft, path)
    except OSError as error:
        raise UsageError(
            f"cannot write {path}: {error.strerror or error}; choose a folder that you may write to"
        ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


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
    try:
        binary = read_file(path / ARRAYS, _MOST_ARRAYS)
    except OSError as error:
        raise DamagedStore(f"{path / ARRAYS} cannot be read: {error.strerror}") from None
    if hashlib.sha256(binary).hexdigest() != content.get("arrays"):
        raise DamagedStore(
            f"{path / ARRAYS} is damaged or of another router: its SHA-256 is not the one in "
            f"{DESCRIPTION}"
        )
    with foreign(lambda reason: DamagedStore(f"{path} describes no router: {reason}")):
        # copies: what numpy allocates is aligned as it was after fitting, and can be written to
        arrays = {name: array.copy() for name, array in load(binary).items()}
        return _router(content, arrays)


def _move(draft: Path, path: Path) -> None:
    trash = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with suppress(FileNotFoundError):
        path.rename(trash)
    draft.rename(path)
    shutil.rmtree(trash, ignore_errors=True)


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


def _description(router: FittedRouter, arrays: Arrays) -> dict[str, Any]:
    """`router` as JSON; arrays are added to `arrays`."""
    arrays |= {_class_array(name): values for name, values in router.class_embeddings.items()}
    arrays[_SEEN] = router.seen
    licence = router.support.licence or "licence unknown"
    return {
        "format": ROUTER_FORMAT,
        "clipsyn": __version__,
        "ensemble": _estimator(ENSEMBLES, router.ensemble, arrays),
        "head": _estimator(HEADS, router.head, arrays),
        "backbones": [
            {name: getattr(backbone, name) for name in _OF_BACKBONE}
            for backbone in router.backbones
        ],
        "n_classes": router.n_classes,
        "class_names": list(router.class_names),
        "prompts": router.prompts,
        "support": asdict(router.support),
        "licence": "The arrays are derived from the backbones' weights and from the support "
        f"images ({licence}); the licences of both apply.",
    }


def _router(content: Mapping[str, Any], arrays: Arrays) -> FittedRouter:
    """What this version knows of `content`: a newer one of the same format may say more."""
    router: FittedRouter = _record(
        FittedRouter,
        content,
        ensemble=_read_estimator(ENSEMBLES, content["ensemble"], arrays),
        head=_read_estimator(HEADS, content["head"], arrays),
        backbones=tuple(_read_backbone(backbone, arrays) for backbone in content["backbones"]),
        support=_record(Support, content["support"]),
        seen=arrays[_SEEN],
        candidates=(),
    )
    if router.seen.ndim != 1 or router.seen.dtype != np.uint64:
        raise ValueError(f"marks of images are {router.seen.dtype} {router.seen.shape}")
    classes = {router.n_classes, *map(len, router.class_embeddings.values())}
    classes |= {len(router.class_names)} if router.class_names else set()
    if len(classes) > 1 or not 0 < router.n_classes <= NO_PREDICTION:
        raise ValueError(f"it has {', '.join(map(str, sorted(classes)))} classes")
    if len(set(router.names)) < len(router.names) or (
        router.prompts and "name" not in router.prompts
    ):
        raise ValueError("its backbones or prompts have no names of their own")
    return router


def _read_backbone(content: Mapping[str, Any], arrays: Arrays) -> FittedBackbone:
    embedding = arrays.get(_class_array(content["name"]))
    backbone: FittedBackbone = _record(FittedBackbone, content, class_embedding=embedding)
    if backbone.logit_scale is not None and not is_scale(backbone.logit_scale):
        raise ValueError(f"the logit scale of {backbone.name} is {backbone.logit_scale}")
    if embedding is not None and (embedding.ndim != 2 or not embedding.size):
        raise ValueError(f"classes of {backbone.name} have embeddings of {embedding.shape}")
    return backbone


def _class_array(backbone: str) -> str:
    return f"classes/{backbone}"


def _estimator(registry: Registry, estimator: Estimator, arrays: Arrays) -> dict[str, Any]:
    learned = estimator.learned()
    parameters = estimator.get_params()
    return {
        "name": registry.name_of(type(estimator)),
        "parameters": {
            k: _encode(v, f"{registry.kind}/{k}", arrays) for k, v in parameters.items()
        },
        "learned": {k: _encode(v, f"{registry.kind}/{k}", arrays) for k, v in learned.items()},
    }


def _read_estimator(registry: Registry, content: Mapping[str, Any], arrays: Arrays) -> Any:
    parameters = {name: _decode(value, arrays) for name, value in content["parameters"].items()}
    estimator = registry.load(content["name"], plugins=False)(**parameters)
    try:
        estimator.check_parameters()
    except UsageError as error:
        raise ValueError(error) from None
    for name, stored in content["learned"].items():
        if name.startswith("_") or not name.endswith("_"):
            raise ValueError(f"'{name}' is no learned attribute")
        setattr(estimator, name, _decode(stored, arrays))
    return estimator


def _encode(value: Any, name: str, arrays: Arrays) -> Any:
    """`value` as JSON; its arrays go into `arrays`, under `name` or below it.

    Raises TypeError for what cannot be written without pickle.
    """
    if isinstance(value, np.ndarray | np.generic):
        return _encode_numbers(value, name, arrays)
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": repr(value)}
    if isinstance(value, tuple):
        return {"tuple": [_encode(v, f"{name}/{i}", arrays) for i, v in enumerate(value)]}
    if isinstance(value, Mapping):
        return {"mapping": _encoded(value, name, arrays)}
    raise TypeError(f"{name} is a {type(value).__name__}, which cannot be saved")


def _encoded(values: Mapping[str, Any], name: str, arrays: Arrays) -> dict[str, Any]:
    return {key: _encode(value, f"{name}/{key}", arrays) for key, value in values.items()}


def _decode(value: Any, arrays: Mapping[str, NDArray[Any]]) -> Any:
    """What `_encode` was given; raises KeyError, TypeError or ValueError for other JSON."""
    if isinstance(value, list):
        raise TypeError("a list stands where a number, a text or an array belongs")
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    return _DECODERS[kind](content, arrays)


def _record(record: type, content: Mapping[str, Any], **others: Any) -> Any:
    """An object of a dataclass, `others` aside from JSON; ValueError for a field of another type.

    The annotations of the class are the schema.
    """
    hints = {name: hint for name, hint in get_type_hints(record).items() if name not in others}
    for name, hint in hints.items():
        if not _matches(content[name], hint):
            raise ValueError(f"'{name}' is no {hint}")
    values = {name: content[name] for name in hints}
    lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
    return record(**{**values, **lists, **others})


def _matches(value: Any, hint: Any) -> bool:
    """Whether a value is what an annotation says, to its last item; lists of JSON are tuples."""
    kind, inner = get_origin(hint) or hint, get_args(hint)
    if hasattr(kind, "__value__"):  # since Python 3.12 numpy's NDArray is an alias
        return _matches(value, kind.__value__)
    if kind is UnionType:
        return any(_matches(value, option) for option in inner)
    if kind in _NUMBERS:
        whole = not isinstance(value, int) or value.bit_length() < 64
        return isinstance(value, _NUMBERS[kind]) and not isinstance(value, bool) and whole
    if kind is tuple:
        return isinstance(value, tuple | list) and all(_matches(item, inner[0]) for item in value)
    if kind in (dict, Mapping):
        return isinstance(value, dict) and all(_matches(item, inner[1]) for item in value.values())
    return kind is Any or not isinstance(kind, type) or isinstance(value, kind)


_NUMBERS: dict[Any, type] = {int: Integral, float: Real}  # numpy's too
_DECODERS: dict[str, Callable[[Any, Mapping[str, NDArray[Any]]], Any]] = {
    "array": lambda name, arrays: arrays[name],
    "fortran": lambda name, arrays: arrays[name].T,
    "scalar": lambda name, arrays: arrays[name][()],
    "float": lambda text, _: float(text),
    "tuple": lambda items, arrays: tuple(_decode(item, arrays) for item in items),
    "mapping": lambda items, arrays: {key: _decode(item, arrays) for key, item in items.items()},
}


def _encode_numbers(
    value: NDArray[Any] | np.generic, name: str, arrays: Arrays
) -> dict[str, str] | str:
    if isinstance(value, np.str_):
        return str(value)
    if value.dtype.kind not in _NUMERIC:
        raise TypeError(f"{name} is an array of {value.dtype}, which cannot be saved")
    array = np.asarray(value)
    transposed = array.flags.f_contiguous and not array.flags.c_contiguous
    arrays[name] = np.asarray(array.T if transposed else array, order="C")
    if isinstance(value, np.generic):
        return {"scalar": name}
    return {"fortran" if transposed else "array": name}
