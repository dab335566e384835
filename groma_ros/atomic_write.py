"""Write files atomically: completely or not at all."""

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
LOCK_NAME = ".lock"
"""Lock file of a folder that only one process at a time writes into, see `folder_lock`."""
PART = ".groma-part"
"""Suffix of temporary files, used by no other program."""


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a stream to a temporary file beside `path`; it replaces `path` when the block succeeds and is
    deleted when it fails.

    Raises OSError with a sentence when the disk is full or the file cannot be written.
    """
    part = path.with_name(path.name + PART)
    try:
        with naming_file(path), part.open("wb") as stream:
            yield stream
            _sync(stream)
        _rename(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_file(path: Path, data: bytes) -> None:
    """Write a file atomically. Raises as `replacing`."""
    with replacing(path) as stream:
        stream.write(data)


def write_together(contents: Mapping[Path, bytes | Path]) -> None:
    """Write several files; none replaces its target before all are complete.

    contents: by target path, bytes or a finished file to sync and rename. Raises as `replacing`; then no
    target has changed and no temporary file is left.
    """
    parts = {
        path: content if isinstance(content, Path) else path.with_name(path.name + PART)
        for path, content in contents.items()
    }
    try:
        for path, content in contents.items():
            if isinstance(content, bytes):
                with naming_file(path), parts[path].open("wb") as stream:
                    stream.write(content)
                    _sync(stream)
            else:
                with naming_file(content):
                    _sync_path(content)
        for path, part in parts.items():
            os.replace(part, path)
        for folder in {path.parent for path in parts}:
            sync_folder(folder)
    except BaseException:
        for part in parts.values():
            part.unlink(missing_ok=True)
        raise


def take_over(finished: Path, path: Path) -> None:
    """Sync a finished file, or a folder with its contents, to disk and rename it to `path`.

    Raises OSError with a sentence if that fails.
    """
    with naming_file(path):
        for folder, _, names in os.walk(finished):
            for name in names:
                _sync_path(Path(folder, name))
            sync_folder(Path(folder))
        if not finished.is_dir():
            _sync_path(finished)
        _rename(finished, path)


def _rename(finished: Path, path: Path) -> None:
    os.replace(finished, path)
    sync_folder(path.parent)


def _sync_path(path: Path) -> None:
    """Flush a closed file to disk, unless it is a link or a special file."""
    if path.is_file() and not path.is_symlink():
        with path.open("rb") as stream:
            os.fsync(stream.fileno())


def sweep(folder: Path) -> None:
    """Delete temporary files left by killed processes in a folder and those of its subfolders that no process
    has locked. The caller must be the only process that writes there."""
    for pattern in (f"*{PART}", f"*/*{PART}"):
        for left in folder.glob(pattern):
            if left.parent != folder and (left.parent / LOCK_NAME).exists():
                continue
            with suppress(OSError):
                left.unlink()


def sync_folder(folder: Path) -> None:
    """Flush a folder's directory entries to disk where the file system supports it, so that new names survive
    a loss of power."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _sync(stream: BinaryIO) -> None:
    """Flush a file to disk before it is renamed, so that a loss of power never leaves an empty file under the
    final name."""
    stream.flush()
    os.fsync(stream.fileno())


@contextmanager
def naming_file(path: Path) -> Iterator[None]:
    """Turn an OSError inside the block into one whose message names the file being written."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        reason = _REASONS.get(error.errno) or f"{error.strerror or error}".lower()
        raise OSError(f"{path} could not be written: {reason}.") from error


class AtomicFile(np.ndarray[Any, Any]):
    """View of an array whose `tofile`, called by `np.save` and others, raises when the disk is full.

    numpy's own `tofile` silently loses the last buffered bytes.
    """

    def tofile(self, fid: Any, sep: str = "", format: str = "%s") -> None:
        """Write the array's bytes to a binary stream."""
        fid.write(np.ascontiguousarray(self).data)


@contextmanager
def asking_disk(path: Path) -> Iterator[None]:
    """Like `naming_file`, for a library that hides the cause of a failed write: on any error, try to append
    to the file to find out whether the disk is full."""
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
