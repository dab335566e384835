"""Exclusive locks on folders."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from groma_ros.atomic_write import LOCK_NAME, PART
from groma_ros.folder_lock import folder_lock

HOLD = (
    "import sys; from pathlib import Path; from groma_ros.folder_lock import folder_lock\n"
    "with folder_lock(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
)


def test_second_process_is_told_which_process_has_the_lock(tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(out)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match=rf"out is in use by process {holder.pid} on "), folder_lock(out):
            pass
    finally:
        holder.kill()
        holder.communicate()
    (out / f"report.json{PART}").write_text("half of it")
    with folder_lock(out):  # a killed holder leaves its file and no lock; what it began is swept
        assert [path.name for path in out.iterdir()] == [LOCK_NAME]
    assert not list(out.iterdir())


def test_it_is_released_by_an_error_and_follows_no_link(tmp_path: Path) -> None:
    with pytest.raises(KeyError), folder_lock(tmp_path):
        raise KeyError
    assert not list(tmp_path.iterdir())
    other = tmp_path / "other.txt"
    other.write_text("kept")
    (tmp_path / LOCK_NAME).symlink_to(other)
    with pytest.raises(OSError), folder_lock(tmp_path):
        pass
    assert other.read_text() == "kept"
