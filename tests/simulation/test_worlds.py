"""All worlds keep the guarantees of the table scenes; a seed gives the same scene in any order."""

from __future__ import annotations

import numpy as np
import pytest

from groma_ros.simulation.layout import Style
from groma_ros.simulation.scenes import COLOURS, KINDS, MIN_VISIBLE, SceneRenderer
from groma_ros.simulation.worlds import MIXED, WORLDS, world_of


@pytest.mark.parametrize("world", ["shelf", "room"])
def test_scenes_of_a_world_are_as_visible_as_a_tables(world: str) -> None:
    with SceneRenderer(world=world) as renderer:
        samples = [renderer.render(seed) for seed in range(8)]
        again = renderer.render(3)
    assert again.objects == samples[3].objects
    np.testing.assert_array_equal(again.rgb, samples[3].rgb)
    heights = set()
    for sample in samples:
        assert 4 <= len(sample.objects) <= 9
        for item in sample.objects:
            x1, y1, x2, y2 = item.box
            assert item.kind in KINDS and item.colour in COLOURS
            assert x1 > 0 and y1 > 0 and x2 < 224 and y2 < 224
            assert 60 <= item.area <= (x2 - x1) * (y2 - y1)
            assert MIN_VISIBLE <= item.visible <= 1
            heights.add(round(item.size[1], 3))
    assert len(heights) > 10


def test_a_shelf_is_used_on_several_boards_and_a_room_shows_larger_things() -> None:
    with SceneRenderer(world="shelf") as shelf, SceneRenderer(world="room") as room, SceneRenderer() as table:
        boards = [
            {round(float(body.place[2]), 3) for body in shelf.compose(seed)[0].bodies} for seed in range(6)
        ]
        largest = [max(item.size[1] for item in one.render(2).objects) for one in (room, table)]
    assert max(map(len, boards)) >= 2
    assert largest[0] > 1.2 * largest[1]


def test_a_mixed_seed_is_the_scene_of_its_world() -> None:
    worlds = [world_of(MIXED, seed) for seed in range(400)]
    shares = [worlds.count(world) / len(worlds) for world in WORLDS if world != "wide"]
    assert shares == pytest.approx([0.5, 0.25, 0.25], abs=0.07)
    seed = worlds.index("shelf")
    with SceneRenderer(world=MIXED) as mixed, SceneRenderer(world="shelf") as shelf:
        np.testing.assert_array_equal(mixed.render(seed).rgb, shelf.render(seed).rgb)


def test_a_style_changes_sizes_shades_and_the_view_alone() -> None:
    with (
        SceneRenderer() as usual,
        SceneRenderer(style=Style(size=0.7)) as small,
        SceneRenderer(style=Style(view=1.4)) as wide,
    ):
        plain, wider = usual.compose(5)[0], wide.compose(5)[0]
        sizes = [max(body.solid.size) for body in small.compose(5)[0].bodies]
    assert wider.camera.intrinsics.fx == pytest.approx(plain.camera.intrinsics.fx / 1.4)
    assert max(sizes) < 0.13 and [b.kind for b in wider.bodies][:3] == [b.kind for b in plain.bodies][:3]


def test_an_unknown_world_is_named() -> None:
    with (
        SceneRenderer(world="moon") as renderer,
        pytest.raises(ValueError, match="no world 'moon'; take one of mixed, table, shelf, room"),
    ):
        renderer.render(0)
