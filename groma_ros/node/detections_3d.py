"""3D outputs of the node: boxes in the camera's frame and the target pose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from geometry_msgs.msg import Pose as PoseMessage
from geometry_msgs.msg import PoseStamped
from rclpy.node import Node
from std_msgs.msg import Header
from vision_msgs.msg import (
    Detection3D,
    Detection3DArray,
    ObjectHypothesisWithPose,
)

from groma_ros.camera_geometry import moved
from groma_ros.geometry3d.approach_pose import JawAxes, target_pose, turn_covariance
from groma_ros.geometry3d.box3d import DepthError, Placed, place_all
from groma_ros.node.frame_result import ImageResult
from groma_ros.node.parameters import Parameters
from groma_ros.node.transforms import TransformError, Transforms
from groma_ros.types import Grounding, Pose

Refuse = Callable[[str, str], None]
"""Called with a cause and a sentence."""


@dataclass(frozen=True)
class Detections3D:
    """Answers on one frame in 3D."""

    header: Header
    """Header of the image."""
    placed: tuple[Placed, ...] = ()
    target: PoseStamped | None = None
    """Pose of the best box of the first goal; None without one."""


class Detector3D:
    """Computes 3D boxes and target poses. Raises ImportError if a target frame is set and no package for
    transforms is installed."""

    def __init__(self, node: Node, settings: Parameters) -> None:
        self._node = node
        self._transforms: Transforms | None = None
        self._axes = JawAxes()
        self.configure(settings)

    def configure(self, settings: Parameters) -> None:
        """Apply new parameters; start listening to transforms if they name a frame. Raises ImportError as
        above."""
        if settings.target_frame and self._transforms is None:
            self._transforms = Transforms(self._node)

    def forget(self) -> None:
        """Forget the jaw axes of all tracks, because track numbers restart."""
        self._axes = JawAxes()

    def of(
        self, view: ImageResult, groundings: Sequence[Grounding], settings: Parameters, refuse: Refuse
    ) -> Detections3D:
        """Compute the 3D boxes of a frame's answers, and the target pose. refuse: called for each box that
        cannot be placed."""

        def refused(error: DepthError) -> None:
            refuse(error.cause, str(error))

        placed = place_all(view.frame, groundings, refused)
        first = next((item for item in placed if item.number == 0), None)
        target = None
        if first is not None:
            try:
                target = self._target(view, first, settings)
            except TransformError as error:
                refuse("transform", str(error))
        return Detections3D(view.header, placed, target)

    def _target(self, view: ImageResult, placed: Placed, settings: Parameters) -> PoseStamped:
        header = view.header
        box, frame = placed.placement.box, header.frame_id
        approach, standoff = settings.target_approach, settings.target_standoff
        moving = self._transforms is not None and bool(settings.target_frame)
        # Track numbers repeat between cameras, and cameras may share a frame name.
        key = (view.camera, settings.target_frame if moving else "", approach, placed.detection.track_id)
        former = self._axes.get(key) if placed.detection.track_id else None
        if moving:
            assert self._transforms is not None
            rotation, shift = self._transforms.find(
                settings.target_frame, header.frame_id, header.stamp, settings.depth_wait
            )
            frame, (x, y, z) = settings.target_frame, (float(value) for value in shift)
            box = moved(box, rotation, shift)
            pose = target_pose(box, approach, standoff, (x, y, z), (0.0, 0.0, 1.0), former)
        else:
            pose = target_pose(box, approach, standoff, former=former)
        if placed.detection.track_id:
            self._axes.keep(key, pose)
        return pose_message(Header(stamp=header.stamp, frame_id=frame), pose)

    def destroy(self) -> None:
        """Stop listening to transforms."""
        if self._transforms is not None:
            self._transforms.destroy()


def detections_3d_message(detections: Detections3D, numbered: bool = False) -> Detection3DArray:
    """All detections with a 3D box, in the order of the goals, best first within each goal; metres, in the
    image's frame. numbered: the class of a box is the number of its goal instead of its text."""
    return Detection3DArray(
        header=detections.header,
        detections=[
            detection_3d_message(detections.header, item, str(item.number) if numbered else item.goal)
            for item in detections.placed
        ],
    )


def detection_3d_message(header: Header, placed: Placed, class_id: str) -> Detection3D:
    """One 3D box with a class, and score and id of the 2D box. For a round object the covariance marks the
    rotation about its own z as unknown; otherwise it is 0, which means unknown."""
    box = placed.placement.box
    result = ObjectHypothesisWithPose()
    result.hypothesis.class_id, result.hypothesis.score = class_id, float(placed.detection.score)
    result.pose.pose = pose = _pose(Pose(box.centre, box.quaternion))
    result.pose.covariance = turn_covariance(box).ravel()
    message = Detection3D(results=[result], id=placed.detection.track_id)
    message.header, message.bbox.center = header, pose
    size = message.bbox.size
    size.x, size.y, size.z = box.size
    return message


def pose_message(header: Header, pose: Pose) -> PoseStamped:
    """A pose in the frame and at the time of a header."""
    return PoseStamped(header=header, pose=_pose(pose))


def _pose(pose: Pose) -> PoseMessage:
    message = PoseMessage()
    point, turn = message.position, message.orientation
    point.x, point.y, point.z = pose.position
    turn.x, turn.y, turn.z, turn.w = pose.quaternion
    return message
