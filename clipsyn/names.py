"""Names of backbones, perturbations, prompt sets, cells and places, and identities made of them."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path, PosixPath, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from clipsyn.errors import UsageError

# The most that may be asked for: of counts, which results hold in 32 bits, of seeds and of workers.
MARKER = "clipsyn.json"  # the file that makes a folder a store
ROUTER = "router.json"  # and the one that makes it a fitted router
MOST, MOST_SEEDS, MOST_WORKERS = 10**9, 10_000, 1024
Identity = dict[str, Any]  # JSON values only: what decides the bytes of a cell


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def fingerprint(identity: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of the canonical JSON of `identity`.

    Raises UsageError for a name that is no text: one of bytes that are not UTF-8.
    """
    try:
        content = canonical_json(identity).encode()
    except UnicodeEncodeError as error:
        near = error.object[max(0, error.start - 20) : error.end + 20]
        raise UsageError(f"a name is not UTF-8 (…{near}…): give it another") from None
    return hashlib.sha256(content).hexdigest()


def differences(old: Any, new: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield (dotted field, old value, new value) for every leaf in which two identities differ.

    There is none if and only if the fingerprints are equal; a missing value is shown as None.
    """
    if canonical_json(old) == canonical_json(new):
        return
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted({*old, *new}):
            name = f"{path}.{key}" if path else key
            if key in old and key in new:
                yield from differences(old[key], new[key], name)
            else:
                yield name, old.get(key), new.get(key)
    else:
        yield path, old, new


KINDS = ("timm", "hf", "py")  # what begins a source that is not of open_clip; py is a program


def check_backbone_name(name: str) -> None:
    """Raise UsageError for a name that is empty; any other that a path can hold will do."""
    if not name.strip():
        raise UsageError(
            "a backbone has an empty name: give it another one, NAME=SOURCE or --backbone NAME"
        )


@dataclass(frozen=True)
class Backbone:
    """A frozen encoder: a CLIP of open_clip, or what begins with one of `KINDS`.

    `name` stands in tables and in the store, `source` is what is loaded. They differ for
    checkpoints on disk: a path means nothing on another machine.
    """

    name: str  # "ViT-B-32/openai"
    source: str  # "ViT-B-32/openai", "hf-hub:org/repo", "local-dir:path" or "ViT-B-32@path"

    def __post_init__(self) -> None:
        check_backbone_name(self.name)

    @classmethod
    def parse(cls, text: str) -> Backbone:
        """Read ``[NAME=]SOURCE``.

        SOURCE is ``ARCH/TAG``, ``ARCH,TAG``, ``hf-hub:org/repo``, ``local-dir:PATH`` or
        ``ARCH@CHECKPOINT``, all of open_clip; ``timm:MODEL[:logits][@CHECKPOINT]``,
        ``hf:org/repo``, ``hf:PATH`` or ``py:MODULE:FACTORY``. Without NAME a checkpoint is called
        after its folder or file.
        """
        alias, _, source = text.strip().rpartition("=")
        if not source or (not alias and "=" in text):
            raise UsageError(
                f"'{text}' names no backbone: write NAME=SOURCE, for instance mine=RN50/openai"
            )
        if source.startswith("local-dir:"):
            path = source.removeprefix("local-dir:").rstrip("/")
            return cls(alias or PurePosixPath(path).name, f"local-dir:{path}")
        if source.startswith("hf-hub:"):
            return cls(alias or source, source)
        if source.startswith("hf:") and source[3:4] in ("/", ".", "~"):
            return cls(alias or PurePosixPath(source.removeprefix("hf:")).name, source)
        if "@" in source:
            architecture, _, checkpoint = source.partition("@")
            return cls(alias or f"{architecture}@{PurePosixPath(checkpoint).stem}", source)
        if source.partition(":")[0] in KINDS:
            return cls(alias or source, source)
        architecture, separator, tag = source.replace(",", "/", 1).partition("/")
        if not (architecture and separator and tag):
            raise UsageError(
                f"'{text}' is no backbone id: write ARCHITECTURE/TAG such as ViT-B-32/openai, "
                "hf-hub:org/repo, local-dir:PATH, ARCHITECTURE@CHECKPOINT, timm:MODEL, hf:org/repo "
                "or py:MODULE:FACTORY"
            )
        if tag == "openai":  # open_clip lists each of OpenAI's models twice, with equal results
            architecture = architecture.removesuffix("-quickgelu")
        return cls(alias or f"{architecture}/{tag}", f"{architecture}/{tag}")

    @property
    def kind(self) -> str:
        """One of KINDS, or open_clip."""
        kind = self.source.partition(":")[0]
        return kind if kind in KINDS else "open_clip"


@dataclass(frozen=True)
class Perturbation:
    """What happens to the decoded pixels: a registered function, how strongly, with which seed.

    `canvas` is the resolution at which it happens: images whose shorter side is longer are first
    reduced to it, so that every backbone sees the same severity. `version` counts changes of
    the function's output.
    """

    name: str = "clean"
    severity: int = 0
    seed: int = 0
    canvas: int = 224
    version: int = 1

    @property
    def label(self) -> str:
        """How tables and the store call it: ``clean``, ``jpeg-3``, ``jpeg-3-seed1-canvas64``."""
        if self.name == "clean":
            return "clean"
        label = f"{self.name}-{self.severity}"
        label += f"-seed{self.seed}" if self.seed else ""
        return label + (f"-canvas{self.canvas}" if self.canvas != 224 else "")

    def identity(self) -> Identity:
        if self.name == "clean":
            return {"name": "clean"}
        return asdict(self)


CLEAN = Perturbation()

_PERTURBATION = re.compile(
    r"^(?P<name>[a-z0-9_]+)[:-](?P<severity>\d{1,18})(?P<rest>(?:[:-][a-z]+=?\d{1,18})*)$"
)


def parse_perturbation(text: str) -> Perturbation:
    """Read ``clean``, ``NAME:SEVERITY`` or ``NAME:SEVERITY:seed=1:canvas=64``; labels work too.

    Whether NAME exists is the registry's to say (`clipsyn.images.perturb.resolve`).
    """
    text = text.strip()
    if text == "clean":
        return CLEAN
    match = _PERTURBATION.match(text)
    if match is None:
        raise UsageError(
            f"'{text}' is no perturbation: write clean or NAME:SEVERITY (1-5), such as jpeg:3 or "
            "gaussian_noise:2:seed=1:canvas=64"
        )
    given = re.findall(r"([a-z]+)=?(\d+)", match["rest"])
    options = {key: int(value) for key, value in given}
    if len(options) < len(given):
        raise UsageError(f"'{text}' gives an option twice: give each once")
    if unknown := sorted(set(options) - {"seed", "canvas"}):
        raise UsageError(
            f"'{text}': unknown option {unknown[0]}; a perturbation takes seed and canvas"
        )
    if match["name"] == CLEAN.name:
        raise UsageError(f"'{text}': clean images have no severity: write clean")
    return Perturbation(match["name"], int(match["severity"]), **options)


def by_severity(label: str) -> tuple[bool, str, int, str]:
    """Sort key of perturbation labels: clean comes first, severity 3 before 10."""
    perturbation = parse_perturbation(label)
    return perturbation != CLEAN, perturbation.name, perturbation.severity, label


def listed(texts: Iterable[str], option: str) -> tuple[str, ...]:
    """The names in comma lists; raises UsageError for a list without a name.

    An empty list never means "all": it is a mistake, most often a variable that is not set.
    """
    names: list[str] = []
    for text in texts:
        here = [part.strip() for part in text.split(",")]
        if not any(here):
            raise UsageError(
                f"{option} '{text}' is empty, perhaps a variable that is not set: name some"
            )
        names += filter(None, here)
    return tuple(names)


@dataclass(frozen=True)
class PromptSet:
    """Text templates with ``{c}`` for the class name, or finished prompts per class (CuPL)."""

    name: str
    templates: tuple[str, ...] = ()
    per_class: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for template in self.templates:
            if "{c}" not in template:
                raise UsageError(f"prompt set '{self.name}': template '{template}' has no {{c}}")

    def prompts(self, class_name: str) -> tuple[str, ...]:
        """The texts whose mean embedding stands for a class; raises UsageError if there is none."""
        if self.per_class:
            texts = self.per_class.get(class_name, ())
        else:
            texts = tuple(template.replace("{c}", class_name) for template in self.templates)
        if not texts:
            raise UsageError(f"prompt set '{self.name}' has no prompts for class '{class_name}'")
        return texts


@dataclass(frozen=True, order=True)
class FeatureKey:
    """The names of one cell: the unit of work, of resumption and of sharing."""

    dataset: str
    split: str
    perturbation: str
    backbone: str

    @property
    def names(self) -> tuple[str, str, str, str]:
        return self.dataset, self.split, self.perturbation, self.backbone

    def __str__(self) -> str:
        return f"{self.dataset}/{self.split} · {self.perturbation} · {self.backbone}"


SCHEMES = ("file", "http", "https", "s3", "gs", "az")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")  # of one letter it is a drive of Windows


def is_url(text: str | os.PathLike[str]) -> bool:
    return _SCHEME.match(os.fspath(text)) is not None


@dataclass(frozen=True)
class Address:
    """A URL in parts. `shown` has neither user nor query, where passwords and tokens stand."""

    scheme: str
    url: str  # without the user
    shown: str
    user: str | None  # "name:password" of an http URL

    @classmethod
    def parse(cls, text: str) -> Address:
        """Raises UsageError for a scheme that is not known, or a URL without a place."""
        try:
            parts = urlsplit(text)
            host, _ = parts.netloc.rpartition("@")[2], parts.port
        except ValueError as error:
            raise UsageError(f"this is no URL: {error}") from None
        shown = f"{parts.scheme}://{host}{parts.path.rstrip('/')}"
        if parts.scheme not in SCHEMES:
            raise UsageError(
                f"{shown}: a store is read from {', '.join(SCHEMES)}, not from '{parts.scheme}'"
            )
        if parts.scheme == "file" and host not in ("", "localhost"):
            raise UsageError(f"{shown}: a file URL has three slashes, as in file:///data/store")
        if not (host or parts.scheme == "file"):
            raise UsageError(f"{shown}: the URL names no host or bucket")
        url = urlunsplit((parts.scheme, host, parts.path.rstrip("/"), parts.query, ""))
        user = unquote(parts.netloc.rpartition("@")[0]) or None
        return cls(parts.scheme, url, shown, user)

    @property
    def is_http(self) -> bool:
        """Whether it is of a web server: one file after another is read, none listed or written."""
        return self.scheme in ("http", "https")

    @property
    def folder(self) -> Path:
        """Where a file URL points to."""
        return Path(unquote(urlsplit(self.url).path) or "/")


class Location(PosixPath):
    """The place of something in a store at a URL: a path for names, which is shown as a URL.

    There is nothing in the file system under it.
    """

    @classmethod
    def of(cls, url: str) -> Location:
        address = Address.parse(url)
        location = cls(f"{address.scheme}:", *address.shown.partition("://")[2].split("/"))
        vars(location)["whole"] = url
        return location

    @property
    def url(self) -> str:
        """The URL that `of` was given, with its secrets; of other paths what is shown."""
        return str(vars(self).get("whole", self))

    def __str__(self) -> str:
        scheme, colon, rest = super().__str__().partition(":/")
        return f"{scheme}://{'/' * (scheme == 'file')}{rest}" if colon else scheme

    def __reduce__(self) -> tuple[Any, ...]:
        return Location.of, (self.url,)

    def __fspath__(self) -> str:
        return str(self)


Shard = tuple[int, int]  # this worker, from 0, of so many
WHOLE: Shard = (0, 1)
HELP = "I/N: be the I-th (from 1) of N workers on one {}."


def parse_shard(text: str | None) -> Shard:
    """``I/N`` (I from 1), or None, as (I - 1, N)."""
    if text is None:
        return WHOLE
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise UsageError(f"shard={text}: write I/N with 1 <= I <= N, for instance 2/8")
    return int(index) - 1, int(count)
