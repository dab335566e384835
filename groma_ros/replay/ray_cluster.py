"""Replay bags on an existing Ray cluster, one task per bag, retried if a worker or its machine is lost."""

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
    """Yield (task index, outcome) in the order of completion.

    Bags, model, truth, expectations and results must be files at the same paths on all machines, with
    groma_ros installed. The journal is stored with the results, so a retried bag resumes. Raises
    ValueError if there is no cluster at the address or the package ray is not installed.
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


# The functions below run in a worker of the cluster.


@lru_cache(maxsize=1)
def _grounder(engine: ModelSettings) -> Grounder:
    """Load the model once per worker."""
    return engine.load()


def _work(task: Task, plan: ReplayPlan) -> Outcome:
    """Replay one bag. Errors of the bag are its outcome; only a lost worker is retried."""
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
