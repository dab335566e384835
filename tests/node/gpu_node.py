"""The node's process on a machine with a GPU, as far as one can be had without (tests/runtime/machine.py says
how).

    python -m tests.node.gpu_node FOLDER STOP --ros-args ...

FOLDER: for the driver, the engines, and a file `stopped`, which says that the process has come to where it
stops for ever. STOP: there; "build", in the middle of building an engine; "engine", the file is written and
does not have its name yet; "note", it has, and what tells what is in it has not; "nowhere".
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from groma_ros.node.main import main
from groma_ros.runtime.tensorrt import gpu
from tests.runtime.driver import Driver
from tests.runtime.fake_tensorrt import FakeTensorRT


def stopping(folder: Path, at: Callable[..., bool], action: Callable[..., Any]) -> Callable[..., Any]:
    """The action, before which the process stops where `at` holds of its arguments."""

    def stop(*args: Any) -> Any:
        if at(*args):
            (folder / "stopped").touch()
            time.sleep(600)
        return action(*args)

    return stop


def start(folder: Path, stop: str, arguments: list[str]) -> int:
    """Run the node and return its exit status."""
    os.environ["XDG_CACHE_HOME"] = str(folder)
    fake = FakeTensorRT("10.16", Driver(folder))
    if stop == "build":
        builder = fake.module.Builder
        builder.build_serialized_network = stopping(folder, lambda *_: True, builder.build_serialized_network)
    elif stop in ("engine", "note"):
        ending = {"engine": ".engine", "note": ".json"}[stop]
        os.replace = stopping(folder, lambda old, new: Path(new).suffix == ending, os.replace)
    sys.modules["tensorrt"] = fake.module
    gpu.DRIVER = str(folder / "libcuda.so.1")
    return main(arguments)


if __name__ == "__main__":
    sys.exit(start(Path(sys.argv[1]), sys.argv[2], sys.argv[3:]))
