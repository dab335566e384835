"""Warnings about endpoints whose quality of service does not match, over DDS between two participants."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import rclpy
from rclpy.context import Context
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from std_msgs.msg import String

from groma_ros.node.qos_check import NO_EVENTS, QosCheck, mismatch
from tests.node.robot import PATIENCE

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
BEST_EFFORT = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
RELIABLE = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)


@pytest.fixture
def nodes(domain: int) -> Iterator[tuple[Node, Node]]:
    """The node that looks, and another one."""
    contexts = Context(), Context()
    for context in contexts:
        rclpy.init(context=context, domain_id=domain)
    pair = tuple(
        Node(name, context=context) for name, context in zip(("groma", "other"), contexts, strict=True)
    )
    yield pair[0], pair[1]
    for node, context in zip(pair, contexts, strict=True):
        node.destroy_node()
        context.shutdown()


def warned(node: Node, looks: int = 6) -> list[str]:
    """Look several times and return the warnings."""
    warnings: list[str] = []
    node.get_logger = lambda: SimpleNamespace(warning=warnings.append)  # type: ignore[method-assign]
    check = QosCheck(node)
    for _ in range(looks):
        check.look()
        time.sleep(0.02)
    return warnings


def wait_for(node: Node, topic: str, endpoints: int) -> None:
    """Wait until a node knows the endpoints of a topic, and the names of their nodes."""
    end = time.monotonic() + PATIENCE
    while True:
        found = [*node.get_publishers_info_by_topic(topic), *node.get_subscriptions_info_by_topic(topic)]
        if len(found) == endpoints and {item.node_name for item in found} == {"groma", "other"}:
            return
        assert time.monotonic() < end, f"{topic}: {found}"
        time.sleep(0.02)


def test_a_subscriber_that_asks_for_more_is_named_once(nodes: tuple[Node, Node]) -> None:
    node, other = nodes
    node.create_publisher(String, "answers", 1, event_callbacks=NO_EVENTS)
    other.create_subscription(String, "answers", lambda message: None, LATCHED)
    other.create_subscription(String, "answers", lambda message: None, BEST_EFFORT)
    wait_for(node, "/answers", 3)
    (sentence,) = warned(node)
    assert sentence.startswith(
        "The subscriber /other of /answers asks for a quality of service that the node"
    )
    assert "durability" in sentence.lower() or "transient" in sentence.lower()


def test_a_publisher_that_offers_less_is_named_once(nodes: tuple[Node, Node]) -> None:
    node, other = nodes
    node.create_subscription(String, "goal", lambda message: None, RELIABLE)
    other.create_publisher(String, "goal", BEST_EFFORT)
    other.create_publisher(String, "goal", LATCHED)
    wait_for(node, "/goal", 3)
    (sentence,) = warned(node)
    assert sentence.startswith(
        "The publisher /other of /goal offers a quality of service that does not match"
    )
    assert "qos_overrides./goal.subscription.reliability" in sentence


def test_matching_endpoints_are_not_mentioned(nodes: tuple[Node, Node]) -> None:
    node, other = nodes
    node.create_publisher(String, "answers", LATCHED, event_callbacks=NO_EVENTS)
    node.create_subscription(String, "goal", lambda message: None, BEST_EFFORT)
    other.create_subscription(String, "answers", lambda message: None, BEST_EFFORT)
    other.create_publisher(String, "goal", RELIABLE)
    wait_for(node, "/answers", 2)
    wait_for(node, "/goal", 2)
    assert warned(node) == []


def test_only_errors_are_mismatches() -> None:
    assert mismatch(BEST_EFFORT, RELIABLE) != "" == mismatch(RELIABLE, BEST_EFFORT)
