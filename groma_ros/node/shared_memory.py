"""Remove shared memory left by killed processes.

Each process using Fast DDS has a segment in /dev/shm (70 MB with config/fastdds.xml) and a lock file beside
it, locked for its lifetime. Both stay when the process is killed, and fill the memory of a robot that
restarts its nodes.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from pathlib import Path

FOLDER = Path("/dev/shm")
SEGMENT = re.compile(r"fast(?:rtps|dds)_[0-9a-f]{16}")
LOCK = "_el"
MIN_AGE = 60.0
"""Minimum age of a lock file in seconds: a starting process creates the file just before locking it."""


def remove_dead_segments(folder: Path = FOLDER, min_age: float = MIN_AGE) -> int:
    """Remove this user's segments whose process is gone, as `fastdds shm clean` does. Returns the freed
    bytes. Segments that cannot be removed are left."""
    freed = 0
    try:
        names = [name for name in os.listdir(folder) if SEGMENT.fullmatch(name)]
    except OSError:  # no shared memory on this system
        return 0
    for name in names:
        segment, lock = folder / name, folder / (name + LOCK)
        try:
            found = lock.stat()
            if found.st_uid != os.getuid() or time.time() - found.st_mtime < min_age:
                continue
            with lock.open("rb") as stream:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                size = segment.stat().st_size
                segment.unlink()
                lock.unlink()
                freed += size
        except OSError:  # its process is alive, or another one is removing it
            continue
    return freed
