"""What the node counted: frames by their fate, refusals by cause, latencies by stage."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median

WINDOW = 100
"""Answers over which the latency medians are taken."""


@dataclass(frozen=True)
class Snapshot:
    """The counts at one moment. Every received frame is answered, dropped, refused or still in hand.

    refused: frames and goals refused, by "image: cause" or "goal: cause"; median_ms: milliseconds by stage, newest answers.
    """

    received: int = 0
    answered: int = 0
    dropped: int = 0
    refused: Mapping[str, int] = field(default_factory=dict)
    median_ms: Mapping[str, float] = field(default_factory=dict)


class Statistics:
    """Counters shared by the callbacks and the worker; every method may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self._latencies: dict[str, deque[float]] = {}

    def received(self) -> None:
        """A frame came."""
        self._count("received")

    def dropped(self) -> None:
        """A frame made way for a newer one."""
        self._count("dropped")

    def refused(self, kind: str, cause: str) -> None:
        """An image or a goal was refused. kind: "image" or "goal"."""
        with self._lock:
            self._refused[f"{kind}: {cause}"] += 1

    def answered(self, seconds: Mapping[str, float]) -> None:
        """A frame was answered; seconds: the time of each stage."""
        with self._lock:
            self._counts["answered"] += 1
            for stage, value in seconds.items():
                self._latencies.setdefault(stage, deque(maxlen=WINDOW)).append(value)

    def snapshot(self) -> Snapshot:
        """All counts, taken at once."""
        with self._lock:
            medians = {stage: 1000 * median(values) for stage, values in self._latencies.items()}
            return Snapshot(**{name: self._counts[name] for name in ("received", "answered", "dropped")},
                            refused=dict(self._refused), median_ms=medians)  # fmt: skip

    def _count(self, name: str) -> None:
        with self._lock:
            self._counts[name] += 1
