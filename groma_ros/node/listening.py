"""Subscriptions that know what they could not read: rclpy's own drop a malformed message without a word, and nobody could count it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.serialization import deserialize_message
from rclpy.subscription import Subscription

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
