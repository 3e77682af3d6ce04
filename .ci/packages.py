"""Check that the wheel and the sdist in a folder hold exactly the files that git has of them."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
TRAVELS = {"clipsyn/": "clipsyn/", "data/": "clipsyn/data/", "pipelines/": "clipsyn/pipelines/"}


def main(folder: Path) -> None:
    git = ["git", "-C", str(ROOT), "ls-files", "-z"]
    listed = subprocess.run(git, capture_output=True, text=True, check=True).stdout
    tracked = set(listed.rstrip("\0").split("\0"))
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    name = "-".join(wheel.name.split("-")[:2])
    compare(wheel, zip_names(wheel), in_wheel(tracked, f"{name}.dist-info"))
    compare(sdist, tar_names(sdist), {f"{name}/{path}" for path in {*tracked, "PKG-INFO"}})
    check_description(wheel, f"{name}.dist-info/METADATA")


def in_wheel(tracked: set[str], about: str) -> set[str]:
    """The package, the data and the recipes; licences once more, where pip looks for them."""
    found = {f"{about}/{name}" for name in ("METADATA", "RECORD", "WHEEL", "entry_points.txt")}
    for path in tracked:
        top = path.partition("/")[0] + "/"
        if top in TRAVELS and (top != "pipelines/" or path.endswith(".yaml")):
            found.add(TRAVELS[top] + path.removeprefix(top))
        if path == "LICENSE" or path.startswith("data/licences/"):
            found.add(f"{about}/licenses/{path}")
    return found


def zip_names(path: Path) -> set[str]:
    with zipfile.ZipFile(path) as archive:
        return set(archive.namelist())


def tar_names(path: Path) -> set[str]:
    with tarfile.open(path) as archive:
        return {member.name for member in archive if member.isfile()}


def compare(path: Path, found: set[str], expected: set[str]) -> None:
    if found != expected:
        sys.exit(
            f"{path.name} lacks {sorted(expected - found)} and has {sorted(found - expected)}: "
            "see tool.hatch.build in pyproject.toml"
        )
    sys.stdout.write(f"{path.name}: {len(found)} files, as they should be\n")


def check_description(wheel: Path, name: str) -> None:
    """PyPI shows the README without other files, so a relative link would lead nowhere."""
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read(name).decode()
    dead = [part for part in text.split("](")[1:] if not part.startswith("https://")]
    if dead or "## Where to go" not in text:
        sys.exit(f"{wheel.name}: its description has relative links or is cut: {dead}")


main(Path(sys.argv[1]))
