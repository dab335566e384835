"""GPU detection on every machine, also with a broken driver."""

import shutil
import subprocess
from pathlib import Path

import pytest

from groma_ros.runtime.tensorrt.gpu import Gpu, find_gpu
from tests.runtime.driver import Driver


def _library(tmp_path: Path, code: str) -> str:
    """A driver's library of so much C."""
    source, path = tmp_path / "broken.c", tmp_path / "libbroken.so"
    source.write_text(code)
    subprocess.run(
        [shutil.which("cc") or "gcc", "-shared", "-fPIC", "-o", str(path), str(source)], check=True
    )
    return str(path)


def test_gpu_reported_by_the_driver(tmp_path: Path) -> None:
    driver = Driver(tmp_path)
    driver.set_memory(1 << 30)
    assert find_gpu(str(driver.path)) == Gpu("Fake GPU", (8, 7), (12, 6), 1024)


def test_no_driver() -> None:
    assert find_gpu("libcuda_of_another_world.so.1") is None


@pytest.mark.parametrize(
    "code",
    [
        "int cuInit(unsigned f) { return 100; }",
        "int cuInit(unsigned f) { return 0; }",
        "#include <stdlib.h>\nint cuInit(unsigned f) { abort(); }",
        "int cuInit(unsigned f) { return *(volatile int *)0; }",
        '#include <stdio.h>\n#include <stdlib.h>\nint cuInit(unsigned f) { puts("[1]"); fflush(stdout); '
        "_Exit(0); }",
    ],
    ids=["no device", "half a driver", "aborts", "crashes", "says nonsense"],
)
def test_a_broken_driver_is_no_gpu(tmp_path: Path, code: str) -> None:
    assert find_gpu(_library(tmp_path, code)) is None


def test_a_driver_that_hangs_is_no_gpu(tmp_path: Path) -> None:
    code = "#include <unistd.h>\nint cuInit(unsigned f) { sleep(60); return 0; }"
    assert find_gpu(_library(tmp_path, code), seconds=0.5) is None


def test_a_file_that_is_no_library(tmp_path: Path) -> None:
    (tmp_path / "libcuda.so.1").write_bytes(b"text")
    assert find_gpu(str(tmp_path / "libcuda.so.1")) is None
