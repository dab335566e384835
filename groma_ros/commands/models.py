"""`groma models`: list the models on this machine."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from groma_ros.errors import printable
from groma_ros.json_files import load_object
from groma_ros.runtime.bundle import MANIFEST, Bundle, BundleError
from groma_ros.runtime.model_paths import CHECKPOINTS, known_models, models_folder, shipped_folders
from groma_ros.runtime.suitability import judge


@dataclass(frozen=True)
class Row:
    """A row of the list."""

    name: str
    bytes: int
    precisions: tuple[str, ...]
    """Precisions it can run in; empty for a checkpoint, which `groma convert` must convert first."""
    origin: str
    """Origin: shipped, a repository and commit, or this machine."""
    runs: str
    """Backend that runs it here, or why none does."""
    ok: bool
    """Whether it runs here."""
    folder: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `groma models`."""
    parser.add_argument("--json", action="store_true", help="write one JSON document to standard output")


def run(args: argparse.Namespace) -> int:
    """Run `groma models` with the options of `add_arguments`; returns the exit status."""
    folder = models_folder()
    rows = [_bundle(path) for path in known_models()]
    rows += [_checkpoint(path) for path in sorted((folder / CHECKPOINTS).glob("*/config.json"))]
    rows += [_partial(path) for path in sorted((folder / CHECKPOINTS).glob(".*.partial"))]
    if args.json:
        print(json.dumps({"folder": str(folder), "models": [asdict(row) for row in rows]}, indent=1))
        return 0
    print(f"models folder: {folder}")
    width = max([4, *(len(row.name) for row in rows)])
    for row in rows:
        size = f"{row.bytes / 1e6:,.0f} MB".replace(",", " ")
        precisions = ", ".join(row.precisions) or "-"
        print(printable(f"{row.name:<{width}}  {size:>10}  {precisions:<24}  {row.origin}"))
        print(printable(f"{'':<{width}}  {row.runs}"))
    return 0


def _bundle(folder: Path) -> Row:
    origin = "ships with groma_ros" if folder.parent in shipped_folders() else _origin(folder)
    try:
        bundle = Bundle.load(folder)
    except BundleError as error:
        return Row(folder.name, _size(folder), (), origin, str(error), False, str(folder))
    made = tuple(dict.fromkeys((*bundle.precisions, *bundle.vision_precisions, *bundle.gguf_precisions)))
    found = judge(bundle)
    runs = (
        f"runs on {found.backend} in {found.precision}" if found.ok else f"does not run here: {found.reason}"
    )
    return Row(folder.name, _size(folder), made, origin, runs, found.ok, str(folder))


def _checkpoint(config: Path) -> Row:
    folder = config.parent
    runs = f"a checkpoint; groma convert {folder.name} makes it ready to run"
    return Row(folder.name, _size(folder), (), _origin(folder), runs, False, str(folder))


def _partial(folder: Path) -> Row:
    name = folder.name.removeprefix(".").removesuffix(".partial")
    record = _record(folder)
    runs = f"an unfinished download; groma fetch {record.get('repository', name)} goes on with it"
    return Row(name, _size(folder), (), _origin(folder), runs, False, str(folder))


def _origin(folder: Path) -> str:
    if folder.is_symlink():
        return f"linked from {folder.resolve()}"
    record = _record(folder)
    if record.get("repository"):
        return f"{record['repository']} at {str(record.get('commit'))[:12]}"
    return "made on this machine" if (folder / MANIFEST).is_file() else "put here by hand"


def _record(folder: Path) -> dict[str, object]:
    """Return the notes of a download about itself; empty for other folders."""
    try:
        return load_object(folder / "fetched.json")
    except (OSError, ValueError):
        return {}


def _size(folder: Path) -> int:
    """Return the bytes of all files of a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
