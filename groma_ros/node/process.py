"""The node's process: signals, the executor, and the way in and out of ROS."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time

import rclpy
from rclpy.exceptions import (
    InvalidParameterException,
    InvalidParameterTypeException,
    InvalidParameterValueException,
)
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.signals import SignalHandlerOptions

from groma_ros.grounding.grounder import Grounder
from groma_ros.node.model_loader import Load
from groma_ros.node.node import GromaNode
from groma_ros.node.shared_memory import remove_dead_segments

POLL_SECONDS = 0.2
"""Longest wait of the executor before it checks whether it was asked to end."""
MANAGER_SECONDS = 5.0
"""How long autostart leaves a node inactive that somebody else configured."""


def run(args: list[str] | None = None, load: Load = Grounder.load) -> int:
    """Run the node until SIGINT or SIGTERM. 0 after a clean end, 1 with one sentence on stderr when it could
    not start. Ends the process itself where a thread of the node still runs."""
    end, before = threading.Event(), set(threading.enumerate())
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: end.set())
    # rclpy's own handlers would close the context under the worker, in the middle of a publish.
    try:
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    except Exception as error:  # its types differ between distributions
        print(f"groma_node: {_init_failure(' '.join(str(error).split()))}", file=sys.stderr)
        return 1
    try:
        failure = _spin(end, load)
    finally:
        rclpy.shutdown()
    # Everything is closed; searching torch's objects for cycles once more would hold up the exit by about a
    # second.
    gc.freeze()
    if failure:
        print(f"groma_node: {failure}", file=sys.stderr)
    status = 1 if failure else 0
    if set(threading.enumerate()) - before:
        # A model is still being loaded or still answers, in native code. Ending the interpreter beneath it
        # aborts the process ("terminate called without an active exception") or waits for it.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


def _init_failure(reason: str) -> str:
    """Why ROS could not be initialized: the keys of SROS 2, a folder for the log that cannot be made, or the
    arguments."""
    secured = os.environ.get("ROS_SECURITY_ENABLE") == "true"
    if secured and ("SECURITY" in reason or "error not set" in reason):
        return (
            "SROS 2 is on (ROS_SECURITY_ENABLE) and cannot be started: ROS_SECURITY_KEYSTORE must name a "
            f"keystore with the keys of the enclave that --enclave names ({reason})."
        )
    if "logging" in reason or "log" in reason.split():
        return (
            "The folder for log files cannot be made: set ROS_LOG_DIR, ROS_HOME or HOME to a folder that may "
            f"be written to ({reason})."
        )
    return f"The ROS arguments cannot be read: {reason}"


class Autostart:
    """Takes a node to active by itself once its model is loaded.

    Where somebody configures the node meanwhile, it is theirs to activate for `MANAGER_SECONDS`; a lifecycle
    manager checks after each of its transitions that the node is in the state that it asked for.
    """

    def __init__(self, node: GromaNode) -> None:
        self._node, self._over = node, False
        self._inactive_since: float | None = None
        node.begin_loading()

    def step(self) -> str:
        """Go on where it can without waiting, between two callbacks of the executor. The sentence that says
        why the node could not start, or nothing."""
        node = self._node
        if self._over or node.loading or node.configure_requested:
            return ""
        if node.unconfigured and self._inactive_since is None:
            # The model is there; what keeps it from being taken is told by `failure`, also where somebody
            # else's request met it first.
            self._over = True
            started = not node.failure and _done(node.trigger_configure()) and _done(node.trigger_activate())
            return "" if started else node.failure or "The node could not be activated."
        if not node.inactive:
            self._over = True  # somebody activated it, or took it elsewhere
            return ""
        now = time.monotonic()
        self._inactive_since = self._inactive_since or now
        if now - self._inactive_since < MANAGER_SECONDS:
            return ""
        self._over = True
        return "" if _done(node.trigger_activate()) else node.failure or "The node could not be activated."


def _spin(end: threading.Event, load: Load) -> str:
    """Spin until `end`; the sentence that says why the node could not start, or nothing."""
    try:
        node = GromaNode(load)
    except (
        ValueError,
        InvalidParameterException,
        InvalidParameterTypeException,
        InvalidParameterValueException,
    ) as error:
        return str(error)
    except RuntimeError as error:  # of rcl: without all its keys, or with a middleware built without SROS 2
        return f"The node could not be created: {' '.join(str(error).split())}."
    if freed := remove_dead_segments():
        node.get_logger().info(
            f"Removed {freed / 1e6:.0f} MB of shared memory that killed processes of this user had left."
        )
    try:
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        autostart = Autostart(node) if node.autostart else None
        while not end.is_set():
            if autostart is not None and (failure := autostart.step()):
                return failure
            _spin_once(executor, node)
        executor.shutdown(timeout_sec=POLL_SECONDS)
        node.finish()
        return ""
    finally:
        node.destroy_node()


def _spin_once(executor: SingleThreadedExecutor, node: GromaNode) -> None:
    try:
        executor.spin_once(timeout_sec=POLL_SECONDS)
    except (
        Exception
    ) as error:  # a message that cannot be read, an answer to a client that has gone: no reason to end
        node.get_logger().error(
            f"A message was given up: {type(error).__name__}: {error}", throttle_duration_sec=5.0
        )


def _done(result: TransitionCallbackReturn) -> bool:
    return bool(result == TransitionCallbackReturn.SUCCESS)
