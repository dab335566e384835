"""Play a bag over DDS in a separate process: recorded bytes and stamps, at the recorded rate."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import rclpy
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile, qos_profile_sensor_data
from rclpy.signals import SignalHandlerOptions

from groma_ros.client.demo.bag import Bag, message_class, read_bag


def main() -> int:
    """Play the bag once the topic has a subscriber. Prints JSON: `started`, in monotonic seconds, and
    `published`, the number of messages by topic."""
    parser = argparse.ArgumentParser(
        prog="groma_ros.client.demo.player", description="Plays an MCAP bag over DDS."
    )
    parser.add_argument("bag", type=Path)
    parser.add_argument("--await-topic", required=True, help="start once this topic has a subscriber")
    parser.add_argument("--timeout", type=float, default=30.0, help="seconds to wait for the subscriber")
    parser.add_argument("--rate", type=float, default=1.0, help="playback speed relative to the recording")
    options = parser.parse_args()
    try:
        bag = read_bag(options.bag)
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        node = Node("groma_demo_player")
        publishers = open_publishers(node, bag)
        wait_for_listener(publishers[options.await_topic], options.timeout)
        started = time.monotonic()
        published = play(bag, publishers, options.rate)
    except (ValueError, ImportError, TimeoutError) as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps({"started": started, "published": published}))
    # Best-effort samples are sent by this process: give the transport a moment before it exits.
    time.sleep(0.5)
    node.destroy_node()
    rclpy.shutdown()
    return 0


def open_publishers(node: Node, bag: Bag) -> dict[str, Publisher]:
    """Create a publisher for each topic of the bag, like a camera driver's: best effort, small queue."""
    qos = QoSProfile(depth=qos_profile_sensor_data.depth, reliability=qos_profile_sensor_data.reliability)
    return {
        name: node.create_publisher(message_class(topic.type), name, qos)
        for name, topic in bag.topics.items()
    }


def wait_for_listener(publisher: Publisher, timeout: float) -> None:
    """Return once the publisher has a subscriber. Raises TimeoutError after `timeout` seconds."""
    end = time.monotonic() + timeout
    while publisher.get_subscription_count() == 0:
        if time.monotonic() > end:
            raise TimeoutError(f"Nobody listened to {publisher.topic_name} within {timeout:.0f} s.")
        time.sleep(0.05)
    # Discovery must be complete on both ends; this side sees the match slightly earlier than the subscriber.
    time.sleep(0.3)


def play(bag: Bag, publishers: dict[str, Publisher], rate: float) -> dict[str, int]:
    """Publish every record at its time. Returns the number of published messages by topic."""
    published = dict.fromkeys(publishers, 0)
    start, first = time.monotonic(), bag.records[0].time if bag.records else 0
    for record in bag.records:
        time.sleep(max(0.0, start + (record.time - first) / 1e9 / rate - time.monotonic()))
        publishers[record.topic].publish(record.data)
        published[record.topic] += 1
    return published


if __name__ == "__main__":
    sys.exit(main())
