"""An evaluation in two processes for a test to kill: `python -m tests.evaluation.killed MODEL OUT COUNT`."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from groma_ros.evaluation.workers import EvaluationPlan, ModelChoice, run_evaluation
from groma_ros.grounding.grounder import Grounder
from groma_ros.runtime.options import RuntimeOptions
from tests.evaluation.work import square


def slow_square(grounder: Grounder, item: int) -> dict[str, Any]:
    """A square that takes a while."""
    time.sleep(0.3)
    return square(grounder, item)


def squares(model: Path, out: Path, count: int) -> list[dict[str, Any]]:
    """Run it."""
    return run_evaluation(
        slow_square,
        list(range(count)),
        "item",
        ModelChoice(model, RuntimeOptions(threads=1)),
        EvaluationPlan(2, ("cpu",), out),
        {"data": count},
    )


if __name__ == "__main__":
    from tests.evaluation import killed

    killed.squares(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
