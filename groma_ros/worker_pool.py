"""Work shared out among processes that each prepare themselves once: load a model, open a renderer.

In contrast to `multiprocessing.Pool`, which starts a new process for every one that dies and so goes on for
ever where none can start, a worker that cannot start or that dies ends the whole run with a sentence.
"""

from __future__ import annotations

import ctypes
import itertools
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

from groma_ros.errors import sentence

State = TypeVar("State")
Item = TypeVar("Item")
Result = TypeVar("Result")
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of Linux


def map_in_processes(
    start: Callable[..., State],
    work: Callable[[State, Item], Result],
    items: Iterable[Item],
    jobs: int,
    arguments: Sequence[tuple[Any, ...]] = ((),),
) -> Generator[tuple[int, Result], None, None]:
    """The place of each item and what `work(state, item)` makes of it, in the order in which they are
    finished.

    start: makes a process's state; it gets the arguments of its process, of which `arguments` has one tuple
    a process, in turn. start, work, items and results must survive a pickle: the processes are spawned,
    since a forked child would share the threads, the GPU and the OpenGL state of its parent. Errors of
    start or work end the run and come out here as ValueError or RuntimeError with a sentence; RuntimeError
    also where a process died. All processes have ended when the iterator is closed.
    """
    waiting = enumerate(items)
    workers: list[_Worker[Item, Result]] = []
    try:
        for _, given in zip(range(jobs), itertools.cycle(arguments)):
            job = next(waiting, None)
            if job is None:
                break
            workers.append(_Worker(start, work, given))
            workers[-1].give(*job)
        while busy := [worker for worker in workers if worker.place is not None]:
            ready = wait([worker.connection for worker in busy])
            for worker in busy:
                if worker.connection in ready and (done := worker.receive()) is not None:
                    if (job := next(waiting, None)) is not None:
                        worker.give(*job)
                    yield done
    finally:
        for worker in workers:
            worker.end()


def call_in_process(function: Callable[..., Result], *arguments: Any) -> Result:
    """What a function returns in a fresh process of its own. Errors as of `map_in_processes`."""
    ((_, result),) = map_in_processes(_nothing, _Call(function), [arguments], 1)
    return result


def die_with_parent(parent: int) -> None:
    """Have this process killed when the one that started it ends, whatever it computes then; end at once if
    that happened already. Does nothing where the system is not Linux.

    parent: its process id.
    """
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_DIE_WITH_PARENT, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


def _nothing() -> None:
    return None


class _Call:
    """A function that takes its arguments as one item."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, _: None, arguments: tuple[Any, ...]) -> Any:
        return self.function(*arguments)


class _Worker(Generic[Item, Result]):
    """A process and the pipe to it."""

    def __init__(self, start: Callable[..., Any], work: Callable[..., Any], given: tuple[Any, ...]) -> None:
        context = multiprocessing.get_context("spawn")
        self.place: int | None = None
        """Of the item it has in hand."""
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, start, work, given), daemon=True)
        self._process.start()
        theirs.close()  # so that the end of the process is the end of the pipe
        self._started = False

    def give(self, place: int, item: Item) -> None:
        """Let it do an item."""
        self.place = place
        with suppress(BrokenPipeError):  # it is gone, which `receive` tells
            self.connection.send(item)

    def receive(self) -> tuple[int, Result] | None:
        """The place of its item and the result; None for the word that it has started. Raises what it
        raised."""
        try:
            kind, value = self.connection.recv()
        except (EOFError, OSError):
            raise RuntimeError(self._death()) from None
        if kind == "refused":
            raise ValueError(value)
        if kind == "failed":
            raise RuntimeError(value)
        if kind == "started":
            self._started = True
            return None
        assert self.place is not None
        place, self.place = self.place, None
        return place, value

    def _death(self) -> str:
        self._process.join(5)
        code = self._process.exitcode or 0
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        if not self._started:
            return f"A worker process ended before it was ready ({how}); what it wrote above says why."
        return (
            f"A worker process ended before its work was done ({how}), maybe for want of memory; fewer "
            "--jobs need less, and a run with --out goes on where it was."
        )

    def end(self) -> None:
        """End the process, whatever it does."""
        self.connection.close()
        self._process.terminate()
        self._process.join(5)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _serve(
    connection: Connection, start: Callable[..., Any], work: Callable[..., Any], given: tuple[Any, ...]
) -> None:
    """What a process does: prepare, then work on what it is given until the pipe ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends its children
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with suppress(EOFError, BrokenPipeError):
        try:
            state = start(*given)
            connection.send(("started", None))
            while True:
                connection.send(("done", work(state, connection.recv())))
        except (EOFError, BrokenPipeError):
            raise
        except Exception as error:
            if "--debug" in sys.argv:  # of the command that started this process
                traceback.print_exc()
            said = sentence(error)
            refused = isinstance(error, ValueError) and said == str(error)
            connection.send(("refused" if refused else "failed", said))


def _end_with_parent() -> None:
    """A parent that was killed cannot end its children, which would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
