"""The rule about tests that cannot render, on a small suite of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SUITE = """
from groma_ros.simulation.drawing import RenderingUnavailable

def test_draws_nothing():
    assert 1 + 1 == 2

def test_draws_a_scene():
    raise RenderingUnavailable("no driver")
"""


@pytest.mark.parametrize(("ci", "code"), [("", 0), ("true", 1)])
def test_tests_that_cannot_render_are_named_and_fail_only_in_ci(tmp_path: Path, ci: str, code: int) -> None:
    shutil.copy(Path(__file__).with_name("conftest.py"), tmp_path)
    (tmp_path / "test_suite.py").write_text(SUITE)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    result = subprocess.run(command, env=os.environ | {"CI": ci}, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    lines = result.stdout.strip().splitlines()
    assert result.returncode == code, result.stdout + result.stderr
    assert "test_suite.py::test_draws_a_scene" in lines
    assert "test_suite.py::test_draws_nothing" not in lines
    assert lines[-1].startswith("1 passed, 1 skipped in ")
