"""Worker processes: results, and runs whose workers fail to start, raise or die."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from groma_ros.worker_pool import WorkerProcess, call_in_process, map_in_processes


def start(base: int = 0) -> int:
    return base


def refuse() -> int:
    raise ValueError("There is nothing to draw with; install MuJoCo.")


def lack() -> int:
    importlib.import_module("no_such_module")
    return 0


def vanish() -> int:
    os._exit(3)


def square(base: int, item: int) -> tuple[int, int]:
    if item == 13:
        raise ValueError("The item is thirteen.")
    if item == 17:
        os.kill(os.getpid(), signal.SIGKILL)
    if item == 19:
        return min([]), 0
    if item == 23:
        raise EOFError("No data left in file")
    if item == 29:
        raise ConnectionRefusedError("nobody listens")
    if item == 31:
        return (lambda: 0), 0  # type: ignore[return-value]  # which cannot be pickled
    if item == 37:
        sys.exit(4)
    return base + item * item, os.getpid()


def count_and_die(base: int, item: tuple[int, Path]) -> str:
    number, folder = item
    if number == 17:
        (folder / str(os.getpid())).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return str(base + number)


def name(item: tuple[int, Path], how: str) -> str:
    return f"item {item[0]} ended its process with {how}"


def test_every_item_has_its_result_and_the_processes_share_the_work() -> None:
    found = dict(map_in_processes(start, square, range(5), 2, [(100,)]))
    assert {place: value for place, (value, _) in found.items()} == {n: 100 + n * n for n in range(5)}
    processes = {process for _, process in found.values()}
    assert os.getpid() not in processes and 1 <= len(processes) <= 2
    assert list(map_in_processes(start, square, [], 2)) == []


@pytest.mark.parametrize(
    ("first", "kind", "sentence"),
    [
        (refuse, ValueError, "nothing to draw with; install MuJoCo"),
        (lack, RuntimeError, "no_such_module is not installed; `make setup-full` installs"),
        (vanish, RuntimeError, r"ended before it was ready \(exit status 3\)"),
    ],
)
def test_a_worker_that_cannot_start_ends_the_run(first: object, kind: type, sentence: str) -> None:
    begin = time.monotonic()
    with pytest.raises(kind, match=sentence):
        list(map_in_processes(first, square, range(50), 2))  # type: ignore[arg-type]
    assert time.monotonic() - begin < 120


@pytest.mark.parametrize(
    ("item", "kind", "sentence"),
    [
        (13, ValueError, "^The item is thirteen.$"),
        (17, RuntimeError, r"ended before its work was done \(signal SIGKILL\)"),
        (19, RuntimeError, r"Unexpected ValueError: min\(\)"),
        (23, RuntimeError, r"^Unexpected EOFError: No data left in file"),
        (29, RuntimeError, r"^nobody listens$"),
        (31, RuntimeError, r"^Unexpected \w+: Can't pickle local object"),
        (37, RuntimeError, r"ended before its work was done \(exit status 4\)"),
    ],
)
def test_what_ends_a_worker_ends_the_run_with_a_sentence(item: int, kind: type, sentence: str) -> None:
    with pytest.raises(kind, match=sentence):
        list(map_in_processes(start, square, [item], 1))


def test_an_item_that_kills_its_processes_costs_no_other_item(tmp_path: Path) -> None:
    found = dict(
        map_in_processes(start, count_and_die, [(17, tmp_path), (3, tmp_path)], 2, lost=name, tries=2)
    )
    assert found == {0: "item 17 ended its process with SIGKILL", 1: "3"}
    assert len(list(tmp_path.iterdir())) == 2


def test_ctrl_c_does_not_reach_a_process_that_starts() -> None:
    """The parent gets it too and ends its processes; a traceback of each would only hide its message."""
    worker = WorkerProcess(start, square, (100,))
    try:
        os.kill(worker._process.pid or 0, signal.SIGINT)
        assert not worker.receive()
        worker.give(3)
        os.kill(worker._process.pid or 0, signal.SIGINT)
        assert worker.receive() and worker.result[0] == 109
        assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    finally:
        worker.end()


def test_an_item_for_a_process_that_died_while_it_was_sent() -> None:
    worker = WorkerProcess(vanish, square, ())
    try:
        worker.give(bytes(50_000_000))  # type: ignore[arg-type]  # more than a pipe holds
        with pytest.raises(RuntimeError, match=r"ended before it was ready \(exit status 3\)"):
            worker.receive()
    finally:
        worker.end()


def test_closing_the_iterator_ends_the_processes() -> None:
    with closing(map_in_processes(start, square, range(100), 1)) as found:
        _, (_, process) = next(found)
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def test_one_call_in_a_process_of_its_own() -> None:
    assert call_in_process(os.getpid) != os.getpid()
