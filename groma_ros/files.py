"""Writing a file whole or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

_REASONS = {
    errno.ENOSPC: "the disk is full; free some space and run it again",
    errno.EDQUOT: "the disk quota is used up; free some space and run it again",
    errno.EFBIG: "the file passes the size limit set for this process or file system",
}


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A stream into a file beside `path` that takes its place when the block ends well, and is deleted when it does not.

    OSError with a sentence where the disk is full or the file cannot be written.
    """
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as stream:
            yield stream
        os.replace(part, path)
    except BaseException as error:
        part.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None:
            raise write_error(path, error) from error
        raise


def write_error(path: Path, error: OSError) -> OSError:
    """The same error as a sentence that names the file."""
    reason = _REASONS.get(error.errno or 0) or f"{error.strerror or error}".lower()
    return OSError(f"{path} could not be written: {reason}.")
