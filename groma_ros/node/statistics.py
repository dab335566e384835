"""Counts and timings of the node, safe to update from any thread."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

WINDOW = 100
"""Answers over which the latency medians are taken."""


@dataclass(frozen=True)
class Snapshot:
    """The counts at one moment. Every received image is answered, carried, dropped, skipped, refused or still
    in work; perceived images and refused answers are counted beside that."""

    received: int = 0
    answered: int = 0
    """Images whose 2D answers were published from what was perceived in them."""
    carried: int = 0
    """Images whose 2D answers were published by motion alone, because newer images came meanwhile. Those of
    them that were in work by then are perceived too, and have all other outputs."""
    skipped: int = 0
    """Images whose answers had no subscriber."""
    perceived: int = 0
    """Images in which regions were found."""
    drops: Mapping[str, int] = field(default_factory=dict)
    """Images that were given up, by cause."""
    refused: Mapping[str, int] = field(default_factory=dict)
    """Images and requests refused, by "image: cause", "goal: cause" and so on."""
    median_ms: Mapping[str, float] = field(default_factory=dict)
    """Milliseconds by stage, newest images."""

    @property
    def dropped(self) -> int:
        """Dropped frames, whatever the cause."""
        return sum(self.drops.values())

    def refusals(self, kind: str) -> int:
        """Number of refusals of a kind: "image", "goal"..."""
        return sum(count for cause, count in self.refused.items() if cause.startswith(f"{kind}: "))


class Statistics:
    """Counters shared by the callbacks and the threads; every method may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._drops: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self._latencies: dict[str, deque[float]] = {}

    def received(self) -> None:
        """A frame came."""
        self._count("received")

    def skipped(self) -> None:
        """Count a frame whose answers have no subscriber."""
        self._count("skipped")

    def carried(self) -> None:
        """The 2D answers of an image were published by motion alone."""
        self._count("carried")

    def perceived(self) -> None:
        """Regions were found in an image."""
        self._count("perceived")

    def dropped(self, cause: str) -> None:
        """A frame was given up before it was looked at."""
        with self._lock:
            self._drops[cause] += 1

    def refused(self, kind: str, cause: str) -> None:
        """An image, a goal or another message was refused. kind: "image", "goal"..."""
        with self._lock:
            self._refused[f"{kind}: {cause}"] += 1

    def answered(self, seconds: Mapping[str, float]) -> None:
        """A frame was answered; seconds: the time of each stage."""
        self._count("answered")
        self.took(seconds)

    def took(self, seconds: Mapping[str, float]) -> None:
        """Stages were passed through, in so many seconds each."""
        with self._lock:
            for stage, value in seconds.items():
                self._latencies.setdefault(stage, deque(maxlen=WINDOW)).append(value)

    def snapshot(self) -> Snapshot:
        """All counts, taken at once."""
        return total([self])

    def _count(self, name: str) -> None:
        with self._lock:
            self._counts[name] += 1

    def _add(
        self,
        counts: Counter[str],
        drops: Counter[str],
        refused: Counter[str],
        latencies: dict[str, list[float]],
    ) -> None:
        with self._lock:
            counts.update(self._counts)
            drops.update(self._drops)
            refused.update(self._refused)
            for stage, values in self._latencies.items():
                latencies.setdefault(stage, []).extend(values)


def total(parts: Sequence[Statistics]) -> Snapshot:
    """The counts of several statistics together."""
    counts, drops, refused = Counter[str](), Counter[str](), Counter[str]()
    latencies: dict[str, list[float]] = {}
    for part in parts:
        part._add(counts, drops, refused, latencies)
    medians = {stage: 1000 * median(values) for stage, values in latencies.items()}
    fates = {fate: counts[fate] for fate in ("received", "answered", "carried", "skipped", "perceived")}
    return Snapshot(**fates, drops=dict(drops), refused=dict(refused), median_ms=medians)
