"""Bags handed to a Ray cluster that is already there: a task a bag, tried again where a worker or its machine
is lost."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from types import ModuleType

from groma_ros.grounding.grounder import Grounder
from groma_ros.replay.plan import ModelSettings, ReplayPlan, Task
from groma_ros.replay.result import Outcome
from groma_ros.replay.run import TRIES, attempt, failed


def outcomes(tasks: Sequence[Task], plan: ReplayPlan, address: str) -> Iterator[tuple[int, Outcome]]:
    """Places of the tasks and their outcomes, as they come.

    Bags, model, truth, expectations and results are files at the same paths on all machines, and groma_ros is
    installed on them. The journal lies with the results, so a bag whose worker was lost goes on where it was.
    Raises ValueError with a sentence where there is no cluster at the address, or the package ray is not
    there.
    """
    ray = _connected(address)
    engine = replace(plan.engine.with_threads(1), model=plan.engine.model.resolve())
    plan = replace(plan, engine=engine)
    work = ray.remote(num_cpus=engine.options.threads, num_gpus=plan.engine.gpus, max_retries=TRIES - 1)(
        _work
    )
    places = {work.remote(_absolute(task), plan): place for place, task in enumerate(tasks)}
    try:
        while places:
            ready, _ = ray.wait(list(places), num_returns=1)
            for reference in ready:
                place = places.pop(reference)
                yield place, _outcome(ray, reference, tasks[place])
    finally:
        for reference in places:
            ray.cancel(reference, force=True)


def _connected(address: str) -> ModuleType:
    try:
        import ray
    except ImportError as error:
        raise ValueError(
            "--ray needs the Python package ray; install it with python -m pip install 'groma_ros[ray]'."
        ) from error
    try:
        ray.init(
            address=address, ignore_reinit_error=True, log_to_driver=False, logging_level=logging.WARNING
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ValueError(f"There is no Ray cluster at {address!r}: {' '.join(str(error).split())}") from error
    return ray


def _outcome(ray: ModuleType, reference: object, task: Task) -> Outcome:
    try:
        found: Outcome = ray.get(reference)
        return found
    except ray.exceptions.RayError as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        return failed(task, f"The bag {task.bag} ended {TRIES} workers of the cluster: {reason}")


def _absolute(task: Task) -> Task:
    def path(name: Path | None) -> Path | None:
        return name.resolve() if name is not None else None

    out = task.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    return replace(task, bag=task.bag.resolve(), out=out, expect=path(task.expect), truth=path(task.truth))


# In a worker of the cluster.


@lru_cache(maxsize=1)
def _grounder(engine: ModelSettings) -> Grounder:
    """Workers live on from task to task, and so does the model."""
    return engine.load()


def _work(task: Task, plan: ReplayPlan) -> Outcome:
    """One bag. What is wrong with it is its outcome; only a lost worker is tried again."""
    if not task.out.is_dir():
        return failed(
            task,
            f"{os.uname().nodename} does not see {task.out}: all machines must see bags and results at the "
            "same paths.",
        )
    try:
        return attempt(task, plan, None if plan.live else _grounder(plan.engine))
    except (ValueError, ImportError) as error:
        return failed(task, str(error))
