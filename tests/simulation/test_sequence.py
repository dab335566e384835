from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from mcap.reader import make_reader
from rosbags.highlevel import AnyReader

from groma_ros.simulation.drawing import Camera
from groma_ros.simulation.layout import look_at
from groma_ros.simulation.sequence import (
    FRAME_ID,
    HOUSEHOLD,
    SequenceFrame,
    depth_millimetres,
    household,
    opened_scene,
    orbit,
    render_sequence,
    steady_goals,
    truth,
    varied,
    write_bag,
)
from groma_ros.types import Intrinsics
from tests.pictures import read_rgb

DEMO = Path(__file__).resolve().parents[2] / "demo"


@pytest.fixture(scope="module")
def frames() -> list[SequenceFrame]:
    return render_sequence(7, seconds=0.5, world="table")


@pytest.fixture(scope="module")
def bag(frames: list[SequenceFrame], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bag") / "short.mcap"
    write_bag(frames, path)
    return path


def messages(path: Path) -> list[tuple[str, int, Any]]:
    with AnyReader([path]) as reader:
        return [
            (link.topic, stamp, reader.deserialize(raw, link.msgtype))
            for link, stamp, raw in reader.messages()
        ]


def test_the_bag_holds_every_frame_with_the_standard_messages(bag: Path, frames: list[SequenceFrame]) -> None:
    found = messages(bag)
    images = [m for topic, _, m in found if topic == "/camera/image/compressed"]
    infos = [m for topic, _, m in found if topic == "/camera/camera_info"]
    depths = [m for topic, _, m in found if topic == "/camera/depth"]
    assert (len(images), len(infos), len(depths)) == (5, 5, 3)
    for frame, image, info in zip(frames, images, infos, strict=True):
        assert image.header.stamp.sec * 10**9 + image.header.stamp.nanosec == frame.stamp
        assert image.header.frame_id == info.header.frame_id == FRAME_ID and image.format == "jpeg"
        picture = cv2.imdecode(image.data, cv2.IMREAD_COLOR)
        assert picture is not None and np.abs(picture[..., ::-1].astype(int) - frame.rgb).mean() < 3
        assert info.k[0] == pytest.approx(frame.intrinsics.fx) and (info.width, info.height) == (640, 480)
    for frame, depth in zip(frames[::2], depths, strict=True):
        assert depth.encoding == "16UC1" and depth.step == 1280
        millimetres = depth.data.view("<u2").reshape(480, 640)
        near = frame.depth < 10
        np.testing.assert_allclose(millimetres[near], frame.depth[near] * 1000, atol=1.01)


def test_the_bag_is_rosbag2_in_zstd_chunks(bag: Path) -> None:
    with bag.open("rb") as stream:
        reader = make_reader(stream)
        summary = reader.get_summary()
        assert reader.get_header().profile == "ros2"
    assert summary is not None
    assert {chunk.compression for chunk in summary.chunk_indexes} == {"zstd"}
    assert {schema.encoding for schema in summary.schemas.values()} == {"ros2msg"}
    assert {channel.message_encoding for channel in summary.channels.values()} == {"cdr"}


def test_goals_keep_their_targets_in_every_frame(frames: list[SequenceFrame]) -> None:
    goals = steady_goals(frames, 7, "table")
    assert {"attribute", "absent", "plural", "negation"} <= {goal.kind for goal in goals} and len(goals) >= 6
    known = truth(frames, goals, 7, "table")
    assert known["world"] == "table"
    assert [row["stamp"] for row in known["frames"]] == [frame.stamp for frame in frames]
    for frame, row in zip(frames, known["frames"], strict=True):
        assert row["boxes"] == [item.box for item in frame.objects]
        assert [(o["kind"], o["colour"]) for o in known["objects"]] == [
            (o.kind, o.colour) for o in frame.objects
        ]
        assert min(row["visible"]) >= 0.55


def test_camera_orbits_its_target() -> None:
    position, rotation = look_at(np.zeros(3), 0.3, 0.7, 1.0, 0.02)
    camera = Camera(position, rotation, Intrinsics(300, 300, 160, 120, 320, 240))
    moved = orbit(camera, 0.2, -0.05, 1.1)
    np.testing.assert_allclose(moved.project(np.zeros((1, 3))), [[160, 120]], atol=1e-6)
    assert np.linalg.norm(moved.position) == pytest.approx(1.1)
    assert np.linalg.norm(moved.position - camera.position) > 0.1
    np.testing.assert_allclose(moved.rotation.T @ moved.rotation, np.eye(3), atol=1e-9)


def test_depth_is_zero_where_a_camera_sees_nothing() -> None:
    depth = np.array([[0.5004, 1.2345, 11.9]], np.float32)
    assert depth_millimetres(depth).tolist() == [[500, 1234, 0]]


def test_the_demo_is_whole_and_agrees_with_its_truth() -> None:
    known = json.loads((DEMO / "truth.json").read_text())
    entries = yaml.safe_load((DEMO / "goals.yaml").read_text())["goals"]
    texts = [entry if isinstance(entry, str) else entry["text"] for entry in entries]
    assert texts == [goal["text"] for goal in known["goals"]]
    assert [(goal["text"], goal["kind"], goal["targets"]) for goal in known["goals"]] == [
        ("the brown bottle", "attribute", [3]),
        ("the brown ball", "absent", []),
        ("all the blue objects", "plural", [4, 7]),
        ("the green bottle in front of the red mug", "relation", [2]),
        ("the rightmost bottle", "superlative", [2]),
        ("everything that is not yellow", "negation", [0, 1, 2, 3, 4, 5, 7]),
        ("the lemon between the ball and the red mug", "between", [6]),
        ("the can", "attribute", [5]),
    ]
    assert [(item["kind"], item["colour"]) for item in known["objects"]] == list(HOUSEHOLD.cast)
    found = messages(DEMO / "tabletop.mcap")
    stamps = [stamp for topic, stamp, _ in found if topic == "/camera/image/compressed"]
    assert stamps == [row["stamp"] for row in known["frames"]] and len(stamps) == 60
    assert sum(topic == "/camera/depth" for topic, _, _ in found) == 30
    assert (known["world"], known["scene_seed"]) == ("wide", 65)
    assert min(share for row in known["frames"] for share in row["visible"]) > 0.6
    assert sum(path.stat().st_size for path in DEMO.iterdir()) < 10_000_000


def test_the_demo_bag_is_what_its_command_makes() -> None:
    known = json.loads((DEMO / "truth.json").read_text())
    again = render_sequence(seconds=0.1)
    boxes = [item.box for item in again[0].objects]
    np.testing.assert_allclose(boxes, known["frames"][0]["boxes"], atol=2)  # drivers may differ at an edge
    picture = read_rgb(DEMO / "frame.png")
    assert np.abs(picture.astype(int) - again[0].rgb).mean() < 2


def test_the_demo_scene_is_patterned_and_shows_nothing_too_small_or_too_large() -> None:
    with opened_scene(65, "wide") as (_, layout, objects):
        assert [(o.kind, o.colour) for o in objects] == list(HOUSEHOLD.cast)
        assert household(layout) and not layout.screens
        assert sum(any(geom.texture >= 0 for geom in body.geoms) for body in layout.bodies) >= 4
    sides = [max(o.box[2] - o.box[0], o.box[3] - o.box[1]) / 640 for o in objects]
    assert min(sides) > 0.07 and max(sides) < 0.3
    plain = tuple(
        replace(body, geoms=tuple(replace(geom, texture=-1) for geom in body.geoms)) for body in layout.bodies
    )
    assert not household(replace(layout, bodies=plain))


def test_goals_read_naturally_where_they_can(frames: list[SequenceFrame]) -> None:
    for goal in steady_goals(frames, 7, "table"):
        words = goal.text.split()
        assert words[0] in ("the", "both", "all", "every", "everything")
        assert not {"thing", "things", "object"} & set(words)


def test_a_varied_scene_repeats_a_kind_and_a_colour() -> None:
    from groma_ros.simulation.scenes import SceneRenderer

    with SceneRenderer(64, 48) as renderer:
        layout, objects = renderer.compose(2024, least=6, accept=varied)
    assert 6 <= len(objects) <= 9 and varied(layout)
    for words in ([o.kind for o in objects], [o.colour for o in objects]):
        assert 4 <= len(set(words)) < len(words)
