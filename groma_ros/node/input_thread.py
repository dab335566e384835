"""A thread that waits for the messages of cameras and calls their callbacks, beside the executor.

For every message rclpy's executor builds a wait set in Python of all that a node has: timers, services,
events, guard conditions. That costs more than taking an image. This thread has a wait set of the cameras'
topics only.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from rclpy.callback_groups import CallbackGroup
from rclpy.guard_condition import GuardCondition
from rclpy.impl.implementation_singleton import rclpy_implementation as _rclpy
from rclpy.node import Node
from rclpy.subscription import Subscription

FOREVER = -1
"""Time-out of a wait set without one, nanoseconds."""


class _Elsewhere(CallbackGroup):
    """A group whose members no executor runs."""

    def can_execute(self, entity: Any) -> bool:
        return False

    def beginning_execution(self, entity: Any) -> bool:
        return False

    def ending_execution(self, entity: Any) -> None:
        pass


class InputThread:
    """Runs the callbacks of subscriptions in a thread of its own until `stop`. One other thread at a time may
    call its methods.

    failed: called in that thread with the exception that a callback raised.
    """

    def __init__(self, node: Node, failed: Callable[[Exception], None]) -> None:
        self._context, self._failed, self._group = node.context, failed, _Elsewhere()
        self._subscriptions: tuple[Subscription, ...] = ()
        self._closed = False
        # Wakes the thread when the subscriptions change. It belongs to no node, so no executor waits for it.
        self._changed = GuardCondition(callback=None, callback_group=None, context=self._context)
        self._thread = threading.Thread(target=self._run, name="groma_input", daemon=True)
        self._thread.start()

    def serve(self, subscription: Subscription) -> Subscription:
        """Take over a subscription from the executor of its node, and return it. Its events stay there."""
        subscription.callback_group = self._group
        self._set((*self._subscriptions, subscription))
        return subscription

    def release(self, subscription: Subscription) -> None:
        """Wait for its messages no more; then it may be destroyed. A callback may still be running."""
        self._set(tuple(other for other in self._subscriptions if other is not subscription))

    def stop(self, timeout: float) -> bool:
        """End the thread. False if a callback still runs after `timeout` seconds; it is the last one."""
        self._closed = True
        self._set(())
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _set(self, subscriptions: tuple[Subscription, ...]) -> None:
        self._subscriptions = subscriptions
        self._changed.trigger()

    def _run(self) -> None:
        while not self._closed:
            self._serve(self._subscriptions)

    def _serve(self, served: tuple[Subscription, ...]) -> None:
        """Run callbacks until the subscriptions change."""
        context = self._context.handle
        assert context is not None, "a node has an initialised context"
        with ExitStack() as used:  # what is in use is not destroyed before it is left
            used.enter_context(context)
            used.enter_context(self._changed.handle)
            ready = []
            for subscription in served:
                try:
                    used.enter_context(subscription.handle)
                except _rclpy.InvalidHandle:
                    continue  # destroyed in the meantime
                ready.append(subscription)
            wait_set = _rclpy.WaitSet(len(ready), 1, 0, 0, 0, 0, context)
            while self._subscriptions is served and not self._closed:
                wait_set.clear_entities()
                for subscription in ready:
                    wait_set.add_subscription(subscription.handle)
                wait_set.add_guard_condition(self._changed.handle)
                wait_set.wait(FOREVER)
                arrived = wait_set.get_ready_entities("subscription")
                for subscription in ready:
                    if subscription.handle.pointer in arrived:
                        self._take(subscription)

    def _take(self, subscription: Subscription) -> None:
        try:
            taken = subscription.handle.take_message(subscription.msg_type, subscription.raw)
            if taken is not None and not self._closed:
                subscription.callback(taken[0])
        except Exception as error:  # a message that cannot be read must not end the thread
            self._failed(error)
