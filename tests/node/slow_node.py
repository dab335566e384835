"""The node's process with a language model that takes so many seconds longer: `python -m tests.node.slow_node
1.0 --ros-args ...`."""

from __future__ import annotations

import sys
import time
from typing import Any

from groma_ros.grounding.grounder import Grounder
from groma_ros.node import process
from groma_ros.types import Grounding


def start(seconds: float, arguments: list[str]) -> int:
    """Run the node; its exit status."""

    def load_slow(*choice: Any) -> Grounder:
        grounder = Grounder.load(*choice)
        answer = grounder.ground

        def ground(view: Any, goals: Any) -> list[Grounding]:
            time.sleep(seconds)
            return answer(view, goals)

        grounder.ground = ground  # type: ignore[method-assign]
        return grounder

    return process.run(arguments, load_slow)


if __name__ == "__main__":
    sys.exit(start(float(sys.argv[1]), sys.argv[2:]))
