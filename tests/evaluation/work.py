"""Work functions for spawned processes; imports nothing heavy."""

from __future__ import annotations

import os
from typing import Any

from groma_ros.grounding.grounder import Grounder


def square(grounder: Grounder, item: int) -> dict[str, Any]:
    """A record that says which process made it; needs the loaded model."""
    if item < 0:
        raise ValueError("The item is below zero.")
    return {"square": item * item, "wordings": grounder.wordings("auto"), "process": os.getpid()}


def run_away(grounder: Grounder, item: int) -> dict[str, Any]:
    """A process that dies like one without memory."""
    os._exit(9)
