"""Publishes a store for tests of readers, from the specification alone: no code of `push`."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import zarr


def published(store: Path, folder: Path) -> Path:
    """A copy of the store at `store`, as it is published, in `folder`."""
    folder.mkdir()
    marker = json.loads((store / "clipsyn.json").read_text())
    (folder / "clipsyn.json").write_text(json.dumps(marker))
    groups = [
        _group(store, path.parent, folder)
        for path in sorted(store.glob("[a-z]*/**/zarr.json"))
        if "kind" in json.loads(path.read_text()).get("attributes", {})
    ]
    write_index(folder, {"format": "2.0", "store": marker, "groups": groups})
    return folder


def write_index(folder: Path, index: Any) -> None:
    (folder / "index.json.gz").write_bytes(gzip.compress(json.dumps(index).encode()))


def read_index(folder: Path) -> Any:
    return json.loads(gzip.decompress((folder / "index.json.gz").read_bytes()))


def objects_of(manifest: bytes) -> set[str]:
    """What lies at the URL of the files that a manifest names."""
    content = json.loads(manifest)
    shards, objects = content.get("shards", {}), set[str]()
    for name in content["files"]:
        array, slash, file = name.rpartition("/")
        if array in shards and file != "zarr.json":
            first, number, *rest = file.split(".")
            file = ".".join([first, str(int(number) // shards[array]), *rest])
        objects.add(f"{array}{slash}{file}")
    return objects


def republish(folder: Path, name: str) -> None:
    """Make manifest and index say what the files of a group are now, as who wrote them would."""
    index = read_index(folder)
    for entry in index["groups"]:
        if "/".join(map(_folder_name, entry["place"])) == name:
            there = next((folder / name).iterdir())
            entry["manifest"], entry["bytes"] = _manifest(there)
            there.rename(there.parent / entry["manifest"][:16])
    write_index(folder, index)


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
    (there / "manifest.json").unlink(missing_ok=True)
    files = {
        path.relative_to(there).as_posix(): [
            path.stat().st_size,
            hashlib.sha256(path.read_bytes()).hexdigest(),
        ]
        for path in sorted(there.rglob("*"))
        if path.is_file()
    }
    inline = {
        name: base64.b64encode((there / name).read_bytes()).decode()
        for name in files
        if name.endswith("zarr.json")
    }
    manifest = json.dumps({"files": files, "inline": inline}).encode()
    (there / "manifest.json").write_bytes(manifest)
    return hashlib.sha256(manifest).hexdigest(), sum(size for size, _ in files.values())


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
