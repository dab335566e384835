"""What continuous integration runs once more, and what it does not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Of `make`: the tests of the folder it is called in; the runs on other wheels and all else succeed at once.
MAKE = """#!/usr/bin/env bash
echo "$*" >> calls
[ "$1" = test ] && [ "${2#ROS_DISTRO}" = "$2" ] || exit 0
exec "$PYTHON" -m pytest -p no:launch_testing -p no:launch_pytest ${2#PYTEST_ARGS=}
"""
FIRST = "import os, pathlib\nfirst = not pathlib.Path('once').exists()\npathlib.Path('once').touch()\n"
OTHER = "import pathlib\n\ndef test_other():\n    pathlib.Path('other').touch()\n"


@pytest.mark.parametrize(
    ("tests", "passes", "runs"),
    [
        ("def test_a():\n    pass\n", True, 1),
        (f"def test_a():\n    {FIRST.replace(chr(10), chr(10) + '    ')}assert not first\n", True, 2),
        ("def test_a():\n    assert False\n", False, 2),
        ("import of_no_package\n", False, 1),
        (
            "import os\nassert os.environ.get('PYTEST_XDIST_WORKER') != 'gw1'\n\ndef test_a():\n    pass\n",
            False,
            1,
        ),
        (f"def test_a():\n    {FIRST.replace(chr(10), chr(10) + '    ')}if first: os._exit(3)\n", False, 1),
    ],
    ids=["passes", "fails once", "fails", "cannot be collected", "is collected by one", "ends the process"],
)
def test_only_tests_that_failed_are_run_once_more(
    tmp_path: Path, tests: str, passes: bool, runs: int
) -> None:
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci" / "run")
    (tmp_path / "make").write_text(MAKE)
    (tmp_path / "make").chmod(0o755)
    # With the project's own options of pytest, which decide how its last line reads.
    shutil.copy(ROOT / "pyproject.toml", tmp_path / "pyproject.toml")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_a.py").write_text(tests)
    (tmp_path / "tests" / "test_other.py").write_text(OTHER)
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "PYTHON"))}
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    ended = subprocess.run(
        [tmp_path / ".ci" / "run"],
        env=clean | {"PATH": path, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=300,
    )
    calls = (tmp_path / "calls").read_text().splitlines()
    jazzy = [call for call in calls if call.startswith("test PYTEST_ARGS")]
    assert (ended.returncode == 0, len(jazzy)) == (passes, runs), ended.stdout + ended.stderr
    assert any("ROS_DISTRO=kilted" in call for call in calls) == passes
