"""`groma fetch`: download the published checkpoints, or any repository of the Hub that holds one."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from groma_ros.json_files import load_object
from groma_ros.network_config import check_family
from groma_ros.runtime.model_paths import CHECKPOINTS, MANIFEST, PUBLISHED, models_folder

if TYPE_CHECKING:
    from groma_ros.runtime.hub import Source


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `groma fetch`."""
    parser.add_argument(
        "name",
        help=f"{', '.join(PUBLISHED)}, a repository of the Hugging Face Hub as owner/name, or a local folder",
    )
    parser.add_argument(
        "--revision",
        help="branch, tag or full commit hash (default: that of an unfinished download, else for a published "
        "checkpoint the commit that this version of groma_ros knows, else the newest)",
    )
    parser.add_argument("--yes", action="store_true", help="accept the licence terms without a prompt")
    parser.add_argument("--json", action="store_true", help="write one JSON document to standard output")


def run(args: argparse.Namespace) -> int:
    """Run `groma fetch` with the options of `add_arguments`; returns the exit status."""
    folder = Path(args.name).expanduser()
    if args.name not in PUBLISHED and folder.is_dir():
        place, source = _link(folder), None
    else:
        from groma_ros.runtime.hub import fetch, find_source

        source = find_source(args.name, args.revision)
        _say_terms(source, args.name)
        if not args.yes and not _agreed():
            print("Nothing was downloaded.", file=sys.stderr)
            return 1
        place = fetch(args.name, source)
    ready = (place / MANIFEST).is_file()
    if args.json:
        document = {"name": place.name, "folder": str(place), "runs": ready}
        document |= (
            {"repository": source.repository, "commit": source.commit, "bytes": source.size} if source else {}
        )
        print(json.dumps(document, indent=1))
        return 0
    print(f"{place.name} is in {place}.")
    print(f"next: groma {'doctor --model' if ready else 'convert'} {place.name}")
    return 0


def _link(folder: Path) -> Path:
    """Give a local checkpoint or bundle a name: a link among this machine's models. Raises ValueError for
    another folder."""
    is_bundle = (folder / MANIFEST).is_file()
    if not is_bundle:
        check_family(load_object(folder / "config.json"), folder / "config.json", whole=False)
    base = models_folder() if is_bundle else models_folder() / CHECKPOINTS
    place = base / folder.resolve().name
    if place.exists() and place.resolve() != folder.resolve():
        raise ValueError(
            f"A model named {place.name} is there already: {place.resolve()}; rename one of the two."
        )
    base.mkdir(parents=True, exist_ok=True)
    if not place.exists():
        place.symlink_to(folder.resolve(), target_is_directory=True)
    return place


def _say_terms(source: Source, name: str) -> None:
    """Print on standard error what will be downloaded and under which terms."""
    from groma_ros.runtime.hub import KNOWN_COMMITS, PUBLISHED_LICENCE

    lines = [
        f"{source.repository} at {source.commit[:12]}: {len(source.files)} files, {source.size / 1e9:.2f} "
        f"GB, into {models_folder()}",
        PUBLISHED_LICENCE if name in PUBLISHED else f"Licence on its card: {source.licence or 'none'}.",
    ]
    known = KNOWN_COMMITS.get(source.repository, "")
    if not source.commit.startswith(known):
        lines.append(
            f"This is not commit {known}, the one whose config and files this version of groma_ros knows."
        )
    print("\n".join(lines), file=sys.stderr)


def _agreed() -> bool:
    """Ask on a terminal whether to continue. Raises ValueError without a terminal."""
    if not sys.stdin.isatty():
        raise ValueError("Nobody is there to accept the terms; run it on a terminal, or add --yes.")
    print("Download it under these terms? [y/N] ", end="", file=sys.stderr, flush=True)
    return input().strip().lower() in ("y", "yes")
