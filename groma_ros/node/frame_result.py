"""What the node knows of one frame when it publishes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from std_msgs.msg import Header

from groma_ros.tracking.executor import TrackedAnswer
from groma_ros.types import Frame, Grounding, Scene


@dataclass(frozen=True, eq=False)
class FrameResult:
    """A frame, with depth and intrinsics once they were found; what was perceived in it, None where nobody
    needed that; and the answers that hold for it, None for a frame that was perceived for a question alone.
    header: of its image; complete: depth and intrinsics were looked for, whether or not the frame has them
    now."""

    header: Header
    frame: Frame
    scene: Scene | None = None
    followed: TrackedAnswer | None = None
    complete: bool = False

    @property
    def groundings(self) -> Sequence[Grounding]:
        """The answers, none where none hold."""
        return self.followed.groundings if self.followed is not None else ()
