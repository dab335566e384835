"""Telemetry of dependencies is disabled through the environment."""

import os
import subprocess
import sys

from groma_ros import TELEMETRY_SWITCHES


def test_importing_any_module_switches_telemetry_off() -> None:
    environment = {name: value for name, value in os.environ.items() if name not in TELEMETRY_SWITCHES}
    code = "import groma_ros.types, os, json; print(json.dumps(dict(os.environ)))"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True)
    import json

    found = json.loads(done.stdout)
    assert {name: found[name] for name in TELEMETRY_SWITCHES} == TELEMETRY_SWITCHES
    environment["RAY_USAGE_STATS_ENABLED"] = "1"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True)
    assert json.loads(done.stdout)["RAY_USAGE_STATS_ENABLED"] == "1"
