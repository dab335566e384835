"""The result for one image, as the node publishes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from std_msgs.msg import Header

from groma_ros.tracking.questions import TrackedAnswer
from groma_ros.types import Frame, Grounding, Scene


@dataclass(frozen=True, eq=False)
class ImageResult:
    """A received image and its results."""

    header: Header
    """Header of the image, used for every output."""
    frame: Frame
    """Has depth and intrinsics if they were found."""
    scene: Scene | None = None
    """None if the image was not perceived."""
    tracked: TrackedAnswer | None = None
    """None if the image was perceived only for a question."""
    complete: bool = False
    """Depth and intrinsics have been looked up, whether or not they were found."""
    without_depth: str = ""
    """Reason for missing depth, a sentence; set once it has been looked up."""
    camera: str = ""
    """Name of the camera; empty for an unnamed one."""

    @property
    def groundings(self) -> Sequence[Grounding]:
        """The answers; empty if there are none."""
        return self.tracked.groundings if self.tracked is not None else ()
