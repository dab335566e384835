"""A folder that one process at a time writes into."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from groma_ros.atomic_write import LOCK_NAME, sweep


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder inside the block; the folder is created if it is missing.

    The kernel releases the lock when the process ends, so a killed process blocks nobody. The lock file names
    its holder and is removed at the end. Temporary files left by a killed process are deleted. Raises
    ValueError naming the holder if another process has the lock, OSError if the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK_NAME
    while True:
        # Do not follow a link: the lock must never be written through to another file.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        stream = os.fdopen(descriptor, "r+")
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with stream:
                holder = "".join(filter(str.isprintable, stream.read(200))) or "another process"
            raise ValueError(
                f"{folder} is in use by {holder}; wait until it ends, or name another folder."
            ) from None
        if _is_current(stream, path):
            break
        stream.close()  # its holder removed it between the two calls
    with stream:
        stream.truncate(0)
        stream.write(f"process {os.getpid()} on {socket.gethostname()}")
        stream.flush()
        try:
            sweep(folder)
            yield
        finally:
            with suppress(OSError):
                path.unlink()


def _is_current(stream: TextIO, path: Path) -> bool:
    """Whether an open file is still the file of that name."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return False
    own = os.fstat(stream.fileno())
    return (own.st_dev, own.st_ino) == (found.st_dev, found.st_ino)
