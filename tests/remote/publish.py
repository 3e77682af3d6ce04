"""Publishes a store for tests of readers, from the specification alone: no code of `push`."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import zarr

INDEX, PROBE = "index.json.gz", "index/probe.json"


def published(store: Path, folder: Path) -> Path:
    """A copy of the store at `store`, as it is published, in `folder`."""
    folder.mkdir()
    marker = json.loads((store / "clipsyn.json").read_text())
    groups = [
        _group(store, path.parent, folder)
        for path in sorted(store.glob("[a-z]*/**/zarr.json"))
        if "kind" in json.loads(path.read_text()).get("attributes", {})
    ]
    datasets = sorted({group["place"][1] for group in groups})
    write(folder / INDEX, {"format": "3.0", "store": marker, "datasets": datasets})
    write_groups(folder, groups)
    return folder


def write(file: Path, content: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(gzip.compress(json.dumps(content).encode()))


def write_groups(folder: Path, groups: list[dict[str, Any]]) -> None:
    """The part of the index of each dataset that these are of."""
    for dataset in {group["place"][1] for group in groups}:
        some = [group for group in groups if group["place"][1] == dataset]
        write(folder / part_of(_folder_name(dataset)), {"format": "3.0", "groups": some})


def part_of(dataset: str) -> str:
    return f"index/{dataset}/groups.json.gz"


def read_groups(read: Callable[[str], bytes]) -> list[dict[str, Any]]:
    """What the index lists. read: the bytes of an object by its path."""
    datasets = json.loads(gzip.decompress(read(INDEX)))["datasets"]
    parts = [json.loads(gzip.decompress(read(part_of(_folder_name(it))))) for it in datasets]
    return [group for part in parts for group in part["groups"]]


def objects_of(manifest: bytes) -> set[str]:
    """What lies at the URL of the files that a manifest names, beside it."""
    content = json.loads(manifest)["attributes"]["published"]
    shards, objects = content.get("shards", {}), set[str]()
    for name in content["files"]:
        array, slash, file = name.rpartition("/")
        if file != "zarr.json" and (count := shards.get(array, 1)):
            if count > 1:
                first, number, *rest = file.split(".")
                file = ".".join([first, str(int(number) // count), *rest])
            objects.add(f"{array}{slash}{file}")
    return objects


def republish(folder: Path, name: str) -> None:
    """Make manifest and index say what the files of a group are now, as who wrote them would."""
    groups = read_groups(lambda path: (folder / path).read_bytes())
    for entry in groups:
        if "/".join(map(_folder_name, entry["place"])) == name:
            there = next((folder / name).iterdir())
            entry["manifest"], entry["bytes"] = _manifest(there)
            there.rename(there.parent / entry["manifest"][:16])
    write_groups(folder, groups)


def _group(store: Path, group: Path, folder: Path) -> dict[str, Any]:
    name = group.relative_to(store)
    there = folder / name / "new"
    for file in sorted(path for path in group.rglob("*") if path.is_file()):
        target = there / file.relative_to(group)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
    digest, size = _manifest(there)
    there.rename(folder / name / digest[:16])
    opened = zarr.open_group(group, mode="r")
    kind, *names = name.parts
    return {
        "place": [kind, *(unquote(part.replace("--", "/")) for part in names)],
        "manifest": digest,
        "bytes": size,
        "fingerprint": str(opened.attrs["fingerprint"]),
        "content": hashlib.sha256(name.as_posix().encode()).hexdigest(),
        "facts": _facts(kind, opened),
    }


def _manifest(there: Path) -> tuple[str, int]:
    """Make the manifest of files as a store has them, or anew of the chunks beside one."""
    group = json.loads((there / "zarr.json").read_bytes())
    listed = group["attributes"].pop("published", {"inline": {}, "times": 0})
    inline = {name: base64.b64decode(text) for name, text in listed["inline"].items()}
    for path in [*there.glob("zarr.json"), *there.glob("*/zarr.json")]:
        inline.setdefault(path.relative_to(there).as_posix(), path.read_bytes())
        path.unlink()
    chunks = (path for path in sorted(there.rglob("*")) if path.is_file())
    content = inline | {path.relative_to(there).as_posix(): path.read_bytes() for path in chunks}
    group["attributes"]["published"] = {
        "files": {
            name: [len(data), hashlib.sha256(data).hexdigest()] for name, data in content.items()
        },
        "inline": {name: base64.b64encode(data).decode() for name, data in inline.items()},
        "times": listed["times"] + 1,
    }
    arrays = {name.split("/")[0]: json.loads(inline[name]) for name in inline if "/" in name}
    known = {"kind": "inline", "must_understand": False, "metadata": arrays}
    manifest = json.dumps({**group, "consolidated_metadata": known}).encode()
    (there / "zarr.json").write_bytes(manifest)
    return hashlib.sha256(manifest).hexdigest(), sum(map(len, content.values()))


def _facts(kind: str, group: Any) -> dict[str, Any]:
    attributes = dict(group.attrs)
    imported = attributes["identity"].get("source") == "imported"
    if kind in ("captions", "texts"):
        return {"captions": group["text" if kind == "captions" else "text_embedding"].shape[0]}
    if kind == "features" and not imported:
        valid = np.asarray(group["valid"])
        width = group["image_embedding"].shape[1]
        return {"images": len(valid), "bad": int((~valid).sum()), "embed": width}
    if imported and kind != "classes":
        bad = dict(attributes["invalid"])
        elsewhere = bad.pop("shown under another condition", 0)
        facts = {"images": group["valid"].shape[0] - elsewhere, "bad": sum(bad.values())}
        if "image_embedding" in group:
            facts["embed"] = group["image_embedding"].shape[1]
        return {**facts, "imported": "embeddings" if kind == "features" else kind}
    return {"imported": "embeddings"} if imported else {}


def _folder_name(name: str) -> str:
    return name.replace("/", "--")
