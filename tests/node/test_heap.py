"""Freed memory is returned to the system; tested in a separate process with a fresh heap."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

from groma_ros.runtime.memory_check import trim_heap

HOLES = """
from groma_ros.node.diagnostics import memory_mb
from groma_ros.runtime.memory_check import trim_heap
blocks = [bytearray(50_000) for _ in range(4000)]
full = memory_mb()
kept = blocks[::40]
del blocks
before = memory_mb()
print(trim_heap(), full - before, before - memory_mb(), len(kept))
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="the C library is not glibc")
def test_holes_between_what_is_kept_are_given_back() -> None:
    output = subprocess.run(
        [sys.executable, "-c", HOLES], capture_output=True, text=True, timeout=60, check=True
    ).stdout.split()
    assert output[0] == "True"
    by_itself, by_trimming = float(output[1]), float(output[2])
    # 195 MB were freed in holes of 2 MB.
    assert by_itself < 60 and by_trimming > 120


def test_without_such_a_call_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert trim_heap() is False
