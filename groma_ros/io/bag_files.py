"""Files of a bag, content of its metadata.yaml, and copies of files that cannot be read in place."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from groma_ros.file_checks import wrong_kind
from groma_ros.io.bag_errors import ZSTD_MAGIC, BagError, BagLoss, expansion_limit, size_text
from groma_ros.yaml_files import YamlError
from groma_ros.yaml_files import load as load_yaml

METADATA = "metadata.yaml"
STORAGE = (".mcap", ".db3")
COMPRESSED = (".zstd", ".zst")
KNOWN_VERSION = 9
"""Newest known version of metadata.yaml; a newer file is read if it has the same fields."""
MIN_FREE_BYTES = 256 * 2**20
"""Free disk space that a copy must leave, bytes."""
_PIECE = 1 << 22


@dataclass
class BagFiles:
    """The files of a bag in the order of the recording."""

    paths: list[Path]
    announced: dict[str, int] | None = None
    """Messages by topic according to metadata.yaml; None if it does not say."""
    losses: list[str] = field(default_factory=list)
    """Missing parts, one sentence each."""
    notes: list[str] = field(default_factory=list)
    """Harmless oddities, one sentence each."""


def find_files(path: Path, allow_loss: bool = False) -> BagFiles:
    """Find the files of a rosbag2 folder, or a single file.

    allow_loss: continue without files that metadata.yaml names but that do not exist. Raises BagError for a
    path that is not a bag, BagLoss for missing files.
    """
    if not path.exists():
        raise BagError(f"The bag {path} does not exist.")
    if not path.is_dir():
        if not path.is_file() or not is_storage(path):
            raise BagError(
                f"{path} is not a bag: a rosbag2 folder, an .mcap file or a .db3 file (also with .zstd)."
            )
        return BagFiles([path])
    if (path / METADATA).is_file():
        found = _from_metadata(path, allow_loss)
        if found is not None:
            return found
        notes = [f"{path / METADATA} does not say which files the bag has; they were taken by their names."]
    else:
        notes = [f"The bag {path} has no {METADATA}; its files were taken by their names."]
    paths = _by_name(path)
    if not paths:
        raise BagError(f"The folder {path} is not a rosbag2 bag: it has no {METADATA}, .mcap or .db3 file.")
    return BagFiles(paths, notes=notes)


def is_storage(path: Path) -> bool:
    """Whether a file name is that of a storage file, compressed or not."""
    return storage_suffix(path) in STORAGE


def storage_suffix(path: Path) -> str:
    """Return .mcap or .db3, also if .zstd follows; "" for other files."""
    if path.suffix in COMPRESSED:
        path = path.with_suffix("")
    return path.suffix if path.suffix in STORAGE else ""


def readable_copy(path: Path, make_folder: Callable[[], Path]) -> Path | None:
    """Copy a file that cannot be read in place: compressed as a whole, or a database with a write-ahead log.
    Returns None for other files.

    make_folder: creates the folder for the copy. Raises BagError if it expands beyond the limit or the disk
    is full.
    """
    if path.stat().st_size and (kind := wrong_kind(path)) is not None:
        raise BagError(f"The bag {path} is {kind}.")
    with path.open("rb") as stream:
        compressed = path.suffix in COMPRESSED or stream.read(4) == ZSTD_MAGIC
    if compressed:
        target = make_folder() / f"expanded{storage_suffix(path)}"
        _expand(path, target)
        return target
    logs = [path.with_name(path.name + ending) for ending in ("-wal", "-journal")]
    logs = [log for log in logs if storage_suffix(path) == ".db3" and log.is_file() and log.stat().st_size]
    if not logs:
        return None
    folder = make_folder()
    _check_room(folder, sum(file.stat().st_size for file in (path, *logs)), path)
    target = folder / "recording.db3"
    shutil.copyfile(path, target)
    for log in logs:
        shutil.copyfile(log, target.with_name(target.name + log.name.removeprefix(path.name)))
    return target


def _from_metadata(folder: Path, allow_loss: bool) -> BagFiles | None:
    """Read metadata.yaml; None if it does not list files. Raises BagError if it cannot be read."""
    path = folder / METADATA
    try:
        information = _load(path)["rosbag2_bagfile_information"]
        names = [str(name) for name in information["relative_file_paths"]]
    except (KeyError, TypeError):
        return None
    # Use names, not paths: a bag is read only from its own folder.
    paths = [folder / Path(name).name for name in names]
    paths = [path for path in paths if is_storage(path) or path.is_file()]
    if not paths:
        return None
    notes, losses = [], []
    version = information.get("version", 0)
    if not isinstance(version, int) or version > KNOWN_VERSION:
        notes.append(f"{path} has the version {str(version)[:20]}, newer than {KNOWN_VERSION}.")
    missing = [item for item in paths if not item.is_file()]
    if missing:
        listed = ", ".join(item.name for item in missing)
        if not allow_loss or len(missing) == len(paths):
            raise BagLoss(
                f"The bag {folder} is not whole: {METADATA} names {listed}, and that is not there"
                + ("." if len(missing) == len(paths) else "; --allow-loss goes on without.")
            )
        losses.append(f"The bag {folder} is without {listed}.")
    present = [item for item in paths if item.is_file()]
    return BagFiles(present, _announced(information), losses, notes)


def _announced(information: dict[str, Any]) -> dict[str, int] | None:
    """Messages by topic; None if not given, or if all are 0, as written at the start of a recording."""
    counts: dict[str, int] = {}
    try:
        for item in information["topics_with_message_count"]:
            name = item["topic_metadata"]["name"]
            counts[name] = counts.get(name, 0) + int(item["message_count"])
    except (KeyError, TypeError, ValueError):
        return None
    return counts if any(counts.values()) else None


def _load(path: Path) -> Any:
    try:
        return load_yaml(path)
    except OSError as error:
        raise BagError(f"The metadata {path} cannot be read: {error.strerror or error}.") from error
    except YamlError as error:
        raise BagError(f"The metadata {path} cannot be read: {error}.") from error


def _by_name(folder: Path) -> list[Path]:
    """Storage files of a folder, sorted by the numbers in their names, as a recorder splits a bag. Raises
    BagError if they belong to several recordings."""
    paths = [item for item in folder.iterdir() if item.is_file() and is_storage(item)]
    pattern = re.compile(r"(.*?)(?:_(\d+))?")
    keys = {}
    for path in paths:
        stem = path.name[: path.name.index(storage_suffix(path))]
        match = pattern.fullmatch(stem)
        assert match is not None, "every name matches"
        keys[path] = (match[1], storage_suffix(path), int(match[2] or -1))
    if len({key[:2] for key in keys.values()}) > 1:
        listed = ", ".join(sorted(path.name for path in paths)[:5])
        raise BagError(
            f"The folder {folder} has no {METADATA} and holds several recordings ({listed}); name one."
        )
    return sorted(paths, key=lambda path: keys[path])


def _expand(path: Path, target: Path) -> None:
    import zstandard

    limit = expansion_limit(path.stat().st_size)
    written = 0
    try:
        with path.open("rb") as source, target.open("wb") as stream:
            reader = zstandard.ZstdDecompressor().stream_reader(source, read_across_frames=True)
            while piece := reader.read(_PIECE):
                written += len(piece)
                if written > limit:
                    raise BagError(
                        f"The bag {path} of {size_text(path.stat().st_size)} is refused: it expands to more "
                        f"than {size_text(limit)}, the most that is read of a file of its size."
                    )
                if written % (16 * _PIECE) < _PIECE:
                    _check_room(target.parent, 0, path)
                stream.write(piece)
        if not written:
            raise zstandard.ZstdError("they end before their content")
    except zstandard.ZstdError as error:
        raise BagError(
            f"The bag {path} is truncated or damaged: its zstd data cannot be expanded ({error})."
        ) from error


def _check_room(folder: Path, needed: int, path: Path) -> None:
    free = shutil.disk_usage(folder).free
    if free - needed < MIN_FREE_BYTES:
        raise BagError(
            f"The bag {path} has to be copied to be read, and {folder} has {size_text(free)} free where "
            f"{size_text(needed + MIN_FREE_BYTES)} are needed; set TMPDIR to a folder with more."
        )
