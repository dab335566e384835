"""Interface of the engines behind the page: the pipeline in this process, or a running node."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from groma_ros.types import Box3D, FloatArray, Frame, Goal, Grounding


def no_boxes() -> FloatArray:
    """Return an empty array of boxes, float32 0x4."""
    return np.zeros((0, 4), np.float32)


@dataclass(frozen=True, eq=False)
class Shown:
    """One frame with its answers, as shown on the page."""

    number: int
    """Sequence number of the frame, by which the page refers to it."""
    frame: Frame
    groundings: tuple[Grounding, ...]
    """One per goal that was asked; boxes in pixels of this frame."""
    regions: FloatArray = field(default_factory=no_boxes)
    """float32 Nx4 xyxy, camera pixels: all regions, independent of the goals."""
    answered: int | None = None
    """Stamp in ns of the frame that the language model answered on; None if it has not answered."""
    milliseconds: Mapping[str, float] = field(default_factory=dict)
    """Duration of each stage."""
    places: tuple[tuple[int, Box3D], ...] | None = None
    """3D boxes with the index of their goal, empty if there are none; None: to be computed from the frame's
    depth."""


@dataclass(frozen=True)
class EngineState:
    """State of an engine."""

    paused: bool = False
    speed: float = 1.0
    """Playback speed; 1 is the rate of the recording."""
    ended: bool = False
    """Whether the source has no more frames."""
    problem: str = ""
    """Why no frames come, or what went wrong with the last one, a sentence; empty if all is well."""
    dropped: int = 0
    """Frames that arrived while another one was being processed."""
    refused: int = 0
    """Frames that could not be read or processed."""
    depth_published: bool = False
    """Whether frames could come with depth if `Engine.set_depth_wanted` asked for it."""


@dataclass(frozen=True, eq=False)
class SpokenAnswer:
    """An answer in words and the frame it is about."""

    grounding: Grounding
    """Its text, spans and detections."""
    stamp: int
    """Stamp of the frame, nanoseconds."""


Show = Callable[[Shown], None]
"""Called with each frame and its answers, in a thread of the engine."""


class Engine(Protocol):
    """Answers goals about the frames of one source. Thread-safe."""

    @property
    def source(self) -> str:
        """Display name of the source."""

    @property
    def model(self) -> str:
        """Display name of the model and its backend."""

    @property
    def recorded(self) -> bool:
        """Whether the source can end, be restarted and be played at another speed; a camera cannot."""

    @property
    def state(self) -> EngineState:
        """Return the current state."""

    @property
    def goals(self) -> tuple[Goal, ...]:
        """Return the standing goals."""

    def can(self, kind: str) -> bool:
        """Whether the model can answer a kind of goal (describe, chat)."""

    def set_depth_wanted(self, wanted: bool) -> None:
        """Set whether frames must come with depth, which the 3D view and recordings need."""

    def set_goals(self, goals: Sequence[Goal]) -> None:
        """Replace the standing goals. Raises ValueError for a goal that cannot be asked."""

    def ask(self, shown: Shown, question: str, regions: FloatArray, dialogue: str) -> SpokenAnswer:
        """Ask for an answer in words and wait for it.

        regions: Mx4 xyxy that the question is about, described if there is no question; dialogue: name of the
        conversation it belongs to, "" for none. Raises ValueError with a sentence if it is refused.
        """

    def set_paused(self, paused: bool) -> None:
        """Pause at the shown frame, or resume."""

    def step(self) -> None:
        """Pause, and show the next frame."""

    def set_speed(self, speed: float) -> None:
        """Play a recording at a multiple of its rate."""

    def restart(self) -> None:
        """Play a recording from its start. Raises ValueError for a source without a start."""

    def set_watched(self, watched: bool) -> None:
        """Set whether anybody is watching; the source is paused otherwise."""

    def start(self, show: Show) -> None:
        """Start showing frames."""

    def close(self) -> None:
        """End the threads and release the source."""


class EngineThreads:
    """Common part of the engines: threads that wait on one condition, and the callback for frames."""

    def __init__(self, *runs: Callable[[], None]) -> None:
        """runs: functions, one per thread; each returns when `_closed` is set."""
        self._changed = threading.Condition()
        self._watched = self._closed = False
        self._show: Show = lambda shown: None
        self._threads = [
            threading.Thread(target=run, name=f"groma_live_{run.__name__.strip('_')}", daemon=True)
            for run in runs
        ]

    def set_watched(self, watched: bool) -> None:
        """Set whether anybody is watching; the source is paused otherwise."""
        with self._changed:
            self._watched = watched
            self._changed.notify_all()

    def start(self, show: Show) -> None:
        """Start showing frames."""
        self._show = show
        for thread in self._threads:
            thread.start()

    def _end_threads(self, seconds: float) -> None:
        """Set `_closed`, and wait up to this long for each thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(seconds)
