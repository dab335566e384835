"""`groma licences`: list the licences of groma_ros and of every installed package that it needs."""

from __future__ import annotations

import argparse
import json
import re
from importlib import metadata

from groma_ros.errors import printable

_ROOT = "groma_ros"
_NAME = re.compile(r"^[A-Za-z0-9._-]+")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `groma licences`."""
    parser.add_argument(
        "--all",
        action="store_true",
        help="list every package of the environment, not only those needed by groma_ros",
    )
    parser.add_argument("--json", action="store_true", help="write one JSON document to standard output")


def run(args: argparse.Namespace) -> int:
    """Run `groma licences` with the options of `add_arguments`; returns the exit status."""
    installed = {
        _plain(item.metadata["Name"]): item for item in metadata.distributions() if item.metadata["Name"]
    }
    names = sorted(installed) if args.all else sorted(needed(_ROOT, installed))
    rows = [
        {"name": found.metadata["Name"], "version": found.version, "licence": licence(found)}
        for found in map(installed.__getitem__, names)
    ]
    if args.json:
        print(json.dumps({"packages": rows}, indent=1))
        return 0
    wide = max(len(f"{row['name']} {row['version']}") for row in rows)
    for row in rows:
        print(printable(f"{row['name']} {row['version']}".ljust(wide + 2) + row["licence"]))
    return 0


def needed(root: str, installed: dict[str, metadata.Distribution]) -> set[str]:
    """Return a package and the installed packages it needs, directly or indirectly, including those of its
    extras. Raises ValueError if the package itself is not installed."""
    if _plain(root) not in installed:
        raise ValueError(f"The package {root} is not installed; run make setup, or see groma licences --all.")
    found: set[str] = set()
    waiting = [_plain(root)]
    while waiting:
        name = waiting.pop()
        if name in found or name not in installed:
            continue
        found.add(name)
        for requirement in installed[name].requires or ():
            match = _NAME.match(requirement)
            # Extras of other packages are not what groma_ros needs.
            if match and (name == _plain(root) or "extra ==" not in requirement):
                waiting.append(_plain(match[0]))
    return found


def licence(package: metadata.Distribution) -> str:
    """Return the licence in a package's metadata: the SPDX expression, else the classifiers, else the free
    text."""
    about = package.metadata
    if about["License-Expression"]:
        return str(about["License-Expression"])
    classifiers = [
        line.rsplit(" :: ", 1)[1]
        for line in about.get_all("Classifier") or ()
        if line.startswith("License :: ") and line.count(" :: ") > 1
    ]
    text = str(about["License"] or "").strip().split("\n")[0]
    return ", ".join(classifiers) or text[:100] or "not stated in its metadata"


def _plain(name: str) -> str:
    """Normalise the spelling of a package's name."""
    return re.sub(r"[-_.]+", "-", name).lower()
