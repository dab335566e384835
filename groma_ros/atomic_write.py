"""Writing a file whole or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

_REASONS = {
    errno.ENOSPC: "the disk is full; free some space and run it again",
    errno.EDQUOT: "the disk quota is used up; free some space and run it again",
    errno.EFBIG: "the file passes the size limit set for this process or file system",
}

_ROOM = 1 << 20


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A stream into a file beside `path` that takes its place when the block ends well, and is deleted when
    it does not.

    OSError with a sentence where the disk is full or the file cannot be written.
    """
    part = path.with_name(path.name + ".part")
    try:
        with naming_file(path), part.open("wb") as stream:
            yield stream
            _sync(stream)
        os.replace(part, path)
        sync_folder(path.parent)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_file(path: Path, data: bytes) -> None:
    """Write a file whole or not at all; errors as of `replacing`."""
    with replacing(path) as stream:
        stream.write(data)


def write_together(contents: Mapping[Path, bytes | Path]) -> None:
    """Write files, of which none takes its place before all are whole; contents: bytes, or a finished file
    that is renamed.

    Errors as of `replacing`; then none of them has changed and nothing is left beside them.
    """
    parts = {
        path: content if isinstance(content, Path) else path.with_name(path.name + ".part")
        for path, content in contents.items()
    }
    try:
        for path, content in contents.items():
            if isinstance(content, bytes):
                with naming_file(path), parts[path].open("wb") as stream:
                    stream.write(content)
                    _sync(stream)
        for path, part in parts.items():
            os.replace(part, path)
        for folder in {path.parent for path in parts}:
            sync_folder(folder)
    except BaseException:
        for part in parts.values():
            part.unlink(missing_ok=True)
        raise


def sync_folder(folder: Path) -> None:
    """Let the names of a folder survive a loss of power, where its file system can do that."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _sync(stream: BinaryIO) -> None:
    """Bring the content to the disk before its name does: a loss of power never leaves an empty file under
    it."""
    stream.flush()
    os.fsync(stream.fileno())


@contextmanager
def naming_file(path: Path) -> Iterator[None]:
    """Give an error of the operating system inside the block the sentence that names the file which was being
    written."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        reason = _REASONS.get(error.errno) or f"{error.strerror or error}".lower()
        raise OSError(f"{path} could not be written: {reason}.") from error


class AtomicFile(np.ndarray):
    """A view of an array whose `tofile`, as `np.save` and others call it, fails where the disk does: numpy's
    own loses the last bytes of a full one without a word."""

    def tofile(self, fid: Any, sep: str = "", format: str = "%s") -> None:
        """Write the array's bytes to a binary stream."""
        fid.write(np.ascontiguousarray(self).data)


@contextmanager
def asking_disk(path: Path) -> Iterator[None]:
    """The same for a library that writes the file and forgets why it could not: the disk is asked for room
    behind what is there."""
    try:
        yield
    except Exception as error:
        try:
            with naming_file(path), path.open("ab") as stream:
                end = stream.tell()
                stream.write(bytes(_ROOM))
                stream.truncate(end)
        except OSError as reason:
            raise reason from error
        raise
