"""Warn of endpoints on the node's topics whose quality of service does not match."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSCompatibility, QoSProfile, qos_check_compatible

try:
    from rclpy.event_handler import PublisherEventCallbacks
except ImportError:  # not in Humble
    from rclpy.qos_event import PublisherEventCallbacks

NO_EVENTS = PublisherEventCallbacks(use_default_callbacks=False)
"""Leaves out rclpy's event handlers of a publisher."""
LOOKS = 2
"""Number of successive looks after which a mismatch is reported: the name of a new endpoint's node comes a
moment after the endpoint."""


def mismatch(offered: QoSProfile, asked: QoSProfile) -> str:
    """Why nothing reaches a subscriber that asks for one quality of service from a publisher that offers
    another; "" if it does."""
    compatible, reason = qos_check_compatible(offered, asked)
    return " ".join(str(reason).split()) if compatible == QoSCompatibility.ERROR else ""


class QosCheck:
    """Compares the node's publishers and subscriptions with those of other nodes on their topics.

    It replaces rclpy's event handlers: every publisher has two, and the executor adds all of them to its wait
    set and looks at each of them for every message.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._looks: dict[tuple[str, bytes], int] = {}
        """Successive looks at which an endpoint of a topic did not match."""

    def look(self) -> None:
        """Compare them, and log a warning about each endpoint once. Call it about once a second."""
        looks = {}
        for topic, endpoint, sentence in self._mismatches():
            key = topic, bytes(endpoint.endpoint_gid)
            looks[key] = self._looks.get(key, 0) + 1
            if looks[key] == LOOKS:
                self._node.get_logger().warning(sentence)
        self._looks = looks

    def _mismatches(self) -> Iterator[tuple[str, Any, str]]:
        """Topic and endpoint of each mismatch, with a sentence."""
        for publisher in list(self._node.publishers):
            topic = publisher.topic_name
            if self._node.count_subscribers(topic) <= publisher.get_subscription_count():
                continue  # all subscribers are matched
            # What the middleware made of `publisher.qos_profile`, which has 0 for a deadline that is not set.
            offered = next(
                (
                    item.qos_profile
                    for item in self._node.get_publishers_info_by_topic(topic)
                    if _name(item) == self._node.get_fully_qualified_name()
                ),
                None,
            )
            if offered is None:
                continue  # not in the graph yet
            for other in self._node.get_subscriptions_info_by_topic(topic):
                if reason := mismatch(offered, other.qos_profile):
                    yield (
                        topic,
                        other,
                        f"The subscriber {_name(other)} of {topic} asks for a quality of service that the "
                        f"node does not offer, and gets nothing ({reason}). Change that of the subscriber.",
                    )
        for subscription in list(self._node.subscriptions):
            topic = subscription.topic_name
            for other in self._node.get_publishers_info_by_topic(topic):
                if reason := mismatch(other.qos_profile, subscription.qos_profile):
                    yield (
                        topic,
                        other,
                        f"The publisher {_name(other)} of {topic} offers a quality of service that does not "
                        f"match the node's, and nothing of it arrives ({reason}). Change that of the "
                        f"publisher, or qos_overrides.{topic}.subscription.reliability.",
                    )


def _name(endpoint: Any) -> str:
    return f"{endpoint.node_namespace.rstrip('/')}/{endpoint.node_name}"
