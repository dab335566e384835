"""The world `miniworld-base`: Miniworld's rooms as a driving base sees them.

The camera is low and anywhere in a room. The objects are those of the world `miniworld`, but near ones are
cut by the border of the picture, others hide more of each other, and often one, two or none are in view.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from groma_ros.simulation.drawing import Camera
from groma_ros.simulation.miniworld_rooms import House
from groma_ros.simulation.miniworld_world import MiniworldRenderer
from groma_ros.simulation.scenes import SceneObject
from groma_ros.simulation.world_objects import Array, Thing, scene_object

_NEAR_SHARE = 0.35  # of the objects
_NEAR, _FAR = 2.5, 9.0
_MIN_VISIBLE = 0.4
_MIN_INSIDE = 0.35  # share of an object's outline that is in the picture
_WHOLE = 0.999  # the same share of an object that is whole, with what rounding may take
_MIN_AREA_CUT = 0.01  # share of the picture that a cut object covers
_WALL = 0.4


class BaseRenderer(MiniworldRenderer):
    """Renders scenes by seed, as `scenes.SceneRenderer` does. One renderer belongs to one thread."""

    least_objects = 0

    def _stand(self, rng: np.random.Generator, house: House) -> tuple[tuple[float, float], float]:
        """Draw a position anywhere in the first room, and any direction."""
        (x1, y1), (x2, y2) = house.rooms[0].low, house.rooms[0].high
        x, y = rng.uniform(x1 + _WALL, x2 - _WALL), rng.uniform(y1 + _WALL, y2 - _WALL)
        return (float(x), float(y)), float(rng.uniform(-np.pi, np.pi))

    def _lens(self, rng: np.random.Generator) -> tuple[float, float, float]:
        pitch, field = rng.uniform(-0.4, -0.1), np.deg2rad(rng.uniform(45, 60))
        return float(pitch), float(field), float(rng.uniform(0.4, 0.9))

    def _ahead(self, rng: np.random.Generator, half_field: float) -> tuple[float, float]:
        far = rng.uniform(0.7, _NEAR) if rng.random() < _NEAR_SHARE else rng.uniform(_NEAR, _FAR)
        return float(far), float(rng.uniform(-1.2, 1.2) * half_field)

    def _describe(
        self, thing: Thing, mask: NDArray[np.bool_], whole: int, points: Array, camera: Camera
    ) -> SceneObject | None:
        inside = share_inside(points, camera)
        if inside < _MIN_INSIDE or (inside < _WHOLE and mask.mean() < _MIN_AREA_CUT):
            return None
        return scene_object(
            thing, mask, whole, points, camera.rotation, camera.position, _MIN_VISIBLE, cut=True
        )


def share_inside(points: Array, camera: Camera) -> float:
    """Share of an object's outline that is in the picture: of the convex hull of its points (Px3, in the
    world) that are ahead of the camera."""
    ahead = points[camera.to_optical(points)[:, 2] > 0.05]
    if len(ahead) < 3:
        return 0.0
    outline = cv2.convexHull(camera.project(ahead)[:, :2].astype(np.float32))
    k = camera.intrinsics
    picture = np.array([[0, 0], [k.width, 0], [k.width, k.height], [0, k.height]], np.float32)
    common = cv2.intersectConvexConvex(outline, picture)[0]
    return float(common / max(cv2.contourArea(outline), 1e-6))
