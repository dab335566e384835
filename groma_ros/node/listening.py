"""How the node is spoken to: nothing that comes in is lost without a word.

rclpy's own subscriptions drop a malformed message silently, and nobody could count it; these take bytes and say what they could not
read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.serialization import deserialize_message
from rclpy.subscription import Subscription

REQUESTS = QoSProfile(depth=256)
"""Of services and actions: the usual profile holds ten requests and as many replies, and loses those of more callers at once."""
MALFORMED = "malformed"
"""The cause under which such messages are counted."""


def listen(
    node: Node, kind: Any, topic: str, callback: Callable[[Any], None], malformed: Callable[[str], None], qos: QoSProfile | int
) -> Subscription:
    """Subscribe to a topic, its quality of service overridable.

    callback: called with each message; malformed: with a sentence for bytes that are not a message of this kind.
    """

    def take(data: bytes) -> None:
        try:
            message = deserialize_message(data, kind)
        except Exception as error:  # the middleware raises types that differ between distributions
            name, reason = f"{kind.__module__.split('.')[0]}/{kind.__name__}", " ".join(str(error).split()) or type(error).__name__
            malformed(f"A message of {len(data)} bytes on {topic} is not a {name}: {reason[:120]}.")
            return
        callback(message)

    overridable = QoSOverridingOptions.with_default_policies()
    return node.create_subscription(kind, topic, take, qos, raw=True, qos_overriding_options=overridable)
