"""Cache of TensorRT engines: each file belongs to one graph, TensorRT version and GPU."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import re
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from groma_ros.atomic_write import naming_file, write_together
from groma_ros.runtime.model_paths import cache_folder
from groma_ros.runtime.tensorrt.bindings import EngineError, Profile

# Incremented whenever engines built by older versions of this code must not be used any more.
_FORM = 1
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Key:
    """Key of an engine: everything it was built for."""

    role: str
    graph: str
    """sha256 of the ONNX graph."""
    tensorrt: str
    """Version."""
    gpu: str
    capability: str
    """Compute capability, e.g. 8.7."""
    precision: str
    profile: Profile

    def document(self) -> dict[str, Any]:
        """The key in JSON types."""
        document: dict[str, Any] = json.loads(json.dumps({"form": _FORM, **asdict(self)}))
        return document

    @property
    def name(self) -> str:
        """The engine's file name without suffix, unique for the key."""
        digest = hashlib.sha256(json.dumps(self.document(), sort_keys=True).encode()).hexdigest()
        return f"{self.role}.{self._machine}.{self.precision}.{digest[:12]}"

    @property
    def timing_name(self) -> str:
        """File name of the timing cache, shared by all engines of one TensorRT and GPU."""
        return f"timing.{self._machine}.cache"

    @property
    def _machine(self) -> str:
        gpu = re.sub(r"[^A-Za-z0-9]+", "-", self.gpu).strip("-")
        return f"trt{self.tensorrt}.{gpu}.sm{self.capability.replace('.', '')}"


@dataclass(frozen=True)
class Built:
    """An engine from the cache or a build."""

    engine: bytes
    path: Path | None
    """Its file; None if it could not be written."""
    reused: bool
    """Whether it came from the cache."""
    seconds: float
    """Duration of the build."""


# Builds an engine from a timing cache; returns the engine and the new timing cache.
Build = Callable[[bytes], tuple[bytes, bytes]]


class EngineCache:
    """A folder of engines that several processes may use at once: if they want the same engine, one builds it
    and the others wait."""

    def __init__(self, folder: Path | None = None) -> None:
        """folder: None for $XDG_CACHE_HOME/groma_ros/engines."""
        self.folder = folder or default_folder()

    def engine_path(self, key: Key) -> Path:
        """Path of a key's engine, existing or not."""
        return self.folder / f"{key.name}.engine"

    def timing_path(self, key: Key) -> Path:
        """Path of the timing cache for a key's machine, existing or not."""
        return self.folder / key.timing_name

    def get(self, key: Key, build: Build, force: bool = False) -> Built:
        """The engine of a key; built if it is missing, does not match, or `force` is given.

        If the folder cannot be written the engine is built without storing it, with a warning. Raises the
        errors of `build`.
        """
        with self._locked(key):
            why = "a rebuild was asked for" if force else self._fault(key)
            if why is None:
                return Built(self.engine_path(key).read_bytes(), self.engine_path(key), True, 0.0)
            _LOG.info("Building the engine %s, which takes minutes for a large model: %s.", key.name, why)
            begin = time.monotonic()
            engine, timing = build(self._timing(key))
            seconds = time.monotonic() - begin
            return Built(engine, self._keep(key, engine, timing, seconds), False, seconds)

    def drop(self, key: Key) -> None:
        """Delete an engine that turned out to be unusable."""
        for path in (self.engine_path(key), self._note(key)):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)

    def _note(self, key: Key) -> Path:
        return self.folder / f"{key.name}.json"

    def _fault(self, key: Key) -> str | None:
        """Why the cache cannot provide the engine of a key; None if it can."""
        path = self.engine_path(key)
        try:
            for name in (self.folder, self._note(key), path):
                if (reason := distrust(name)) is not None:
                    return reason
            note = json.loads(self._note(key).read_text())
            size = path.stat().st_size
        except FileNotFoundError:
            return "there is none yet"
        except (OSError, ValueError):
            return f"{self._note(key).name} cannot be read"
        wanted = key.document()
        found = note.get("key") if isinstance(note, dict) else None
        if not isinstance(found, dict) or found != wanted:
            other = [
                name for name in wanted if not isinstance(found, dict) or found.get(name) != wanted[name]
            ]
            return f"the one in {path.name} was built for another {other[0] if other else 'key'}"
        if size != note.get("bytes") or _sha256(path) != note.get("sha256"):
            return f"{path.name} is damaged"
        return None

    def _timing(self, key: Key) -> bytes:
        path = self.timing_path(key)
        try:
            if (reason := distrust(path) or distrust(self.folder)) is not None:
                _LOG.warning("The timing cache is not used: %s.", reason)
                return b""
            return path.read_bytes()
        except OSError:
            return b""

    def _keep(self, key: Key, engine: bytes, timing: bytes, seconds: float) -> Path | None:
        digest = hashlib.sha256(engine).hexdigest()
        note = {"key": key.document(), "bytes": len(engine), "sha256": digest, "seconds": round(seconds, 1)}
        files: dict[Path, bytes] = {
            self.engine_path(key): engine,
            self._note(key): (json.dumps(note, indent=1) + "\n").encode(),
        }
        if timing:
            files[self.timing_path(key)] = timing
        try:
            if (reason := distrust(self.folder)) is not None:
                raise OSError(f"{reason}.")
            for left in self.folder.glob(f"{key.name}.*part"):  # left by a killed process
                left.unlink(missing_ok=True)
            # Temporary files with names that nobody else could have created, readable by the owner only.
            with contextlib.ExitStack() as parts:
                written = {
                    path: parts.enter_context(_private(self.folder, key.name, content))
                    for path, content in files.items()
                }
                write_together(written)
        except OSError as error:
            _LOG.warning("The engine was built but not kept, so it is built again next time: %s", error)
            return None
        return self.engine_path(key)

    @contextlib.contextmanager
    def _locked(self, key: Key) -> Iterator[None]:
        """Hold the exclusive lock on an engine inside the block; the lock ends with the process."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            lock = os.open(self.folder / f"{key.name}.lock", flags, 0o600)
        except OSError as error:
            # Nothing can be stored there, so there is nothing to lock; _keep warns about it.
            _LOG.debug("No lock in %s: %s", self.folder, error)
            yield
            return
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                _LOG.info("Another process is building the engine %s; waiting for it.", key.name)
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)


def distrust(path: Path) -> str | None:
    """Reason not to trust a file or folder of the cache: it is a link, has another owner, or others may write
    to it. None if there is no reason. An engine is code that runs in this process. Raises FileNotFoundError
    if it does not exist."""
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode):
        return f"{path} is a link, which is not followed"
    if found.st_uid != os.geteuid():
        return f"{path} belongs to another user (id {found.st_uid})"
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"others than its owner may write to {path} (mode {stat.S_IMODE(found.st_mode):04o})"
    return None


@contextlib.contextmanager
def _private(folder: Path, prefix: str, content: bytes) -> Iterator[Path]:
    """Create a new file PREFIX.*.part with this content in a folder, readable and writable by its owner only;
    it is removed at the end unless it was renamed."""
    descriptor, name = tempfile.mkstemp(prefix=f"{prefix}.", suffix=".part", dir=folder)
    try:
        with naming_file(Path(name)), os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def default_folder() -> Path:
    """The engine folder in this user's cache. Raises EngineError if there is no home folder."""
    try:
        return cache_folder() / "engines"
    except ValueError as error:
        raise EngineError(str(error)) from error


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()
