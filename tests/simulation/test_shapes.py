from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from groma_ros.simulation.shapes import KINDS, MESHES, make_solid, part_points


@pytest.mark.parametrize("name", MESHES)
def test_meshes_are_closed_and_face_outwards(name: str) -> None:
    mesh = MESHES[name]
    triangles = mesh.vertices[mesh.faces]
    if name != "handle":  # its two ends lie open inside the cup's wall
        corners = np.unique(mesh.vertices.round(9), axis=0, return_inverse=True)[1].ravel()[mesh.faces]
        edges = Counter(
            (a, b) for face in corners for a, b in zip(face, np.roll(face, -1), strict=True) if a != b
        )
        assert all(edges[b, a] == count for (a, b), count in edges.items())
    volume = np.einsum("ij,ij->i", triangles[:, 0], np.cross(triangles[:, 1], triangles[:, 2])).sum() / 6
    assert volume > 0


@pytest.mark.parametrize("kind", KINDS)
def test_solids_rest_on_the_table_and_have_the_stated_size(kind: str) -> None:
    for seed in range(20):
        solid = make_solid(kind, np.random.default_rng(seed))
        points = np.concatenate([part_points(part) for part in solid.parts])
        low, high = points.min(0), points.max(0)
        assert low[2] == pytest.approx(0, abs=1e-9)
        assert high[2] == pytest.approx(solid.size[1], rel=0.02)
        assert high[1] - low[1] == pytest.approx(solid.size[2], rel=0.06)
        assert high[0] - low[0] == pytest.approx(solid.size[0], rel=0.12)
        assert min(solid.size) > 0.02 and max(solid.size) < 0.17


def test_an_unknown_kind_is_an_error() -> None:
    with pytest.raises(KeyError, match="teapot"):
        make_solid("teapot", np.random.default_rng(0))
