"""The node's process: signal handling, executor loop, ROS startup and shutdown."""

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

CLOSE_SECONDS = 0.2
"""Maximum time for which the executor is waited for at exit."""
MANAGER_SECONDS = 5.0
"""Time for which autostart leaves a node inactive that another client has configured."""


def run(args: list[str] | None = None, load: Load = Grounder.load) -> int:
    """Run the node until SIGINT or SIGTERM.

    Returns 0 after a clean exit, 1 if the node could not start (one sentence on stderr). If a thread of the
    node is still running, exits the process directly instead of returning.
    """
    end, before = threading.Event(), set(threading.enumerate())
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: end.set())
    # rclpy's own handlers would shut down the context while the worker may be publishing.
    try:
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    except Exception as error:  # exception types differ between distributions
        print(f"groma_node: {_init_failure(' '.join(str(error).split()))}", file=sys.stderr)
        return 1
    try:
        failure = _spin(end, load)
    finally:
        rclpy.shutdown()
    # Everything is closed. Without this, searching torch's objects for cycles would delay the exit by about a
    # second.
    gc.freeze()
    if failure:
        print(f"groma_node: {failure}", file=sys.stderr)
    status = 1 if failure else 0
    if set(threading.enumerate()) - before:
        # A model is still being loaded or is still answering, in native code. A regular exit would wait for
        # it or abort ("terminate called without an active exception").
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


def _init_failure(reason: str) -> str:
    """Explain why ROS could not be initialized: SROS 2 keys, the log folder, or the arguments."""
    secured = os.environ.get("ROS_SECURITY_ENABLE") == "true"
    if secured and ("SECURITY" in reason or "error not set" in reason):
        return (
            "SROS 2 is on (ROS_SECURITY_ENABLE) and cannot be started: ROS_SECURITY_KEYSTORE must name a "
            f"keystore with the keys of the enclave that --enclave names ({reason})."
        )
    if "logging" in reason or "log directory" in reason:
        return (
            "The folder for log files cannot be made: set ROS_LOG_DIR, ROS_HOME or HOME to a folder that may "
            f"be written to ({reason})."
        )
    return f"The ROS arguments cannot be read: {reason}"


class Autostart:
    """Activates a node by itself once its model is loaded.

    If another client configures the node in the meantime, that client has `MANAGER_SECONDS` to activate it:
    lifecycle managers check after each transition that the node is in the expected state.
    """

    def __init__(self, node: GromaNode) -> None:
        self._node, self._over = node, False
        self._inactive_since: float | None = None
        node.begin_loading()

    def step(self) -> str:
        """Advance without blocking; call it between callbacks of the executor. Returns the reason as a
        sentence if the node could not start, else ""."""
        node = self._node
        if self._over or node.loading or node.configure_requested:
            return ""
        if node.unconfigured and self._inactive_since is None:
            # The model is loaded, or failed to load; the reason is then in `failure`, also if another
            # client's request met it first.
            self._over = True
            started = not node.failure and _done(node.trigger_configure()) and _done(node.trigger_activate())
            return "" if started else node.failure or "The node could not be activated."
        if not node.inactive:
            self._over = True  # another client has activated the node or moved it to another state
            return ""
        now = time.monotonic()
        self._inactive_since = self._inactive_since or now
        if now - self._inactive_since < MANAGER_SECONDS:
            return ""
        self._over = True
        return "" if _done(node.trigger_activate()) else node.failure or "The node could not be activated."


def _spin(end: threading.Event, load: Load) -> str:
    """Spin until `end` is set. Returns the reason as a sentence if the node could not start, else ""."""
    try:
        node = GromaNode(load)
    except (
        ValueError,
        InvalidParameterException,
        InvalidParameterTypeException,
        InvalidParameterValueException,
    ) as error:
        return str(error)
    # raised by rcl: SROS 2 keys are missing, or the middleware was built without SROS 2
    except RuntimeError as error:
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
        executor.shutdown(timeout_sec=CLOSE_SECONDS)
        node.finish()
        return ""
    finally:
        node.destroy_node()


def _spin_once(executor: SingleThreadedExecutor, node: GromaNode) -> None:
    try:
        # The node's timers end the wait several times a second; a timeout would cost a timer at every call.
        executor.spin_once()
    except Exception as error:  # an unreadable message or a vanished client is no reason to exit
        node.get_logger().error(
            f"A message was dropped: {type(error).__name__}: {error}", throttle_duration_sec=5.0
        )


def _done(result: TransitionCallbackReturn) -> bool:
    return bool(result == TransitionCallbackReturn.SUCCESS)
