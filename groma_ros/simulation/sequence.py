"""Write a rosbag2 (mcap) of a camera that moves over a rendered scene, with its ground truth.

`python -m groma_ros.simulation.sequence --out demo` makes the files of the demo.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from numpy.typing import NDArray

from groma_ros.atomic_write import take_over, write_file
from groma_ros.simulation.drawing import Camera
from groma_ros.simulation.goal_generator import SceneGoal, SteadyView, draw_view_goals
from groma_ros.simulation.layout import USUAL, Layout, Style, seen_from
from groma_ros.simulation.scenes import SceneObject, SceneRenderer
from groma_ros.simulation.shapes import Array, rotation_z
from groma_ros.simulation.worlds import WIDE, words_of
from groma_ros.types import Box3D, FloatArray, Intrinsics

SCENE_SEED, DEMO_WORLD = 65, WIDE
FRAME_ID = "camera_optical_frame"
RATE_HZ, SECONDS, DEPTH_EVERY = 10, 6.0, 2
WIDTH, HEIGHT, SUPERSAMPLE = 640, 480, 2
START_NS = 1_700_000_000_000_000_000
_JPEG_QUALITY = 88
_DEPTH_STEP_MM = 2
HOUSEHOLD = Style(
    cast=(
        ("bowl", "white"),
        ("mug", "red"),
        ("bottle", "green"),
        ("bottle", "brown"),
        ("carton", "blue"),
        ("can", "orange"),
        ("lemon", "yellow"),
        ("ball", "blue"),
    )
)
_PATTERNED = 4  # objects of a household scene
_SIZES = (0.08, 0.3)  # longer side of an object, share of the picture's width
# One goal of each; a plain text if the mapping gives nothing but the text.
_DEMO_GOALS = ("attribute", "absent", "plural", "relation", "superlative", "negation", "between", "attribute")


@dataclass(frozen=True, eq=False)
class SequenceFrame:
    """A frame of a sequence."""

    stamp: int
    """ns."""
    rgb: NDArray[np.uint8]
    """uint8 HxWx3."""
    depth: FloatArray
    """float32 HxW, metres."""
    intrinsics: Intrinsics
    objects: tuple[SceneObject, ...]
    """As visible in this frame."""


def orbit(camera: Camera, azimuth: float, elevation: float, scale: float) -> Camera:
    """The camera turned by angles (radians) about the point of the table it looks at, its distance multiplied
    by `scale`."""
    forward, right = camera.rotation[:, 2], camera.rotation[:, 0]
    target = camera.position - forward * (camera.position[2] / forward[2])
    turn = rotation_z(azimuth) @ _rotation_about(right, elevation)
    return Camera(
        target + scale * turn @ (camera.position - target), turn @ camera.rotation, camera.intrinsics
    )


def _rotation_about(axis: Array, angle: float) -> Array:
    rotation, _ = cv2.Rodrigues(np.asarray(axis, np.float64) * angle)
    return np.asarray(rotation, np.float64)


def varied(layout: Layout) -> bool:
    """Whether a scene is rich enough for every kind of goal: at least four kinds and four colours, and a kind
    and a colour twice."""
    kinds, colours = [body.kind for body in layout.bodies], [body.colour for body in layout.bodies]
    return all(4 <= len(set(words)) < len(words) for words in (kinds, colours))


def household(layout: Layout) -> bool:
    """Whether at least four objects are patterned, and none is too small or too large to show well."""
    bounds = layout.bounds()
    sides = (bounds[:, 2:] - bounds[:, :2]).max(1) / layout.camera.intrinsics.width
    patterned = sum(any(geom.texture >= 0 for geom in body.geoms) for body in layout.bodies)
    return bool(patterned >= _PATTERNED and _SIZES[0] < sides.min() and sides.max() < _SIZES[1])


def setting(world: str) -> tuple[Style, Callable[[Layout], bool]]:
    """Style and condition of the scenes of a world that sequences show."""
    return (HOUSEHOLD, household) if world == WIDE else (USUAL, varied)


@contextmanager
def opened_scene(seed: int, world: str) -> Iterator[tuple[SceneRenderer, Layout, tuple[SceneObject, ...]]]:
    """A renderer of 640x480, and the first scene of a seed that the `setting` of its world accepts."""
    style, accept = setting(world)
    with SceneRenderer(WIDTH, HEIGHT, supersample=SUPERSAMPLE, world=world, style=style) as renderer:
        yield renderer, *renderer.compose(seed, least=6, accept=accept)


def _path(camera: Camera, count: int, size: float) -> list[Camera]:
    """A closed path of the camera, of `size` (1: 14 degrees to each side, 4 up and down, 6 % nearer and
    farther)."""
    phases = np.linspace(0, 2 * np.pi, count, endpoint=False)
    azimuths, elevations = np.deg2rad(14) * np.sin(phases), np.deg2rad(4) * np.sin(2 * phases)
    scales = 0.06 * (1 - np.cos(phases))
    return [
        orbit(camera, size * a, size * e, 1 + size * s)
        for a, e, s in zip(azimuths, elevations, scales, strict=True)
    ]


def _steady_path(
    renderer: SceneRenderer, layout: Layout, count: int
) -> list[tuple[Layout, tuple[SceneObject, ...]]]:
    """Return the widest camera path on which every frame shows every object well; at worst a still camera."""
    for size in (1.0, 0.8, 0.6, 0.45, 0.3, 0.15, 0.0):
        views = [seen_from(layout, camera) for camera in _path(layout.camera, count, size)]
        seen = [(view, objects) for view in views if (objects := renderer.observe(view)) is not None]
        if len(seen) == count:
            return seen
    raise AssertionError("A scene that was accepted is no longer visible from its own camera.")


def render_sequence(
    seed: int = SCENE_SEED, seconds: float = SECONDS, world: str = DEMO_WORLD
) -> list[SequenceFrame]:
    """Render the accepted scene of `seed` in a world (a name of `worlds.WORLDS`) at 10 Hz, 640x480, from a
    camera that sways and returns."""
    count = round(seconds * RATE_HZ)
    with opened_scene(seed, world) as (renderer, layout, _):
        frames = []
        for index, (view, objects) in enumerate(_steady_path(renderer, layout, count)):
            rgb, depth = renderer.picture(view)
            stamp = START_NS + index * 1_000_000_000 // RATE_HZ
            frames.append(SequenceFrame(stamp, rgb, depth, view.camera.intrinsics, objects))
    return frames


def steady_goals(
    frames: list[SequenceFrame], seed: int = SCENE_SEED, world: str = DEMO_WORLD
) -> list[SceneGoal]:
    """Draw goals, one of each kind and two attributes, whose targets are equal and unambiguous in every
    frame. Texts that read naturally come first."""
    view = SteadyView([frame.objects for frame in frames], frames[0].intrinsics.width, words_of(world))
    drawn = draw_view_goals(view, np.random.default_rng([seed, 1]), per_kind=150)
    rng = np.random.default_rng([seed, 2])
    pool = sorted(drawn, key=lambda goal: goal.text)
    chosen: list[SceneGoal] = []
    for kind in _DEMO_GOALS:
        left = [goal for goal in pool if goal.kind == kind and goal not in chosen]
        left = [goal for goal in left if _natural(goal.text)] or left
        if left:
            chosen.append(left[int(rng.integers(len(left)))])
    return chosen


def _natural(text: str) -> bool:
    """Return True for a goal with a determiner and a noun: "the mug", "both blue objects"."""
    words = text.split()
    vague = {"thing", "things", "object"}
    return words[0] in ("the", "both", "all", "every", "everything") and not vague & set(words)


def _goal_entry(goal: SceneGoal) -> str | dict[str, Any]:
    """Entry of goals.yaml: sets have the kind `all`, one relation the kind `one`; the model decides about the
    others."""
    if len(goal.targets) > 1:
        return {"text": goal.text, "kind": "all", "min_score": 0.3}
    return {"text": goal.text, "kind": "one"} if goal.kind == "relation" else goal.text


def truth(
    frames: list[SequenceFrame], goals: list[SceneGoal], seed: int = SCENE_SEED, world: str = DEMO_WORLD
) -> dict[str, Any]:
    """Content of truth.json: the objects, the goals' targets as indices into them, and the boxes in each
    frame."""
    objects = [{"kind": item.kind, "colour": item.colour, "size": item.size} for item in frames[0].objects]
    rows = [
        {
            "stamp": frame.stamp,
            "boxes": [item.box for item in frame.objects],
            "visible": [round(item.visible, 4) for item in frame.objects],
            "boxes_3d": [_box_entry(item.box_3d) for item in frame.objects if item.box_3d],
        }
        for frame in frames
    ]
    listed = [{"text": goal.text, "kind": goal.kind, "targets": goal.targets} for goal in goals]
    size = {"width": frames[0].intrinsics.width, "height": frames[0].intrinsics.height}
    return {
        "world": world,
        "scene_seed": seed,
        "frame_id": FRAME_ID,
        **size,
        "objects": objects,
        "goals": listed,
        "frames": rows,
    }


def _box_entry(box: Box3D) -> dict[str, list[float]]:
    return {name: [round(value, 5) for value in values] for name, values in asdict(box).items()}


def _jpeg(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    done, data = cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    if not done:
        raise RuntimeError("OpenCV could not encode a frame as JPEG.")
    return np.asarray(data, np.uint8).ravel()


def depth_millimetres(depth: FloatArray) -> NDArray[np.uint16]:
    """float32 metres to uint16 millimetres in steps of 2 mm, as coarse as a depth camera's own; 0 beyond 10
    m."""
    steps = np.rint(depth * (1000 / _DEPTH_STEP_MM)) * _DEPTH_STEP_MM
    return np.where(steps < 10_000, steps, 0).astype(np.uint16)


def write_bag(frames: list[SequenceFrame], path: Path) -> None:
    """One .mcap file that rosbag2 plays: jpeg colour and camera_info with every frame, depth with every
    second; zstd chunks."""
    from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS2_JAZZY)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        writer = Writer(Path(folder) / path.stem, version=9, storage_plugin=StoragePlugin.MCAP)
        writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
        with writer:
            topics = {
                "/camera/image/compressed": "sensor_msgs/msg/CompressedImage",
                "/camera/camera_info": "sensor_msgs/msg/CameraInfo",
                "/camera/depth": "sensor_msgs/msg/Image",
            }
            links = {
                name: writer.add_connection(name, kind, typestore=store) for name, kind in topics.items()
            }
            for index, frame in enumerate(frames):
                for name, message in _messages(frame, store.types, index % DEPTH_EVERY == 0).items():
                    data = store.serialize_cdr(message, topics[name])
                    writer.write(links[name], frame.stamp, data)
        take_over(Path(folder) / path.stem / f"{path.stem}.mcap", path)


def _messages(frame: SequenceFrame, types: Any, with_depth: bool) -> dict[str, Any]:
    """The ROS messages of one frame by topic."""
    stamp = types["builtin_interfaces/msg/Time"](sec=frame.stamp // 10**9, nanosec=frame.stamp % 10**9)
    header = types["std_msgs/msg/Header"](stamp=stamp, frame_id=FRAME_ID)
    image = types["sensor_msgs/msg/CompressedImage"](header=header, format="jpeg", data=_jpeg(frame.rgb))
    messages = {
        "/camera/image/compressed": image,
        "/camera/camera_info": _camera_info(frame.intrinsics, header, types),
    }
    if with_depth:
        depth = depth_millimetres(frame.depth)
        height, width = depth.shape
        data = depth.astype("<u2").view(np.uint8).ravel()
        messages["/camera/depth"] = types["sensor_msgs/msg/Image"](
            header=header,
            height=height,
            width=width,
            encoding="16UC1",
            is_bigendian=0,
            step=2 * width,
            data=data,
        )
    return messages


def _camera_info(k: Intrinsics, header: Any, types: Any) -> Any:
    region = types["sensor_msgs/msg/RegionOfInterest"](
        x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
    )
    matrix = np.array([[k.fx, 0, k.cx], [0, k.fy, k.cy], [0, 0, 1.0]])
    projection = np.hstack([matrix, np.zeros((3, 1))])
    return types["sensor_msgs/msg/CameraInfo"](
        header=header,
        height=k.height,
        width=k.width,
        distortion_model="plumb_bob",
        d=np.zeros(5),
        k=matrix.ravel(),
        r=np.eye(3).ravel(),
        p=projection.ravel(),
        binning_x=0,
        binning_y=0,
        roi=region,
    )


def write_demo(out: Path, seed: int = SCENE_SEED, world: str = DEMO_WORLD) -> list[SceneGoal]:
    """Write tabletop.mcap, truth.json, goals.yaml and frame.png into `out`; returns the goals."""
    out.mkdir(parents=True, exist_ok=True)
    frames = render_sequence(seed, world=world)
    goals = steady_goals(frames, seed, world)
    write_bag(frames, out / "tabletop.mcap")
    known = json.dumps(truth(frames, goals, seed, world), separators=(",", ":"))
    write_file(out / "truth.json", (known + "\n").encode())
    note = "# Goals of the demo: a text, or a mapping of text, kind (auto, one, all) and min_score.\n"
    entries = yaml.safe_dump({"goals": [_goal_entry(goal) for goal in goals]}, sort_keys=False, width=120)
    write_file(out / "goals.yaml", (note + entries).encode())
    cv2.imwrite(str(out / "frame.png"), frames[0].rgb[..., ::-1])
    return goals


def main() -> None:
    """The command line of this module."""
    parser = argparse.ArgumentParser(description="Render the demo's bag, truth, goals and picture.")
    parser.add_argument("--out", type=Path, required=True, help="folder to write, such as demo")
    for goal in write_demo(parser.parse_args().out):
        print(f"{goal.kind:12} {goal.text}")


if __name__ == "__main__":
    main()
