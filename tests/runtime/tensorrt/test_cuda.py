"""Memory, streams and CUDA graphs through the driver library, against a driver that runs work only on
synchronisation."""

import ctypes
import gc
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from groma_ros.runtime.tensorrt.cuda import Cuda, CudaError, Pinned
from tests.runtime.driver import Driver


@pytest.fixture
def cuda(driver: Driver) -> Cuda:
    return Cuda(str(driver.path))


def filled(cuda: Cuda, values: NDArray[Any]) -> Pinned:
    pinned = cuda.pin(values.nbytes)
    pinned.view(values.shape, values.dtype)[...] = values
    return pinned


def test_there_and_back(driver: Driver, cuda: Cuda) -> None:
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    with cuda.using():
        source, target = filled(cuda, values), cuda.pin(values.nbytes)
        first, second = cuda.allocate(values.nbytes), cuda.allocate(values.nbytes)
        target.bytes[:] = 0
        cuda.upload(first.address, source, values.nbytes)
        cuda.copy(second.address, first.address, values.nbytes)
        cuda.download(target, second.address, values.nbytes)
        assert driver.waiting == 3 and not target.bytes.any()
        cuda.wait()
        assert np.array_equal(target.view((3, 4), np.float32), values)


def test_memory_is_used_again_and_pinned_memory_is_freed(driver: Driver, cuda: Cuda) -> None:
    with cuda.using():
        addresses = set()
        for _ in range(5):
            buffer = cuda.allocate(1000)
            addresses.add(buffer.address)
            del buffer
        both = cuda.allocate(1000), cuda.allocate(1000)
        assert len(addresses) == 1 and both[0].address != both[1].address
        assert driver.used == 2000
        pinned = [cuda.pin(64) for _ in range(3)]
        assert driver.pinned == 3
        del pinned
        gc.collect()
        assert driver.pinned == 0


def test_a_view_of_pinned_memory_shares_it(cuda: Cuda) -> None:
    pinned = cuda.pin(64)
    pinned.view((2, 3), np.int32)[...] = 7
    assert (pinned.bytes[:24].view(np.int32) == 7).all()


def test_full_device_error_names_required_and_free_memory(driver: Driver, cuda: Cuda) -> None:
    driver.set_memory(50 << 20)
    with cuda.using():
        held = cuda.allocate(30 << 20)
        with pytest.raises(CudaError, match=r"The GPU has 20 MB of memory free and 31 MB more are needed"):
            cuda.allocate((30 << 20) + 1)
        assert driver.used == held.size


def test_memory_that_waits_for_use_is_given_up_for_another_size(driver: Driver, cuda: Cuda) -> None:
    driver.set_memory(50 << 20)
    with cuda.using():
        small = cuda.allocate(30 << 20)
        del small
        large = cuda.allocate(40 << 20)
        assert driver.used == large.size


def test_recorded_work_runs_as_often_as_it_is_started(driver: Driver, cuda: Cuda) -> None:
    with cuda.using():
        pinned, result = filled(cuda, np.array([1], np.int32)), cuda.pin(4)
        buffer = cuda.allocate(4)
        cuda.upload(buffer.address, pinned, 4)

        def double() -> None:
            value = ctypes.c_int32.from_address(buffer.address)
            value.value *= 2

        def enqueue() -> None:
            driver.enqueue(cuda.stream, double)

        captured = cuda.capture(enqueue)
        for _ in range(3):
            cuda.launch(captured)
        cuda.download(result, buffer.address, 4)
        cuda.wait()
        assert result.view((1,), np.int32)[0] == 8 and driver.launches == 3 and driver.graphs == 1
        del captured
        gc.collect()
        assert driver.graphs == 0


def test_what_cannot_be_recorded_leaves_the_stream_usable(driver: Driver, cuda: Cuda) -> None:
    with cuda.using():
        with pytest.raises(
            CudaError,
            match=r"cuStreamSynchronize: operation not permitted when stream is capturing \(error 900\)",
        ):
            cuda.capture(cuda.wait)
        cuda.wait()
        assert driver.waiting == 0
        assert driver.graphs == 0


def test_a_wrong_address_is_a_sentence(cuda: Cuda) -> None:
    with cuda.using():
        pinned, buffer = cuda.pin(8), cuda.allocate(8)
        with pytest.raises(
            CudaError, match=r"The CUDA driver failed in cuMemcpyHtoDAsync_v2: invalid argument \(error 1\)"
        ):
            cuda.upload(buffer.address + 1, pinned, 8)


def test_the_device_belongs_to_one_thread_at_a_time(cuda: Cuda) -> None:
    """Another thread has no context until it takes the device, and waits for it."""
    order = []
    failed: list[str] = []

    def other() -> None:
        try:
            cuda.wait()
        except CudaError as error:
            failed.append(str(error))
        with cuda.using():
            order.append("other")
            cuda.allocate(8)

    thread = threading.Thread(target=other)
    with cuda.using():
        thread.start()
        while not failed:
            pass
        order.append("this")
    thread.join(10)
    assert order == ["this", "other"]
    assert failed == ["The CUDA driver failed in cuStreamSynchronize: invalid device context (error 201)."]


def test_memory_dropped_by_another_thread_comes_back(driver: Driver, cuda: Cuda) -> None:
    with cuda.using():
        held = [cuda.allocate(256), cuda.pin(256)]

    thread = threading.Thread(target=held.clear)
    thread.start()
    thread.join(10)
    gc.collect()
    with cuda.using():
        again = cuda.allocate(256)
        assert driver.used == again.size and driver.pinned == 0


def test_no_driver_and_a_driver_too_old(tmp_path: Path) -> None:
    with pytest.raises(CudaError, match=r"The NVIDIA driver cannot be used .*CUDA 11.4 or later"):
        Cuda("libcuda_of_another_world.so.1")
    (tmp_path / "old.c").write_text("int cuInit(unsigned f) { return 0; }")
    subprocess.run(
        [
            shutil.which("cc") or "gcc",
            "-shared",
            "-fPIC",
            "-o",
            str(tmp_path / "old.so"),
            str(tmp_path / "old.c"),
        ],
        check=True,
    )
    with pytest.raises(CudaError, match=r"cuDeviceGet"):
        Cuda(str(tmp_path / "old.so"))


def test_a_device_that_is_not_there(driver: Driver) -> None:
    with pytest.raises(
        CudaError, match=r"The CUDA driver failed in cuDeviceGet: unknown error \(error 101\)"
    ):
        Cuda(str(driver.path), ordinal=1)
