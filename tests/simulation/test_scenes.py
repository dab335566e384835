from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from groma_ros.camera_geometry import backproject, matrix_from_quaternion
from groma_ros.simulation.drawing import Camera, Canvas, RenderingUnavailable
from groma_ros.simulation.layout import look_at
from groma_ros.simulation.scenes import COLOURS, KINDS, MIN_VISIBLE, SceneObject, SceneRenderer, SceneSample
from groma_ros.types import Intrinsics

SEEDS = range(24)


@pytest.fixture(scope="module")
def samples(renderer: SceneRenderer) -> list[SceneSample]:
    return [renderer.render(seed) for seed in SEEDS]


def test_a_scene_depends_on_its_seed_alone(renderer: SceneRenderer, samples: list[SceneSample]) -> None:
    for seed in (17, 3, 9):
        again = renderer.render(seed)
        assert again.objects == samples[seed].objects
        np.testing.assert_array_equal(again.rgb, samples[seed].rgb)
        np.testing.assert_array_equal(again.depth, samples[seed].depth)
    with SceneRenderer() as fresh:
        np.testing.assert_array_equal(fresh.render(17).rgb, samples[17].rgb)
    assert len({sample.rgb.tobytes() for sample in samples}) == len(samples)


def test_number_and_visibility_of_objects_are_within_limits(samples: list[SceneSample]) -> None:
    for sample in samples:
        assert sample.rgb.shape == (224, 224, 3) and sample.rgb.dtype == np.uint8
        assert sample.depth.shape == (224, 224) and sample.depth.dtype == np.float32
        assert 4 <= len(sample.objects) <= 9
        for item in sample.objects:
            x1, y1, x2, y2 = item.box
            assert item.kind in KINDS and item.colour in COLOURS
            assert x1 > 0 and y1 > 0 and x2 < 224 and y2 < 224
            assert 60 <= item.area <= (x2 - x1) * (y2 - y1)
            assert MIN_VISIBLE <= item.visible <= 1
    counts = {len(sample.objects) for sample in samples}
    assert counts == {4, 5, 6, 7, 8, 9}


@pytest.mark.parametrize("seed", [0, 5, 11, 16])
def test_boxes_and_areas_are_those_of_the_visible_pixels(renderer: SceneRenderer, seed: int) -> None:
    layout, objects = renderer.compose(seed)
    with Canvas(224, 224) as canvas:
        labels = canvas.labels(layout.world(), layout.camera)
        for index, item in enumerate(objects):
            rows, columns = np.nonzero(labels == index)
            assert item.area == rows.size
            assert item.box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            alone = int((canvas.labels(layout.only([index]), layout.camera) == index).sum())
            assert item.visible == pytest.approx(rows.size / alone, abs=1e-9)


def _inside(item: SceneObject, x: float, y: float, slack: float) -> bool:
    x1, y1, x2, y2 = item.box
    return x1 - slack <= x <= x2 + slack and y1 - slack <= y <= y2 + slack


def test_positions_project_into_boxes_and_depth_lies_at_the_objects(samples: list[SceneSample]) -> None:
    for sample in samples:
        k = sample.intrinsics
        for item in sample.objects:
            x, y, z = item.position
            u, v = k.fx * x / z + k.cx, k.fy * y / z + k.cy
            hidden = (1 - item.visible) * 40
            assert _inside(item, u, v, 3 + hidden)
            if item.kind == "ball" and item.visible == 1:
                surface = np.hypot(np.hypot(x, y), z) - item.size[0] / 2  # along the ray, nearly the axis
                seen = float(sample.depth[int(v), int(u)])
                ray = np.hypot(np.hypot((int(u) - k.cx) / k.fx, (int(v) - k.cy) / k.fy), 1)
                assert seen * ray == pytest.approx(surface, abs=0.004)


def test_a_named_colour_looks_like_its_name(samples: list[SceneSample], renderer: SceneRenderer) -> None:
    strongest = {"red": 0, "green": 1, "blue": 2}
    checked = 0
    for sample in samples:
        layout, _ = renderer.compose(sample.seed)
        labels = renderer._canvas.labels(layout.world(), layout.camera)
        for index, item in enumerate(sample.objects):
            mean = sample.rgb[labels == index].mean(0)
            if item.colour in strongest:
                assert int(mean.argmax()) == strongest[item.colour]
                checked += 1
            if item.colour in ("white", "black"):
                assert np.ptp(mean) < 30
                assert (mean.mean() > 90) == (item.colour == "white")
    assert checked > 10


def test_a_stretched_camera_has_the_intrinsics_of_its_aspect() -> None:
    with SceneRenderer(160, 160, aspect="random") as stretched:
        ratios = {round(k.fy / k.fx, 4) for k in (_k(stretched, seed) for seed in range(12))}
        assert ratios == {1.0, 1.3333, 1.7778}
    with SceneRenderer(160, 120) as plain:
        k = _k(plain, 0)
        assert k.fx == pytest.approx(k.fy) and (k.width, k.height) == (160, 120)


def _k(renderer: SceneRenderer, seed: int) -> Intrinsics:
    return renderer.compose(seed)[0].camera.intrinsics


def test_a_smoothed_picture_shows_the_same_scene(samples: list[SceneSample]) -> None:
    with SceneRenderer(supersample=2) as smooth:
        sample = smooth.render(4)
    assert sample.objects == samples[4].objects
    assert sample.rgb.shape == (224, 224, 3)
    difference = np.abs(sample.rgb.astype(int) - samples[4].rgb).mean()
    assert 0 < difference < 6
    assert np.median(np.abs(sample.depth - samples[4].depth)) < 0.005


def test_camera_pose_follows_the_settings() -> None:
    target = np.array([0.1, -0.05, 0.02])
    position, rotation = look_at(target, 0.7, 0.8, 1.1, 0.05)
    camera = Camera(position, rotation, Intrinsics(200, 200, 112, 112, 224, 224))
    np.testing.assert_allclose(rotation.T @ rotation, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1)
    np.testing.assert_allclose(camera.project(target[None]), [[112, 112]], atol=1e-9)
    assert camera.project(target[None] + [0, 0, 0.1])[0, 1] < 112  # up in the world is up in the picture
    assert np.isinf(camera.project(position[None] + 1.0 * (position - target))).all()


def test_a_picture_larger_than_the_canvas_is_refused(renderer: SceneRenderer) -> None:
    layout, _ = renderer.compose(0)
    with pytest.raises(ValueError, match="448x448 picture does not fit the 224x224 canvas"):
        renderer._canvas.picture(layout.world(), layout.camera, 2)


def test_a_platform_that_cannot_draw_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "glass")
    with pytest.raises(RenderingUnavailable, match="with glass does not work here .*; install Mesa"):
        Canvas(32, 32)


def test_the_true_boxes_in_space_hold_what_depth_shows_and_no_more(
    samples: list[SceneSample], renderer: SceneRenderer
) -> None:
    tops = 0
    for sample in samples:
        layout, _ = renderer.compose(sample.seed)
        labels = renderer._canvas.labels(layout.world(), layout.camera)
        k = sample.intrinsics
        points = backproject(sample.depth, replace(k, cx=k.cx - 0.5, cy=k.cy - 0.5))
        up = layout.camera.rotation.T @ [0, 0, 1.0]
        for index, item in enumerate(sample.objects):
            assert item.box_3d is not None
            axes = matrix_from_quaternion(item.box_3d.quaternion)
            np.testing.assert_allclose(axes[:, 2], up, atol=1e-9)
            inner = (
                cv2.erode((labels == index).astype(np.uint8), np.ones((3, 3))) > 0
            )  # a border pixel may show what lies behind
            local = (points[inner] - item.box_3d.centre) @ axes
            size = np.array(item.box_3d.size)
            assert (np.abs(local) <= size / 2 + 0.004).all(), item
            assert size[0] >= size[1] and size[2] == pytest.approx(item.size[1], rel=0.02)
            if item.visible == 1 and item.kind in ("box", "cylinder", "capsule", "ball", "bowl", "mug"):
                assert local[:, 2].max() == pytest.approx(size[2] / 2, abs=0.003), item
                tops += 1
    assert tops > 40
