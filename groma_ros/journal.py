"""Append-only journals of unfinished runs, from which a rerun with the same settings resumes."""

from __future__ import annotations

import json
import os
import shutil
import time
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from groma_ros.atomic_write import naming_file, replacing

RECORDS = "records.jsonl"
SETTINGS = "settings.json"
STATE = "state.npz"
SAVE_SECONDS = 2.0
"""Minimum time between two saves of an `OrderedJournal` whose user asks `due`."""


class Journal:
    """Files of JSON lines in a folder, written as soon as a line is appended.

    For results that do not depend on each other: on resuming, every complete line counts, so the lines may be
    in any order.

    folder: created if needed; settings: JSON values that the results depend on; files: names of the files.
    Raises ValueError if the folder holds a run with other settings or such files without settings, OSError if
    it cannot be written.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], files: Sequence[str] = (RECORDS,)) -> None:
        self.folder = folder
        self._files = tuple(files)
        self._resume(json.loads(json.dumps(settings)))
        self._streams: dict[str, BinaryIO] = {}
        for name in self._files:
            with naming_file(folder / name):
                self._streams[name] = (folder / name).open("ab")

    def append(self, *lines: str) -> None:
        """Append one line of JSON to each file, in the order of the files."""
        for (name, stream), line in zip(self._streams.items(), lines, strict=True):
            with naming_file(self.folder / name):
                stream.write((line + "\n").encode())
                stream.flush()

    def read(self, name: str = RECORDS) -> list[Any]:
        """Parse the lines of a file."""
        return [json.loads(line) for line in (self.folder / name).read_bytes().splitlines()]

    def close(self) -> None:
        """Close the files; the journal stays for a rerun."""
        for stream in self._streams.values():
            stream.close()

    def remove(self) -> None:
        """Delete the folder of a finished run."""
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _resume(self, settings: Any) -> None:
        """Prepare the files for appending."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if (self.folder / SETTINGS).is_file():
            if not self._has(settings):
                raise ValueError(
                    f"{self.folder} holds another run (other data, model or options); name a new --out "
                    "folder or remove this one."
                )
        elif strange := [name for name in self._files if (self.folder / name).exists()]:
            # The settings are written first, so this file is not from a run and must not be truncated.
            raise ValueError(
                f"{self.folder / strange[0]} is not of a run of this command, for there is no {SETTINGS} "
                "beside it; name another --out folder."
            )
        with replacing(self.folder / SETTINGS) as stream:
            stream.write(json.dumps(settings, indent=1).encode() + b"\n")
        for name in self._files:
            _drop_incomplete_end(self.folder / name)

    def _has(self, settings: Any) -> bool:
        """Whether the folder holds a run with these settings."""
        try:
            return bool(json.loads((self.folder / SETTINGS).read_bytes()) == settings)
        except (OSError, ValueError, RecursionError):
            return False

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
            return
        with suppress(OSError):  # e.g. a full disk; the propagating error already reports it
            self.close()


class OrderedJournal(Journal):
    """Journal of results that depend on earlier ones through a state, which is saved from time to time.

    On resuming, only what was appended before the last save counts. The journal of a run with other settings,
    or a damaged one, is deleted first, with `fresh` any journal; other files of the folder stay.
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, Any],
        files: Sequence[str] = (RECORDS,),
        fresh: bool = False,
    ) -> None:
        self.state: dict[str, NDArray[Any]] | None = None
        """Arrays of the last save; None for a new run."""
        self.done = 0
        """Number of appended results."""
        self._fresh = fresh
        super().__init__(folder, settings, files)
        self._saved = time.monotonic()

    def append(self, *lines: str) -> None:
        """Append one line of JSON to each file, in the order of the files."""
        super().append(*lines)
        self.done += 1

    @property
    def due(self) -> bool:
        """Whether the last save is more than `SAVE_SECONDS` ago."""
        return time.monotonic() - self._saved > SAVE_SECONDS

    def save(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Save the state, which makes everything appended so far permanent."""
        for name, stream in self._streams.items():
            with naming_file(self.folder / name):
                os.fsync(stream.fileno())  # must be on disk before the state refers to it
        sizes = np.array([stream.tell() for stream in self._streams.values()], np.int64)
        with replacing(self.folder / STATE) as stream:
            # Named arrays only, which are loaded without unpickling.
            np.savez(stream, journal_done=self.done, journal_sizes=sizes, **state)  # type: ignore[arg-type]
        self._saved = time.monotonic()

    def _resume(self, settings: Any) -> None:
        if self._fresh or not self._recall(settings):
            self.folder.mkdir(parents=True, exist_ok=True)
            for name in (STATE, *self._files, SETTINGS):
                with naming_file(self.folder / name):
                    (self.folder / name).unlink(missing_ok=True)
            super()._resume(settings)

    def _recall(self, settings: Any) -> bool:
        """Load the state and truncate the files to it; False if it is of another run or damaged."""
        try:
            if not self._has(settings):
                return False
            with np.load(self.folder / STATE, allow_pickle=False) as arrays:
                state = {name: arrays[name] for name in arrays.files}
            sizes, done = state.pop("journal_sizes"), int(state.pop("journal_done"))
            for name, size in zip(self._files, sizes, strict=True):
                path = self.folder / name
                if path.stat().st_size < size:
                    return False
                os.truncate(path, int(size))
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
            return False  # TypeError: arrays of another kind, or one array instead of an archive of them
        self.state, self.done = state, done
        return True

    def __enter__(self) -> OrderedJournal:
        return self


def _drop_incomplete_end(path: Path) -> None:
    """Truncate a file of JSON lines before its first incomplete line: one that a kill cut off, or the zeros
    that some file systems leave after a loss of power."""
    if not path.is_file():
        return
    whole = 0
    with path.open("rb") as stream:
        for line in stream:
            try:
                json.loads(line)
            except (ValueError, RecursionError):
                break
            if not line.endswith(b"\n"):
                break
            whole += len(line)
    if whole < path.stat().st_size:
        os.truncate(path, whole)
