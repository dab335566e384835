"""The public names of `groma_ros`: cheap to import, results usable by other tools."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

import groma_ros
from groma_ros import Detection, Frame, Goal, Grounder, Grounding
from tests.pictures import read_rgb

ROOT = Path(__file__).resolve().parents[1]
FOUND = Grounding(
    Goal("the mug"),
    (Detection((1.004, 2.0, 30.0, 40.0), 0.98765, 3, "7"), Detection((5, 6, 7, 8), 0.5, 1, "9")),
    0.9,
    0.25,
)


def test_the_names_are_there_and_no_others() -> None:
    assert groma_ros.__all__ == ["Detection", "Frame", "Goal", "Grounder", "Grounding"]
    with pytest.raises(AttributeError, match="has no attribute 'Pipeline'"):
        getattr(groma_ros, "Pipeline")  # noqa: B009
    assert (Path(groma_ros.__file__).parent / "py.typed").is_file()


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = (
        "import sys; before = set(sys.modules); import groma_ros; new = set(sys.modules) - before; "
        "print(sorted(name for name in new if name.split('.')[0] in "
        "('numpy', 'cv2', 'onnxruntime', 'torch', 'rclpy')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_naming_the_grounder_loads_neither_onnxruntime_nor_ros_nor_torch() -> None:
    code = (
        "import sys; from groma_ros import Detection, Frame, Goal, Grounder, Grounding; "
        "print([name for name in ('onnxruntime', 'torch', 'rclpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_plain_array_and_plain_words_are_enough() -> None:
    rgb = read_rgb(ROOT / "demo" / "frame.png")
    grounder = Grounder.load("groma-tiny", backend="onnx", threads=1)
    found = grounder.ground(rgb, ["the red mug", "the purple cone"])
    assert [item.status for item in found] == ["present", "absent"]
    assert found[0].boxes.shape == (1, 4) and found[0].scores.shape == (1,) and found[1].boxes.shape == (0, 4)
    same = grounder.ground(Frame(rgb), Goal("the red mug"))
    np.testing.assert_array_equal(same[0].boxes, found[0].boxes)
    assert grounder.ground(rgb, "the red mug")[0].to_dict() == found[0].to_dict()


def test_a_model_that_is_not_there_is_a_sentence() -> None:
    with pytest.raises(ValueError, match="groma-huge"):
        Grounder.load("groma-huge")


def test_a_grounding_as_plain_types() -> None:
    assert FOUND.to_dict() == {
        "goal": "the mug",
        "status": "present",
        "present": 0.9,
        "margin": 0.25,
        "detections": [
            {"box": [1.0, 2.0, 30.0, 40.0], "score": 0.9877},
            {"box": [5.0, 6.0, 7.0, 8.0], "score": 0.5},
        ],
    }


def test_a_grounding_for_supervision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the package itself only the constructor's arguments are held here: it brings an OpenCV that clashes
    with the headless one, so it is not installed beside the tests."""
    package: Any = ModuleType("supervision")
    package.Detections = lambda **fields: SimpleNamespace(**fields)
    monkeypatch.setitem(sys.modules, "supervision", package)
    made = FOUND.to_supervision()
    np.testing.assert_allclose(made.xyxy, [[1.004, 2.0, 30.0, 40.0], [5.0, 6.0, 7.0, 8.0]])
    np.testing.assert_allclose(made.confidence, [0.98765, 0.5])
    assert made.class_id.tolist() == [0, 0] and made.tracker_id.tolist() == [7, 9]
    assert made.data["class_name"].tolist() == ["the mug", "the mug"]


def test_missing_supervision_error_names_the_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(ImportError, match="python -m pip install supervision"):
        FOUND.to_supervision()
