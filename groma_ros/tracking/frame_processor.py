"""Process a frame: perceive it, track its regions, answer it with the language model's latest answer.

Node and replay run the same code, one `FrameProcessor` per camera:

    # Node: a thread answers questions while frames are processed.
    processor = FrameProcessor(grounder, asking(AnswerExecutor(), answer), config)
    # Replay: each question is answered before its frame continues; the result is reproducible.
    processor = FrameProcessor(grounder, asking(InlineExecutor(), answer), config)
    result = processor.process(frame, StandingGoals(goals, version))
"""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter

from groma_ros.grounding.grounder import Grounder
from groma_ros.tracking.executor import Ask
from groma_ros.tracking.grounding_tracker import GroundingTracker, TrackingConfig
from groma_ros.tracking.questions import StandingGoals, TrackedAnswer
from groma_ros.types import Frame, Scene


@dataclass(frozen=True, eq=False)
class FrameResult:
    """A processed frame."""

    frame: Frame
    scene: Scene
    answer: TrackedAnswer
    perceive_seconds: float
    track_seconds: float
    """Duration of tracking and asking, seconds; in a replay this includes the language model."""


class FrameProcessor:
    """Processes the frames of one camera. `process` is for one thread at a time; `arrived` and `carry` may be
    called from any thread.

    ask: submits a question to the language model, see `executor.asking`. `process` waits for an answer for at
    most `TrackingConfig.answer_wait`; with an `InlineExecutor`, as in replay, it answers itself.
    """

    def __init__(self, grounder: Grounder, ask: Ask, config: TrackingConfig) -> None:
        self._grounder = grounder
        self.tracker = GroundingTracker(ask, config)

    def set_config(self, config: TrackingConfig) -> None:
        """Apply a new config from the next frame."""
        if config != self.tracker.config:
            self.tracker.set_config(config)

    def arrived(self, stamp: int) -> int:
        """Note the stamp (ns) of a received image, whether or not it will be processed; return the number of
        its stream for `process` and `carry`."""
        return self.tracker.regions.continuity.arrived(stamp, self.tracker.config.tracks.max_gap)

    def process(
        self, frame: Frame, standing: StandingGoals, stream: int | None = None, scene: Scene | None = None
    ) -> FrameResult:
        """Perceive a frame, track its regions and return its answers.

        stream: value of `arrived` for it; None if every received frame is processed. scene: of a frame that
        has been perceived already. Raises ValueError for an image that cannot be perceived.
        """
        start = perf_counter()
        scene = scene or self._grounder.perceive(frame)
        perceived = perf_counter()
        answer = self.tracker.step(scene, standing, stream)
        return FrameResult(frame, scene, answer, perceived - start, perf_counter() - perceived)

    def carry(
        self, stamp: int, standing: StandingGoals, stream: int, size: tuple[int, int] | None = None
    ) -> TrackedAnswer:
        """Answer an image that is not processed, by extrapolating the boxes of the newest processed frame.
        Goals without an answer are pending, and all of them for an image of another size (width, height;
        None: not known)."""
        motion = self.tracker.motion
        if motion is None or motion.stream != stream or (size is not None and motion.size != size):
            return TrackedAnswer(standing.pending, standing.version, None, 0.0)
        return motion.at(stamp).under(standing)
