"""`~/debug/markers`: 3D boxes, their labels and the target pose, for RViz and Foxglove."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from builtin_interfaces.msg import Duration
from geometry_msgs.msg import Point, Vector3
from std_msgs.msg import ColorRGBA

from groma_ros.camera_geometry import EDGES, corners
from groma_ros.geometry3d.box3d import Placed
from groma_ros.node.detections_3d import Detections3D
from groma_ros.visualization import colour

if TYPE_CHECKING:
    from visualization_msgs.msg import MarkerArray

SECONDS = 1
"""Lifetime of a marker."""
_EDGE, _TEXT, _GAP, _ARROW = 0.002, 0.025, 0.02, 0.12  # metres


def marker_array_type() -> Any | None:
    """Return visualization_msgs/MarkerArray; None if the package is not installed, in which case there is no
    such topic."""
    try:
        from visualization_msgs.msg import MarkerArray
    except ModuleNotFoundError:
        return None
    return MarkerArray


def markers_message(detections: Detections3D) -> MarkerArray:
    """Markers of each detection (box, edges, label), and of the target (arrows along its z and x).

    The first marker deletes all earlier ones, so nothing outdated stays visible.
    """
    from visualization_msgs.msg import Marker, MarkerArray

    markers = [Marker(header=detections.header, action=Marker.DELETEALL)]
    for index, placed in enumerate(detections.placed):
        markers += _boxed(detections, index, placed)
    if detections.target is not None:
        markers += _arrows(detections)
    return MarkerArray(markers=markers)


def _boxed(detections: Detections3D, index: int, placed: Placed) -> list[Any]:
    from visualization_msgs.msg import Marker

    box = placed.placement.box
    body = _marker(detections, "boxes", index, Marker.CUBE, placed.number, 0.3)
    (body.pose.position.x, body.pose.position.y, body.pose.position.z) = box.centre
    orientation = body.pose.orientation
    orientation.x, orientation.y, orientation.z, orientation.w = box.quaternion
    body.scale = Vector3(x=box.size[0], y=box.size[1], z=box.size[2])
    points = corners(box)
    edges = _marker(detections, "edges", index, Marker.LINE_LIST, placed.number, 1.0)
    edges.scale.x = _EDGE
    edges.points = [
        Point(x=float(x), y=float(y), z=float(z)) for pair in EDGES for x, y, z in points[list(pair)]
    ]
    name = _marker(detections, "names", index, Marker.TEXT_VIEW_FACING, placed.number, 1.0)
    up = points[4] - points[0]
    top = points[4:].mean(0) + up / max(1e-9, float((up @ up) ** 0.5)) * _GAP
    (name.pose.position.x, name.pose.position.y, name.pose.position.z) = (float(value) for value in top)
    name.scale.z = _TEXT
    track = f" #{placed.detection.track_id}" if placed.detection.track_id else ""
    name.text = f"{placed.goal} {placed.detection.score:.2f}{track}"
    return [body, edges, name]


def _arrows(detections: Detections3D) -> list[Any]:
    """Arrows that end at the target: the approach direction in white, the hand's x axis in red."""
    from visualization_msgs.msg import Marker

    assert detections.target is not None
    result = []
    # The points of an arrow are relative to the marker's pose.
    for index, (start, end, shade) in enumerate(
        (((0, 0, -1), (0, 0, 0), (1.0, 1.0, 1.0)), ((0, 0, 0), (0.4, 0, 0), (1.0, 0.2, 0.2)))
    ):
        arrow = _marker(detections, "target", index, Marker.ARROW, 0, 1.0)
        arrow.header, arrow.pose = detections.target.header, detections.target.pose
        arrow.points = [Point(x=_ARROW * x, y=_ARROW * y, z=_ARROW * z) for x, y, z in (start, end)]
        arrow.scale = Vector3(x=0.006, y=0.014, z=0.02)
        arrow.color = ColorRGBA(r=shade[0], g=shade[1], b=shade[2], a=1.0)
        result.append(arrow)
    return result


def _marker(detections: Detections3D, kind: str, index: int, shape: int, number: int, opacity: float) -> Any:
    from visualization_msgs.msg import Marker

    red, green, blue = (value / 255 for value in colour(number))
    marker = Marker(header=detections.header, ns=kind, id=index, type=shape, action=Marker.ADD)
    marker.pose.orientation.w = 1.0
    marker.color = ColorRGBA(r=red, g=green, b=blue, a=opacity)
    marker.lifetime = Duration(sec=SECONDS)
    return marker
