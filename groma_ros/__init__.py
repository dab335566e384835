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

import os
from importlib import import_module
from pkgutil import extend_path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from groma_ros.grounding.grounder import Grounder
    from groma_ros.types import Detection, Frame, Goal, Grounding

__version__ = "0.1.0"
__all__ = ["Detection", "Frame", "Goal", "Grounder", "Grounding"]

# The message build generates groma_ros.msg, .srv and .action in another folder of sys.path; both folders are
# one package.
__path__ = extend_path(__path__, __name__)

TELEMETRY_SWITCHES = {
    "ORT_DISABLE_TELEMETRY": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
}
"""Environment variables that disable the usage statistics of ONNX Runtime, Ray and huggingface_hub (two names
over time), and the one that several other packages honour."""

# Set before anything else is imported, because dependencies read the variables when they are loaded.
# Processes started from here inherit them. Variables that the user has set are left alone.
for _name, _value in TELEMETRY_SWITCHES.items():
    if not os.environ.get(_name):
        os.environ[_name] = _value


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "groma_ros.grounding.grounder" if name == "Grounder" else "groma_ros.types"
    return getattr(import_module(module), name)
