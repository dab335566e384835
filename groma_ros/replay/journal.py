"""Journal of an unfinished run: the frames done so far and the tracker's state, from which a rerun
resumes."""

from __future__ import annotations

import json
import os
import shutil
import time
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from groma_ros.atomic_write import naming_file, replacing
from groma_ros.replay.records import text_lines

FOLDER = ".unfinished"
SAVE_SECONDS = 2.0
_STATE, _RECORDS, _TIMES, _MADE_OF = "state.npz", "records.jsonl", "times.jsonl", "made_of.json"


class Journal:
    """Two append-only files, and a state file saved now and then that says how much of them is valid.

    folder: created if needed; made_of: what the run depends on. A journal with other values is discarded,
    and any journal if `fresh`.

    memory: arrays of the last save, None for a new run; done: number of frames done.
    """

    def __init__(self, folder: Path, made_of: Mapping[str, Any], fresh: bool = False) -> None:
        self.folder = folder
        self.memory: dict[str, NDArray[Any]] | None = None
        self.done = 0
        wanted = json.dumps(made_of, sort_keys=True)
        if fresh or not self._recall(wanted):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            with replacing(folder / _MADE_OF) as stream:
                stream.write(wanted.encode())
        self._saved = time.monotonic()
        self._streams: dict[str, BinaryIO] = {}
        for name in (_RECORDS, _TIMES):
            with naming_file(folder / name):
                self._streams[name] = (folder / name).open("ab")

    @property
    def records(self) -> Path:
        """File of the records."""
        return self.folder / _RECORDS

    def times(self) -> list[dict[str, float]]:
        """Milliseconds by stage, one dictionary per frame."""
        self._flush()
        return [json.loads(line) for line in text_lines(self.folder / _TIMES)]

    def add(self, record: str, times: Mapping[str, float]) -> None:
        """Append the record and times of a frame."""
        for name, line in ((_RECORDS, record), (_TIMES, json.dumps(times))):
            with naming_file(self.folder / name):
                self._streams[name].write((line + "\n").encode())
        self.done += 1

    @property
    def due(self) -> bool:
        """Whether the last save is more than `SAVE_SECONDS` ago."""
        return time.monotonic() - self._saved > SAVE_SECONDS

    def save(self, memory: Mapping[str, NDArray[Any]]) -> None:
        """Save the state, which makes everything added so far permanent."""
        self._flush()
        sizes = np.array([stream.tell() for stream in self._streams.values()], np.int64)
        with replacing(self.folder / _STATE) as stream:
            # Named arrays only, which are loaded without unpickling.
            np.savez(stream, journal_done=self.done, journal_sizes=sizes, **memory)  # type: ignore[arg-type]
        self._saved = time.monotonic()

    def remove(self) -> None:
        """Delete the journal of a finished run."""
        self._close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _recall(self, wanted: str) -> bool:
        """Load the state of the folder; False if it is of another run or damaged."""
        try:
            if (self.folder / _MADE_OF).read_text() != wanted:
                return False
            with np.load(self.folder / _STATE, allow_pickle=False) as arrays:
                memory = {name: arrays[name] for name in arrays.files}
            sizes, done = memory.pop("journal_sizes"), int(memory.pop("journal_done"))
            for name, size in zip((_RECORDS, _TIMES), sizes, strict=True):
                path = self.folder / name
                if path.stat().st_size < size:
                    return False
                os.truncate(path, int(size))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return False
        self.memory, self.done = memory, done
        return True

    def _flush(self) -> None:
        for name, stream in self._streams.items():
            with naming_file(self.folder / name):
                stream.flush()

    def _close(self) -> None:
        for stream in self._streams.values():
            stream.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._close()
            return
        with suppress(OSError):  # e.g. a full disk, which the propagating error reports already
            self._close()
