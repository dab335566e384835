"""The world `wide`: sizes, poses, aspects, stacks and trays, visible boxes, determinism."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from groma_ros.simulation.families import FAMILY_KINDS, draw_pose, make_member, outline
from groma_ros.simulation.layout import Style
from groma_ros.simulation.scenes import MIN_VISIBLE, SceneRenderer, SceneSample
from groma_ros.simulation.wide import LEAST_PIXELS, WIDE_WORDS
from groma_ros.simulation.worlds import words_of

SIDE = 224


@pytest.fixture(scope="module")
def samples() -> list[SceneSample]:
    with SceneRenderer(SIDE, SIDE, aspect="random", world="wide") as renderer:
        return [renderer.render(seed) for seed in range(40)]


def test_objects_are_whole_visible_and_named(samples: list[SceneSample]) -> None:
    for sample in samples:
        assert 2 <= len(sample.objects) <= 12 and sample.world == "wide"
        for item in sample.objects:
            x1, y1, x2, y2 = item.box
            assert item.kind in WIDE_WORDS.kinds and item.colour in WIDE_WORDS.colours
            assert x1 > 0 and y1 > 0 and x2 < SIDE and y2 < SIDE
            assert round(LEAST_PIXELS * SIDE**2) <= item.area <= (x2 - x1) * (y2 - y1)
            assert MIN_VISIBLE <= item.visible <= 1
    assert words_of("wide") is WIDE_WORDS


def test_sizes_run_from_a_fortieth_to_two_fifths_of_the_picture(samples: list[SceneSample]) -> None:
    sizes = [
        max(o.box[2] - o.box[0], o.box[3] - o.box[1]) / SIDE for sample in samples for o in sample.objects
    ]
    assert min(sizes) < 0.05 and max(sizes) > 0.28 and max(sizes) < 0.45
    assert 0.09 < float(np.median(sizes)) < 0.18


def test_cameras_see_any_aspect_and_elevation_and_things_stand_on_things(samples: list[SceneSample]) -> None:
    aspects = [sample.intrinsics.fy / sample.intrinsics.fx for sample in samples]
    assert min(aspects) < 1.15 and max(aspects) > 1.6 and max(aspects) <= 16 / 9 + 1e-6
    with SceneRenderer(SIDE, SIDE, world="wide") as renderer:
        downward = [float(-renderer.compose(seed)[0].camera.rotation[2, 2]) for seed in range(25)]
    assert min(downward) < np.sin(np.deg2rad(25)) and max(downward) > np.sin(np.deg2rad(70))
    supported = [(sample, o) for sample in samples for o in sample.objects if o.support >= 0]
    assert len(supported) >= 2
    for sample, item in supported:
        under = sample.objects[item.support]
        assert under is not item and under.kind in ("box", "cylinder", "can", "bowl")
        assert item.inside == (under.kind == "bowl")


def test_a_cast_stands_upright_in_good_view() -> None:
    cast = (("mug", "red"), ("bottle", "green"), ("lemon", "yellow"), ("carton", "blue"))
    with SceneRenderer(SIDE, SIDE, world="wide", style=Style(cast=cast)) as renderer:
        layouts = [renderer.compose(seed)[0] for seed in range(12)]
    for layout in layouts:
        assert tuple((body.kind, body.colour) for body in layout.bodies) == cast and not layout.screens
        assert 27 <= np.rad2deg(np.arcsin(-layout.camera.rotation[2, 2])) <= 40
        for body in layout.bodies:
            assert body.kind == "lemon" or body.turn[2, 2] == pytest.approx(1.0)
    assert len({tuple(body.solid.size for body in layout.bodies) for layout in layouts}) == 12


def test_boxes_are_those_of_the_visible_pixels() -> None:
    with SceneRenderer(SIDE, SIDE, aspect=1.5, world="wide") as renderer:
        layout, objects = renderer.compose(11)
        labels = renderer._canvas.labels(layout.world(), layout.camera)
        bounds = layout.bounds()
    for index, item in enumerate(objects):
        rows, columns = np.nonzero(labels == index)
        assert item.box == (
            columns.min(),
            rows.min(),
            columns.max() + 1,
            rows.max() + 1,
        ) and item.area == len(rows)
        slack = 2.5 + 0.08 * (
            bounds[index][2:] - bounds[index][:2]
        )  # outlines are polygons within what is round
        low, high = bounds[index][:2] - slack, bounds[index][2:] + slack
        assert (np.array(item.box[:2]) >= low).all() and (np.array(item.box[2:]) <= high).all()


def test_a_seed_is_one_scene_whatever_was_drawn_before(samples: list[SceneSample]) -> None:
    with SceneRenderer(SIDE, SIDE, aspect="random", world="wide") as renderer:
        again = renderer.render(17)
    assert again.objects == samples[17].objects
    np.testing.assert_array_equal(again.rgb, samples[17].rgb)


@pytest.mark.parametrize("kind", FAMILY_KINDS)
def test_a_family_holds_different_shapes_that_stand_on_the_ground(kind: str) -> None:
    shapes = set()
    for seed in range(30):
        solid = make_member(kind, np.random.default_rng(seed))
        points = outline(solid)
        low, high = points.min(0), points.max(0)
        assert low[2] == pytest.approx(0, abs=1e-3)
        assert high[2] == pytest.approx(solid.size[1], rel=0.04, abs=0.002)
        assert 0.015 < max(high - low) < 0.26
        shapes.add(tuple(part.shape for part in solid.parts) + (round(solid.size[1] / solid.size[0], 1),))
    assert len(shapes) >= (2 if kind == "ball" else 3)


def test_poses_are_rotations_and_capsules_also_stand() -> None:
    poses: Counter[str] = Counter()
    for seed in range(200):
        pose, turn = draw_pose("capsule", np.random.default_rng(seed))
        np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-9)
        assert np.linalg.det(turn) == pytest.approx(1)
        poses[pose] += 1
        if pose == "lying":
            assert abs(turn[2, 2]) < 1e-9
    assert 0.3 < poses["standing"] / 200 < 0.5 and 0.4 < poses["lying"] / 200 < 0.6 and poses["tilted"] > 5
