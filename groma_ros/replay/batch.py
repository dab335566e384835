"""Replay several bags, sequentially or in worker processes; a worker that dies does not lose its bag."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection, wait

from groma_ros.grounding.grounder import Grounder
from groma_ros.progress import shown
from groma_ros.replay.journal import FOLDER
from groma_ros.replay.plan import ReplayPlan, Task
from groma_ros.replay.result import Outcome
from groma_ros.replay.run import TRIES, attempt, failed


def replay_all(tasks: Sequence[Task], plan: ReplayPlan, jobs: int = 1, ray: str = "") -> list[Outcome]:
    """Replay the tasks and return their outcomes in order. A bag that cannot be replayed yields a failed
    outcome.

    jobs: number of local processes; ray: address of a Ray cluster to use instead. Raises ValueError if the
    model or the cluster is unavailable.
    """
    if ray:
        from groma_ros.replay import ray_cluster

        found = _collected(ray_cluster.outcomes(tasks, plan, ray), len(tasks))
    elif jobs > 1 and len(tasks) > 1:
        with _Pool(tasks, plan, min(jobs, len(tasks))) as pool:
            found = _collected(pool.outcomes(), len(tasks))
    else:
        found = list(_in_turn(tasks, plan))
    finish(tasks)
    return found


def finish(tasks: Iterable[Task]) -> None:
    """Delete the journals of a completed batch, which are no longer needed for resuming."""
    for task in tasks:
        if task.keep:
            shutil.rmtree(task.out / FOLDER, ignore_errors=True)


def _in_turn(tasks: Sequence[Task], plan: ReplayPlan) -> Iterator[Outcome]:
    grounder = None if plan.live else plan.engine.load()

    def watch(numbers: Iterable[int], total: int) -> Iterable[int]:
        return shown(numbers, total, "image")

    for task in tasks:
        yield attempt(task, plan, grounder, watch)


def _collected(outcomes: Iterable[tuple[int, Outcome]], total: int) -> list[Outcome]:
    found = dict(shown(outcomes, total, "bag"))
    return [found[place] for place in range(total)]


class _Pool:
    """Worker processes with a loaded model each; a context manager that ends them."""

    def __init__(self, tasks: Sequence[Task], plan: ReplayPlan, jobs: int) -> None:
        self._tasks = tasks
        # Share the cores: workers that each use all of them slow each other down.
        threads = max(1, len(os.sched_getaffinity(0)) // jobs)
        plan = replace(plan, engine=plan.engine.with_threads(threads))
        self._waiting = list(range(len(tasks)))
        self._tries = [0] * len(tasks)
        self._workers = [_Worker(plan) for _ in range(jobs)]

    def outcomes(self) -> Iterator[tuple[int, Outcome]]:
        """Yield (task index, outcome) in the order of completion."""
        for worker in self._workers:
            self._hand_out(worker)
        while busy := [worker for worker in self._workers if worker.place is not None]:
            ready = wait([worker.connection for worker in busy])
            for worker in busy:
                if worker.connection not in ready or worker.place is None:
                    continue
                place, worker.place = worker.place, None
                outcome = worker.result() or self._died(place, worker)
                self._hand_out(worker)
                if outcome is not None:
                    yield place, outcome

    def _hand_out(self, worker: _Worker) -> None:
        if self._waiting:
            place = self._waiting.pop(0)
            self._tries[place] += 1
            worker.give(place, self._tasks[place])

    def _died(self, place: int, worker: _Worker) -> Outcome | None:
        """Replace a dead worker and retry its bag; a failed outcome after `TRIES` attempts."""
        how = worker.end()
        worker.begin()
        if self._tries[place] < TRIES:
            self._waiting.insert(0, place)
            return None
        return failed(
            self._tasks[place],
            f"The bag {self._tasks[place].bag} ended {TRIES} processes, the last one with {how}.",
        )

    def __enter__(self) -> _Pool:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.end()


class _Worker:
    """A worker process and the connection to it. `place` is the index of its current task, None if idle."""

    def __init__(self, plan: ReplayPlan) -> None:
        self.place: int | None = None
        self._plan = plan
        self.begin()

    def begin(self) -> None:
        """Start the process."""
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self._plan), daemon=True)
        self._process.start()
        theirs.close()  # so that the end of the process is the end of the pipe

    def give(self, place: int, task: Task) -> None:
        """Send a bag to the process."""
        self.place = place
        with suppress(BrokenPipeError):  # the process is dead; `result` reports it
            self.connection.send(task)

    def result(self) -> Outcome | None:
        """Receive the outcome, or None if the process died. Raises ValueError if it could not load the
        model."""
        try:
            found = self.connection.recv()
        except (EOFError, OSError):
            return None
        if isinstance(found, str):
            raise ValueError(found)
        return found

    def end(self) -> str:
        """End the process and describe how it ended, if it already had."""
        self._process.terminate()
        self._process.join(5)
        self._process.kill()
        self._process.join()
        self.connection.close()
        code = self._process.exitcode or 0
        return signal.Signals(-code).name if code < 0 else f"status {code}"


def _serve(connection: Connection, plan: ReplayPlan) -> None:
    """Main function of a worker process: replay bags until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends this process
    grounder: Grounder | None = None
    with suppress(EOFError):
        while True:
            task = connection.recv()
            try:
                grounder = grounder or (None if plan.live else plan.engine.load())
            except (ValueError, ImportError) as error:
                connection.send(str(error))
                return
            connection.send(attempt(task, plan, grounder))
