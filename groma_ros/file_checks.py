"""Checks of files and disks before long operations: Git LFS pointers, wrong contents, free space."""

from __future__ import annotations

import shutil
from pathlib import Path

LFS_POINTER = b"version https://git-lfs.github.com/spec/"
GB = 1e9
_READ = 512


def wrong_kind(path: Path) -> str | None:
    """Describe what a file is instead of the expected one, and what to do: a Git LFS pointer, a web page, an
    error message, or empty. None if it is none of these. Raises OSError if it cannot be read."""
    with path.open("rb") as stream:
        return kind_of(stream.read(_READ))


def kind_of(begin: bytes) -> str | None:
    """`wrong_kind` for the first bytes of a file."""
    if begin.startswith(LFS_POINTER):
        return "a pointer of Git LFS and not the file itself; run git lfs pull in its repository"
    text = begin[:_READ].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html", b"<?xml", b"<head")):
        return "a web page, maybe the error page of a download, and not the file itself; fetch it again"
    if text.startswith((b'{"error"', b'{"message"', b"entry not found", b"not found", b"access denied")):
        return "the error message of a server and not the file itself; fetch it again"
    return None if begin else "empty; fetch it again"


def refuse_pointer(path: Path) -> None:
    """Raise ValueError if a file is a Git LFS pointer, as left by a clone without LFS."""
    with path.open("rb") as stream:
        if stream.read(len(LFS_POINTER)) == LFS_POINTER:
            raise ValueError(
                f"{path} is a Git LFS pointer and not the file itself; run git lfs pull in its repository, "
                "or "
                "download the file."
            )


def free_bytes(folder: Path) -> int:
    """Bytes available to write in a folder, which need not exist yet."""
    place = folder.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    return shutil.disk_usage(place).free


def check_disk(folder: Path, need: int, what: str) -> None:
    """Raise OSError with required and available space if a folder's disk has less than `need` bytes free;
    what: the operation that needs them."""
    have = free_bytes(folder)
    if need > have:
        raise OSError(
            f"{what} needs {need / GB:.2f} GB on the disk of {folder} and {have / GB:.2f} GB are free; "
            "free some, "
            "or name a folder on another disk."
        )
