"""Checks of files and disks before a long piece of work: Git LFS pointers, JSON, free space."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

LFS_POINTER = b"version https://git-lfs.github.com/spec/"
GB = 1e9


def refuse_pointer(path: Path) -> None:
    """ValueError where a file is Git LFS's pointer to the real one, as a clone without LFS leaves it."""
    with path.open("rb") as stream:
        if stream.read(len(LFS_POINTER)) == LFS_POINTER:
            raise ValueError(
                f"{path} is a Git LFS pointer and not the file itself; run git lfs pull in its repository, "
                "or "
                "download the file."
            )


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. ValueError if there is none."""
    if not path.is_file():
        raise ValueError(f"The file {path} does not exist.")
    refuse_pointer(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"The file {path} is not JSON: {error}.") from error
    if not isinstance(content, dict):
        raise ValueError(f"The file {path} must hold a JSON object.")
    return content


def free_bytes(folder: Path) -> int:
    """Bytes that can be written into a folder, which need not exist yet."""
    place = folder.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    return shutil.disk_usage(place).free


def check_disk(folder: Path, need: int, what: str) -> None:
    """OSError with need and have where a folder's disk has less than `need` bytes free; what: needs them."""
    have = free_bytes(folder)
    if need > have:
        raise OSError(
            f"{what} needs {need / GB:.2f} GB on the disk of {folder} and {have / GB:.2f} GB are free; "
            "free some, "
            "or name a folder on another disk."
        )
