"""Check the ROS side of a machine: distribution, messages, middleware, cameras.

`groma doctor` runs this module in a separate process, so that a crashing or hanging middleware does no harm:
`python -m groma_ros.node.ros_checks SECONDS` prints the findings as JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from groma_ros.runtime.machine_checks import OK, WARNING, Finding, find_all

SETUP = "make setup, or source /opt/ros/DISTRO/setup.bash and the workspace groma_ros was built in"
RMEM = Path("/proc/sys/net/core/rmem_max")
SMALL_BUFFER = 2_000_000
"""Below this size in bytes, the receive buffer loses raw camera images over UDP."""
PROFILES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_BUILTIN_TRANSPORTS")
CAMERAS = {"sensor_msgs/msg/Image": "raw", "sensor_msgs/msg/CompressedImage": "compressed"}


def ros_findings(seconds: float) -> list[Finding]:
    """Return findings about ROS; seconds: time to look for cameras."""
    return find_all(
        [
            ("ros", check_distribution),
            ("messages", check_messages),
            ("middleware", check_middleware),
            ("cameras", lambda: check_cameras(seconds)),
        ]
    )


def check_distribution() -> Finding:
    """Check the ROS distribution, sourced or from wheels."""
    try:
        import rclpy
    except ImportError as error:
        return Finding(
            "ros", WARNING, f"rclpy cannot be imported ({error}); groma ground and replay work", SETUP
        )
    sourced = os.environ.get("ROS_DISTRO")
    return Finding(
        "ros", OK, f"{sourced} is sourced" if sourced else f"rclpy in {Path(rclpy.__file__).parent}"
    )


def check_messages() -> Finding:
    """Check the node's own messages, and whether numpy matches the distribution's: arrays cross between
    both."""
    import numpy

    try:
        from rclpy.serialization import deserialize_message, serialize_message
        from sensor_msgs.msg import CameraInfo

        sent = CameraInfo(height=7, d=[0.5, 0.25], k=[float(value) for value in range(9)])
        came = deserialize_message(serialize_message(sent), CameraInfo)
        if list(came.k) != list(sent.k) or list(came.d) != list(sent.d):
            raise ValueError("arrays do not come back as they were sent")
    except Exception as error:
        found = f"numpy {numpy.__version__} does not fit the distribution's messages: {error}"
        return Finding("messages", WARNING, found, 'python -m pip install "numpy<2"')
    try:
        from groma_ros.msg import GroundingArray
    except ImportError as error:
        return Finding("messages", WARNING, f"groma_ros.msg was not built ({error})", SETUP)
    return Finding("messages", OK, f"{GroundingArray.__name__} and CameraInfo with numpy {numpy.__version__}")


def check_middleware() -> Finding:
    """Check the middleware, and whether it can transport raw camera images."""
    from rclpy.utilities import get_rmw_implementation_identifier

    name = get_rmw_implementation_identifier()
    buffer = int(RMEM.read_text()) if RMEM.is_file() else 0
    found = f"{name}, receive buffer {buffer / 1e6:.1f} MB at most"
    if "fastrtps" in name and not any(os.environ.get(variable) for variable in PROFILES):
        mend = "for large raw images: export FASTDDS_BUILTIN_TRANSPORTS=LARGE_DATA at node and camera"
        return Finding("middleware", WARNING, f"{found}, default transports", mend)
    if buffer and buffer < SMALL_BUFFER:
        return Finding("middleware", WARNING, found, "sudo sysctl -w net.core.rmem_max=8388608")
    return Finding("middleware", OK, found)


def check_cameras(seconds: float) -> Finding:
    """List the cameras on the graph and their QoS."""
    import rclpy
    from rclpy.context import Context

    context = Context()
    rclpy.init(args=[], context=context)
    try:
        node = rclpy.create_node("groma_doctor", context=context, start_parameter_services=False)
        end = time.monotonic() + seconds
        seen: dict[str, str] = {}
        while time.monotonic() < end and not seen:
            time.sleep(min(0.2, seconds))
            seen = _publishers(node)
        node.destroy_node()
    finally:
        rclpy.shutdown(context=context)
    if not seen:
        domain = os.environ.get("ROS_DOMAIN_ID", "0")
        found = f"no publisher of images on domain {domain} within {seconds:g} s"
        return Finding("cameras", WARNING, found, "start the camera, and use the same ROS_DOMAIN_ID for both")
    first = next(iter(seen))
    mend = f"give it to the node: -r image:={first}" if first != "/image" else ""
    return Finding("cameras", OK, "; ".join(f"{topic} ({how})" for topic, how in seen.items()), mend)


def _publishers(node: Any) -> dict[str, str]:
    """Published image topics with transport, reliability and durability."""
    found = {}
    for topic, types in node.get_topic_names_and_types():
        kind = next((CAMERAS[name] for name in types if name in CAMERAS), None)
        publishers = node.get_publishers_info_by_topic(topic) if kind else []
        if publishers:
            qos = publishers[0].qos_profile
            how = f"{kind}, {qos.reliability.name}, {qos.durability.name}".lower().replace("_", " ")
            found[topic] = how
    return found


if __name__ == "__main__":
    print(json.dumps([asdict(finding) for finding in ros_findings(float(sys.argv[1]))]))
