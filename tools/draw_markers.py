"""Draws docs/overlay.png and docs/markers.png: what `~/debug/image` and `~/debug/markers` show of a rendered
scene.

The scene is rendered, groma-tiny answers, and the node's own functions create the messages. The overlay is
the picture that the node publishes. The markers are those of the MarkerArray message, projected into two
pictures: that of the camera the answer came from, and that of a second camera at the side, which shows
whether the boxes also match the parts that the first could not see.

    .venv/bin/python tools/draw_markers.py --out docs
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from std_msgs.msg import Header
from visualization_msgs.msg import Marker, MarkerArray

from groma_ros.camera_geometry import matrix_from_quaternion, project
from groma_ros.evaluation.depth import camera_frame
from groma_ros.grounding.grounder import Grounder
from groma_ros.node.detections_3d import Detector3D
from groma_ros.node.frame_result import ImageResult
from groma_ros.node.markers import markers_message
from groma_ros.node.parameters import Parameters
from groma_ros.runtime.model_paths import shipped_model
from groma_ros.simulation.depth_noise import LEVELS, spoil
from groma_ros.simulation.drawing import Camera
from groma_ros.simulation.layout import seen_from
from groma_ros.simulation.scenes import SceneSample
from groma_ros.simulation.sequence import DEMO_WORLD, SCENE_SEED, opened_scene, orbit
from groma_ros.types import Goal, Intrinsics
from groma_ros.visualization import draw_groundings

ASIDE, LOWER = np.deg2rad(75), np.deg2rad(-8)
LEVEL = "camera"
GOALS = ("the red mug", "all the blue objects", "the brown bottle", "the purple cone")
SHADES = 0xF8  # mask of each channel, so that the pictures stay small


def to_pixels(points: NDArray[Any], source: Camera, camera: Camera) -> NDArray[Any]:
    """Points (N, 3) of the source's optical frame in the pixels of another camera of the same world."""
    world = points @ source.rotation.T + source.position
    k = camera.intrinsics
    return project(
        camera.to_optical(world), Intrinsics(k.fx, k.fy, k.cx - 0.5, k.cy - 0.5, k.width, k.height)
    )


def local(marker: Marker, points: NDArray[Any]) -> NDArray[Any]:
    """Points of a marker's own axes in its header's frame."""
    p, q = marker.pose.position, marker.pose.orientation
    moved: NDArray[Any] = points @ matrix_from_quaternion((q.x, q.y, q.z, q.w)).T + [p.x, p.y, p.z]
    return moved


def draw(picture: NDArray[Any], message: MarkerArray, source: Camera, camera: Camera) -> NDArray[Any]:
    """The picture of a camera with the markers of a message about the source's frame: edges, names and
    arrows."""
    result = np.ascontiguousarray(picture)
    for marker in message.markers:
        shade = tuple(round(255 * value) for value in (marker.color.r, marker.color.g, marker.color.b))
        points = np.array([(point.x, point.y, point.z) for point in marker.points]).reshape(-1, 3)
        if marker.type == Marker.TEXT_VIEW_FACING and marker.action == Marker.ADD:
            write(result, marker.text, to_pixels(local(marker, np.zeros((1, 3))), source, camera)[0], shade)
        if len(points):
            pixels = np.rint(to_pixels(local(marker, points), source, camera)).astype(int)
            for start, end in zip(pixels[::2], pixels[1::2], strict=True):
                line: Any = cv2.arrowedLine if marker.type == Marker.ARROW else cv2.line
                line(result, tuple(map(int, start)), tuple(map(int, end)), (255, 255, 255), 4, cv2.LINE_AA)
                line(result, tuple(map(int, start)), tuple(map(int, end)), shade, 2, cv2.LINE_AA)
    return result


def write(picture: NDArray[Any], text: str, at: NDArray[Any], shade: tuple[int, ...]) -> None:
    """A text with its middle at a pixel."""
    (width, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.45, 1)
    place = (int(np.clip(at[0] - width / 2, 2, picture.shape[1] - width - 2)), int(at[1]))
    cv2.putText(picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.45, (255, 255, 255), 3, cv2.LINE_AA)
    cv2.putText(
        picture,
        text,
        place,
        cv2.FONT_HERSHEY_SIMPLEX,
        0.45,
        tuple(int(value * 0.7) for value in shade),
        1,
        cv2.LINE_AA,
    )


def save(path: Path, picture: NDArray[Any]) -> None:
    """Write a picture with few shades."""
    if not cv2.imwrite(str(path), (picture & SHADES)[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9]):
        raise OSError(f"The picture {path} could not be written.")
    print(f"{path}: {path.stat().st_size // 1000} kB")


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw docs/overlay.png and docs/markers.png.")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to, e.g. docs")
    parser.add_argument(
        "--seed", type=int, default=SCENE_SEED, help="seed of the scene (default: that of the demo)"
    )
    parser.add_argument("--goals", nargs="+", default=list(GOALS), help="goals to ask")
    arguments = parser.parse_args()
    with opened_scene(arguments.seed, DEMO_WORLD) as (renderer, layout, objects):
        rgb, depth = renderer.picture(layout)
        aside = seen_from(layout, orbit(layout.camera, ASIDE, LOWER, 1.05))
        other, _ = renderer.picture(aside)
    spoilt = spoil(depth, LEVELS[LEVEL], np.random.default_rng(arguments.seed))
    frame = camera_frame(SceneSample(rgb, depth, layout.camera.intrinsics, objects, arguments.seed), spoilt)
    groundings = Grounder.load(shipped_model()).ground(frame, [Goal(text) for text in arguments.goals])
    header = Header(frame_id="camera_optical_frame")
    node: Any = None  # needed only for a target_frame
    solid = Detector3D(node, Parameters()).of(
        ImageResult(header, frame), groundings, Parameters(), lambda cause, sentence: print(sentence)
    )
    message = markers_message(solid)
    save(arguments.out / "overlay.png", draw_groundings(rgb, groundings))
    both = [
        draw(picture, message, layout.camera, view.camera)
        for picture, view in ((rgb, layout), (other, aside))
    ]
    save(
        arguments.out / "markers.png",
        np.concatenate([cv2.resize(item, (560, 420), interpolation=cv2.INTER_AREA) for item in both], 1),
    )


if __name__ == "__main__":
    main()
