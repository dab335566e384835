"""Switching off the usage statistics of dependencies.

ONNX Runtime, Ray and the Hugging Face libraries report to their makers unless the environment says
otherwise before they are imported. `groma_ros/__init__.py` calls `disable` first of all, so every process
that imports any part of this package (command, node, worker process) is covered, and processes it starts
inherit the variables.
"""

from __future__ import annotations

import os

SWITCHES = {
    "ORT_DISABLE_TELEMETRY": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
}
"""Environment variables that switch telemetry off, and their values: ONNX Runtime, Ray, huggingface_hub (two
names over time), and the variable that several other packages honour."""


def disable() -> None:
    """Set `SWITCHES` in the environment of this process. A variable that the user has set is left alone."""
    for name, value in SWITCHES.items():
        if not os.environ.get(name):
            os.environ[name] = value
