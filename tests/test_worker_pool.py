"""Worker processes: results, and runs whose workers fail to start, raise or die."""

from __future__ import annotations

import os
import signal
import time
from contextlib import closing

import pytest

from groma_ros.worker_pool import call_in_process, map_in_processes


def start(base: int = 0) -> int:
    return base


def refuse() -> int:
    raise ValueError("There is nothing to draw with; install MuJoCo.")


def lack() -> int:
    import no_such_module

    return int(no_such_module.x)


def vanish() -> int:
    os._exit(3)


def square(base: int, item: int) -> tuple[int, int]:
    if item == 13:
        raise ValueError("The item is thirteen.")
    if item == 17:
        os.kill(os.getpid(), signal.SIGKILL)
    if item == 19:
        return min([]), 0
    return base + item * item, os.getpid()


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
    ],
)
def test_what_ends_a_worker_ends_the_run_with_a_sentence(item: int, kind: type, sentence: str) -> None:
    with pytest.raises(kind, match=sentence):
        list(map_in_processes(start, square, [item], 1))


def test_closing_the_iterator_ends_the_processes() -> None:
    with closing(map_in_processes(start, square, range(100), 1)) as found:
        _, (_, process) = next(found)
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def test_one_call_in_a_process_of_its_own() -> None:
    assert call_in_process(os.getpid) != os.getpid()
