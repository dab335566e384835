"""Replay several bags, sequentially or in worker processes; a worker that dies does not lose its bag."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace

from groma_ros.grounding.grounder import Grounder
from groma_ros.progress import shown
from groma_ros.replay.plan import JOURNAL, ReplayPlan, Task
from groma_ros.replay.result import Outcome
from groma_ros.replay.run import TRIES, attempt, failed
from groma_ros.worker_pool import map_in_processes


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
        found = _in_processes(tasks, plan, min(jobs, len(tasks)))
    else:
        found = list(_in_turn(tasks, plan))
    finish(tasks)
    return found


def finish(tasks: Iterable[Task]) -> None:
    """Delete the journals of a completed batch, which are no longer needed for resuming."""
    for task in tasks:
        if task.keep:
            shutil.rmtree(task.out / JOURNAL, ignore_errors=True)


def _in_turn(tasks: Sequence[Task], plan: ReplayPlan) -> Iterator[Outcome]:
    grounder = _load(plan)

    def watch(numbers: Iterable[int], total: int) -> Iterable[int]:
        return shown(numbers, total, "image")

    for task in tasks:
        yield attempt(task, plan, grounder, watch)


def _in_processes(tasks: Sequence[Task], plan: ReplayPlan, jobs: int) -> list[Outcome]:
    # Share the cores: workers that each use all of them slow each other down.
    threads = max(1, len(os.sched_getaffinity(0)) // jobs)
    plan = replace(plan, engine=plan.engine.with_threads(threads))
    with closing(map_in_processes(_start, _replay, tasks, jobs, [(plan,)], _lost, TRIES)) as found:
        return _collected(found, len(tasks))


def _collected(outcomes: Iterable[tuple[int, Outcome]], total: int) -> list[Outcome]:
    found = dict(shown(outcomes, total, "bag"))
    return [found[place] for place in range(total)]


def _load(plan: ReplayPlan) -> Grounder | None:
    """Load the model; None for a live run, where the node loads it."""
    return None if plan.live else plan.engine.load()


def _start(plan: ReplayPlan) -> tuple[ReplayPlan, Grounder | None]:
    """Prepare a worker process."""
    return plan, _load(plan)


def _replay(state: tuple[ReplayPlan, Grounder | None], task: Task) -> Outcome:
    """Replay one bag in a worker process."""
    plan, grounder = state
    return attempt(task, plan, grounder)


def _lost(task: Task, how: str) -> Outcome:
    return failed(task, f"The bag {task.bag} ended {TRIES} processes, the last one with {how}.")
