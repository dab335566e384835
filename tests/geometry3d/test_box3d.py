"""3D boxes by value: on ray-cast solids from many views and with defects, and on rendered scenes."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from groma_ros.camera_geometry import matrix_from_quaternion
from groma_ros.evaluation.depth import DepthTally, camera_frame
from groma_ros.geometry3d import box3d
from groma_ros.geometry3d.box3d import DepthError, DepthRule, Placement, place
from groma_ros.simulation.depth_noise import LEVELS, spoil
from groma_ros.simulation.scenes import SceneRenderer
from groma_ros.types import Frame, Intrinsics
from tests.geometry3d.solids import CAMERA, Ball, Cuboid, Ground, box_of, look, render, to_world, turned

BOX = Cuboid((0.02, -0.03, 0.0), (0.12, 0.07, 0.09), 0.4)
POSES = [
    look(0.3, 0.6, 0.8),
    look(2.0, 0.9, 0.6, 0.5),
    look(-1.0, 0.4, 1.2, -1.3),
    look(4.0, 1.2, 0.7, 3.0),
    look(0.0, 0.75, 0.9, 1.57),
]


def check(
    found: Placement, solid: Cuboid, pose: tuple[NDArray[Any], NDArray[Any]], metres: float = 0.004
) -> None:
    """Centre, sides and axes of a cuboid."""
    middle = np.array(solid.at) + [0, 0, solid.size[2] / 2]
    np.testing.assert_allclose(to_world(found.box.centre, pose), middle, atol=metres)
    np.testing.assert_allclose(
        found.box.size, (*sorted(solid.size[:2], reverse=True), solid.size[2]), atol=2 * metres
    )
    axes = pose[1] @ matrix_from_quaternion(found.box.quaternion)
    np.testing.assert_allclose(axes[:, 2], [0, 0, 1], atol=0.01)
    longer = turned(solid.yaw)[:, 0 if solid.size[0] >= solid.size[1] else 1]
    assert abs(axes[:, 0] @ longer) > 0.995


@pytest.mark.parametrize("pose", POSES, ids=range(len(POSES)))
def test_box_is_independent_of_camera_pose(
    pose: tuple[NDArray[Any], NDArray[Any]],
) -> None:
    frame, labels = render([Ground(), BOX], pose)
    found = place(frame, box_of(labels, 1))
    check(found, BOX, pose)
    assert found.standing and found.points > 0.9 * (labels == 1).sum()


@pytest.mark.parametrize("noise", ["clean", "camera"])
@pytest.mark.parametrize("world", ["table", "shelf", "room"])
def test_the_nearer_surroundings_give_what_the_whole_window_gives(
    world: str, noise: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SceneRenderer(320, 240, world=world) as renderer:
        scenes = [renderer.render(seed) for seed in range(31, 35)]
    placed: list[Placement | str] = []
    for margin in (0.2, 10.0):  # the second holds the whole window
        monkeypatch.setattr(box3d, "_NEARER", margin)
        for scene in scenes:
            depth = spoil(scene.depth, LEVELS[noise], np.random.default_rng(scene.seed))
            frame = Frame(scene.rgb, 0, depth=depth, intrinsics=scene.intrinsics)
            for thing in scene.objects:
                try:
                    placed.append(place(frame, thing.box))
                except DepthError as error:
                    placed.append(error.cause)
    half = len(placed) // 2
    assert half > 10 and placed[:half] == placed[half:]


@pytest.mark.parametrize("pose", POSES, ids=range(len(POSES)))
def test_hidden_half_of_a_ball_is_completed(pose: tuple[NDArray[Any], NDArray[Any]]) -> None:
    ball = Ball((-0.02, 0.03, 0.0), 0.045)
    frame, labels = render([Ground(), ball], pose)
    found = place(frame, box_of(labels, 1))
    np.testing.assert_allclose(to_world(found.box.centre, pose), [-0.02, 0.03, 0.045], atol=0.002)
    np.testing.assert_allclose(found.box.size, [0.09] * 3, rtol=0.04)


def test_what_lies_inside_the_box_but_in_front_or_behind_is_not_the_thing() -> None:
    small, wall = Ball((0.14, -0.05, 0.0), 0.02), Cuboid((-0.12, 0.0, 0.0), (0.02, 2.0, 0.5))
    pose = look(0.0, 0.5, 0.8)
    frame, labels = render([Ground(), BOX, small, wall], pose)
    x1, y1, x2, y2 = (int(value) for value in box_of(labels, 1))
    assert set(np.unique(labels[y1:y2, x1:x2])) == {0, 1, 2, 3}
    check(place(frame, box_of(labels, 1)), BOX, pose, 0.006)
    found = place(frame, box_of(labels, 2))
    np.testing.assert_allclose(to_world(found.box.centre, pose), [0.14, -0.05, 0.02], atol=0.002)


def test_stacked_object_rests_on_the_lower_one() -> None:
    top = Cuboid((0.0, 0.0, 0.08), (0.06, 0.05, 0.05), 0.2)
    pose = look(0.5, 0.6, 0.8)
    frame, labels = render([Ground(), Cuboid((0.0, 0.0, 0.0), (0.25, 0.2, 0.08), 0.2), top], pose)
    check(place(frame, box_of(labels, 2)), top, pose)


def test_object_in_front_of_a_wall_rests_on_the_ground() -> None:
    wall = Cuboid((-0.1, 0.0, 0.0), (0.02, 2.0, 1.0))
    low = Cuboid((-0.03, 0.0, 0.0), (0.08, 0.1, 0.05))
    pose = look(0.0, 0.3, 0.9)
    frame, labels = render([Ground(), wall, low], pose)
    found = place(frame, box_of(labels, 2))
    assert found.standing
    check(found, low, pose, 0.006)


def test_a_thing_in_the_air_is_not_made_longer() -> None:
    held = Cuboid((0.0, 0.0, 0.1), (0.08, 0.06, 0.05), 0.3)
    pose = look(0.5, 0.5, 0.8)
    frame, labels = render([Ground(), held], pose)
    found = place(frame, box_of(labels, 1))
    assert not found.standing
    check(found, held, pose, 0.006)


def test_object_with_hidden_base_extends_to_the_ground() -> None:
    tall, low = Cuboid((0.0, 0.0, 0.0), (0.06, 0.08, 0.16)), Cuboid((0.09, 0.0, 0.0), (0.04, 0.3, 0.05))
    pose = look(0.0, 0.4, 0.9)
    frame, labels = render([Ground(), tall, low], pose)
    found = place(frame, box_of(labels, 1))
    assert found.standing
    check(found, tall, pose, 0.006)


def test_without_a_support_plane_only_the_visible_part_is_boxed() -> None:
    pose = look(0.5, 0.5, 0.8)
    frame, labels = render([Cuboid((0, 0, 0), (0.1, 0.08, 0.06), 0.5)], pose)
    found = place(frame, box_of(labels, 0))
    assert not found.standing
    assert np.linalg.norm(to_world(found.box.centre, pose) - [0, 0, 0.03]) < 0.03


def test_a_large_image_is_thinned_out_and_the_box_stays() -> None:
    pose = POSES[0]
    large = Intrinsics(3000.0, 3000.0, 959.5, 719.5, 1920, 1440)
    frame, labels = render([Ground(), BOX], pose, large)
    found = place(frame, box_of(labels, 1))
    check(found, BOX, pose)
    assert found.points < DepthRule().most_pixels < (labels == 1).sum()


@pytest.mark.parametrize("shift", [(-4, 3, 5, -2), (6, 6, 6, 6), (5, 4, -5, -6)], ids=str)
def test_a_box_that_is_not_tight_gives_nearly_the_same(shift: tuple[int, ...]) -> None:
    pose = POSES[0]
    frame, labels = render([Ground(), BOX], pose)
    check(place(frame, tuple(np.add(box_of(labels, 1), shift))), BOX, pose)


def test_holes_and_noise_move_it_little() -> None:
    pose = POSES[0]
    frame, labels = render([Ground(), BOX], pose)
    assert frame.depth is not None
    rng = np.random.default_rng(1)
    depth = frame.depth + 0.002 * rng.standard_normal(frame.depth.shape).astype(np.float32)
    depth[rng.random(depth.shape) < 0.3] = np.nan
    check(place(replace(frame, depth=depth), box_of(labels, 1)), BOX, pose, 0.006)


def test_the_same_frame_gives_the_same_bytes() -> None:
    frame, labels = render([Ground(), BOX], POSES[0])
    assert len({repr(place(frame, box_of(labels, 1))) for _ in range(3)}) == 1


_PLACING = """
import time
import cv2
import numpy as np
from groma_ros.geometry3d.box3d import place
from groma_ros.geometry3d.plane_ransac import product
from groma_ros.types import Intrinsics
from tests.geometry3d.solids import CAMERA, Ball, Cuboid, Ground, box_of, look, render

cv2.setNumThreads(1)
large = Intrinsics(1500.0, 1500.0, 959.5, 719.5, 1920, 1440)
for camera in (CAMERA, large):
    solids = [Ground(), Cuboid((0, 0, 0), (0.2, 0.1, 0.1)), Ball((0.25, 0.1, 0), 0.05)]
    frame, labels = render(solids, look(0.5, 1.0, 0.9), camera)
    boxes = [box_of(labels, 1), box_of(labels, 2)]
    time.sleep(0.5)  # rendering has started threads of BLAS, which go on spinning
    start = time.process_time(), time.thread_time()
    for _ in range(10):
        for box in boxes:
            place(frame, box)
    print((time.process_time() - start[0]) / (time.thread_time() - start[1]))

# Larger than those of these boxes.
left, right = np.ones((64, 40), np.float32), np.ones((40, 9000), np.float32)
start = time.process_time(), time.thread_time()
for _ in range(10):
    assert (product(left, right) == 40).all()
print((time.process_time() - start[0]) / (time.thread_time() - start[1]))
"""


def test_placing_boxes_starts_no_threads_of_blas() -> None:
    """They spin after each product, which was half of the processor time."""
    root = Path(__file__).parents[2]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "2", "PYTHONPATH": str(root)}
    command = [sys.executable, "-c", _PLACING]
    ran = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, check=True)
    assert [float(line) < 1.2 for line in ran.stdout.split()] == [True] * 3, ran.stdout


def refused(frame: Frame, box: tuple[float, ...]) -> tuple[str, str]:
    with pytest.raises(DepthError) as caught:
        place(frame, box)
    return caught.value.cause, str(caught.value)


def test_insufficient_depth_is_rejected_with_a_cause() -> None:
    frame, labels = render([Ground(), BOX], POSES[0])
    box = box_of(labels, 1)
    assert frame.depth is not None
    blind = np.where(labels == 1, np.nan, frame.depth).astype(np.float32)
    blind[: int(box[1]) + 20] = np.nan
    blind[int(box[1]) + 20 :, int(box[0]) : int(box[2])] = np.nan
    assert refused(replace(frame, depth=blind), box)[0] == "holes"
    nothing = replace(frame, depth=np.full_like(frame.depth, np.nan))
    assert refused(nothing, box)[1].endswith("holds 0 pixels with depth, and 40 are needed.")
    assert refused(render([Ground()], POSES[0])[0], box) == (
        "flat",
        "Nothing in the box stands out from the surface around it by depth.",
    )
    for nowhere in ((-50, -50, -10, -10), (30, 30, 30, 60), (50, 50, 20, 20), (float("nan"), 0, 10, 10)):
        assert refused(frame, nowhere)[0] == "box"
    assert (
        refused(replace(frame, depth=None), box)[0]
        == refused(replace(frame, intrinsics=None), box)[0]
        == "missing"
    )


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [0.0, -1.0, 1e-40, 1e10, 1e30, 3e38, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["here and there", "ground", "object", "everywhere"])
def test_a_depth_that_no_camera_measures_is_a_hole(value: float, where: str) -> None:
    frame, labels = render([Ground(), BOX], POSES[0])
    box = box_of(labels, 1)
    depth = frame.depth
    assert depth is not None
    scattered = np.random.default_rng(0).random(labels.shape) < 0.05
    masks = {"here and there": scattered, "ground": labels == 0, "object": labels == 1}
    bad = masks.get(where, np.ones(labels.shape, np.bool_))

    def result(instead: float) -> object:
        try:
            return place(replace(frame, depth=np.where(bad, np.float32(instead), depth)), box)
        except DepthError as error:
            return error.cause

    assert result(value) == result(np.nan)
    assert isinstance(result(value), Placement) == (where in ("here and there", "ground"))


def test_depth_in_any_layout_gives_the_same_box() -> None:
    frame, labels = render([Ground(), BOX], POSES[0])
    box, depth = box_of(labels, 1), frame.depth
    assert depth is not None
    spread = np.zeros((2 * depth.shape[0], 3 * depth.shape[1]), np.float32)
    spread[::2, ::3] = depth
    fixed = depth.copy()
    fixed.flags.writeable = False
    same: tuple[NDArray[Any], ...] = (
        depth.astype(np.float64),
        depth.astype(">f4"),
        depth.astype(">f8"),
        np.asfortranarray(depth),
        np.ascontiguousarray(depth[::-1, ::-1])[::-1, ::-1],
        spread[::2, ::3],
        fixed,
    )
    for other in same:
        assert place(replace(frame, depth=other), box) == place(frame, box)
    others: tuple[NDArray[Any], ...] = (np.nan_to_num(1000 * depth).astype(np.uint16), depth[..., None])
    for wrong in others:
        assert refused(replace(frame, depth=wrong), box)[0] == "encoding"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "change",
    [
        *({name: value} for name in ("fx", "fy") for value in (0, 1e-6, -500, 1e12, np.inf, np.nan)),
        *({name: value} for name in ("cx", "cy") for value in (-1e9, 1e300, np.inf, np.nan)),
    ],
    ids=str,
)
def test_intrinsics_of_no_camera_are_refused(change: dict[str, float]) -> None:
    frame, labels = render([Ground(), BOX], POSES[0])
    wrong = replace(frame, intrinsics=replace(CAMERA, **change))  # type: ignore[arg-type]
    assert refused(wrong, box_of(labels, 1))[0] == "calibration"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("shape", [(480, 1), (1, 640), (480, 2), (3, 640)])
def test_pictures_of_one_column_or_row(shape: tuple[int, int]) -> None:
    height, width = shape
    camera = Intrinsics(500, 500, 0.0, 0.0, width, height)
    for depth in (np.ones(shape), np.linspace(0.5, 2, height * width).reshape(shape)):
        frame = Frame(np.zeros((*shape, 3), np.uint8), depth=depth.astype(np.float32), intrinsics=camera)
        try:
            found = place(frame, (0, 0, width, height)).box
        except DepthError as error:
            assert error.cause == "flat"
        else:
            assert np.isfinite([*found.centre, *found.quaternion, *found.size]).all()


def test_a_box_over_the_border_counts_where_there_is_an_image() -> None:
    pose = look(0.3, 0.6, 0.8)
    frame, labels = render([Ground(), BOX], pose)
    x1, y1, x2, y2 = box_of(labels, 1)
    assert frame.depth is not None
    cut = replace(frame, depth=frame.depth[:, : int(x2)], intrinsics=replace(CAMERA, width=int(x2)))
    check(place(cut, (x1, y1, x2 + 40, y2)), BOX, pose, 0.008)


@pytest.mark.parametrize(
    ("level", "centre", "width"), [("clean", (0.002, 0.015), 0.08), ("camera", (0.004, 0.02), 0.2)]
)
def test_errors_on_rendered_scenes_match_the_documentation(
    level: str, centre: tuple[float, float], width: float
) -> None:
    tally = DepthTally()
    with SceneRenderer(640, 480) as renderer:
        for seed in range(910_000, 910_008):
            sample = renderer.render(seed)
            frame = camera_frame(sample, spoil(sample.depth, LEVELS[level], np.random.default_rng(seed)))
            for item in sample.objects:
                tally.add(item, item.box, frame)
    assert len(tally.rows) > 40 and not tally.refused
    distances = [row["centre"] for _, row in tally.rows]
    widths = np.abs([row["width"] for _, row in tally.rows])
    assert np.median(distances) < centre[0] and np.quantile(distances, 0.95) < centre[1]
    assert np.median(widths) < width / 3 and np.quantile(widths, 0.95) < width


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("seed", range(40))
def test_whatever_the_depth_there_is_a_finite_box_or_a_refusal(seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width = (int(value) for value in rng.integers(2, 100, 2))
    depth = (
        np.full((height, width), rng.uniform(0.2, 5.0))
        + np.linspace(0, rng.choice([0.0, 1.0]), height)[:, None]
    )
    depth -= rng.uniform(0, 0.2) * (rng.random((height, width)) < rng.choice([0.0, 0.5]))
    depth[height // 4 : height // 2, width // 4 : width // 2] -= rng.uniform(0, 0.15)
    depth[rng.random((height, width)) < rng.choice([0.0, 0.3, 0.9])] = np.nan
    (fx, fy), (cx, cy) = rng.uniform(10, 2000, 2), rng.uniform(-50, 150, 2)
    camera = Intrinsics(fx, fy, cx, cy, width, height)
    (x1, x2), (y1, y2) = np.sort(rng.uniform(-5, width + 5, 2)), np.sort(rng.uniform(-5, height + 5, 2))
    frame = Frame(np.zeros((height, width, 3), np.uint8), depth=depth.astype(np.float32), intrinsics=camera)
    try:
        found = place(frame, (x1, y1, x2, y2), DepthRule(least_points=5)).box
    except DepthError as error:
        assert error.cause in ("box", "holes", "flat")
    else:
        assert np.isfinite([*found.centre, *found.quaternion, *found.size]).all() and min(found.size) >= 0
