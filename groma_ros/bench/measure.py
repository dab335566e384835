"""`groma bench`: measure the duration of every stage, memory, and the ratio to the lower bound of this
machine."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from groma_ros.bench.child_process import Memory, Runner, measure_ceilings
from groma_ros.bench.claims import Paths, judge
from groma_ros.bench.machine import describe
from groma_ros.bench.report import Measured, ratios, rows
from groma_ros.bench.stages import Sample
from groma_ros.bench.workload import BenchVariant, pictures
from groma_ros.progress import shown

SIZES = ("tiny", "base", "7b")
# Threads of the variant that ran last may still be spinning; they sleep after this pause.
_PAUSE = 0.05


@dataclass(frozen=True)
class BenchPlan:
    """What to measure: every variant, on each picture, for each number of goals."""

    variants: tuple[BenchVariant, ...]
    goals: tuple[int, ...]
    rounds: int
    warm_up: int
    threads: int
    size: str
    seed: int
    claims: bool
    clock: str


def bench(plan: BenchPlan) -> dict[str, Any]:
    """Measure, and return the JSON document. Raises the errors of loading a model, and RuntimeError if a
    process dies."""
    jpegs, source = pictures(plan.rounds, plan.seed)
    ceilings = measure_ceilings(plan.threads, plan.clock)
    with ExitStack() as stack:
        runners = [stack.enter_context(Runner(variant)) for variant in plan.variants]
        taken, paths = _measure(plan, runners, jpegs)
        gpu = [runner.ask("ceilings") for runner in runners]
    # Other programs may have been running before or after; the better of both is the peak.
    ceilings |= measure_ceilings(plan.threads, plan.clock)
    measured = [
        replace(item, ceilings=found or (ceilings if item.about.device == "cpu" else None))
        for item, found in zip(taken, gpu, strict=True)
    ]
    document: dict[str, Any] = {
        "machine": {
            **describe(plan.threads, ceilings),
            "pictures": source,
            "size": plan.size,
            "clock": plan.clock,
        },
        "rows": [row for item in measured for row in rows(item)],
        "ratios": ratios(measured),
    }
    if plan.claims:
        document["claims"] = _judge(measured, paths)
    return document


def _measure(
    plan: BenchPlan, runners: Sequence[Runner], jpegs: Sequence[bytes]
) -> tuple[list[Measured], list[Paths]]:
    """Run every picture through every variant in turn, starting with a different one each time, so that noise
    and warm-up affect all equally."""
    samples: list[dict[int, list[Sample]]] = [{goals: [] for goals in plan.goals} for _ in runners]
    memory = [_warm_up(plan, runner, jpegs[0]) for runner in runners]
    paths: list[Paths] = []
    for number in shown(range(len(jpegs)), len(jpegs), "frame"):
        for turn in range(len(runners)):
            index = (number + turn) % len(runners)
            time.sleep(_PAUSE)
            for goals in plan.goals:
                samples[index][goals].append(runners[index].ask("measure", jpegs[number], goals))
                if goals not in memory[index]:
                    memory[index][goals] = runners[index].ask("memory")
        if plan.claims:
            paths.append(runners[0].ask("paths", jpegs[number]))
    return [
        Measured(runner.about, taken, held, None)
        for runner, taken, held in zip(runners, samples, memory, strict=True)
    ], paths


def _warm_up(plan: BenchPlan, runner: Runner, jpeg: bytes) -> dict[int, Memory]:
    """Run every number of goals, smallest first. Returns the peak memory after each; empty without
    warm-up."""
    memory = {}
    for goals in plan.goals if plan.warm_up else ():
        for _ in range(plan.warm_up):
            runner.ask("measure", jpeg, goals)
        memory[goals] = runner.ask("memory")
    if plan.claims and plan.warm_up:
        runner.ask("paths", jpeg)
    return memory


def _judge(measured: Sequence[Measured], paths: Sequence[Paths]) -> list[dict[str, object]]:
    names = [item.about.name for item in measured]
    samples = {name: item.samples for name, item in zip(names, measured, strict=True)}
    exact, eager = (
        ("onnx fp32" if "onnx fp32" in names else None),
        ("torch fp32" if "torch fp32" in names else None),
    )
    return [claim.document() for claim in judge(paths, samples, names[0], exact, eager)]
