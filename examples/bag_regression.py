"""A bag as a regression test: replay it, and fail where answers differ from a stored run.

    python examples/bag_regression.py demo/tabletop.mcap demo/goals.yaml --expect out/expected

The first run stores its answers in the folder of --expect, later runs are compared with them.
The command `groma replay` does the same and more; this shows it from Python.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bag", type=Path)
    parser.add_argument("goals", type=Path, help="a YAML file of goals")
    parser.add_argument("--expect", type=Path, required=True, help="folder of the stored run")
    parser.add_argument("--out", type=Path, default=Path("out/replay"))
    parser.add_argument("--every", type=int, default=1, help="replay every n-th image only")
    args = parser.parse_args()

    command = [sys.executable, "-m", "groma_ros.cli", "replay", str(args.bag)]
    command += ["--goals", str(args.goals), "--out", str(args.out), "--every", str(args.every), "--fresh"]
    command += ["--expect", str(args.expect)]
    first = not args.expect.is_dir()
    if first:
        command.append("--accept")
    status = subprocess.run(command, check=False).returncode
    done = f"stored in {args.expect}" if first else "same as expected"
    print({0: done, 3: "answers differ: see report.html"}.get(status, "the replay failed"))
    return status


if __name__ == "__main__":
    sys.exit(main())
