"""Writes the locks of requirements/, each for Python 3.10, 3.11 and 3.12 and with the hash of every file that
pip may take: runtime.txt and full.txt from pyproject.toml and ros.in, kilted.txt from pyproject.toml and
ros-kilted.in, sim.txt from sim.in, docs.txt from docs.in.

Needs `uv` (pip install uv). Pins that still fit are kept; delete a line of a lock to have it chosen anew.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HEADER = "# Written by tools/lock_requirements.py from {}.\n"
PROJECT = ["pyproject.toml", "requirements/ros.in"]
# Dependencies of a CUDA build of torch come with that build; the CPU build does not need them.
CUDA_PIN = re.compile(r"^(nvidia-|cuda-|triton\b)")
ROS_PIN = re.compile(r"^(ros-|empy|lark|catkin)")
# The simulators require window and keyboard packages that are not used here; OpenCV without windows replaces
# the other one.
WINDOWS_PIN = re.compile(
    r"^(opencv-python=|pynput|evdev|python-xlib|pyobjc|colorama|iniconfig|pluggy|pytest)"
)
NOTHING = re.compile(r"(?!)")


def lock(name: str, sources: list[str], unwanted: re.Pattern[str], *arguments: str) -> None:
    """Writes requirements/<name> from sources, keeping its pins where they still fit and leaving out
    unwanted ones."""
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
        "--generate-hashes",
    ]
    subprocess.run([*command, *arguments, *sources, "--output-file", str(output)], cwd=ROOT, check=True)
    kept = [pin for pin in pins(output.read_text()) if not unwanted.match(pin)]
    output.write_text(HEADER.format(" and ".join(sources)) + "".join(kept))


def pins(text: str) -> list[str]:
    """The pins of a lock, each with the lines of its hashes."""
    return re.findall(r"^[A-Za-z0-9].*(?:\n +--hash.*)*\n", text, re.M)


def main() -> None:
    extras_of_full = ("train", "llama", "eval", "hub", "plots", "ray", "live", "dev")
    lock("full.txt", PROJECT, CUDA_PIN, *(word for extra in extras_of_full for word in ("--extra", extra)))
    lock("runtime.txt", PROJECT, CUDA_PIN, "--constraint", "requirements/full.txt")
    # Everything except ROS as in full.txt, so that a test that fails on only one distribution is about ROS.
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as constraints:
        full = (ROOT / "requirements" / "full.txt").read_text()
        constraints.write("".join(pin for pin in pins(full) if not ROS_PIN.match(pin)))
        constraints.flush()
        extras = ("--extra", "train", "--extra", "hub", "--extra", "dev", "--constraint", constraints.name)
        lock("kilted.txt", ["pyproject.toml", "requirements/ros-kilted.in"], CUDA_PIN, *extras)
    lock("sim.txt", ["requirements/sim.in"], WINDOWS_PIN)
    lock("docs.txt", ["requirements/docs.in"], NOTHING)


if __name__ == "__main__":
    main()
