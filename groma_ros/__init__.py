"""Language goals to grounded boxes, with Groma: a library, commands and a ROS 2 node.

    from groma_ros import Grounder

    grounder = Grounder.load("groma-tiny")
    for answer in grounder.ground(rgb, ["the red mug", "both bottles"]):
        print(answer.goal.text, answer.status, answer.boxes, answer.scores)

These names are the public interface, with `groma_ros.client.GromaClient` for a running node; every other
module may change between versions. They are imported at their first use, so that importing the package costs
next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import extend_path
from typing import TYPE_CHECKING, Any

from groma_ros import telemetry

if TYPE_CHECKING:
    from groma_ros.grounding.grounder import Grounder
    from groma_ros.types import Detection, Frame, Goal, Grounding

__version__ = "0.1.0"
__all__ = ["Detection", "Frame", "Goal", "Grounder", "Grounding"]

# The message build generates groma_ros.msg, .srv and .action in another folder of sys.path; both folders are
# one package.
__path__ = extend_path(__path__, __name__)

# Before anything else is imported: dependencies read these switches when they are loaded.
telemetry.disable()


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "groma_ros.grounding.grounder" if name == "Grounder" else "groma_ros.types"
    return getattr(import_module(module), name)
