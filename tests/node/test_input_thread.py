"""The thread of the cameras' subscriptions over DDS: whose callbacks run where, and how it ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from std_msgs.msg import String

from groma_ros.node.input_thread import InputThread
from tests.node.robot import PATIENCE

Received = list[tuple[str, str]]


class Bench:
    """A thread of inputs, and a talker."""

    def __init__(self, domain: int) -> None:
        self.context = Context()
        rclpy.init(context=self.context, domain_id=domain)
        self.node = Node("listener", context=self.context)
        self.failures: list[Exception] = []
        self.thread = InputThread(self.node, self.failures.append)
        self.received: Received = []
        self.talkers = {name: self.node.create_publisher(String, name, 10) for name in "ab"}

    def subscribe(self, topic: str, then: Callable[[str], Any] = lambda text: None) -> Any:
        def take(message: String) -> None:
            self.received.append((threading.current_thread().name, message.data))
            then(message.data)

        return self.thread.serve(self.node.create_subscription(String, topic, take, 10))

    def say(self, topic: str, text: str) -> None:
        self.talkers[topic].publish(String(data=text))

    def until(self, done: Callable[[], Any], again: Callable[[], Any] = lambda: None) -> None:
        end = time.monotonic() + PATIENCE
        while not done():
            assert time.monotonic() < end, f"did not happen; received {self.received}, {self.failures}"
            again()
            time.sleep(0.02)

    def matched(self, topic: str) -> None:
        self.until(lambda: self.talkers[topic].get_subscription_count() == 1)

    def close(self) -> None:
        assert self.thread.stop(PATIENCE)
        self.node.destroy_node()
        self.context.shutdown()


@pytest.fixture
def bench(domain: int) -> Iterator[Bench]:
    bench = Bench(domain)
    yield bench
    bench.close()


def test_callbacks_run_in_the_thread_and_not_in_an_executor_that_spins_the_node(bench: Bench) -> None:
    executor = SingleThreadedExecutor(context=bench.context)
    executor.add_node(bench.node)
    bench.subscribe("a")
    own: Received = []

    def take(message: String) -> None:
        own.append((threading.current_thread().name, message.data))

    bench.node.create_subscription(String, "b", take, 10)
    bench.matched("a")
    bench.matched("b")
    for number in range(20):
        bench.say("a", f"a {number}")
        bench.say("b", f"b {number}")
        executor.spin_once(timeout_sec=0.05)
    bench.until(lambda: len(own) == 20, lambda: executor.spin_once(timeout_sec=0.05))
    bench.until(lambda: len(bench.received) == 20)
    assert bench.received == [("groma_input", f"a {number}") for number in range(20)]
    assert {name for name, _ in own} == {threading.current_thread().name}
    executor.shutdown()


def test_subscriptions_come_and_go_while_the_thread_waits(bench: Bench) -> None:
    first = bench.subscribe("a")
    bench.matched("a")
    bench.say("a", "one")
    bench.until(lambda: bench.received == [("groma_input", "one")])
    bench.subscribe("b")
    bench.thread.release(first)
    bench.node.destroy_subscription(first)
    bench.matched("b")
    bench.until(lambda: bench.talkers["a"].get_subscription_count() == 0)  # freed although the thread waits
    bench.say("a", "nobody listens")
    bench.say("b", "two")
    bench.until(lambda: len(bench.received) == 2)
    assert [text for _, text in bench.received] == ["one", "two"] and not bench.failures


def test_a_callback_that_raises_is_reported_and_the_next_message_comes(bench: Bench) -> None:
    def refuse(text: str) -> None:
        if text == "bad":
            raise ValueError("It is bad.")

    bench.subscribe("a", refuse)
    bench.matched("a")
    bench.say("a", "bad")
    bench.say("a", "good")
    bench.until(lambda: len(bench.received) == 2)
    assert [str(failure) for failure in bench.failures] == ["It is bad."]


def test_stop_tells_of_a_callback_that_still_runs_and_it_is_the_last(bench: Bench) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def hold(text: str) -> None:
        begun.set()
        go_on.wait()

    bench.subscribe("a", hold)
    bench.matched("a")
    bench.say("a", "one")
    bench.say("a", "two")
    assert begun.wait(PATIENCE)
    assert not bench.thread.stop(0.1)
    go_on.set()
    assert bench.thread.stop(PATIENCE)
    assert [text for _, text in bench.received] == ["one"]
