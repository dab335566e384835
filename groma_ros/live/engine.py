"""What the page is shown, and what gives it: the pipeline in this process or a running node."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from groma_ros.types import Box3D, FloatArray, Frame, Goal, Grounding


def no_boxes() -> FloatArray:
    """float32 0x4."""
    return np.zeros((0, 4), np.float32)


@dataclass(frozen=True, eq=False)
class Shown:
    """One frame with its answers, as the page shows it."""

    number: int
    """Counts what was shown since the start; the page names a frame by it."""
    frame: Frame
    groundings: tuple[Grounding, ...]
    """One a goal that was asked; boxes in pixels of this frame."""
    regions: FloatArray = field(default_factory=no_boxes)
    """float32 Nx4 xyxy, camera pixels: all regions that were found, whatever the goals."""
    answered: int | None = None
    """Stamp in ns of the frame that the language model answered on; None where it has not answered."""
    milliseconds: Mapping[str, float] = field(default_factory=dict)
    """By stage."""
    places: tuple[tuple[int, Box3D], ...] | None = None
    """Boxes in space, each with the index of its goal, none where it is empty; None: to be computed from the
    frame's depth."""


@dataclass(frozen=True)
class EngineState:
    """Where an engine stands."""

    paused: bool = False
    speed: float = 1.0
    """1 is the rate of the recording."""
    ended: bool = False
    """The source has no more frames."""
    problem: str = ""
    """A sentence: why nothing comes, or what the model said about the last frame; empty where all is well."""
    dropped: int = 0
    """Frames that came while another one was in work."""
    refused: int = 0
    """Frames that could not be read or looked at."""
    depth_published: bool = False
    """Frames can come with depth that they do not have now, see `Engine.set_depth_wanted`."""


@dataclass(frozen=True, eq=False)
class SpokenAnswer:
    """An answer in words and the frame it is about."""

    grounding: Grounding
    """Its text, spans and detections."""
    stamp: int
    """Of the frame it is about, nanoseconds."""


Show = Callable[[Shown], None]
"""Takes each frame with its answers; called from a thread of the engine."""


class Engine(Protocol):
    """Answers goals about the frames of one source. Its methods may be called from any thread."""

    @property
    def source(self) -> str:
        """Name of the source, to be read."""

    @property
    def model(self) -> str:
        """Name of the model and what runs it, to be read."""

    @property
    def recorded(self) -> bool:
        """Whether the source has an end, a speed and can start again; a camera has not."""

    @property
    def state(self) -> EngineState:
        """Where it stands now."""

    @property
    def goals(self) -> tuple[Goal, ...]:
        """The goals that stand."""

    def can(self, kind: str) -> bool:
        """Whether the model has words for a kind of goal (describe, chat)."""

    def set_depth_wanted(self, wanted: bool) -> None:
        """Whether frames have to come with their depth: a page shows the 3D view, or they are recorded."""

    def set_goals(self, goals: Sequence[Goal]) -> None:
        """Let these goals stand. Raises ValueError with a sentence for one that cannot be asked."""

    def ask(self, shown: Shown, question: str, regions: FloatArray, dialogue: str) -> SpokenAnswer:
        """An answer in words; waits for it.

        regions: Mx4 xyxy that the question is about, which are described without a question; dialogue: name
        of the conversation it belongs to, "" for none. Raises ValueError with a sentence where it is refused.
        """

    def set_paused(self, paused: bool) -> None:
        """Hold the frame that is shown, or go on."""

    def step(self) -> None:
        """Hold, and show the next frame."""

    def set_speed(self, speed: float) -> None:
        """Play a recording at a multiple of its rate."""

    def restart(self) -> None:
        """Play a recording from its start. Raises ValueError for a source that has none."""

    def set_watched(self, watched: bool) -> None:
        """Whether anybody looks; while nobody does the source rests."""

    def start(self, show: Show) -> None:
        """Begin to show frames."""

    def close(self) -> None:
        """End its threads and leave the source."""


class EngineThreads:
    """What every engine shares: threads that wait on one condition, and where their frames go."""

    def __init__(self, *runs: Callable[[], None]) -> None:
        """runs: one a thread; each returns when `_closed` is set."""
        self._changed = threading.Condition()
        self._watched = self._closed = False
        self._show: Show = lambda shown: None
        self._threads = [
            threading.Thread(target=run, name=f"groma_live_{run.__name__.strip('_')}", daemon=True)
            for run in runs
        ]

    def set_watched(self, watched: bool) -> None:
        """Whether anybody looks; while nobody does the source rests."""
        with self._changed:
            self._watched = watched
            self._changed.notify_all()

    def start(self, show: Show) -> None:
        """Begin to show frames."""
        self._show = show
        for thread in self._threads:
            thread.start()

    def _end_threads(self, seconds: float) -> None:
        """Set `_closed`, and wait so long for each thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(seconds)
