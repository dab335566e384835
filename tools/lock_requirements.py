"""Writes requirements/runtime.txt and full.txt: one lock for Python 3.10, 3.11 and 3.12 each, from
pyproject.toml and ros.in.

Needs `uv` (pip install uv). Pins that still fit are kept; delete a line of a lock to have it chosen anew.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HEADER = "# Written by tools/lock_requirements.py from pyproject.toml and requirements/ros.in.\n"
# What a CUDA build of torch asks for comes with that build; the CPU build has no use for it.
CUDA_PIN = re.compile(r"^(nvidia-|cuda-|triton\b)")


def lock(name: str, *arguments: str) -> None:
    """Writes requirements/<name>, keeping its pins where they still fit."""
    output = ROOT / "requirements" / name
    command = [
        "uv",
        "pip",
        "compile",
        "--quiet",
        "--universal",
        "--python-version",
        "3.10",
        "--no-header",
        "--no-annotate",
    ]
    sources = ["pyproject.toml", "requirements/ros.in"]
    subprocess.run([*command, *arguments, *sources, "--output-file", str(output)], cwd=ROOT, check=True)
    pins = [line for line in output.read_text().splitlines(keepends=True) if not CUDA_PIN.match(line)]
    output.write_text(HEADER + "".join(pins))


def main() -> None:
    lock(
        "full.txt",
        *(word for extra in ("train", "llama", "eval", "ray", "dev") for word in ("--extra", extra)),
    )
    lock("runtime.txt", "--constraint", "requirements/full.txt")


if __name__ == "__main__":
    main()
