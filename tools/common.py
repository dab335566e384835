"""Common parts of the set-up steps: the error with a sentence, stamps by hash of inputs, and running a
command into the log."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DISTRIBUTIONS = ("jazzy", "kilted")
DISTRO = os.environ.get("GROMA_WHEELS") or DISTRIBUTIONS[0]
"""The ROS distribution whose wheels the environment holds; make sets it."""
VENV = ROOT / (".venv" if DISTRIBUTIONS[0] == DISTRO else f".venv-{DISTRO}")
SIM_VENV = ROOT / ".venv-sim"
PYTHON = VENV / "bin" / "python"
STATE = VENV / "groma_setup"
LOG = STATE / "setup.log"

# The ROS wheels set these for their own process; the Python of another environment would load their
# libraries.
LEAKING = (
    "_ROS_WHEELS_BOOTSTRAP_COMPLETE",
    "AMENT_PREFIX_PATH",
    "CMAKE_PREFIX_PATH",
    "LD_LIBRARY_PATH",
    "PYTHONHOME",
    "PYTHONPATH",
)


class SetupError(Exception):
    """What is wrong and what to do, in one sentence."""


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a step: this process's without the variables that leak between environments."""
    return {key: value for key, value in os.environ.items() if key not in LEAKING} | dict(extra or {})


def run(
    command: Sequence[str | Path],
    failure: str,
    environment: Mapping[str, str] | None = None,
    state: Path = STATE,
) -> None:
    """Runs a command with its output in the log of `state`; on failure prints the log's end and raises
    SetupError(failure)."""
    path = state / LOG.name
    with path.open("ab") as log:
        log.write(("\n$ " + " ".join(map(str, command)) + "\n").encode())
        log.flush()
        result = subprocess.run(
            command, cwd=ROOT, env=clean_environment(environment), stdout=log, stderr=log, check=False
        )
    if result.returncode:
        tail = path.read_text(errors="replace").splitlines()[-25:]
        print("\n".join(tail), file=sys.stderr)
        raise SetupError(
            f"{failure} (exit code {result.returncode}); the whole output is in {path.relative_to(ROOT)}."
        )


def digest(paths: Iterable[Path], *words: str) -> str:
    """A hash of names and contents of files (folders: all files in them) and of words."""
    total = hashlib.sha256("\0".join(words).encode())
    for path in paths:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                total.update(
                    str(file.relative_to(ROOT)).encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest()
                )
    return total.hexdigest()


def is_done(step: str, key: str, state: Path = STATE) -> bool:
    """Whether the step's stamp matches these inputs."""
    stamp = state / step
    return stamp.is_file() and stamp.read_text() == key


def mark_done(step: str, key: str, state: Path = STATE) -> None:
    """Writes the step's stamp."""
    (state / step).write_text(key)
