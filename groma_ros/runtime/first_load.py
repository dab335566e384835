"""Try a bundle in a separate process before loading it here for the first time.

A graph that never ends, takes more memory than the machine has, or crashes the library that reads it does so
in that process, which has a time and a memory limit and can be killed at any time.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from groma_ros import __version__
from groma_ros.errors import printable
from groma_ros.runtime.bundle import MANIFEST, WEIGHTS, Bundle, BundleError
from groma_ros.runtime.memory_check import available_mb
from groma_ros.runtime.model_paths import PACKAGE, cache_folder, shipped_model
from groma_ros.runtime.options import RuntimeOptions
from groma_ros.runtime.tensorrt.gpu import find_gpu

TRIED = ("onnx", "llama_cpp", "tensorrt")
"""Backends whose libraries execute the bundle's files. PyTorch only reads weights, for a network built by our
own code. TensorRT's build has no time limit, so its graphs are tried with ONNX Runtime instead, and the
language model with the library that runs it beside TensorRT (`load.load_for_trial`)."""
SECONDS, SECONDS_PER_GB = 120.0, 300.0
"""Time limit of a trial: base, and seconds per GB of the bundle's files."""
MEMORY, MEMORY_PER_BYTE = 3 << 30, 6
"""Memory limit of a trial in bytes: base, and bytes per byte of the files; at most the free memory, at least
`LEAST_MEMORY`."""
LEAST_MEMORY = 1 << 30
_LOG = logging.getLogger(__name__)
_CODE = (
    "import sys; sys.path[:] = {} + [path for path in sys.path if path]; "
    "from groma_ros.runtime.trial_run import main; main()"
)


def ensure_tried(bundle: Bundle, options: RuntimeOptions, seconds: float | None = None) -> None:
    """Load the bundle in a separate process and run it once on a plain picture. Does nothing if the same
    files have passed before, or for the shipped model.

    options: with the chosen backend; seconds: time limit, None for the one of the bundle's size. Raises
    BundleError if the trial exceeds a limit or its process dies, and re-raises the trial's own error
    (BundleError, ValueError).
    """
    if options.backend not in TRIED or _ships(bundle):
        return
    mark = _mark(bundle, options)
    if mark is not None and _is_own(mark):
        return
    size = sum(entry["bytes"] for name, entry in bundle.files.items() if name != WEIGHTS)
    limit = SECONDS + SECONDS_PER_GB * size / 1e9 if seconds is None else seconds
    memory = min(MEMORY + MEMORY_PER_BYTE * size, max(available_mb() << 20, LEAST_MEMORY))
    _LOG.info(
        "The model %s is loaded for the first time, so it is tried in a process of its own before.",
        bundle.name,
    )
    asked = {
        "parent": os.getpid(),
        "directory": str(bundle.directory.absolute()),
        "options": asdict(options),
        "memory": memory,
    }
    if find_gpu() is not None:
        asked["memory"] = None  # CUDA reserves address space without memory behind it
    _check(bundle, _run(bundle, asked, limit))
    if mark is None:
        return
    try:
        mark.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        mark.touch(mode=0o600)
    except OSError as error:
        _LOG.warning(
            "That the model %s was tried cannot be stored, so it is tried again next time: %s",
            bundle.name,
            error,
        )


def _run(bundle: Bundle, asked: dict[str, Any], limit: float) -> dict[str, str]:
    """The report of the trial's process. Raises BundleError if it wrote none."""
    root = PACKAGE.parent
    # After the standard library, since the folder may contain other packages.
    paths = [] if root.name in ("site-packages", "dist-packages") else [str(root)]
    command = [sys.executable, "-c", _CODE.format(paths), json.dumps(asked)]
    where = f"The model {bundle.name} in {bundle.directory} was not loaded"
    with tempfile.TemporaryFile() as said:
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=said,
                timeout=limit,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise BundleError(
                f"{where}: a trial in a process of its own did not finish within {limit:.0f} s; one of its "
                "graphs may run for ever, or this machine is far too slow for it."
            ) from None
        try:
            report: dict[str, str] = json.loads(done.stdout)
        except ValueError:
            said.seek(0)
            last = (said.read().decode(errors="replace").splitlines() or [""])[-1]
            raise BundleError(f"{where}: {_death(done.returncode, last)}") from None
    return report


def _check(bundle: Bundle, report: dict[str, str]) -> None:
    """Raise the error of the trial's process, if it had one."""
    kind, said = report["kind"], report["said"]
    if kind == "bundle":
        raise BundleError(said)
    if kind == "refused":
        raise ValueError(said)
    if kind == "failed":
        raise BundleError(f"The model {bundle.name} could not be tried: {said}")


def _death(status: int, last: str) -> str:
    """Describe how the trial's process ended. last: the last line of its output."""
    if status < 0:
        reason = "maybe it takes more memory than there is" if -status == signal.SIGKILL else "it is damaged"
        return (
            f"the process that tried it was ended by {signal.Signals(-status).name}, {reason}; fetch or "
            "convert it again."
        )
    return (
        f"the process that tried it ended with status {status} ({printable(last, 200) or 'without a word'})."
    )


def _ships(bundle: Bundle) -> bool:
    """Whether it is the model shipped with this package."""
    try:
        return bundle.directory.resolve() == shipped_model().resolve()
    except ValueError:
        return False


def _mark(bundle: Bundle, options: RuntimeOptions) -> Path | None:
    """The file that records a passed trial of these files (identified by the manifest's checksums) with these
    options. None if there is no folder for it."""
    try:
        manifest = (bundle.directory / MANIFEST).read_bytes()
    except OSError as error:
        raise BundleError(f"{bundle.directory / MANIFEST} cannot be read: {error.strerror}.") from error
    ran = json.dumps([__version__, options.backend, options.precision, options.device])
    digest = hashlib.sha256(ran.encode() + b"\0" + manifest).hexdigest()
    try:
        return cache_folder() / "tried" / digest[:32]
    except ValueError:  # no home folder
        return None


def _is_own(mark: Path) -> bool:
    """Whether a record exists and belongs to this user."""
    try:
        return mark.lstat().st_uid == os.geteuid()
    except OSError:
        return False
