"""`groma verify`: compare the network with recorded tensors."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from rich.console import Console

from groma_ros.model.reference import Reference
from groma_ros.model.verify import print_report, verify


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `groma verify`."""
    parser.add_argument(
        "directory", type=Path, help="folder with config.json, meta.json and recorded tensors"
    )
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")


def run(args: argparse.Namespace) -> int:
    """Returns 0 if the network equals the recorded one, else 1. Raises ValueError for a folder that cannot be
    used."""
    report = verify(Reference.load(args.directory))
    if args.json:
        print(json.dumps(report.to_dict()))
    else:
        print_report(report, Console())
    return 0 if report.ok else 1
