"""The lifecycle service `~/change_state`: always responds, and does not block the executor."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.lifecycle import LifecycleNode

from groma_ros.errors import quoted

LABELS = ("create", "configure", "cleanup", "activate", "deactivate", "shutdown", "destroy")
"""Labels of the transitions that clients may ask for."""
SHOWN = 40
"""Number of characters of a label in the log."""


class LifecycleRequests:
    """Replaces rclpy's callback of the service, so that impossible transitions get a response and the model
    is loaded without blocking the executor."""

    def __init__(
        self, node: LifecycleNode, ready: Callable[[], Awaitable[None]], active: Callable[[], bool]
    ) -> None:
        """ready: awaited before configuring; active: whether an activate request is already satisfied."""
        self._node, self._ready, self._active = node, ready, active
        self.waiting = 0
        """Requests that wait for `ready`."""
        (service,) = (item for item in node.services if item.srv_type is ChangeState)
        self._transition: Callable[[Any, Any], Any] = service.callback
        # In a group of its own, because a waiting coroutine blocks its group.
        group = ReentrantCallbackGroup()
        # The executor awaits what a callback returns, but `Service.callback` is annotated for plain
        # functions.
        handler: Any = self._on_request
        service.callback, service.callback_group = handler, group
        group.add_entity(service)

    async def _on_request(
        self, request: ChangeState.Request, response: ChangeState.Response
    ) -> ChangeState.Response:
        asked = request.transition.label or str(request.transition.id)
        if asked in ("configure", str(Transition.TRANSITION_CONFIGURE)):
            self.waiting += 1
            try:
                await self._ready()
            finally:
                self.waiting -= 1
        if asked in ("activate", str(Transition.TRANSITION_ACTIVATE)) and self._active():
            response.success = True
            return response
        if request.transition.label and request.transition.label not in LABELS:
            # rcl would write the label to the log as it is, with control characters.
            self._node.get_logger().warning(f"There is no transition {quoted(asked, SHOWN)}.")
            response.success = False
            return response
        try:
            return self._transition(request, response)
        except Exception as error:  # rclpy's own exception types; the client always gets a response
            reason = " ".join(str(error).split())[:200]
            self._node.get_logger().warning(f"The transition {quoted(asked, SHOWN)} was refused: {reason}")
            response.success = False
            return response
