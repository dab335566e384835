"""The rule for tests that cannot render, on a small test suite of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SUITE = """
from groma_ros.simulation.drawing import RenderingUnavailable

def test_draws_nothing():
    assert 1 + 1 == 2

def test_draws_a_scene():
    raise RenderingUnavailable("no driver")
"""


@pytest.mark.parametrize(("ci", "code"), [("", 0), ("true", 1)])
def test_tests_that_cannot_render_are_named_and_fail_only_in_ci(tmp_path: Path, ci: str, code: int) -> None:
    (tmp_path / "test_suite.py").write_text(SUITE)
    options = ["-q", "-p", "no:cacheprovider", "-p", "tests.rendering", f"--rootdir={tmp_path}"]
    command = [sys.executable, "-m", "pytest", *options, str(tmp_path)]
    result = subprocess.run(
        command, env=os.environ | {"CI": ci}, cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    lines = result.stdout.strip().splitlines()
    assert result.returncode == code, result.stdout + result.stderr
    assert "test_suite.py::test_draws_a_scene" in lines
    assert "test_suite.py::test_draws_nothing" not in lines
    assert lines[-1].startswith("1 passed, 1 skipped in ")
