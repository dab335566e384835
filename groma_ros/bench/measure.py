"""`groma bench`: the time of every stage, memory, and the cost against the floor of this machine."""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from groma_ros.bench.child_process import BenchVariant, Memory, Runner, measure_ceilings
from groma_ros.bench.claims import Paths, judge
from groma_ros.bench.machine import describe
from groma_ros.bench.report import Measured, ratios, rows, table
from groma_ros.bench.stages import Sample
from groma_ros.bench.workload import pictures
from groma_ros.progress import shown
from groma_ros.runtime.bundle import GGUF_PRECISIONS, ONNX_PRECISIONS, Bundle
from groma_ros.runtime.load import PRECISIONS, TORCH_PRECISIONS
from groma_ros.runtime.model_paths import shipped_model
from groma_ros.timing import CLOCKS

SIZES = ("tiny", "base", "7b")
_ROUNDS = {"tiny": 20, "base": 3, "7b": 1}
_WARM_UP = {"tiny": 3, "base": 1, "7b": 0}
_MOST_GOALS = 100
_HAVE = {"onnx": ONNX_PRECISIONS, "llama_cpp": GGUF_PRECISIONS, "torch": TORCH_PRECISIONS}
# Threads of the variant that has just run may still wait busily for more work; by then they sleep.
_PAUSE = 0.05


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `groma bench`."""
    parser.add_argument("--model", type=Path, metavar="DIR", help="folder of the model bundle (default: the one that ships)")
    parser.add_argument("--backend", default="auto", help="auto, onnx, tensorrt, llama_cpp, torch; several with commas (default: auto)")
    parser.add_argument(
        "--precision", default="auto", help="several with commas, each on every backend that has it (default: the model's own)"
    )
    parser.add_argument("--device", help="cpu or cuda (default: the backend's choice)")
    parser.add_argument("--goals", default="1,4,10", help="numbers of goals, with commas (default: 1,4,10)")
    parser.add_argument("--size", choices=SIZES, default="tiny", help="tiny is the model; base and 7b have random weights, for speed only")
    parser.add_argument("--threads", type=int, help="of each backend (default: one a core)")
    parser.add_argument("--frames", type=int, help="pictures to look at, each once a row (default: 20 for tiny, 3 for base, 1 for 7b)")
    parser.add_argument("--seed", type=int, default=0, help="of the pictures and of random weights (default: 0)")
    parser.add_argument(
        "--clock", choices=sorted(CLOCKS), default="wall", help="cpu: the work of the process itself, for a machine that others use too"
    )
    parser.add_argument("--claims", action="store_true", help="hold what the project claims of its speed against this machine")
    parser.add_argument("--json", action="store_true", help="write one JSON document to standard output")


@dataclass(frozen=True)
class BenchPlan:
    """What is measured: variants in turn, on each picture, for each number of goals."""

    variants: tuple[BenchVariant, ...]
    goals: tuple[int, ...]
    rounds: int
    warm_up: int
    threads: int
    size: str
    seed: int
    claims: bool
    clock: str


def run_bench(args: argparse.Namespace) -> int:
    """`groma bench` with the options of `add_arguments`; returns the exit status."""
    document = bench(plan(args))
    print(json.dumps(document, indent=1) if args.json else table(document))
    return 0


def plan(args: argparse.Namespace) -> BenchPlan:
    """ValueError with a sentence for options that cannot be met."""
    goals = _numbers(args.goals)
    for name, value in (("--threads", args.threads), ("--frames", args.frames)):
        if value is not None and value < 1:
            raise ValueError(f"{name} is {value}; it must be at least 1.")
    threads = args.threads or len(os.sched_getaffinity(0))
    if args.clock == "cpu" and threads != 1:
        raise ValueError("--clock cpu adds up the work of all threads, which is no time; use it with --threads 1.")
    if args.claims:
        goals = tuple(sorted({1, 10, *goals}))
    if args.model is not None and args.size != "tiny":
        raise ValueError(f"--size {args.size} has random weights; name a model or a size, not both.")
    model = (args.model or shipped_model()) if args.size == "tiny" else None
    claimed = args.claims and args.backend == "auto" and model is not None
    chosen = _claimed(model) if claimed and model is not None else _chosen(args.backend, args.precision)
    variants = tuple(BenchVariant(model, args.size, *names, args.device, threads, args.seed, args.clock) for names in chosen)
    rounds = args.frames or _ROUNDS[args.size]
    return BenchPlan(variants, goals, rounds, _WARM_UP[args.size], threads, args.size, args.seed, args.claims, args.clock)


def _numbers(text: str) -> tuple[int, ...]:
    words = _words(text)
    if not all(word.isdecimal() and 1 <= int(word) <= _MOST_GOALS for word in words):
        raise ValueError(f"--goals is {text!r}; it must be numbers from 1 to {_MOST_GOALS} with commas between, as 1,4,10.")
    return tuple(sorted({int(word) for word in words}))


def _chosen(backends: str, precisions: str) -> list[tuple[str, str]]:
    """Every backend with every precision it has. ValueError for a precision that none of them has."""
    pairs = itertools.product(_words(backends), _words(precisions))
    chosen = [(backend, precision) for backend, precision in pairs if precision in ("auto", *_HAVE.get(backend, PRECISIONS))]
    for precision in _words(precisions):
        if precision not in (found for _, found in chosen):
            raise ValueError(f"--precision {precision}: none of the backends {backends} has it; it must be one of {', '.join(PRECISIONS)}.")
    return chosen


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",")]


def _claimed(model: Path) -> list[tuple[str, str]]:
    """What the claims are about: the default, ONNX in fp32 where it is another, and eager torch where it is installed."""
    made = Bundle.load(model).precisions
    chosen = [("auto", "auto")]
    if "fp32" in made[1:]:
        chosen.append(("onnx", "fp32"))
    return chosen + ([("torch", "fp32")] if importlib.util.find_spec("torch") else [])


def bench(plan: BenchPlan) -> dict[str, Any]:
    """Measure; the JSON document. Errors are those of loading a model, and RuntimeError for a process that died."""
    jpegs, source = pictures(plan.rounds, plan.seed)
    ceilings = measure_ceilings(plan.threads, plan.clock)
    with ExitStack() as stack:
        runners = [stack.enter_context(Runner(variant)) for variant in plan.variants]
        taken, paths = _measure(plan, runners, jpegs)
        gpu = [runner.ask("ceilings") for runner in runners]
    # Whatever else ran on the machine before or after, the most it can do is the better of both.
    ceilings |= measure_ceilings(plan.threads, plan.clock)
    measured = [
        replace(item, ceilings=found or (ceilings if item.about.device == "cpu" else None)) for item, found in zip(taken, gpu, strict=True)
    ]
    document: dict[str, Any] = {
        "machine": {**describe(plan.threads, ceilings), "pictures": source, "size": plan.size, "clock": plan.clock},
        "rows": [row for item in measured for row in rows(item)],
        "ratios": ratios(measured),
    }
    if plan.claims:
        document["claims"] = _judge(measured, paths)
    return document


def _measure(plan: BenchPlan, runners: Sequence[Runner], jpegs: Sequence[bytes]) -> tuple[list[Measured], list[Paths]]:
    """Every picture through every variant in turn, another first each time, so that noise and warmth hit all alike."""
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
    return [Measured(runner.about, taken, held, None) for runner, taken, held in zip(runners, samples, memory, strict=True)], paths


def _warm_up(plan: BenchPlan, runner: Runner, jpeg: bytes) -> dict[int, Memory]:
    """Run every number of goals, fewest first; the most memory held up to and with each, nothing where nothing is to be warmed."""
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
    exact, eager = ("onnx fp32" if "onnx fp32" in names else None), ("torch fp32" if "torch fp32" in names else None)
    return [claim.document() for claim in judge(paths, samples, names[0], exact, eager)]
