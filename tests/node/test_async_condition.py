"""Waiting callbacks do not block the executor, and wake when notified."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

from groma_ros.node.async_condition import AsyncCondition


@pytest.fixture
def node(domain: int) -> Iterator[Node]:
    context = Context()
    rclpy.init(context=context, domain_id=domain)
    node = Node("bell", context=context)
    yield node
    node.destroy_node()
    context.shutdown()


def test_many_wait_in_one_thread_and_wake_when_their_condition_holds(node: Node) -> None:
    executor, bell, done = SingleThreadedExecutor(context=node.context), AsyncCondition(node), []
    executor.add_node(node)
    allowed = 0

    async def wait(number: int) -> None:
        await bell.wait_for(lambda: number < allowed)
        done.append(number)

    for number in range(50):
        executor.create_task(wait, number)
    for _ in range(60):
        executor.spin_once(timeout_sec=0.0)
    assert done == [] and bell.awaited
    allowed = 20
    threading.Timer(0.1, bell.notify_all).start()
    end = time.monotonic() + 20
    while len(done) < 20 and time.monotonic() < end:
        executor.spin_once(timeout_sec=10.0)
    assert sorted(done) == list(range(20)) and time.monotonic() < end - 5, (
        "the ring did not wake the executor"
    )
    allowed = 50
    bell.notify_all()
    while len(done) < 50 and time.monotonic() < end:
        executor.spin_once(timeout_sec=1.0)
    assert sorted(done) == list(range(50)) and not bell.awaited
    executor.shutdown()


def test_a_condition_that_holds_needs_no_ring_and_leaves_nothing(node: Node) -> None:
    executor, bell, done = SingleThreadedExecutor(context=node.context), AsyncCondition(node), []

    async def wait() -> None:
        await bell.wait_for(lambda: True)
        done.append(1)

    executor.create_task(wait)
    executor.spin_once(timeout_sec=1.0)
    assert done == [1] and not bell.awaited
    executor.shutdown()
