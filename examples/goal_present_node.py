"""A node that turns answers into something else: a Bool topic that says whether the first goal is in view.

ros2 topic pub --once /groma/goal std_msgs/msg/String "data: 'the red mug'"
python examples/goal_present_node.py
ros2 topic echo /goal_present
"""

from __future__ import annotations

import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from std_msgs.msg import Bool

from groma_ros.msg import Grounding, GroundingArray


class GoalPresent(Node):
    """Publishes True while the first goal is present or ambiguous, False once it is absent, otherwise
    nothing.

    Ambiguous means that something in view matches the goal and another object matches nearly as well. The
    goal is in view, but a robot should not grasp it or count as arrived until the ambiguity is resolved
    (`check` in pick.py refuses it).
    """

    def __init__(self) -> None:
        super().__init__("goal_present")
        self._publisher = self.create_publisher(Bool, "goal_present", 10)
        self.create_subscription(GroundingArray, "groma/groundings", self._on_groundings, 10)

    def _on_groundings(self, message: GroundingArray) -> None:
        if not message.groundings:
            return
        status = message.groundings[0].status
        # Pending and stale answers say nothing about the image, so a robot must not act on them.
        if status in (Grounding.PENDING, Grounding.STALE):
            return
        self._publisher.publish(Bool(data=status != Grounding.ABSENT))


def main() -> None:
    rclpy.init()
    node = GoalPresent()
    try:
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()
