"""Result for one image, as the node publishes it."""

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
    """Of the image; every output has it."""
    frame: Frame
    """With depth and intrinsics once they were found."""
    scene: Scene | None = None
    """None where nobody needed it."""
    tracked: TrackedAnswer | None = None
    """None for an image that was perceived for a question alone."""
    complete: bool = False
    """Depth and intrinsics were looked for, whether or not the frame has them now."""
    without_depth: str = ""
    """Why it has none, in a sentence, once they were looked for."""
    camera: str = ""
    """Name of the camera, empty for the one without a name."""

    @property
    def groundings(self) -> Sequence[Grounding]:
        """The answers, none where none hold."""
        return self.tracked.groundings if self.tracked is not None else ()
