"""Miniworld's rooms as a driving base sees them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from groma_ros.simulation.dataset import load_dataset
from groma_ros.simulation.drawing import Camera
from groma_ros.simulation.miniworld_base import share_inside
from groma_ros.simulation.world_objects import Array
from groma_ros.types import Intrinsics
from tests.simulators import need_simulators

LOOKING_ALONG_X = np.array([[0, 0, 1.0], [-1, 0, 0], [0, -1, 0]])  # columns right, down, forward


def square(y: float, x: float = 2.0) -> Array:
    """Corners of an upright square with sides of 1 m whose middle is x m ahead and y m to the left."""
    return np.array([[x, y + a, b] for a in (-0.5, 0.5) for b in (-0.5, 0.5)])


@pytest.mark.parametrize(
    ("points", "share"),
    [
        (square(0), 1.0),
        (square(1), 0.5),
        (square(-1), 0.5),
        (square(1.25), 0.25),
        (square(3), 0.0),
        (square(0, -2.0), 0.0),
        (np.concatenate([square(0), square(0, -2.0)]), 1.0),
    ],
)
def test_share_of_an_outline_in_the_picture(points: Array, share: float) -> None:
    camera = Camera(np.zeros(3), LOOKING_ALONG_X, Intrinsics(100, 100, 50, 50, 100, 100))  # 1 m to each side
    assert share_inside(points, camera) == pytest.approx(share, abs=1e-6)


def test_near_objects_are_cut_by_the_border(tmp_path: Path) -> None:
    need_simulators()
    options = ["--seed=4", "--count=12", f"--out={tmp_path}", "--world=miniworld-base", "--jobs=1"]
    command = [sys.executable, "-m", "groma_ros.cli", "scenes", *options, "--width=320", "--height=240"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=500)
    assert result.returncode == 0, result.stderr
    records = load_dataset(tmp_path)
    boxes = [item.box for record in records for item in record.objects]
    cut = [box for box in boxes if min(box[:2]) == 0 or box[2] == 320 or box[3] == 240]
    assert 0.2 < len(cut) / len(boxes) < 0.9
    assert all((x2 - x1) * (y2 - y1) >= 0.01 * 320 * 240 for x1, y1, x2, y2 in cut)
    assert len({len(record.objects) for record in records}) >= 3
