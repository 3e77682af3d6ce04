"""500 small cells behind a latency: read, and written, against s5cmd, obstore and curl, with as
many requests at a time; and against a pull and the same here. Part of `remote.py`.

Latency is that of an answer; connections are made without one, which favours who makes many.
"""

from __future__ import annotations

import itertools
import os
import statistics
import subprocess
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
from common import Measured, interleaved, ratio, spread
from obstore.store import HTTPStore, S3Store
from served import Served, allow_many_files, far_away, serving

from clipsyn import zeroshot
from clipsyn.remote.manifest import MANIFEST
from clipsyn.remote.push import Push
from clipsyn.remote.transport import FILES
from clipsyn.show.progress import progress
from clipsyn.store.features import FeatureStore
from clipsyn.store.inventory import damage
from clipsyn.store.merge import plan_merge
from clipsyn.store.samples import SampleTable

CELLS, LATENCY = 500, 0.02  # seconds
WHAT = f"{CELLS} cells of 100 x 64, {1000 * LATENCY:.0f} ms away"
AT_ONCE = ["--parallel", "--parallel-immediate", "--parallel-max", str(FILES)]
KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}
Side = Callable[[], object]


def make_store(folder: Path) -> FeatureStore:
    """Cells of 100 images with class embeddings, ten backbones a dataset."""
    store, rng = FeatureStore.create(folder / "store"), np.random.default_rng(0)
    texts = np.eye(10, 64, dtype=np.float32)
    for number in range(CELLS):
        samples = SampleTable.of(
            f"set-{number // 10}",
            "test",
            [f"{row}" for row in range(100)],
            np.arange(100) % 10,
            [f"class {label}" for label in range(10)],
        )
        images = rng.standard_normal((100, 64), dtype=np.float32)
        images /= np.linalg.norm(images, axis=1, keepdims=True)
        with store.writer(samples, f"backbone-{number % 10}") as cell:
            cell.classes("simple", texts, scale=100.0)
            cell.embeddings(images.astype(np.float16))
    return store


def push(store: FeatureStore, url: str) -> None:
    plan = Push.plan(store, url, {}, replace=False)
    with progress("groups") as counters:
        plan.carry_out(counters)


def curl_config(published: Path, url: str, out: Path, inside: str = "") -> list[str]:
    """curl, told to fetch every file of the folder `inside`, at once."""
    lines = [
        f'url = "{url}/{file.relative_to(published)}"\noutput = "{out / str(number)}"'
        for number, file in enumerate(files_of(published))
        if file.is_relative_to(published / inside)
    ]
    return curl(out.parent / "curl.txt", lines)


def curl(config: Path, lines: Sequence[str]) -> list[str]:
    config.write_text("\n".join(lines).replace("%", "%25"))
    return ["curl", "--silent", "--fail", *AT_ONCE, "-K", str(config)]


def files_of(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file())


def s5cmd(url: str, *words: str) -> None:
    at = ["--endpoint-url", url, "--log", "error", "--numworkers", str(FILES)]
    subprocess.run(["s5cmd", *at, *words], check=True)


class Places:
    """A new folder each time, and with it a new cache."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._numbers = folder, itertools.count()

    def new(self) -> Path:
        os.environ["CLIPSYN_CACHE"] = str(self._folder / f"cache-{next(self._numbers)}")
        made = self._folder / f"{next(self._numbers)}"
        made.mkdir(parents=True)
        return made


def side_by_side(work: Callable[[int, str], object], names: Sequence[str]) -> None:
    with ThreadPoolExecutor(FILES) as threads:
        list(threads.map(work, range(len(names)), names))


def readers(published: Path, url: str, places: Places) -> dict[str, Side]:
    """What is read, by us and by others, by name; each into an empty cache or folder."""
    paths = [str(it.relative_to(published)) for it in files_of(published)]
    client = HTTPStore.from_url(url, client_options={"allow_http": True})

    def fetch(names: list[str]) -> None:
        def one(number: int, name: str) -> None:
            (target / str(number)).write_bytes(client.get(name.replace("%", "%25")).bytes())

        target = places.new()
        side_by_side(one, names)

    def pull() -> FeatureStore:
        plan = plan_merge(target := places.new(), [url])
        with progress("groups") as counters:
            plan.carry_out(counters)
        return FeatureStore.open(target)

    def verify(store: FeatureStore) -> None:
        store.tree.expect(store.at(*group) for group in store.places())
        with ThreadPoolExecutor(store.tree.groups) as threads:
            assert not any(threads.map(partial(damage, store), store.places()))

    def opened() -> FeatureStore:
        places.new()
        return FeatureStore.open(url)

    return {
        "pull": pull,
        "s5cmd cp of all objects": lambda: s5cmd(url, "cp", "s3://bucket/*", f"{places.new()}/"),
        "obstore": lambda: fetch(paths),
        "curl": lambda: subprocess.run(curl_config(published, url, places.new()), check=True),
        "obstore of the manifests": lambda: fetch([it for it in paths if it.endswith(MANIFEST)]),
        "zeroshot": lambda: zeroshot(opened()),
        "pull and zeroshot": lambda: zeroshot(pull()),
        "verify": lambda: verify(opened()),
        "pull and verify": lambda: verify(pull()),
    }


def writers(store: FeatureStore, published: Path, url: str, places: Places) -> dict[str, Side]:
    """What is written, each into an empty folder of the bucket; by others all objects."""
    files = files_of(published)
    client = S3Store("bucket", endpoint=url, client_options={"allow_http": True})
    numbers = itertools.count()

    def new() -> str:
        return f"pushed-{next(numbers)}"

    def put(into: str) -> None:
        def one(number: int, name: str) -> None:
            client.put(f"{into}/{name}", files[number].read_bytes(), use_multipart=False)

        side_by_side(one, [str(it.relative_to(published)) for it in files])

    def upload(into: str) -> None:
        lines = [
            f'upload-file = "{it}"\nurl = "{url}/bucket/{into}/{it.relative_to(published)}"'
            for it in files
        ]
        subprocess.run(curl(places.new() / "curl.txt", lines), check=True)

    return {
        "push": lambda: push(store, f"s3://bucket/{new()}"),
        "s5cmd cp of the same objects": lambda: s5cmd(
            url, "cp", f"{published}/*", f"s3://bucket/{new()}/"
        ),
        "obstore": lambda: put(new()),
        "curl": lambda: upload(new()),
    }


@contextmanager
def environment(**names: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(names)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def timed(
    sides: dict[str, Side], near: Served, rounds: int
) -> tuple[dict[str, list[float]], dict[str, int]]:
    """Seconds of each round, and the requests of the last."""
    counts = dict.fromkeys(sides, 0)

    def counted(name: str) -> None:
        before = near.requests()
        sides[name]()
        counts[name] = near.requests() - before - 1

    return interleaved({name: partial(counted, name) for name in sides}, rounds), counts


def distant(folder: Path, rounds: int) -> list[Measured]:
    allow_many_files()
    store, published, places = make_store(folder), folder / "published", Places(folder / "far")
    push(store, published.as_uri())
    (bucket := folder / "bucket").mkdir()
    results: list[Measured] = []

    def compared(ours: str, *others: tuple[str, float | None]) -> None:
        for other, ceiling in others:
            seconds = f"{statistics.median(times[ours]):.2f} s, {counts[ours]:,} requests; "
            seconds += f"{statistics.median(times[other]):.2f} s, {counts[other]:,} requests; "
            said = seconds + spread(times[ours], times[other])
            name = f"{WHAT}: time of {ours} over that of {other}"
            results.append(Measured(name, ratio(times[ours], times[other]), said, ceiling=ceiling))

    with (
        serving(published, folder / "nginx-read") as near,
        far_away(near, LATENCY) as url,
        environment(**KEYS),
    ):
        times, counts = timed(readers(published, url, places), near, rounds)
    compared(
        "pull", ("s5cmd cp of all objects", 1.3), ("obstore", None), ("curl", None),
        ("obstore of the manifests", None),
    )  # fmt: skip
    compared("zeroshot", ("pull and zeroshot", 1.2))
    compared("verify", ("pull and verify", 1.5))
    with (
        serving(bucket, folder / "nginx-write") as near,
        far_away(near, LATENCY) as url,
        environment(AWS_ENDPOINT_URL=url, **KEYS),
    ):
        times, counts = timed(writers(store, published, url, places), near, rounds)
    compared("push", ("s5cmd cp of the same objects", 1.3), ("obstore", None), ("curl", None))
    return results
