"""Client results converted to the plain values that the bridges use."""

from __future__ import annotations

import pytest
from geometry_msgs.msg import PoseStamped
from vision_msgs.msg import Detection3D

from examples.ask import GoalAsker, NodeLost, from_result
from groma_ros.client.groma_client import FindResult
from groma_ros.types import Detection, Goal, Grounding


def result(status: str, pose: PoseStamped | None = None, found: int = 1) -> FindResult:
    boxes = tuple(Detection((10.0, 20.0, 30.0, 60.0), 0.8, i) for i in range(found))
    grounding = Grounding(Goal("the can"), boxes, 0.9, 0.05, status=status)  # type: ignore[arg-type]
    solid = Detection3D()
    solid.bbox.size.x, solid.bbox.size.y, solid.bbox.size.z = 0.1, 0.06, 0.12
    solids = [solid] if pose is not None else []
    return FindResult(bool(found), "" if found else "It is absent.", 5, "camera", grounding, solids, pose)


def pose() -> PoseStamped:
    made = PoseStamped()
    made.header.frame_id, made.pose.position.x, made.pose.orientation.w = "base", 0.5, 1.0
    return made


@pytest.mark.parametrize("status", ["present", "ambiguous"])
def test_an_answer_with_a_pose(status: str) -> None:
    answer = from_result("the can", result(status, pose()))
    assert (answer.status, answer.frame, answer.size) == (status, "base", (0.1, 0.06, 0.12))
    assert answer.position == pytest.approx([0.5, 0, 0]) and answer.box == (10, 20, 30, 60)


def test_an_answer_without_depth_has_a_box_and_no_frame() -> None:
    answer = from_result("the can", result("present"))
    assert answer.frame == "" and answer.box == (10, 20, 30, 60)


@pytest.mark.parametrize("status", ["absent", "stale", "pending"])
def test_whatever_is_no_answer_is_absent(status: str) -> None:
    answer = from_result("the can", result(status, found=0))
    assert answer.status == "absent" and answer.message == "It is absent."


def test_missing_answer_is_a_lost_node() -> None:
    class Silent:
        def find(self, goal: str, timeout: float) -> None:
            raise TimeoutError("No node /groma was found within 30 s.")

    with pytest.raises(NodeLost, match="No node /groma"):
        GoalAsker(Silent()).ask("the can")  # type: ignore[arg-type]
