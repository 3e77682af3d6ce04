"""Fakes that need no torch, and a store filled with them by the real extraction."""

import gc
import hashlib
import json
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

# Workers keep the cores busy; products of two threads would double the processor time of all tests.
os.environ.setdefault("OMP_NUM_THREADS", "1")  # read at numpy's import

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from PIL import Image

from clipsyn.names import Backbone, FeatureKey, fingerprint
from clipsyn.store import arrays
from clipsyn.store.features import FeatureStore
from clipsyn.store.groups import sealed
from clipsyn.store.samples import CaptionTable

# How fast an example is says something of the machine and of its other work, nothing of the code.
settings.register_profile(
    "untimed", deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("untimed")

LONG = ("test_docs.py", "test_fuzz.py", "test_slurm.py", "test_paper.py", "test_kill.py")
CLASSES = ("cat", "dog", "crème brûlée")
CHUNK_ROWS = 8


def pytest_configure(config: pytest.Config) -> None:
    """What is in the caches of who runs the tests is neither used nor changed."""
    caches = tempfile.TemporaryDirectory(prefix="clipsyn-tests-")
    config.add_cleanup(caches.cleanup)
    os.environ["CLIPSYN_CACHE"] = f"{caches.name}/clipsyn"
    os.environ["HF_HOME"] = f"{caches.name}/huggingface"  # read at huggingface_hub's import
    os.fsync = os.fstat  # no test cuts the power; a store is a hundred files to wait for


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take a minute come first: at the end one worker would wait for the other."""
    items.sort(key=lambda item: item.path.name not in LONG)


def pytest_collection_finish() -> None:
    """What all tests need stays: nobody looks through it for garbage again and again."""
    gc.collect()
    gc.freeze()


class FakeEncoder:
    """A `clipsyn.extract.encoder.Encoder` in integer arithmetic: exact for any batch."""

    def __init__(
        self, name: str = "fake/one", *, size: int = 8, embed_dim: int = 12, weights: str = ""
    ) -> None:
        self.backbone = Backbone(name, f"local-dir:checkpoints/{name}")
        digest = hashlib.sha256((weights or name).encode()).hexdigest()
        self.identity: dict[str, Any] = {
            "architecture": None,
            "pretrained": None,
            "model": {"embed_dim": embed_dim, "quick_gelu": False},
            "weights": digest,
            "precision": "fp32",
            "preprocess": {"size": [size, size]},
        }
        self.provenance: dict[str, Any] = {
            "source": self.backbone.source,
            "loaded": time.time_ns(),
            "gflops": 0.5,
        }
        self.embed_dim = embed_dim
        self.logit_scale = 100.0
        self.reads_texts = self.tells_classes = True
        self.classes = None
        self.preprocess_key = f"{size}"
        self.gflops: float | None = 0.5
        self.device = "cpu"
        self.size = size
        self.encoded: list[int] = []  # images of each batch
        self.texts: list[str] = []  # all that were encoded
        self.preprocessed = 0
        self.seconds = 0.0  # what a batch costs
        self.before_batch: Callable[[], None] = lambda: None
        seed = int(digest[:8], 16)
        shape = (size * size * 3, embed_dim)
        self._projection = np.random.default_rng(seed).integers(-99, 100, shape)

    def preprocess(self, image: Image.Image) -> np.ndarray:
        self.preprocessed += 1
        return np.asarray(image.resize((self.size, self.size), Image.Resampling.BILINEAR))

    def encode_images(self, pixels: np.ndarray) -> np.ndarray:
        self.before_batch()
        time.sleep(self.seconds)
        self.encoded.append(len(pixels))
        product = (pixels.reshape(len(pixels), -1).astype(np.int64) @ self._projection) + 1
        norm = np.sqrt((product**2).sum(axis=1, keepdims=True).astype(np.float64))
        return (product / norm).astype(np.float16)

    def to_host(self, parts: Sequence[np.ndarray]) -> np.ndarray:
        return np.concatenate(list(parts))

    def text_lengths(self, texts: Sequence[str]) -> np.ndarray:
        return np.array([len(text) for text in texts])

    def encode_text(self, texts: Sequence[str]) -> np.ndarray:
        self.texts += texts
        seeds = [int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) for text in texts]
        rows = np.stack([np.random.default_rng(s).normal(size=self.embed_dim) for s in seeds])
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@dataclass
class FakeSource:
    """Images in memory; `bad` maps a row to the reason why it cannot be decoded."""

    name: str = "toy"
    split: str = "test"
    count: int = 20
    class_names: tuple[str, ...] = CLASSES
    bad: dict[int, str] = field(default_factory=dict)
    changed: set[int] = field(default_factory=set)  # rows with other pixels
    templates: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    captions: Sequence[Sequence[str]] = ()

    def __post_init__(self) -> None:
        self.info = SimpleNamespace(metric="acc1", licence="CC0")
        self.ids = tuple(f"im{row:03d}.png" for row in range(self.count))
        classes = len(self.class_names)
        rows = np.arange(self.count, dtype=np.int32)
        self.labels = rows % classes if classes else np.full(self.count, -1, np.int32)
        self.labels = self.labels.astype(np.int32)
        self.decoded: list[int] = []

    def __len__(self) -> int:
        return self.count

    def digest(self, index: int) -> bytes:
        return hashlib.sha256(self._pixels(index).tobytes()).digest()

    def image(self, index: int) -> Image.Image:
        from clipsyn.images.source import UndecodableImage

        self.decoded.append(index)
        if index in self.bad:
            raise UndecodableImage(self.bad[index])
        return Image.fromarray(self._pixels(index))

    def _pixels(self, index: int) -> np.ndarray:
        seed = [index, index in self.changed, len(self.split)]
        return np.random.default_rng(seed).integers(0, 256, (16, 20, 3), dtype=np.uint8)


def two() -> list[FakeEncoder]:
    """Those that made the tiny store."""
    return [FakeEncoder(), FakeEncoder("fake/two", size=12, embed_dim=16)]


class Quiet:
    """A `clipsyn.show.progress.Progress` that says nothing and remembers everything."""

    def __init__(self) -> None:
        self.counters: list[tuple[str, int]] = []
        self.counts: list[int] = []
        self.finished: list[int] = []

    def add(self, name: str, total: int, done: int = 0, *, unit: str | None = None) -> int:
        self.counters.append((name, total))
        self.counts.append(done)
        return len(self.counts) - 1

    def advance(self, counter: int, amount: int) -> None:
        self.counts[counter] += amount

    def finish(self, counter: int) -> None:
        self.finished.append(counter)


def fill(
    path: Path,
    encoders: Sequence[Any] = (),
    sources: Sequence[Any] = (),
    perturbations: Sequence[str] = ("clean",),
    *,
    prompts: str = "auto",
    logits: str = "clean",
    replace: bool = False,
    chunk_rows: int = CHUNK_ROWS,
    progress=None,
    **settings: Any,
) -> FeatureStore:
    """Plan and run an extraction into the store at `path`, as `clipsyn.extract.job` does."""
    from clipsyn.extract.run import RunSettings, run

    store, quiet = FeatureStore.create(path, chunk_rows), progress or Quiet()
    asked = {"prompts": prompts, "logits": logits, "replace": replace}
    work = planned(store, encoders, sources, perturbations, progress=quiet, **asked)
    run(work, RunSettings(**settings), quiet)
    return store


def fill_some(path: Path, blocks: int, encoder: Any = None, **asked: Any) -> FeatureStore:
    """An extraction that is interrupted after so many blocks (of at most 64 images)."""
    encoder = encoder or FakeEncoder()

    def stop() -> None:
        if len(encoder.encoded) >= blocks:
            raise KeyboardInterrupt

    encoder.before_batch = stop
    with pytest.raises(KeyboardInterrupt):
        fill(path, [encoder], **asked)
    encoder.before_batch = lambda: None
    return FeatureStore.open(path)


def copy(store: FeatureStore | Path, path: Path) -> FeatureStore:
    """A copy of a store; the times of its files stay behind, which take most of a copy's time."""
    shutil.copytree(getattr(store, "path", store), path, copy_function=shutil.copyfile)
    return FeatureStore.open(path)


def planned(
    store: FeatureStore,
    encoders: Sequence[Any] = (),
    sources: Sequence[Any] = (),
    perturbations: Sequence[str] = ("clean",),
    *,
    progress=None,
    **asked: Any,
) -> Any:
    """The work of an extraction, of settings that may be asked for."""
    from clipsyn.extract import ExtractSettings
    from clipsyn.extract.work import load_work
    from clipsyn.images.perturb import resolve

    return load_work(
        store,
        ExtractSettings(datasets=("fake",), **asked),
        encoders or [FakeEncoder()],
        sources or [FakeSource()],
        [resolve(text) for text in perturbations],
        progress=progress or Quiet(),
    )


def caption(store: FeatureStore, count: int = 2) -> FeatureStore:
    """Give each image of an extracted store so many captions, which every backbone embeds near it.

    One that cannot be read has captions, too, near nothing.
    """
    for (dataset, split), _ in [*store.groups("samples")]:
        samples = store.samples(dataset, split)
        texts = [[f"{name} {n}" for n in range(count)] for name in samples.ids]
        table = CaptionTable.of(samples, texts)
        draft = store.captions_draft(table, samples)
        draft.write_all(table.arrays())
        draft.publish(lambda _: {})
        for key in store.keys(dataset=[dataset], split=[split], perturbation=["clean"]):
            _embed_captions(store, key, table)
    return store


def _embed_captions(store: FeatureStore, key: FeatureKey, table: CaptionTable) -> None:
    images = store.cell(key).embeddings().astype(np.float32)[table.images]
    near = np.nan_to_num(images) + 0.4 * np.random.default_rng(0).standard_normal(images.shape)
    near /= np.linalg.norm(near, axis=1, keepdims=True)
    identity = {"captions": table.digest}
    identity["backbone"] = store.cell(key).group()["identity"]["backbone"]
    sizes = dict(zip(("caption", "embed"), near.shape, strict=True))
    target = store.at("texts", key.dataset, key.split, key.backbone)
    draft = store.draft(target, "texts", identity, sizes)
    draft.write_all({"text_embedding": near.astype(np.float16)})
    draft.publish(lambda _: {"logit_scale": 100.0})


def contents(path: Path) -> dict[str, Any]:
    """Everything in a store but provenance, drafts and the store's own id, by relative path."""
    found: dict[str, Any] = {}
    parts = [part for part in path.iterdir() if part.name != ".wip"]  # whose folders come and go
    for file in sorted(file for part in parts for file in (part, *part.rglob("*"))):
        name = file.relative_to(path).as_posix()
        if file.is_dir():
            continue
        found[name] = file.read_bytes()
        if file.suffix == ".json":
            content = found[name] = json.loads(found[name])
            content.pop("store_id", None)
            for name in ("provenance", "digest"):  # the digest is also of the provenance
                content.get("attributes", {}).pop(name, None)
    return found


def unlike(one: Path, other: Path) -> list[str]:
    """Names of the files in which two stores differ, apart from provenance."""
    left, right = contents(one), contents(other)
    assert left, f"{one} is empty"
    return sorted(name for name in {*left, *right} if left.get(name) != right.get(name))


def draft_folders(path: Path) -> list[str]:
    return sorted(folder.name for folder in (path / ".wip").glob("*"))


def rewrite(path: Path, **changes: Any) -> None:
    """Give a published group other attributes, signed as if it had been published with them."""
    attributes = {**arrays.read_attributes(path), **changes}
    attributes["fingerprint"] = fingerprint(attributes["identity"])
    arrays.write_attributes(path, sealed(attributes))


@dataclass(frozen=True)
class ShownTable:
    """What `clipsyn.show.tables.show` has written, cell by cell."""

    rows: list[dict[str, str]]

    @property
    def columns(self) -> list[str]:
        return list(self.rows[0])

    def column(self, name: str) -> list[str]:
        return [row[name] for row in self.rows]

    def row(self, *first: str) -> dict[str, str]:
        """The only row whose first cells these are."""
        (row,) = (row for row in self.rows if tuple(row.values())[: len(first)] == first)
        return row


def read_table(text: str, number: int = 0) -> ShownTable:
    """The table of that number in a text, cell by cell.

    A head of several lines is one text: "double fault", "incon-sistency". The head of an interval
    is that of `interval_of` the column before it: "95 % of top-1".
    """
    lines = text.split("\n")
    rule = [at for at, line in enumerate(lines) if line and set(line) == {"─"}][number]
    width = len(lines[rule])
    gaps = _gaps([lines[rule - 1], lines[rule + 1]], width)
    heads, body = [lines[rule - 1]], [lines[rule + 1]]
    for part, others in ((body, lines[rule + 2 :]), (heads, lines[: rule - 1][::-1])):
        for line in others:
            narrower = _gaps([*heads, *body, line], width)
            if not line or len(line) > width or len(narrower) < len(gaps):
                break
            part.append(line)
            gaps = narrower
    starts, ends = [0, *(end for _, end in gaps)], [*(start for start, _ in gaps), width]
    places = list(zip(starts, ends, strict=True))
    names: list[str] = []
    for start, end in places:
        head = " ".join(line[start:end].strip() for line in heads[::-1]).strip()
        head = head.replace("- ", "-").replace("/ ", "/")
        names.append(f"{head} of {names[-1]}" if head == "95 %" or head in names else head)
    cells = [[line[start:end].strip() for start, end in places] for line in body]
    return ShownTable([dict(zip(names, row, strict=True)) for row in cells])


def _gaps(lines: Sequence[str], width: int) -> list[tuple[int, int]]:
    """Where all lines have two blanks and more, between columns: from, to."""
    filled = ["".join(line.ljust(width)[at] for line in lines).strip() for at in range(width)]
    marks = "".join("x" if column else " " for column in filled)
    return [match.span() for match in re.finditer("(?<=x) {2,}(?=x)", marks)]


KEY = FeatureKey("toy", "test", "clean", "fake/one")


@pytest.fixture(scope="session")
def fakes() -> SimpleNamespace:
    """What tests use of this file: modules cannot import a conftest."""
    return SimpleNamespace(
        Encoder=FakeEncoder,
        Source=FakeSource,
        Quiet=Quiet,
        fill=fill,
        fill_some=fill_some,
        caption=caption,
        copy=copy,
        two=two,
        planned=planned,
        contents=contents,
        unlike=unlike,
        draft_folders=draft_folders,
        key=KEY,
        rewrite=rewrite,
        classes=CLASSES,
    )


@pytest.fixture(scope="session")
def forker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """What starts processes that need no imports: a `tests.forker.Forker`."""
    from tests.forker import Forker

    started = Forker(tmp_path_factory.mktemp("forker"))
    yield started
    started.close()


@pytest.fixture(scope="session", name="read_table")
def _read_table() -> Callable[..., ShownTable]:
    """Function (text, number of the table in it) -> its cells, by the names of rows and columns."""
    return read_table


@pytest.fixture(scope="session")
def _filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny") / "store"
    sources = [FakeSource(split="test"), FakeSource(split="train", count=11)]
    fill(path, two(), sources, ("clean", "jpeg:3"))
    return path


@pytest.fixture
def tiny_store(_filled: Path, tmp_path: Path) -> FeatureStore:
    """Two backbones, two splits (20 and 11 images), clean and jpeg-3; blocks of up to 8 rows."""
    return copy(_filled, tmp_path / "tiny")


@pytest.fixture(scope="session")
def _captioned(_filled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return caption(copy(_filled, tmp_path_factory.mktemp("captioned") / "store")).path


@pytest.fixture
def captioned(_captioned: Path, tmp_path: Path) -> FeatureStore:
    """The tiny store, each of whose images has two captions."""
    return copy(_captioned, tmp_path / "tiny")


@pytest.fixture(scope="module")
def few_steps() -> Iterator[None]:
    """Networks are trained for a moment: for tests of what is done with any."""
    from clipsyn.methods.ensembles import mixtures, nlc

    routers = (
        nlc.NLC,
        nlc.PerceptronRouter,
        mixtures.MixtureOfExperts,
        mixtures.SampleAwareWeights,
    )
    with pytest.MonkeyPatch.context() as patch:
        for router in routers:
            patch.setitem(router.__init__.__kwdefaults__, "steps", 40)
        yield


@pytest.fixture
def clipsyn(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Run a command in this process; anything but an orderly end is raised."""
    from click.testing import CliRunner

    from clipsyn.cli import main

    monkeypatch.delenv("CLIPSYN_STORE", raising=False)
    handler = signal.getsignal(signal.SIGTERM)

    def run(*arguments: object, **options: Any) -> Any:
        return CliRunner().invoke(main, [*map(str, arguments)], catch_exceptions=False, **options)

    yield run
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture
def offer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Function (module, its code, {group: {name: object in it}}): a package is installed."""
    offered = []

    def install(module: str, code: str, groups: dict[str, dict[str, str]]) -> None:
        site = tmp_path / "site" / module
        info = site / f"{module}_pack-1.5.dist-info"
        info.mkdir(parents=True)
        (site / f"{module}.py").write_text(code, encoding="utf-8")
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {module}-pack\nVersion: 1.5\n"
        )
        lines = []
        for group, names in groups.items():
            lines.append(f"[clipsyn.{group}]")
            lines += [f"{name} = {module}:{thing}" for name, thing in names.items()]
        (info / "entry_points.txt").write_text("\n".join(lines))
        monkeypatch.syspath_prepend(site)
        offered.append(module)

    yield install
    for module in offered:
        sys.modules.pop(module, None)


@pytest.fixture
def write_images(tmp_path: Path) -> Callable[..., Path]:
    """Function (name, images a class, classes) -> folder of PNG files, a folder for each class."""

    def write(
        name: str = "photos", count: int = 4, classes: Sequence[str] = ("cat", "dog")
    ) -> Path:
        for number, label in enumerate(classes):
            folder = tmp_path / name / label
            folder.mkdir(parents=True)
            for row in range(count):
                pixels = np.random.default_rng([number, row]).integers(
                    0, 256, (40, 48, 3), np.uint8
                )
                Image.fromarray(pixels).save(folder / f"{row}.png")
        return tmp_path / name

    return write


@pytest.fixture
def limited_memory() -> Callable[[int], AbstractContextManager[None]]:
    """Within it, the process has so many MB more than it has now."""

    @contextmanager
    def limited(megabytes: int) -> Iterator[None]:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + megabytes * 1_000_000
        before = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_AS, before)

    return limited
