"""A bundle with graphs, and how a test changes a copy of it."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from groma_ros.runtime.bundle import MANIFEST


@pytest.fixture
def graph_copy(graph_model: Path, tmp_path: Path) -> Path:
    """A bundle with graphs that a test may damage."""
    return Path(shutil.copytree(graph_model, tmp_path / "copy"))


@pytest.fixture
def put() -> Callable[[Path, str, bytes], None]:
    """Write a file of a bundle so that its checksum holds."""

    def write(folder: Path, name: str, data: bytes) -> None:
        (folder / name).write_bytes(data)
        manifest = json.loads((folder / MANIFEST).read_text())
        manifest["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        (folder / MANIFEST).write_text(json.dumps(manifest))

    return write
