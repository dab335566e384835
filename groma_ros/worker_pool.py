"""Distribute work among processes that each prepare once: load a model, open a renderer.

`multiprocessing.Pool` replaces every process that dies, and so runs forever if none can start. Here a process
that cannot start or that dies ends the run with a sentence, unless the caller has a result for the item that
killed it.
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
from multiprocessing import resource_tracker
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
    lost: Callable[[Item, str], Result] | None = None,
    tries: int = 1,
) -> Generator[tuple[int, Result], None, None]:
    """Yield the index of each item and the result of `work(state, item)`, in the order of completion.

    start: returns the state of a process; called with one tuple of `arguments`, which the processes take in
    turn. start, work, items and results must be picklable: the processes are spawned, because a forked child
    would share the threads, the GPU and the OpenGL state of its parent.

    lost: returns the result for an item that killed `tries` processes, from the item and how the last one
    ended. Without it, an item that kills a process ends the run.

    Errors of start and work end the run and are raised here as ValueError or RuntimeError with a sentence;
    WorkerDied, a RuntimeError, if a process died. All processes have ended when the iterator is closed.
    """
    waiting = ((place, item, 1) for place, item in enumerate(items))
    again: list[tuple[int, Item, int]] = []
    given = itertools.cycle(arguments)
    busy: dict[WorkerProcess[Item, Result], tuple[int, Item, int]] = {}
    idle: list[WorkerProcess[Item, Result]] = []

    def hand_out() -> bool:
        """Give the next item to an idle process, or to a new one; False if there is no item."""
        job = again.pop() if again else next(waiting, None)
        if job is None:
            return False
        worker = idle.pop() if idle else WorkerProcess(start, work, next(given))
        busy[worker] = job
        worker.give(job[1])
        return True

    try:
        while len(busy) < jobs and hand_out():
            pass
        while busy:
            ready = wait([worker.connection for worker in busy])
            for worker in [worker for worker in busy if worker.connection in ready]:
                place, item, number = busy[worker]
                try:
                    if not worker.receive():
                        continue
                    result = worker.result
                except WorkerDied as error:
                    if lost is None:
                        raise
                    del busy[worker]
                    worker.end()
                    if number < tries:
                        again.append((place, item, number + 1))
                        hand_out()
                        continue
                    result = lost(item, error.how)
                else:
                    del busy[worker]
                    idle.append(worker)
                hand_out()
                yield place, result
    finally:
        for worker in [*busy, *idle]:
            worker.end()


def call_in_process(function: Callable[..., Result], *arguments: Any) -> Result:
    """Call a function in a new process. Raises the errors of `map_in_processes`."""
    call: _Call[Result] = _Call(function)
    ((_, result),) = map_in_processes(_nothing, call, [arguments], 1)
    return result


class WorkerDied(RuntimeError):
    """A worker process ended by itself."""

    def __init__(self, exitcode: int, started: bool) -> None:
        self.how = signal.Signals(-exitcode).name if exitcode < 0 else f"exit status {exitcode}"
        """Name of the signal that ended it, or its exit status."""
        how = f"signal {self.how}" if exitcode < 0 else self.how
        super().__init__(
            f"A worker process ended before its work was done ({how}), maybe for want of memory; fewer "
            "--jobs need less, and a run with --out goes on where it was."
            if started
            else f"A worker process ended before it was ready ({how}); what it wrote above says why."
        )


class WorkerProcess(Generic[Item, Result]):
    """A process that prepares with `start(*given)` and then turns items into `work(state, item)`, one at a
    time."""

    result: Result
    """Of the last item."""

    def __init__(
        self,
        start: Callable[..., State],
        work: Callable[[State, Item], Result],
        given: tuple[Any, ...] = (),
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, start, work, given), daemon=True)
        # The child inherits the mask: Ctrl-C during its imports would end it with a traceback of its own. The
        # resource tracker, which the first process would start, unblocks the signal.
        resource_tracker.ensure_running()
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT,))
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        theirs.close()  # so that the pipe closes when the process ends
        self._started = False

    def give(self, item: Item) -> None:
        """Send an item to the process."""
        with suppress(ConnectionError):  # the process is gone; `receive` reports it
            self.connection.send(item)

    def receive(self) -> bool:
        """Wait for the next message: True with a new `result`, False once when the process is ready.

        Raises the errors of start and work as `map_in_processes` does, and WorkerDied.
        """
        try:
            kind, value = self.connection.recv()
        except (EOFError, OSError):
            self._process.join(5)
            raise WorkerDied(self._process.exitcode or 0, self._started) from None
        if kind == "refused":
            raise ValueError(value)
        if kind == "failed":
            raise RuntimeError(value)
        if kind == "started":
            self._started = True
            return False
        self.result = value
        return True

    def end(self) -> None:
        """End the process, whatever it is doing."""
        self.connection.close()
        self._process.terminate()
        self._process.join(5)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when the one that started it ends; exit at once if it has ended.

    parent: process id of the one that started it. Does nothing on systems other than Linux.
    """
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_DIE_WITH_PARENT, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


def _nothing() -> None:
    return None


class _Call(Generic[Result]):
    """A function with one argument, the item."""

    def __init__(self, function: Callable[..., Result]) -> None:
        self.function = function

    def __call__(self, _: None, arguments: tuple[Any, ...]) -> Result:
        return self.function(*arguments)


def _serve(
    connection: Connection, start: Callable[..., Any], work: Callable[..., Any], given: tuple[Any, ...]
) -> None:
    """Main function of a worker process: prepare, then work until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is handled by the parent, which ends its children
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT,))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        state = start(*given)
        answer: tuple[str, Any] = ("started", None)
        while True:
            try:
                connection.send(answer)
                item = connection.recv()
            except (EOFError, ConnectionError):  # the parent closed the pipe
                return
            answer = ("done", work(state, item))
    except Exception as error:
        if "--debug" in sys.argv:  # options of the command that started this process
            traceback.print_exc()
        message = sentence(error)
        refused = isinstance(error, ValueError) and message == str(error)
        with suppress(ConnectionError):
            connection.send(("refused" if refused else "failed", message))


def _end_with_parent() -> None:
    """Exit when the parent process dies: one that was killed cannot end its children."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
