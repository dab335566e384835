"""Many bags: one after another here, or shared out among processes, of which one that dies loses no bag."""

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
    """The outcomes, in the order of the tasks. A bag that cannot be replayed is an outcome too, and the
    others go on.

    jobs: processes here; ray: address of a cluster that does it instead. Raises ValueError with a sentence
    where the model or the cluster cannot be had.
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
    """The whole batch is done: no rerun has to go on from where a bag was."""
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
    """Processes that each hold the model; a context manager that ends them."""

    def __init__(self, tasks: Sequence[Task], plan: ReplayPlan, jobs: int) -> None:
        self._tasks = tasks
        # Processes that each take all cores only get in each other's way.
        threads = max(1, len(os.sched_getaffinity(0)) // jobs)
        plan = replace(plan, engine=plan.engine.with_threads(threads))
        self._waiting = list(range(len(tasks)))
        self._tries = [0] * len(tasks)
        self._workers = [_Worker(plan) for _ in range(jobs)]

    def outcomes(self) -> Iterator[tuple[int, Outcome]]:
        """Places of the tasks and their outcomes, as they come."""
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
        """The process is gone: another one is started and the bag is tried again, unless it was fatal to too
        many."""
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
        """Let it replay a bag."""
        self.place = place
        with suppress(BrokenPipeError):  # it is gone, which `result` tells
            self.connection.send(task)

    def result(self) -> Outcome | None:
        """What it sent, or None if it is gone. Raises ValueError with its sentence if it cannot have the
        model."""
        try:
            found = self.connection.recv()
        except (EOFError, OSError):
            return None
        if isinstance(found, str):
            raise ValueError(found)
        return found

    def end(self) -> str:
        """End the process; how it ended, if it already had."""
        self._process.terminate()
        self._process.join(5)
        self._process.kill()
        self._process.join()
        self.connection.close()
        code = self._process.exitcode or 0
        return signal.Signals(-code).name if code < 0 else f"status {code}"


def _serve(connection: Connection, plan: ReplayPlan) -> None:
    """What a process does: replay the bags it is given until the pipe ends."""
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
