"""The way of a frame: perceived, tracked, answered with what the language model said last.

The node and the replay run the same code, one `FrameProcessor` a camera:

    # The node: a thread answers questions while frames go on.
    processor = FrameProcessor(grounder, asking(AnswerExecutor(), answer), config)
    # A replay: each question is answered before its frame goes on; the same bytes each time.
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
    """One frame and what is known of it."""

    frame: Frame
    scene: Scene
    answer: TrackedAnswer
    perceive_seconds: float
    track_seconds: float
    """Tracking and asking; in a replay this includes the language model."""


class FrameProcessor:
    """Processes the frames of one camera, one thread at a time; `arrived` and `carry` may be called from any.

    ask: hands a question to the language model, see `executor.asking`. `process` never waits for the language
    model, except for `TrackingConfig.answer_wait` and where `ask` answers at once.
    """

    def __init__(self, grounder: Grounder, ask: Ask, config: TrackingConfig) -> None:
        self._grounder = grounder
        self.tracker = GroundingTracker(ask, config)

    def set_config(self, config: TrackingConfig) -> None:
        """Apply a new config from the next frame."""
        if config != self.tracker.rule:
            self.tracker.set_config(config)

    def arrived(self, stamp: int) -> int:
        """Note that an image of a stamp (ns) arrived, whether or not it will be processed. The number of its
        stream, for `process` and `carry`."""
        tracker = self.tracker.tracker
        return tracker.continuity.arrived(stamp, self.tracker.rule.tracks.max_gap)

    def process(
        self, frame: Frame, standing: StandingGoals, stream: int | None = None, scene: Scene | None = None
    ) -> FrameResult:
        """Perceive a frame, track its regions and say what holds for it.

        stream: what `arrived` returned for it; None where every frame that arrives is processed. scene: of a
        frame that was perceived already. Raises ValueError for an image that cannot be looked at.
        """
        start = perf_counter()
        scene = scene or self._grounder.perceive(frame)
        perceived = perf_counter()
        answer = self.tracker.step(scene, standing, stream)
        return FrameResult(frame, scene, answer, perceived - start, perf_counter() - perceived)

    def carry(self, stamp: int, standing: StandingGoals, stream: int) -> TrackedAnswer:
        """What holds for an image that is not processed, by the motion of the boxes in the newest frame that
        was. Goals that nothing is known of are pending."""
        motion = self.tracker.motion
        if motion is None or motion.stream != stream:
            return TrackedAnswer(standing.pending, standing.version, None, 0.0)
        return motion.at(stamp).under(standing)
