"""What a file really is that was expected to hold weights, a tokenizer or a graph."""

from __future__ import annotations

from pathlib import Path

_LFS = b"version https://git-lfs.github.com/spec/"
_READ = 512


def wrong_kind(path: Path) -> str | None:
    """What a file is instead of the file itself, with what to do: a pointer of Git LFS, a web page, or
    nothing at all. None where it is none of these. OSError where it cannot be read."""
    with path.open("rb") as stream:
        begin = stream.read(_READ)
    if begin.startswith(_LFS):
        return "a pointer of Git LFS and not the file itself; run git lfs pull in its repository"
    text = begin.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html", b"<?xml", b"<head")):
        return "a web page, maybe the error page of a download, and not the file itself; fetch it again"
    if text.startswith((b'{"error"', b'{"message"', b"entry not found", b"not found", b"access denied")):
        return "the error message of a server and not the file itself; fetch it again"
    return None if begin else "empty; fetch it again"
