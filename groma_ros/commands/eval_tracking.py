"""`groma eval tracking`: boxes between answers of a slow language model."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from groma_ros.commands.model_arguments import add_model_arguments, runtime_options
from groma_ros.evaluation.tracking import ANSWERS, Mode, evaluate_tracking, recorded, rendered, table
from groma_ros.grounding.grounder import Grounder
from groma_ros.progress import shown
from groma_ros.tracking.grounding_tracker import TrackingConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `groma eval tracking`."""
    add_model_arguments(parser, required=True, device=True)
    parser.add_argument("--seed", type=int, help="seed of the first scene; the others follow")
    parser.add_argument("--count", type=int, default=5, help="number of rendered sequences (default 5)")
    parser.add_argument(
        "--seconds",
        type=float,
        default=6.0,
        help="length of a sequence; a shorter one has a faster camera (default 6)",
    )
    parser.add_argument(
        "--bag",
        type=Path,
        help="recorded camera with truth.json beside it, instead of rendered sequences",
    )
    parser.add_argument("--truth", type=Path, help="truth file of --bag, if not beside it")
    parser.add_argument(
        "--answer-seconds",
        "--latency",
        default="1",
        metavar="SECONDS",
        help="comma-separated durations of an answer of the language model, one row each, e.g. 2.5,10; "
        f"sequences are played back and forth until {ANSWERS} answers fit (default 1)",
    )
    parser.add_argument(
        "--proposer-hz",
        default="0,2.5",
        metavar="HZ",
        help="comma-separated numbers of perceived frames per second, one row each; 0: all (default 0,2.5)",
    )
    parser.add_argument("--json", action="store_true", help="write one JSON document to standard output")


def run(args: argparse.Namespace) -> int:
    """Run `groma eval tracking` with the options of `add_arguments`; returns the exit status."""
    if (args.seed is None) == (args.bag is None):
        raise ValueError(
            "Give either --seed (with --count) to render sequences, or --bag with a recorded one."
        )
    if args.count < 1 or args.seconds < 0.5:
        raise ValueError("--count must be 1 or more, --seconds 0.5 or more.")
    rates = _numbers("--proposer-hz", args.proposer_hz, 1000.0)
    modes = [
        Mode(seconds, rate)
        for seconds in _numbers("--answer-seconds", args.answer_seconds, 600.0)
        for rate in rates
    ]
    grounder = Grounder.load(args.model, runtime_options(args))
    sequences = (
        [recorded(args.bag, args.truth)] if args.bag else rendered(args.seed, args.count, args.seconds)
    )
    count = 1 if args.bag else args.count
    tallies = evaluate_tracking(grounder, shown(sequences, count, "sequence"), modes, TrackingConfig())
    rows = [
        {
            "answer_seconds": mode.answer_seconds,
            "proposer_hz": mode.proposer_hz,
            "seconds": round(tally.seconds, 2),
            **tally.report(),
        }
        for mode, tally in zip(modes, tallies, strict=True)
    ]
    document = {"sequences": count, "rows": rows}
    print(json.dumps(document, indent=1) if args.json else table(document))
    return 0


def _numbers(option: str, text: str, most: float) -> list[float]:
    """Parse the numbers of an option, separated by commas. Raises ValueError for one that is no number, below
    0 or above `most`."""
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or not all(0 <= number <= most for number in numbers):
        raise ValueError(f"{option} is {text!r}; give numbers from 0 to {most:g}, split at commas.")
    return numbers
