"""The environment of robosuite and Miniworld for tests that render or drive in them."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@cache
def _made() -> str:
    """Make `.venv-sim` where it is not up to date; what went wrong, or nothing."""
    command = [sys.executable, str(ROOT / "tools" / "setup_sim.py")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if result.returncode == 0 else result.stderr.strip().splitlines()[-1]


def need_simulators() -> None:
    """Make `.venv-sim`, which takes minutes the first time; skip where the package index is out of reach.

    Under continuous integration (the variable CI is set) that fails the test.
    """
    problem = _made()
    if problem:
        stop = pytest.fail if os.environ.get("CI") else pytest.skip
        stop(f"make setup-sim does not work here: {problem}")
