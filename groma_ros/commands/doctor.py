"""`groma doctor`: check what this machine lacks to run a model, with the command that fixes it."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import asdict

from groma_ros.commands.model_arguments import runtime_options
from groma_ros.runtime.bundle import Bundle
from groma_ros.runtime.machine_checks import FAILURE, WARNING, Finding, machine_findings
from groma_ros.runtime.model_paths import find_model
from groma_ros.runtime.options import BACKENDS

ROS_SECONDS = 60.0
"""Timeout of the ROS checks beyond the search for cameras, seconds; the middleware may hang."""
MARKS = {"ok": "ok", "warning": "!", "failure": "FAIL"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `groma doctor`."""
    parser.add_argument(
        "--model", default="", metavar="MODEL", help="name or folder of a model (default: groma-tiny)"
    )
    parser.add_argument("--backend", default="auto", help=f"{', '.join(BACKENDS)} (default: auto)")
    parser.add_argument("--precision", default="auto", help="e.g. fp16 or q4_k_m (default: the model's own)")
    parser.add_argument("--device", help="cpu or cuda (default: the backend's choice)")
    parser.add_argument(
        "--seconds",
        type=float,
        default=2.0,
        help="time to look for cameras on the ROS graph (default: 2; 0: skip ROS)",
    )
    parser.add_argument("--json", action="store_true", help="write one JSON document to standard output")


def run(args: argparse.Namespace) -> int:
    """Run `groma doctor` with the options of `add_arguments`; returns 1 if the model cannot run."""
    args.threads = None
    options, findings, bundle = runtime_options(args), [], None
    try:
        bundle = Bundle.load(find_model(args.model))
    except ValueError as error:
        findings.append(Finding("model", FAILURE, f"{args.model or 'groma-tiny'} cannot be used", str(error)))
    findings = machine_findings(bundle, options) + findings
    findings += ros_findings(args.seconds) if args.seconds > 0 else []
    ok = all(finding.state != FAILURE for finding in findings)
    if args.json:
        name = bundle.name if bundle else args.model
        document = {"ok": ok, "model": name, "checks": [asdict(finding) for finding in findings]}
        print(json.dumps(document, indent=1))
    else:
        print("\n".join(_lines(findings)))
    return 0 if ok else 1


def ros_findings(seconds: float) -> list[Finding]:
    """Run `groma_ros.node.ros_checks` in a separate process and return its findings."""
    command = [sys.executable, "-m", "groma_ros.node.ros_checks", str(seconds)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=ROS_SECONDS + seconds, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        found = "the middleware does not answer"
    except OSError as error:
        found = f"the checks could not be started: {error.strerror}"
    else:
        try:
            return [Finding(**item) for item in json.loads(done.stdout.strip().splitlines()[-1])]
        except (ValueError, IndexError, TypeError):
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            found = f"the checks ended early: {last[:200]}"
    return [Finding("ros", WARNING, found, "run make setup, or source the ROS distribution anew")]


def _lines(findings: list[Finding]) -> list[str]:
    width = max(len(finding.name) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"{MARKS[finding.state]:<5}{finding.name:<{width}}  {finding.found}")
        if finding.mend:
            lines.append(f"{'':<5}{'':<{width}}  -> {finding.mend}")
    return lines
