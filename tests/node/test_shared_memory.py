"""Segments of processes that are gone are removed, and nothing else."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

import pytest

from groma_ros.node.shared_memory import remove_dead_segments


def segment(folder: Path, name: str, age: float = 3600.0) -> Path:
    """A segment of 1000 bytes with its lock file."""
    path, lock = folder / name, folder / f"{name}_el"
    path.write_bytes(bytes(1000))
    lock.touch()
    os.utime(lock, (time.time() - age,) * 2)
    return path


def test_only_segments_that_no_process_holds_are_removed(tmp_path: Path) -> None:
    dead = [segment(tmp_path, "fastrtps_62fc46a4c635080e"), segment(tmp_path, "fastdds_0123456789abcdef")]
    held = segment(tmp_path, "fastdds_fedcba9876543210")
    young = segment(tmp_path, "fastdds_00000000000000aa", age=5.0)
    others = [segment(tmp_path, "fastdds_port7400"), segment(tmp_path, "sem.other")]
    alone = tmp_path / "fastdds_00000000000000bb"  # without a lock nothing is known of it
    alone.write_bytes(bytes(10))
    with (tmp_path / f"{held.name}_el").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert remove_dead_segments(tmp_path) == 2000
    left = {path.name for path in tmp_path.iterdir() if not path.name.endswith("_el")}
    assert left == {path.name for path in (held, young, alone, *others)}
    assert not any((tmp_path / f"{path.name}_el").exists() for path in dead)
    # Its process has gone, too.
    assert remove_dead_segments(tmp_path) == 1000 and not held.exists()


def test_those_of_other_users_and_an_absent_folder_are_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = segment(tmp_path, "fastdds_0123456789abcdef")
    monkeypatch.setattr(os, "getuid", lambda: os.geteuid() + 1)
    assert remove_dead_segments(tmp_path) == 0 and path.exists()
    assert remove_dead_segments(tmp_path / "none") == 0
