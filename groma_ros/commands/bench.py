"""`groma bench`: measure the duration of a frame, stage by stage."""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import os
from pathlib import Path

from groma_ros.bench.measure import SIZES, BenchPlan, bench
from groma_ros.bench.report import table
from groma_ros.bench.workload import BenchVariant
from groma_ros.commands.model_arguments import FindModel
from groma_ros.runtime.bundle import GGUF_PRECISIONS, ONNX_PRECISIONS, Bundle
from groma_ros.runtime.load import PRECISIONS, TORCH_PRECISIONS
from groma_ros.runtime.model_paths import shipped_model
from groma_ros.runtime.options import RuntimeOptions
from groma_ros.timing import CLOCKS

_ROUNDS = {"tiny": 20, "base": 3, "7b": 1}


_WARM_UP = {"tiny": 3, "base": 1, "7b": 0}


_MOST_GOALS = 100


_HAVE = {"onnx": ONNX_PRECISIONS, "llama_cpp": GGUF_PRECISIONS, "torch": TORCH_PRECISIONS}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `groma bench`."""
    parser.add_argument(
        "--model",
        action=FindModel,
        metavar="MODEL",
        help="name or folder of a model (default: groma-tiny, which ships)",
    )
    parser.add_argument(
        "--backend",
        default="auto",
        help="comma-separated list of auto, onnx, tensorrt, llama_cpp, torch (default: auto)",
    )
    parser.add_argument(
        "--precision",
        default="auto",
        help="comma-separated list, each measured on every backend that supports it (default: the "
        "model's own)",
    )
    parser.add_argument("--device", help="cpu or cuda (default: the backend's choice)")
    parser.add_argument(
        "--goals", default="1,4,10", help="comma-separated numbers of goals (default: 1,4,10)"
    )
    parser.add_argument(
        "--size",
        choices=SIZES,
        default="tiny",
        help="tiny is the model; base and 7b have random weights, for speed only",
    )
    parser.add_argument("--threads", type=int, help="CPU threads of each backend (default: one per core)")
    parser.add_argument(
        "--frames",
        type=int,
        help="number of pictures, each measured once per row (default: 20 for tiny, 3 for base, 1 for 7b)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the pictures and random weights (default: 0)"
    )
    parser.add_argument(
        "--clock",
        choices=sorted(CLOCKS),
        default="wall",
        help="wall: elapsed time; cpu: processor time of the process, for a machine with other load",
    )
    parser.add_argument(
        "--claims", action="store_true", help="compare the project's speed claims with this machine"
    )
    parser.add_argument("--json", action="store_true", help="write one JSON document to standard output")


def run(args: argparse.Namespace) -> int:
    """Run `groma bench` with the options of `add_arguments`; returns the exit status."""
    document = bench(plan(args))
    print(json.dumps(document, indent=1) if args.json else table(document))
    return 0


def plan(args: argparse.Namespace) -> BenchPlan:
    """Turn the options into a plan. Raises ValueError for options that cannot be met."""
    goals = _numbers(args.goals)
    for name, value in (("--threads", args.threads), ("--frames", args.frames)):
        if value is not None and value < 1:
            raise ValueError(f"{name} is {value}; it must be at least 1.")
    threads = args.threads or len(os.sched_getaffinity(0))
    if args.clock == "cpu" and threads != 1:
        raise ValueError(
            "--clock cpu adds up the work of all threads, which is no time; use it with --threads 1."
        )
    if args.claims:
        goals = tuple(sorted({1, 10, *goals}))
    if args.model is not None and args.size != "tiny":
        raise ValueError(f"--size {args.size} has random weights; name a model or a size, not both.")
    model = (args.model or shipped_model()) if args.size == "tiny" else None
    claimed = args.claims and args.backend == "auto" and model is not None
    chosen = _claimed(model) if claimed and model is not None else _chosen(args.backend, args.precision)
    variants = tuple(
        BenchVariant(
            model,
            args.size,
            RuntimeOptions(backend=backend, device=args.device, precision=precision, threads=threads),
            args.seed,
            args.clock,
        )
        for backend, precision in chosen
    )
    rounds = args.frames or _ROUNDS[args.size]
    return BenchPlan(
        variants, goals, rounds, _WARM_UP[args.size], threads, args.size, args.seed, args.claims, args.clock
    )


def _numbers(text: str) -> tuple[int, ...]:
    words = _words(text)
    if not all(word.isdecimal() and 1 <= int(word) <= _MOST_GOALS for word in words):
        raise ValueError(
            f"--goals is {text!r}; it must be numbers from 1 to {_MOST_GOALS} with commas between, as 1,4,10."
        )
    return tuple(sorted({int(word) for word in words}))


def _chosen(backends: str, precisions: str) -> list[tuple[str, str]]:
    """Return every backend with every requested precision that it supports. Raises ValueError for a precision
    that none of them supports."""
    pairs = itertools.product(_words(backends), _words(precisions))
    chosen = [
        (backend, precision)
        for backend, precision in pairs
        if precision in ("auto", *_HAVE.get(backend, PRECISIONS))
    ]
    for precision in _words(precisions):
        if precision not in (found for _, found in chosen):
            raise ValueError(
                f"--precision {precision}: none of the backends {backends} has it; it must be one of "
                f"{', '.join(PRECISIONS)}."
            )
    return chosen


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",")]


def _claimed(model: Path) -> list[tuple[str, str]]:
    """Return the variants that the claims compare: the default, ONNX fp32 if that is another, and eager
    PyTorch if installed."""
    made = Bundle.load(model).precisions
    chosen = [("auto", "auto")]
    if "fp32" in made[1:]:
        chosen.append(("onnx", "fp32"))
    return chosen + ([("torch", "fp32")] if importlib.util.find_spec("torch") else [])
