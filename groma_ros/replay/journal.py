"""The state of a run that is not finished: what is done so far, and what the follower remembers, so that a
rerun goes on from there."""

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

from groma_ros.atomic_write import naming_file, replacing
from groma_ros.replay.records import text_lines

FOLDER = ".unfinished"
SAVE_SECONDS = 2.0
_STATE, _RECORDS, _TIMES, _MADE_OF = "state.npz", "records.jsonl", "times.jsonl", "made_of.json"


class Journal:
    """Two files of lines that grow, and now and then a file of state that says how much of them counts.

    folder: is made; made_of: what the run depends on; a journal of anything else is thrown away, and so is
    any where `fresh`. memory: the arrays saved last, None at a new start; done: how many frames were.
    """

    def __init__(self, folder: Path, made_of: Mapping[str, Any], fresh: bool = False) -> None:
        self.folder = folder
        self.memory: dict[str, np.ndarray] | None = None
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
        """The file of the records' lines."""
        return self.folder / _RECORDS

    def times(self) -> list[dict[str, float]]:
        """Milliseconds by stage, a dictionary a frame."""
        self._flush()
        return [json.loads(line) for line in text_lines(self.folder / _TIMES)]

    def add(self, record: str, times: Mapping[str, float]) -> None:
        """A frame is done."""
        for name, line in ((_RECORDS, record), (_TIMES, json.dumps(times))):
            with naming_file(self.folder / name):
                self._streams[name].write((line + "\n").encode())
        self.done += 1

    @property
    def due(self) -> bool:
        """Whether it is time to save."""
        return time.monotonic() - self._saved > SAVE_SECONDS

    def save(self, memory: Mapping[str, np.ndarray]) -> None:
        """Let everything up to here count, whatever happens after."""
        self._flush()
        sizes = np.array([stream.tell() for stream in self._streams.values()], np.int64)
        with replacing(self.folder / _STATE) as stream:
            # Arrays under names: nothing here is read back by running code.
            np.savez(stream, journal_done=self.done, journal_sizes=sizes, **memory)  # type: ignore[arg-type]
        self._saved = time.monotonic()

    def remove(self) -> None:
        """The run is finished, and its results lie elsewhere."""
        self._close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _recall(self, wanted: str) -> bool:
        """Take up what lies in the folder; False if it is none of ours, or damaged."""
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
        with suppress(OSError):  # a full disk, which the error on its way out says already
            self._close()
