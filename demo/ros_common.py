"""ROS helpers shared by the processes of the demonstrations: stamps, poses, latched topics, and a node's main
function. Also runs in `.venv-sim`, so it imports only common messages."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import rclpy
from builtin_interfaces.msg import Time
from geometry_msgs.msg import PoseStamped
from numpy.typing import NDArray
from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile

from groma_ros.camera_geometry import quaternion_from_matrix

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def time_message(seconds: float) -> Time:
    """A stamp of the simulated clock."""
    whole = int(seconds)
    return Time(sec=whole, nanosec=int((seconds - whole) * 1e9))


def pose_message(
    frame: str, stamp: Time, position: NDArray[np.float64], rotation: NDArray[np.float64]
) -> PoseStamped:
    """A position and a 3x3 rotation in a frame."""
    message = PoseStamped()
    message.header.frame_id, message.header.stamp = frame, stamp
    x, y, z = (float(value) for value in position)
    message.pose.position.x, message.pose.position.y, message.pose.position.z = x, y, z
    turn = message.pose.orientation
    turn.x, turn.y, turn.z, turn.w = quaternion_from_matrix(rotation)
    return message


def run_node(create: Callable[[], Node], threads: int = 1) -> None:
    """Start ROS, create a node, and serve it with a number of threads until interrupted or shut down."""
    rclpy.init()
    node = create()
    executor = MultiThreadedExecutor(num_threads=threads) if threads > 1 else SingleThreadedExecutor()
    executor.add_node(node)
    try:
        executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
