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
    """Hold the lock of a folder, which is made where it is missing, for the time of the block.

    The lock is the kernel's and goes with the process, so that one that was killed leaves nothing that holds
    up the next; its file names the holder and is removed at the end. Temporary files that a killed process
    left there are deleted. Raises ValueError with a sentence that
    names the holder where another process has it, OSError where the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK_NAME
    while True:
        # Not followed where it is a link: the lock is never written through to another file.
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
    """Whether an open file is still the one of that name."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return False
    own = os.fstat(stream.fileno())
    return (own.st_dev, own.st_ino) == (found.st_dev, found.st_ino)
