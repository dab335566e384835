"""RViz and Foxglove files name existing topics, and pictures in the documentation are small."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from groma_ros.node.publishers import ANSWERS, MARKERS, PICTURES, TOPICS_3D

ROOT = Path(__file__).resolve().parents[1]
OUTPUTS = {f"/groma/{name}" for name in (*ANSWERS, *TOPICS_3D, *MARKERS, *PICTURES)}
INPUTS = {"/image", "/depth", "/camera_info"}
SHOWN = {"/groma/debug/markers", "/groma/debug/image", "/groma/target_pose"}


def strings(value: Any) -> Iterator[str]:
    """All texts in a document, keys too."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield str(key)
            yield from strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)
    elif isinstance(value, str):
        yield value


def test_rviz_shows_the_nodes_topics() -> None:
    document = yaml.safe_load((ROOT / "config" / "groma.rviz").read_text())
    displays = document["Visualization Manager"]["Displays"]
    topics = {display["Topic"]["Value"] for display in displays if "Topic" in display}
    assert SHOWN <= topics <= OUTPUTS | INPUTS
    reliable = {
        display["Topic"]["Value"]: display["Topic"]["Reliability Policy"]
        for display in displays
        if "Topic" in display
    }
    assert all(
        policy == ("Best Effort" if topic in INPUTS else "Reliable") for topic, policy in reliable.items()
    )


def test_foxglove_shows_the_nodes_topics_in_panels_that_are_laid_out() -> None:
    document = json.loads((ROOT / "config" / "foxglove.json").read_text())
    topics = {text.split(".")[0] for text in strings(document) if text.startswith("/")}
    assert SHOWN | {"/diagnostics"} <= topics <= OUTPUTS | INPUTS | {"/diagnostics"}
    panels = {text for text in strings(document["layout"]) if "!" in text}
    assert panels == set(document["configById"])


@pytest.mark.parametrize("name", ["overlay.png", "markers.png"])
def test_pictures_are_small(name: str) -> None:
    assert (ROOT / "docs" / name).stat().st_size < 300_000
